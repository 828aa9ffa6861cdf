"""Once a day: is there room for the events to come, and is there anything that nobody keeps any more?"""

from datetime import timedelta

from temporalio import workflow
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleIntervalSpec, ScheduleSpec

with workflow.unsafe.imports_passed_through():
    from activities.events import Events
    from activities.inputs import Forgotten, SweepInput
    from activities.segments import Segments
    from workflows import schedules
    from workflows.options import COMPUTING, CRUNCHING, ORCHESTRATION
    from workflows.search_attributes import keywords

SCHEDULE_ID = "event-retention"


@workflow.defn
class EventRetentionWorkflow:
    """Makes the months to come, then forgets what is older than the accounts keep it, and has segments do so too."""

    @workflow.run
    async def run(self) -> Forgotten:
        await workflow.execute_activity_method(
            Events.make_partitions, summary="make room for the months to come", **CRUNCHING
        )
        forgotten = await workflow.execute_activity_method(
            Events.forget_old_events, summary="forget what nobody keeps", **CRUNCHING
        )
        if forgotten.silently:
            await workflow.execute_activity_method(
                Segments.sweep,
                SweepInput(events_forgotten=True, now=workflow.now()),
                summary="compute all members of the segments that ask for events",
                **COMPUTING,
            )
        return forgotten


async def ensure_schedule(client: Client) -> None:
    """Have Temporal run it now and every day at 03:00 UTC."""
    action = ScheduleActionStartWorkflow(
        EventRetentionWorkflow.run,
        id=SCHEDULE_ID,
        task_queue=ORCHESTRATION,
        typed_search_attributes=keywords(Kind="event-retention"),
    )
    daily = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=1), offset=timedelta(hours=3))])
    # A week, for a machine that is switched off at night.
    await schedules.ensure(client, SCHEDULE_ID, action, daily, catchup=timedelta(days=7), at_once=True)
