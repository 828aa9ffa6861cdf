"""Is there always somebody who keeps memberships, once?"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleOverlapPolicy, WorkflowExecutionStatus
from temporalio.common import TypedSearchAttributes
from temporalio.worker import Worker

from activities.inputs import FollowInput, Recomputed, SegmentRef, SweepInput
from local_stack import EmbeddedTemporal
from workflows import segments
from workflows.connection import connect
from workflows.options import ORCHESTRATION, SEGMENTS
from workflows.search_attributes import SEARCH_ATTRIBUTES
from workflows.segments import RefreshWorkflow, SegmentSweepWorkflow, SegmentsWorkflow


@dataclass
class StandIn:
    """Takes note of what it is asked for, and does it when it is told to."""

    followed: list[FollowInput] = field(default_factory=list)
    refreshed: list[SegmentRef] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn
    async def follow_changes(self, input: FollowInput) -> None:
        self.followed.append(input)
        self.asked.set()
        if len(self.followed) > segments.LANES:
            await self.go_on.wait()

    @activity.defn
    async def refresh(self, ref: SegmentRef) -> Recomputed:
        self.refreshed.append(ref)
        self.asked.set()
        await self.go_on.wait()
        return Recomputed(segments=1)

    @activity.defn
    async def sweep(self, input: SweepInput) -> Recomputed:
        return Recomputed(segments=2 if input.nightly else 1)


def attributes(described: TypedSearchAttributes) -> dict[str, Any]:
    """Those that operators find it by."""
    return {pair.key.name: pair.value for pair in described if pair.key.name in SEARCH_ATTRIBUTES}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Client]:
    """A Temporal of its own, where nobody else does what is asked for here."""
    async with EmbeddedTemporal(durable=False) as server:
        yield await connect(server.address)


@pytest.fixture
async def stand_in(server: Client) -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    workflows = [SegmentsWorkflow, RefreshWorkflow, SegmentSweepWorkflow]
    first = Worker(server, task_queue=ORCHESTRATION, workflows=workflows, activities=[stand_in.follow_changes])
    async with first, Worker(server, task_queue=SEGMENTS, activities=[stand_in.refresh, stand_in.sweep]):
        yield stand_in
        stand_in.go_on.set()


async def test_what_changes_is_followed_in_every_lane_hour_after_hour(server: Client, stand_in: StandIn) -> None:
    await asyncio.gather(*(segments.ensure_following(server) for _ in range(3)))
    while len(stand_in.followed) < 2 * segments.LANES:
        await stand_in.asked.wait()
        stand_in.asked.clear()
    for hour in (stand_in.followed[: segments.LANES], stand_in.followed[segments.LANES :]):
        assert sorted(each.lane for each in hour) == [*range(segments.LANES)]
        assert len({each.until for each in hour}) == 1
    following = server.get_workflow_handle(segments.FOLLOWING_ID)
    assert attributes((await following.describe()).typed_search_attributes) == {"Kind": "segments"}  # of a later hour
    await following.terminate()


async def test_the_sweep_has_what_changes_followed_if_nobody_does(server: Client, stand_in: StandIn) -> None:
    for nightly in (False, True):
        swept = await server.execute_workflow(
            SegmentSweepWorkflow.run, nightly, id=f"sweep-{uuid4()}", task_queue=ORCHESTRATION
        )
        assert swept == Recomputed(segments=2 if nightly else 1)
    following = server.get_workflow_handle(segments.FOLLOWING_ID)
    described = await following.describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    assert attributes(described.typed_search_attributes) == {"Kind": "segments"}
    await following.terminate()


async def test_who_asks_for_a_refresh_while_one_is_at_work_gets_one_more(server: Client, stand_in: StandIn) -> None:
    ref = SegmentRef(account_id=uuid4(), segment_id=uuid4())
    await segments.start_refresh(server, ref.account_id, ref.segment_id)
    await stand_in.asked.wait()
    for _ in range(3):
        await segments.start_refresh(server, ref.account_id, ref.segment_id)
    stand_in.go_on.set()
    run = server.get_workflow_handle(f"segment-{ref.segment_id}-refresh")
    await run.result()
    assert stand_in.refreshed == [ref, ref]
    described = await run.describe()
    assert attributes(described.typed_search_attributes) == {"AccountId": str(ref.account_id), "Kind": "segment"}


async def test_the_schedules_run_one_at_a_time_and_catch_up_on_little(server: Client) -> None:
    await segments.ensure_schedules(server, timedelta(minutes=5))
    sweep, nightly = (server.get_schedule_handle(id) for id in (segments.SWEEP_ID, segments.NIGHTLY_ID))
    for handle, longest in ((sweep, timedelta(minutes=5)), (nightly, timedelta(hours=12))):
        schedule = (await handle.describe()).schedule
        assert (schedule.policy.overlap, schedule.policy.catchup_window) == (ScheduleOverlapPolicy.SKIP, longest)
        assert isinstance(schedule.action, ScheduleActionStartWorkflow)
        assert attributes(schedule.action.typed_search_attributes) == {"Kind": "segments"}
    await sweep.pause(note="an operator's")
    await segments.ensure_schedules(server, timedelta(minutes=1))
    changed = (await sweep.describe()).schedule
    assert [each.every for each in changed.spec.intervals] == [timedelta(minutes=1)]
    assert changed.state.paused
    (at,) = (await nightly.describe()).schedule.spec.calendars
    assert [each.start for each in at.hour] == [4]
