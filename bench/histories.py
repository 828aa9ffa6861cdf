"""What Temporal keeps of a workflow: all its runs, with their events and payloads."""

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from workflows.campaigns import campaign_workflow_id


@dataclass(frozen=True)
class Kept:
    """The histories of one campaign."""

    runs: int
    most_events: int  # of one run
    largest_payload: int  # bytes
    freeze_seconds: float  # from asking for the audience to having it


async def of_campaign(temporal: Client, campaign_id: UUID) -> Kept:
    runs = [run async for run in runs_of(temporal, campaign_workflow_id(campaign_id))]
    return Kept(
        len(runs),
        max(map(len, runs)),
        max(payload.ByteSize() for run in runs for event in run for payload in _payloads(event)),
        _freeze_seconds(runs[0]),
    )


async def runs_of(temporal: Client, workflow_id: str) -> AsyncIterator[list[HistoryEvent]]:
    """The events of each run, from the first on to the one that ended instead of continuing as new."""
    found = await temporal.get_workflow_handle(workflow_id).describe()
    run_id = found.raw_description.workflow_execution_info.first_run_id
    while run_id:
        handle = temporal.get_workflow_handle(workflow_id, run_id=run_id)
        events = [event async for event in handle.fetch_history_events()]
        yield events
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id


def _freeze_seconds(events: Iterable[HistoryEvent]) -> float:
    asked: HistoryEvent | None = None
    for event in events:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "freeze_audience":
            asked = event
        if asked and event.activity_task_completed_event_attributes.scheduled_event_id == asked.event_id:
            return (event.event_time.ToDatetime() - asked.event_time.ToDatetime()).total_seconds()
    raise AssertionError("the campaign has no audience")


def _payloads(message: Message) -> Iterator[Payload]:
    """Every payload in a message of whatever kind."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in _parts(value):
            if isinstance(part, Message):
                yield from _payloads(part)


def _parts(value: object) -> Iterable[object]:
    """A field holds one message, a list of them, or a map to them."""
    if isinstance(value, Message):
        return [value]
    return value.values() if hasattr(value, "values") else cast(Iterable[object], value)
