"""Who is let in, who goes on and who leaves because of what happened?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from database import automations, cohorts, journey_touches, leaving, notifications, routing, sources, waits
from database.enrolling import MOST_IN_AN_HOUR, Candidate, enroll
from database.routing import Routed
from database.schema import contacts, events, subscriptions
from marketing.automations import AutomationDefinition, AutomationState, subjects
from tests.audience import EMAIL, people
from tests.conftest import TestAccount

NOW = datetime.now(UTC)
EARLY = NOW - timedelta(hours=1)


async def automation(account: TestAccount, *, state: str = "active", **terms: Any) -> UUID:
    """One that orders let contacts into, unless the terms say otherwise."""
    trigger = {"type": "event", "event": "order.placed"}
    written = {"name": str(uuid4()), "trigger": trigger, "steps": [{"type": "send", "content": EMAIL}], **terms}
    definition = AutomationDefinition.model_validate(written)
    async with account.transaction() as tx:
        made = await automations.create(tx, account.id, definition)
        await automations.look_at(tx, account.id, made.id, subjects(definition))
        await automations.move(tx, made.id, AutomationState(state))
    return made.id


async def happens(account: TestAccount, name: str, *those: UUID, **values: Any) -> None:
    async with account.database.transaction(account.id, bulk=False) as tx:
        rows = [{"account_id": account.id, "name": name, "contact_id": each, **values} for each in those]
        await tx.execute(events.insert().values(rows))


async def route(account: TestAccount, *, forget: bool = True, bulk: bool = False) -> Routed:
    """What follows from all that waits."""
    async with account.transaction() as tx:
        touches = await journey_touches.oldest(tx, 10_000, bulk=bulk)
        routed = await routing.route(tx, account.id, touches, datetime.now(UTC))
        if forget:
            await journey_touches.forget(tx, [each.id for each in touches])
    return routed


async def form(account: TestAccount, source: UUID, **how: Any) -> cohorts.Cohort | None:
    async with account.transaction() as tx:
        return await cohorts.form(
            tx,
            account.id,
            source,
            "automation",
            how.pop("known", None),
            **{"joins": False, "limit": 1000, "now": NOW, **how},
        )


async def passes(account: TestAccount, source: UUID) -> list[tuple[UUID, str, str | None]]:
    async with account.transaction() as tx:
        query = text("SELECT contact_id, state, reason FROM enrollments WHERE source_id = :id ORDER BY id")
        return [tuple(row) for row in await tx.execute(query, {"id": source})]


async def figures(account: TestAccount, source: UUID) -> dict[str, int]:
    async with account.transaction() as tx:
        query = text("SELECT name, sum(n)::int AS n FROM step_counters WHERE source_id = :id AND step = '' GROUP BY 1")
        return {row.name: row.n for row in await tx.execute(query, {"id": source})}


def told(routed: Routed) -> list[tuple[int, str, bool]]:
    """Who must leave, and why."""
    return [(e.member, e.reason, e.converted) for cohort in routed.cohorts.values() for e in cohort.leaving]


# -- in --------------------------------------------------------------------------------------------------------------


async def test_an_event_lets_in_each_contact_once_though_it_is_routed_twice(account: TestAccount) -> None:
    source = await automation(account)
    zoe, joe = await people(account, 2)
    await happens(account, "order.placed", zoe, joe)
    assert (await route(account, forget=False)).pending == {source: "automation"}
    assert (await route(account)).pending == {source: "automation"}  # whoever was to tell it may have been interrupted
    assert {each[0] for each in await passes(account, source)} == {zoe, joe}
    assert await figures(account, source) == {"enrolled": 2}
    assert (await route(account)).pending == {}


async def test_only_events_as_the_author_asks_and_contacts_as_he_wants_them_let_in(account: TestAccount) -> None:
    trigger = {"type": "event", "event": "order.placed", "where": {"field": "value", "at_least": 50}}
    source = await automation(account, trigger=trigger, entry={"field": "first_name", "is": "Person 2"})
    one, two, three = await people(account, 3)
    await happens(account, "order.placed", one, value=50)
    await happens(account, "order.placed", two, value=50)
    await happens(account, "order.placed", three, value=49)
    await route(account)
    assert await passes(account, source) == [(two, "pending", None)]
    assert await figures(account, source) == {"enrolled": 1, "refused:entry": 1}


@pytest.mark.parametrize(
    ("trigger", "change"),
    [
        ({"type": "tag_added", "tag": "vip"}, {"tags": ["vip"]}),
        ({"type": "field_changed", "field": "country"}, {"country": "FR"}),
        ({"type": "field_changed", "field": "attributes.plan"}, {"attributes": {"plan": "pro"}}),
    ],
)
async def test_what_changes_of_a_contact_lets_it_in(
    account: TestAccount, trigger: dict[str, Any], change: dict[str, Any]
) -> None:
    source = await automation(account, trigger=trigger)
    zoe, _ = await people(account, 2)
    async with account.transaction() as tx:
        await tx.execute(contacts.update().where(contacts.c.id == zoe).values(change))
    await route(account)
    assert [each[0] for each in await passes(account, source)] == [zoe]


@pytest.mark.parametrize("way", ["entered", "left"])
async def test_whoever_enters_or_leaves_a_segment_is_let_in(account: TestAccount, way: str) -> None:
    segment = uuid4()
    source = await automation(account, trigger={"type": f"segment_{way}", "segment": str(segment)})
    (zoe,) = await people(account, 1)
    for name in ("segment.entered", "segment.left"):
        await happens(account, name, zoe, properties={"segment_id": str(segment)})
    await route(account)
    assert len(await passes(account, source)) == 1


async def test_nobody_is_inside_twice_and_a_paused_automation_lets_nobody_in(account: TestAccount) -> None:
    source, paused = await automation(account, reentry="always"), await automation(account, state="paused")
    (zoe,) = await people(account, 1)
    for _ in range(3):
        await happens(account, "order.placed", zoe)
    await route(account)
    await happens(account, "order.placed", zoe)
    await route(account)
    assert await figures(account, source) == {"enrolled": 1, "refused:inside": 3}
    assert await figures(account, paused) == {"refused:paused": 4}


async def test_again_after_a_time_is_counted_from_the_last_entry(account: TestAccount) -> None:
    source = await automation(account, reentry={"after": "1 day"})
    (zoe,) = await people(account, 1)
    async with account.transaction() as tx:
        found = (await sources.read(tx, [source]))[source]
        outcomes = []
        for number, hours in enumerate((0, 23, 25)):
            now = NOW + timedelta(hours=hours)
            candidate = Candidate(zoe, f"api:{number}")
            outcomes.append(dict(await enroll(tx, account.id, found, [candidate], now=now)))
            await tx.execute(text("UPDATE enrollments SET left_at = :now, state = 'completed'"), {"now": now})
    assert outcomes == [{"enrolled": 1}, {"once": 1}, {"enrolled": 1}]


async def test_a_contact_that_goes_round_in_a_circle_is_stopped_and_reported_once_an_hour(
    account: TestAccount,
) -> None:
    source = await automation(account, reentry="always")
    (zoe,) = await people(account, 1)
    now = NOW.replace(minute=30)
    async with account.transaction() as tx:
        found = (await sources.read(tx, [source]))[source]
        for number in range(MOST_IN_AN_HOUR + 3):
            await enroll(tx, account.id, found, [Candidate(zoe, f"api:{number}")], now=now)
            await tx.execute(text("UPDATE enrollments SET left_at = now(), state = 'completed'"))
        reports = await notifications.page(tx, kind=None, source_id=source, after=None, limit=10)
    assert await figures(account, source) == {"enrolled": MOST_IN_AN_HOUR, "refused:runaway": 3}
    assert [(str(zoe) in each.text, found.name in each.text) for each in reports] == [(True, True)]


async def test_each_contact_that_goes_round_is_reported_with_the_automations_it_went_through(
    account: TestAccount,
) -> None:
    source, other = await automation(account, reentry="always"), await automation(account, reentry="always")
    zoe, joe = await people(account, 2)
    async with account.transaction() as tx:
        found = await sources.read(tx, [source, other])
        for number in range(MOST_IN_AN_HOUR // 2 + 1):
            for each in (source, other):
                candidates = [Candidate(one, f"api:{number}") for one in (zoe, joe)]
                await enroll(tx, account.id, found[each], candidates, now=NOW)
            await tx.execute(text("UPDATE enrollments SET left_at = now(), state = 'completed'"))
        reports = [each.text for each in await notifications.page(tx, kind=None, source_id=None, after=None, limit=10)]
    assert len(reports) == 2
    assert all(one.name in each for one in found.values() for each in reports)
    assert all(any(str(one) in each for each in reports) for one in (zoe, joe))


async def test_whoever_meets_what_makes_contacts_leave_is_not_let_in(account: TestAccount) -> None:
    exits = [{"if": {"field": "country", "is": each}} for each in ("FR", "DE")]
    source = await automation(account, exit_on=[{"event": "complained"}, *exits])
    french, german, other = await people(account, 3)
    async with account.transaction() as tx:
        for contact, country in ((french, "FR"), (german, "DE")):
            await tx.execute(contacts.update().where(contacts.c.id == contact).values(country=country))
    await happens(account, "order.placed", french, german, other)
    await route(account)
    assert await passes(account, source) == [(other, "pending", None)]
    assert await figures(account, source) == {"enrolled": 1, "refused:exit": 2}


async def test_what_turned_out_to_be_a_machines_lets_nobody_in(account: TestAccount) -> None:
    source = await automation(account)
    (zoe,) = await people(account, 1)
    await happens(account, "order.placed", zoe)
    async with account.transaction() as tx:
        await tx.execute(events.update().values(machine=True))
    await route(account)
    assert await passes(account, source) == []


# -- on --------------------------------------------------------------------------------------------------------------


async def test_whoever_waits_is_told_of_the_first_event_as_asked(account: TestAccount) -> None:
    source = await automation(account)
    zoe, joe = await people(account, 2)
    await happens(account, "order.placed", zoe, joe)
    await route(account)
    await form(account, source)
    async with account.transaction() as tx:
        callers = [(0, 4, NOW - timedelta(hours=1)), (1, 4, NOW - timedelta(hours=1))]
        where = {"field": "value", "at_least": 50}
        await waits.begin(tx, account.id, source, 1, callers, event="purchase", where=where)
    await happens(account, "purchase", zoe, value=10)
    await happens(account, "purchase", zoe, value=60, occurred_at=NOW)
    await happens(account, "purchase", zoe, value=70, occurred_at=NOW + timedelta(seconds=1))
    routed = await route(account)
    ((key, said),) = routed.cohorts.items()
    assert key == (source, 1)
    told_of = [(each.member, each.call, each.occurred_at) for each in said.awaited]
    assert told_of == [(0, 4, NOW), (0, 4, NOW + timedelta(seconds=1))]  # it may have heard of the first one before


@pytest.mark.parametrize("routed_before", [False, True])
async def test_what_was_told_in_one_list_with_the_trigger_is_waited_for(
    account: TestAccount, routed_before: bool
) -> None:
    source = await automation(account, steps=[{"type": "wait_for", "event": "purchase", "within": "1 day"}])
    (zoe,) = await people(account, 1)
    for name in ("purchase", "order.placed", "purchase"):
        await happens(account, name, zoe, occurred_at=EARLY)
    await route(account, forget=routed_before)
    cohort = await form(account, source)
    assert cohort and cohort.members[0].began_at == EARLY
    about: dict[str, Any] = {"event": "purchase", "where": None}
    async with account.transaction() as tx:
        await waits.begin(tx, account.id, source, 1, [(0, 0, EARLY)], **about)
        second = (
            await tx.execute(text("SELECT id FROM events WHERE name = 'purchase' ORDER BY id DESC LIMIT 1"))
        ).scalar_one()
        already = await waits.happened_already(tx, source, 1, [(0, 0)], **about, now=NOW)
    assert [each.event_id for each in already.values()] == [second]
    routed = await route(account)
    assert [e.event_id for c in routed.cohorts.values() for e in c.awaited] == ([] if routed_before else [second])


# -- out -------------------------------------------------------------------------------------------------------------


async def inside(account: TestAccount, source: UUID, *those: UUID) -> None:
    await happens(account, "order.placed", *those)
    await route(account)
    await form(account, source)


async def refuse(account: TestAccount, contact: UUID, topic: str, channel: str = "email") -> None:
    values = {"account_id": account.id, "contact_id": contact, "channel": channel, "topic": topic}
    async with account.transaction() as tx:
        await tx.execute(
            text("DELETE FROM subscriptions WHERE contact_id = :id AND topic = :topic AND channel = :channel"),
            {"id": contact, "topic": topic, "channel": channel},
        )
        await tx.execute(subscriptions.insert().values(**values, status="unsubscribed"))


@pytest.mark.parametrize(
    ("topic", "channel", "leaves"),
    [("", "email", True), ("news", "email", True), ("offers", "email", False), ("", "sms", False)],
)
async def test_whoever_refuses_the_channel_or_the_topic_leaves(
    account: TestAccount, topic: str, channel: str, leaves: bool
) -> None:
    source = await automation(account, topic="news")
    (zoe,) = await people(account, 1)
    await inside(account, source, zoe)
    await refuse(account, zoe, topic, channel)
    assert told(await route(account)) == ([(0, leaving.UNSUBSCRIBED, False)] if leaves else [])


async def test_goals_exits_and_criteria_have_contacts_leave_but_not_what_they_began_with(
    account: TestAccount,
) -> None:
    source = await automation(
        account,
        goal={"event": "order.placed", "where": {"field": "value", "at_least": 50}},
        exit_on=[{"event": "complained"}, {"if": {"field": "country", "is": "FR"}}],
    )
    people_inside = await people(account, 4)
    await happens(account, "order.placed", *people_inside, value=50)
    await route(account, forget=False)
    await form(account, source)
    assert told(await route(account)) == []  # told again, an order is still what they began with
    member = {each.contact_id: n for n, each in enumerate(await _members(account, source))}
    buyer, complainer, french, old = people_inside
    await happens(account, "order.placed", buyer, value=50)
    await happens(account, "complained", complainer)
    await happens(account, "complained", old, occurred_at=NOW - timedelta(days=1))  # before it entered
    async with account.transaction() as tx:
        await tx.execute(contacts.update().where(contacts.c.id == french).values(country="FR"))
    assert sorted(told(await route(account))) == sorted(
        [
            (member[buyer], leaving.GOAL, True),
            (member[complainer], leaving.EXIT, False),
            (member[french], leaving.EXIT, False),
        ]
    )


def minutes(count: int) -> datetime:
    return EARLY + timedelta(minutes=count)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize(
    ("occurred_at", "left"),
    [
        (minutes(1), True),  # though it is long ago that both occurred
        (EARLY, True),  # told after it in one list
        (minutes(-1), False),
    ],
)
@pytest.mark.parametrize("what", ["purchase", "complained"])
async def test_what_is_told_with_the_trigger_counts_if_it_occurred_after_it(
    account: TestAccount, what: str, occurred_at: datetime, left: bool, bulk: bool
) -> None:
    source = await automation(account, goal={"event": "purchase"}, exit_on=[{"event": "complained"}])
    (zoe,) = await people(account, 1)
    await happens(account, "order.placed", zoe, occurred_at=EARLY)
    await happens(account, what, zoe, occurred_at=occurred_at)
    if bulk:  # what came one by one is routed before
        async with account.transaction() as tx:
            await tx.execute(text("UPDATE journey_touches SET bulk = true WHERE subject = 'event:order.placed'"))
        await route(account)
    await route(account, bulk=bulk)
    reason = leaving.GOAL if what == "purchase" else leaving.EXIT
    assert await passes(account, source) == [(zoe, "exited", reason) if left else (zoe, "pending", None)]


async def test_what_is_told_before_the_trigger_counts_if_it_occurred_after_it(account: TestAccount) -> None:
    source = await automation(account, goal={"event": "purchase", "where": {"field": "value", "at_least": 50}})
    zoe, joe = await people(account, 2)
    for contact, value in ((zoe, 50), (joe, 49)):
        await happens(account, "purchase", contact, value=value, occurred_at=minutes(1))
        await happens(account, "order.placed", contact, occurred_at=EARLY)
    await route(account)
    assert sorted(await passes(account, source)) == sorted([(zoe, "exited", leaving.GOAL), (joe, "pending", None)])


async def test_what_occurs_after_a_trigger_counts_however_late_that_was_routed(account: TestAccount) -> None:
    source = await automation(account, goal={"event": "purchase"})
    zoe, joe = await people(account, 2)
    await happens(account, "order.placed", zoe, joe, occurred_at=EARLY)
    await route(account)
    await form(account, source)
    member = {each.contact_id: n for n, each in enumerate(await _members(account, source))}
    await happens(account, "purchase", zoe, occurred_at=minutes(1))
    await happens(account, "purchase", joe, occurred_at=minutes(-1))
    assert told(await route(account)) == [(member[zoe], leaving.GOAL, True)]


async def test_whoever_leaves_and_is_led_there_again_at_once_enters_again(account: TestAccount) -> None:
    source = await automation(account, reentry="always", goal={"event": "purchase"})
    (zoe,) = await people(account, 1)
    for minute, name in enumerate(("order.placed", "purchase", "order.placed")):
        await happens(account, name, zoe, occurred_at=minutes(minute))
    await route(account)
    assert await passes(account, source) == [(zoe, "exited", leaving.GOAL), (zoe, "pending", None)]


async def test_whoever_is_tagged_has_entered_when_it_was_tagged(account: TestAccount) -> None:
    source = await automation(account, trigger={"type": "tag_added", "tag": "vip"}, goal={"event": "purchase"})
    zoe, joe = await people(account, 2)
    async with account.transaction() as tx:
        await tx.execute(contacts.update().values(tags=["vip"]))
        await tx.execute(text("UPDATE journey_touches SET touched_at = :at"), {"at": EARLY})
    await happens(account, "purchase", zoe, occurred_at=minutes(1))
    await happens(account, "purchase", joe, occurred_at=minutes(-10))
    await route(account)
    assert sorted(await passes(account, source)) == sorted([(zoe, "exited", leaving.GOAL), (joe, "pending", None)])


async def _members(account: TestAccount, source: UUID) -> Sequence[cohorts.Newcomer]:
    async with account.transaction() as tx:
        return (await cohorts.read(tx, source, "automation", 1, 1)).members


async def test_whoever_must_leave_before_a_cohort_has_taken_it_in_ends_on_record(account: TestAccount) -> None:
    source = await automation(account, goal={"event": "purchase"})
    buyer, gone = await people(account, 2)
    await happens(account, "order.placed", buyer, gone)
    await route(account)
    await happens(account, "purchase", buyer)
    async with account.transaction() as tx:
        await tx.execute(contacts.update().where(contacts.c.id == gone).values(deleted_at=NOW))
    assert told(await route(account)) == []
    assert set(await passes(account, source)) == {
        (buyer, "exited", leaving.GOAL),
        (gone, "exited", leaving.DELETED),
    }
    assert await figures(account, source) == {
        "enrolled": 2,
        "exited:goal": 1,
        "converted": 1,
        "exited:contact_deleted": 1,
    }


async def test_of_many_who_wait_at_a_cancel_the_rest_leaves_later_and_none_is_taken_in(account: TestAccount) -> None:
    source = await automation(account)
    many = cohorts.CANCELLED_AT_ONCE + 3
    async with account.transaction() as tx:
        await tx.execute(
            text("""
                INSERT INTO enrollments (account_id, source_id, contact_id, cause)
                SELECT :account, :source, uuidv7(), 'event:1' FROM generate_series(1, :many)
            """),
            {"account": account.id, "source": source, "many": many},
        )
    async with account.transaction() as tx:
        await automations.cancel(tx, account.id, source, now=NOW)
    assert (await figures(account, source)) == {"cancelled": cohorts.CANCELLED_AT_ONCE}
    assert await form(account, source) is None
    assert [each.pending for each in await sources.open_sources(account.database) if each.source_id == source] == [True]
    async with account.transaction() as tx:
        assert await leaving.cancel_pending(tx, account.id, source, "cancelled", now=NOW, limit=500) == 3
    assert (await figures(account, source)) == {"cancelled": many}
    assert source not in {each.source_id for each in await sources.open_sources(account.database)}


async def test_those_who_wait_for_a_cohort_are_cancelled_a_few_at_a_time(account: TestAccount) -> None:
    source = await automation(account)
    await happens(account, "order.placed", *await people(account, 3))
    await route(account)
    for expected in (2, 1, 0):
        async with account.transaction() as tx:
            ended = await leaving.cancel_pending(tx, account.id, source, "Wrong price", now=NOW, limit=2)
        assert ended == expected
    assert await figures(account, source) == {"enrolled": 3, "cancelled": 3}
