"""What happened? One line each, with ids and never an address."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from marketing.discretion import mask


def configure(level: str, form: str, *, quiet: bool = False) -> None:
    """Everything that is logged, by us or by a library, goes to stderr in one form.

    Args:
        level: debug, info, warning or error; `quiet` makes it warning.
        form: `json` for machines, anything else for people.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        _add_ids,
    ]
    last: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _mask_all, last],
        )
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level="WARNING" if quiet else level.upper(), force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _add_ids(_: object, __: str, event: EventDict) -> EventDict:
    """In whose activity and in which trace are we?"""
    from temporalio import activity  # a quarter of a second, which commands without Temporal need not wait

    if activity.in_activity():
        info = activity.info()
        event.setdefault("activity", info.activity_type)
        event.setdefault("workflow_id", info.workflow_id)
        event.setdefault("attempt", info.attempt)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"], event["span_id"] = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
    return event


def _mask_all(_: object, __: str, event: EventDict) -> EventDict:
    """The last net: whatever a server, a database or a library put into its words."""
    event.pop("color_message", None)  # Uvicorn says everything twice, once for terminals.
    event.pop("temporal_log", None)  # Temporal's SDK too, once as an object.
    return {name: _masked(value) for name, value in event.items()}


def _masked(value: Any) -> Any:
    match value:
        case str():
            return mask(value)
        case Mapping():
            return {_masked(name): _masked(each) for name, each in value.items()}
        case list() | tuple() | set():
            return [_masked(each) for each in value]
        case None | bool() | int() | float():
            return value
        case _:
            return mask(str(value))
