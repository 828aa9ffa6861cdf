"""Calls the functions that authors of automations wrote, each with what it takes and for as long as it may."""

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any, get_type_hints
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.journey_inputs import Answer

# What is kept of an answer: a thousand of them must fit into one.
LARGEST_ANSWER = 1_000
LONGEST_CALL = 60.0

Author = Callable[..., Any]  # a function under `@activity.defn`


async def answer_of(name: str, function: Author, arguments: Sequence[Any], contact_id: UUID, seconds: float) -> Answer:
    """What a function answers for a contact, within so many seconds.

    Of an error only its kind and place are told: whatever else it says may name people, and histories keep it. The
    worker's log has the rest. An `ApplicationError` is what the author wants to be read.
    """
    try:
        bound = _bound(function, arguments, contact_id)
    except TypeError as error:
        return Answer(error=f"{name} does not take this: {error}", final=True)
    try:
        async with asyncio.timeout(seconds) as limit:
            value = await _called(function, bound)
        size = len(orjson.dumps(value))
    except ApplicationError as error:
        return Answer(error=str(error), final=error.non_retryable)
    except Exception as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return Answer(error=f"{name} has not answered within {seconds:g} seconds.")
        told = f"{type(error).__name__}{_place(error, function)}"
        activity.logger.warning("an activity of an automation failed: %s: %s: %s", name, told, error)
        return Answer(error=told)
    if size > LARGEST_ANSWER:
        problem = f"{name} answered more than {LARGEST_ANSWER:,} bytes; let it keep them and answer an id."
        return Answer(error=problem, final=True)
    return Answer(value=value)


def _bound(function: Author, arguments: Sequence[Any], contact_id: UUID) -> inspect.BoundArguments:
    """The arguments as the function wants them. `contact_id`, wherever it stands, is none that is handed over, unless
    there is one for it too.

    Raises:
        TypeError: it does not take these.
    """
    wanted = inspect.signature(function)
    others = [each for name, each in wanted.parameters.items() if name != "contact_id"]
    try:
        given = wanted.replace(parameters=others).bind(*arguments).arguments
        if len(others) < len(wanted.parameters):
            given["contact_id"] = contact_id
    except TypeError:
        given = wanted.bind(*arguments).arguments
    hints = get_type_hints(function)
    adapted = OrderedDict((name, _adapted(name, value, hints.get(name, Any))) for name, value in given.items())
    return inspect.BoundArguments(wanted, adapted)


def _adapted(name: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise TypeError(f"{name}: {error.errors(include_input=False)[0]['msg']}") from None


async def _called(function: Author, bound: inspect.BoundArguments) -> Any:
    if inspect.iscoroutinefunction(function):
        return to_jsonable_python(await function(*bound.args, **bound.kwargs))
    # In a thread of its own: one that hangs can't be ended, and must not keep others waiting for theirs.
    thread = ThreadPoolExecutor(1, "author")
    try:
        call = partial(copy_context().run, function, *bound.args, **bound.kwargs)
        return to_jsonable_python(await asyncio.get_running_loop().run_in_executor(thread, call))
    finally:
        thread.shutdown(wait=False)


def _place(error: Exception, function: Author) -> str:
    """Where in the author's file, such as ` (scores.py:12)`."""
    file = inspect.unwrap(function).__code__.co_filename
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}:{lines[-1]})" if lines else ""
