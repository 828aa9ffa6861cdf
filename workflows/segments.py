"""Who belongs is kept: as things change, as time passes, and once a night from the ground up."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from temporalio import workflow
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleRange,
    ScheduleSpec,
)
from temporalio.common import Priority
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

with workflow.unsafe.imports_passed_through():
    from activities.inputs import FollowInput, Recomputed, SegmentRef, SweepInput
    from activities.segments import Segments
    from workflows import schedules
    from workflows.options import COMPUTING, FOLLOWING, ORCHESTRATION, PRIORITY_AUTOMATION, STARTING, StartOptions
    from workflows.search_attributes import keywords

FOLLOWING_ID = "segments"
SWEEP_ID, NIGHTLY_ID = "segments-sweep", "segments-nightly"

LANES = 2
RUN = timedelta(hours=1)


FOLLOWING_OPTIONS: StartOptions = {
    "id": FOLLOWING_ID,
    "search_attributes": keywords(Kind="segments"),
    "static_summary": "memberships, as things change",
}


@workflow.defn
class SegmentsWorkflow:
    """Settles what changes for as long as Carillon is at work: a long activity per lane, an hour at a time."""

    @workflow.run
    async def run(self) -> None:
        until = workflow.now() + RUN
        lanes = [
            workflow.execute_activity_method(
                Segments.follow_changes,
                FollowInput(lane=lane, lanes=LANES, until=until),
                summary=f"settle what changes, lane {lane + 1} of {LANES}",
                priority=Priority(priority_key=PRIORITY_AUTOMATION),
                **FOLLOWING,
            )
            for lane in range(LANES)
        ]
        await asyncio.gather(*lanes)
        workflow.continue_as_new()


@workflow.defn
class RefreshWorkflow:
    """Computes all members of one segment, and again if that is asked meanwhile: its criteria may have changed."""

    @workflow.init
    def __init__(self, ref: SegmentRef) -> None:
        self.ref = ref
        self.asked = True

    @workflow.run
    async def run(self, ref: SegmentRef) -> Recomputed:
        while self.asked:
            self.asked = False
            done = await workflow.execute_activity_method(
                Segments.refresh,
                self.ref,
                summary="compute all members",
                priority=Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(ref.account_id)),
                **COMPUTING,
            )
            if self.asked and workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(ref)
        return done

    @workflow.signal
    def again(self) -> None:
        self.asked = True


@workflow.defn
class SegmentSweepWorkflow:
    """Computes all members of the segments that time changes, of new ones that were forgotten, and by night of all.

    And sees to it that somebody settles what changes.
    """

    @workflow.run
    async def run(self, nightly: bool) -> Recomputed:
        with suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                SegmentsWorkflow.run,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                **FOLLOWING_OPTIONS,
            )
        done = await workflow.execute_activity_method(
            Segments.sweep,
            SweepInput(nightly=nightly, now=workflow.now()),
            summary="compute all members of all segments" if nightly else "compute what time changes",
            **COMPUTING,
        )
        workflow.set_current_details(
            "| segments | entered | left | drift |\n|--:|--:|--:|--:|\n"
            f"| {done.segments:,} | {done.entered:,} | {done.left:,} | {done.drift:,} |"
        )
        return done


# -- how they are started --------------------------------------------------------------------------------------------


def refresh_workflow_id(segment_id: UUID) -> str:
    return f"segment-{segment_id}-refresh"


def refresh_options(ref: SegmentRef) -> StartOptions:
    """How a refresh is started, by the API or by the sweep."""
    return {
        "id": refresh_workflow_id(ref.segment_id),
        "search_attributes": keywords(AccountId=str(ref.account_id), Kind="segment"),
        "static_summary": "members of a segment",
    }


async def start_refresh(client: Client, account_id: UUID, segment_id: UUID) -> None:
    """Have all members of a segment computed, or once more if that is under way. If Temporal does not answer, a new one
    waits for the sweep."""
    ref = SegmentRef(account_id=account_id, segment_id=segment_id)
    try:
        await client.start_workflow(
            RefreshWorkflow.run,
            ref,
            task_queue=ORCHESTRATION,
            start_signal="again",
            rpc_timeout=STARTING,
            **refresh_options(ref),
        )
    except RPCError:
        return


async def ensure_following(client: Client) -> None:
    """Have what changes settled; nothing happens if somebody is at it already."""
    with suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(SegmentsWorkflow.run, task_queue=ORCHESTRATION, **FOLLOWING_OPTIONS)


async def ensure_schedules(client: Client, every: timedelta) -> None:
    """Have Temporal run the sweep at this interval, and the nightly recompute."""
    by_night = ScheduleCalendarSpec(hour=[ScheduleRange(4)], comment="04:00 UTC")
    for id, nightly, spec, catchup in (
        (SWEEP_ID, False, ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]), every),
        (NIGHTLY_ID, True, ScheduleSpec(calendars=[by_night]), timedelta(hours=12)),
    ):
        action = ScheduleActionStartWorkflow(
            SegmentSweepWorkflow.run,
            nightly,
            id=id,
            task_queue=ORCHESTRATION,
            typed_search_attributes=keywords(Kind="segments"),
        )
        await schedules.ensure(client, id, action, spec, catchup=catchup)
