"""What Temporal starts again and again is set up once, and again where it is to run at other times."""

from dataclasses import replace
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)


async def ensure(
    client: Client,
    id: str,
    action: ScheduleActionStartWorkflow,
    spec: ScheduleSpec,
    *,
    catchup: timedelta,
    at_once: bool = False,
) -> None:
    """Have Temporal run this at these times, never twice at the same time.

    A schedule that is there is changed if its times are others; whether it is paused stays as an operator left it.

    Args:
        spec: a calendar in it says in its comment when that is: by this a change is seen.
        catchup: a run that was missed, because no server was there, is made up for within this time.
        at_once: run it now as well if the schedule is new.
    """
    spec = replace(spec, cron_expressions=[f"{cron} # {cron}" for cron in spec.cron_expressions])
    policy = SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=catchup)

    def change(found: ScheduleUpdateInput) -> ScheduleUpdate | None:
        current = found.description.schedule
        # No update without need: it drops the runs that were missed and not made up for yet.
        if _times(current.spec) == _times(spec) and current.policy == policy:
            return None
        return ScheduleUpdate(replace(current, spec=spec, policy=policy))

    try:
        await client.create_schedule(id, Schedule(action=action, spec=spec, policy=policy), trigger_immediately=at_once)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(id).update(change)


def _times(spec: ScheduleSpec) -> object:
    """The server writes calendars out in full, and crons as calendars; what is after the # becomes their comment."""
    intervals = [(each.every, each.offset or timedelta()) for each in spec.intervals]
    crons = [cron.partition(" # ")[2] for cron in spec.cron_expressions]
    return intervals, [each.comment for each in spec.calendars] + crons, spec.time_zone_name
