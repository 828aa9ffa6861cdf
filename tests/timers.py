"""What a history tells of timers: how long a step takes, besides, is the machine's affair."""

from datetime import timedelta

from temporalio.client import WorkflowHistory


def timers(history: WorkflowHistory) -> list[timedelta]:
    """For how long each was wound, in the order in which that was."""
    return [
        each.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        for each in history.events
        if each.HasField("timer_started_event_attributes")
    ]
