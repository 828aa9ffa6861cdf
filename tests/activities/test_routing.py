"""Does routing go on whatever fails, and for whom is it done again?"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.inputs import FollowInput
from activities.journey_inputs import CohortRef, Formed, FormInput, SourceRef
from activities.routing import GATHER_SECONDS, Routing
from activities.routing_inputs import TellInput
from database import cohorts, sources
from database.enrolling import Candidate, enroll
from tests.audience import people
from tests.automating import routing
from tests.conftest import PATIENCE, TestAccount
from tests.database.test_cohorts import new_version
from tests.database.test_routing import automation, figures, form, happens, passes, route


async def waiting(account: TestAccount) -> int:
    async with account.transaction() as tx:
        found: int = (await tx.execute(text("SELECT count(*) FROM journey_touches"))).scalar_one()
    return found


class _Away(Exception):
    """Temporal does not answer."""


async def away(*_: Any) -> None:
    raise _Away


async def spoil(account: TestAccount, source: UUID) -> None:
    """Have its definition be none that this version can read."""
    async with account.transaction() as tx:
        await tx.execute(
            text("""UPDATE automation_versions SET definition = '{"trigger": 7}' WHERE automation_id = :id"""),
            {"id": source},
        )


async def test_a_look_that_is_not_answered_has_the_activity_begin_anew(account: TestAccount, temporal: Client) -> None:
    input = FollowInput(lane=0, lanes=1, until=datetime(2100, 1, 1, tzinfo=UTC))
    router = replace(routing(account, temporal), look_seconds=0.05)
    async with account.transaction() as tx:
        await tx.execute(text("LOCK TABLE journey_touches IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(TimeoutError):
            await ActivityEnvironment().run(router.follow_journeys, input)


async def test_what_can_not_be_routed_is_left_out_and_holds_nobody_up(account: TestAccount, temporal: Client) -> None:
    spoiled = await automation(account, trigger={"type": "event", "event": "broken"})
    source = await automation(account)
    those = await people(account, 5)
    await spoil(account, spoiled)
    for each in those:
        await happens(account, "broken", each)
        await happens(account, "order.placed", each)
    router = routing(account, temporal)
    assert await router.take_turn(account.id) == 10
    assert (await figures(account, source))["enrolled"] == 5
    assert await passes(account, spoiled) == []


async def test_what_could_not_be_told_is_routed_again(account: TestAccount, temporal: Client) -> None:
    source = await automation(account)
    (zoe,) = await people(account, 1)
    await happens(account, "order.placed", zoe)
    with pytest.raises(_Away):
        await Routing(account.database, temporal, away, away).take_turn(account.id)
    assert await waiting(account) == 1
    assert await routing(account, temporal).take_turn(account.id) == 1
    assert (await figures(account, source))["enrolled"] == 1
    await temporal.get_workflow_handle(f"automation-{source}").terminate()


async def test_what_came_one_by_one_does_not_wait_for_what_came_in_bulk(account: TestAccount, temporal: Client) -> None:
    source = await automation(account)
    those = await people(account, 31)
    async with account.transaction() as tx:
        await tx.execute(
            text("""
                INSERT INTO events (account_id, name, contact_id)
                SELECT :account, 'order.placed', id FROM unnest(CAST(:ids AS uuid[])) AS id
            """),
            {"account": account.id, "ids": those[1:]},
        )
    await happens(account, "order.placed", those[0])
    router = routing(account, temporal)
    router.turn = 10
    assert [await router.take_turn(account.id) for _ in range(4)] == [11, 10, 10, 0]
    assert (await passes(account, source))[0][0] == those[0]
    await temporal.get_workflow_handle(f"automation-{source}").terminate()


async def test_what_is_told_to_a_cohort_too_early_holds_nobody_else_up_and_is_told_again(
    account: TestAccount, temporal: Client
) -> None:
    source = await automation(account, goal={"event": "purchase"})
    other = await automation(account, trigger={"type": "event", "event": "signup"})
    *inside, last = await people(account, 4)
    await happens(account, "order.placed", *inside)
    await route(account)
    assert await form(account, source)
    await happens(account, "purchase", *inside)
    await happens(account, "signup", last)
    router = routing(account, temporal)
    router.turn = len(inside)
    turns = [await router.take_turn(account.id), await router.take_turn(account.id)]
    async with asyncio.timeout(PATIENCE):
        while sum(turns) < 1:  # those are told again now and then: on a slow machine before the other is
            turns.append(await router.take_turn(account.id))
    assert await passes(account, other) == [(last, "pending", None)]
    assert await waiting(account) == len(inside)
    cohort = await temporal.start_workflow(
        "Carrying", id=f"automation-{source}/cohort-1", task_queue=f"nobody-{account.id}"
    )
    async with asyncio.timeout(PATIENCE):
        while await waiting(account):
            await router.take_turn(account.id)
    signals = [
        each.workflow_execution_signaled_event_attributes.signal_name
        async for each in cohort.fetch_history_events()
        if each.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert signals == ["leave"]
    await cohort.terminate()
    await temporal.get_workflow_handle(f"automation-{other}").terminate()


async def test_what_a_cohort_begins_with_is_as_much_as_temporal_takes(account: TestAccount, temporal: Client) -> None:
    source = await automation(account)
    those = await people(account, 1000)
    told = {f"number {each}": each + 0.123456789 for each in range(250)} | {"plan": "gold"}
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE automations SET code = 'own' WHERE id = :id"), {"id": source})
        found = await sources.read(tx, [source])
        candidates = [Candidate(each, "api:1", trigger=told) for each in those]
        await enroll(tx, account.id, found[source], candidates, now=datetime.now(UTC))
    input = FormInput(account_id=account.id, source_id=source, now=datetime.now(UTC))
    formed = await routing(account, temporal).form_cohort(input)
    assert len(formed.members) == 1000
    assert len(formed.model_dump_json()) < 2 << 20
    begun_with = formed.members[0].trigger
    assert begun_with["number 0"] == 0.123456789 and "plan" not in begun_with


async def test_a_lost_cohort_that_is_cancelled_is_not_begun_but_ends(account: TestAccount, temporal: Client) -> None:
    source = await automation(account)
    await happens(account, "order.placed", *await people(account, 2))
    await route(account)
    assert await form(account, source)
    async with account.transaction() as tx:
        await cohorts.cancel(tx, account.id, source, "enough", now=datetime.now(UTC))
    lost = CohortRef(account_id=account.id, source_id=source, cohort=1)
    assert await routing(account, temporal).read_lost(lost) == Formed()
    assert [each[1:] for each in await passes(account, source)] == [("cancelled", "cancelled")] * 2


async def test_while_things_happen_more_of_them_are_waited_for(account: TestAccount, temporal: Client) -> None:
    source = await automation(account)
    woken: asyncio.Queue[SourceRef] = asyncio.Queue()
    those, began = await people(account, 20), monotonic()
    until = datetime.now(UTC) + timedelta(days=1)
    following = asyncio.create_task(
        ActivityEnvironment().run(
            Routing(account.database, temporal, woken.put, away).follow_journeys,
            FollowInput(lane=0, lanes=1, until=until),
        )
    )
    for each in those:
        await happens(account, "order.placed", each)
    while await waiting(account):
        assert not following.done()
    following.cancel()
    await asyncio.wait([following])
    assert (await figures(account, source))["enrolled"] == 20
    assert woken.qsize() <= 1 + (monotonic() - began) / GATHER_SECONDS


async def test_those_who_have_not_begun_are_taken_along_some_at_a_time_and_never_back(
    account: TestAccount, temporal: Client
) -> None:
    async def versions() -> list[int]:
        async with account.transaction() as tx:
            query = text("SELECT version FROM enrollments WHERE source_id = :id ORDER BY id")
            return list((await tx.execute(query, {"id": source})).scalars())

    source = await automation(account)
    *those, last = await people(account, 4)
    await happens(account, "order.placed", *those)
    await route(account)
    await new_version(account, source, 2)
    async with account.transaction() as tx:
        assert await cohorts.take_along(tx, source, 2, limit=2)
    assert await versions() == [2, 2, 1]
    await new_version(account, source, 3)
    await happens(account, "order.placed", last)
    await route(account)
    telling = TellInput(
        account_id=account.id, source_id=source, migration={"version": 2, "definition": {}}, now=datetime.now(UTC)
    )
    await ActivityEnvironment().run(routing(account, temporal).tell_cohorts, telling)
    assert await versions() == [2, 2, 2, 3]
