"""Is what Temporal starts again and again set up once, and changed without losing what an operator decided?"""

from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    ScheduleRange,
    ScheduleSpec,
)

from workflows import schedules
from workflows.options import ORCHESTRATION

DAY = timedelta(days=1)


def nightly(hour: int) -> ScheduleSpec:
    return ScheduleSpec(calendars=[ScheduleCalendarSpec(hour=[ScheduleRange(hour)], comment=f"{hour}:00 UTC")])


def mondays(cron: str, zone: str) -> ScheduleSpec:
    return ScheduleSpec(cron_expressions=[cron], time_zone_name=zone)


CHANGES = [
    (
        ScheduleSpec(intervals=[ScheduleIntervalSpec(every=DAY)]),
        ScheduleSpec(intervals=[ScheduleIntervalSpec(every=DAY, offset=timedelta(hours=3))]),
    ),
    (nightly(4), nightly(5)),
    (mondays("0 9 * * 1", "Europe/Paris"), mondays("30 9 * * 1", "Europe/Paris")),
    (mondays("0 9 * * 1", "Europe/Paris"), mondays("0 9 * * 1", "Asia/Tokyo")),
]


@pytest.mark.parametrize(("first", "second"), CHANGES, ids=["interval", "calendar", "cron", "zone"])
async def test_other_times_change_a_schedule_and_the_same_ones_leave_it_alone(
    temporal: Client, first: ScheduleSpec, second: ScheduleSpec
) -> None:
    id = f"schedule-{uuid4()}"
    action = ScheduleActionStartWorkflow("NobodyTakesThis", id=id, task_queue=ORCHESTRATION)
    for _ in range(2):
        await schedules.ensure(temporal, id, action, first, catchup=DAY)
    handle = temporal.get_schedule_handle(id)
    await handle.pause(note="an operator's")
    before = await handle.describe()
    assert before.info.last_updated_at is None or before.info.last_updated_at == before.info.created_at
    for _ in range(2):
        await schedules.ensure(temporal, id, action, second, catchup=2 * DAY)
    after = await handle.describe()
    await handle.delete()
    assert after.info.next_action_times != before.info.next_action_times
    assert (after.schedule.policy.overlap, after.schedule.policy.catchup_window) == (
        ScheduleOverlapPolicy.SKIP,
        2 * DAY,
    )
    assert (after.schedule.state.paused, after.schedule.state.note) == (True, "an operator's")
    assert isinstance(after.schedule.action, ScheduleActionStartWorkflow)
    assert after.schedule.action.workflow == "NobodyTakesThis"
