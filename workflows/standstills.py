"""Why does a workflow not go on?"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

DEADLOCK = "TMPRL1101"  # Temporal's number for a workflow task that takes more than two seconds
ENDLESS = "its code goes on for more than two seconds without awaiting a step"
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')


async def standstill(handle: WorkflowHandle[Any, Any]) -> str:
    """Why its workflow task fails again and again; empty if it does not."""
    attempt = (await handle.describe()).raw_description.pending_workflow_task.attempt
    if attempt < 2:
        return ""
    failure = last_failure((await handle.fetch_history()).events)
    if failure is None or (_is_deadlock(failure) and attempt < 3):  # once, that may be a busy machine
        return ""
    return told(failure)


def last_failure(history: Iterable[HistoryEvent]) -> Failure | None:
    """Why the last workflow task failed, if it did. Of one failure after the other a history keeps the first."""
    failure = None
    for event in history:
        if event.HasField("workflow_task_failed_event_attributes"):
            failure = event.workflow_task_failed_event_attributes.failure
        elif event.HasField("workflow_task_completed_event_attributes"):
            failure = None
    return failure


def _is_deadlock(failure: Failure) -> bool:
    return DEADLOCK in failure.message


def told(failure: Failure) -> str:
    """For people."""
    if not _is_deadlock(failure):
        return failure.message.partition("\n")[0] or "its workflow task fails"
    places = _PLACE.findall(failure.stack_trace)
    there = f" ({Path(places[-1][0]).name}:{places[-1][1]})" if places else ""
    return f"{ENDLESS}{there}"
