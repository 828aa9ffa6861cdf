"""Steps of journeys that ask and change our own record: each answers for each contact, and twice is once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import event, text

from activities.journey_inputs import CANCELLED, Answer, StepCall
from channels.outbox import Outbox
from database import memberships, stored_segments, waits
from marketing.stored_segments import SegmentDefinition
from tests.conftest import PATIENCE, TestAccount
from tests.delivering import execute
from tests.enrolled import NOW
from tests.journeys import Steps, steps


async def happen(
    taken: Steps, member: int, name: str, *, after: timedelta = timedelta(seconds=1), **properties: Any
) -> UUID:
    """Something that a contact does after `NOW`."""
    async with taken.inside.account.transaction() as tx:
        made = await tx.execute(
            text("""
                INSERT INTO events (account_id, name, contact_id, occurred_at, properties, machine)
                VALUES (:account, :name, :contact, :at, CAST(:properties AS jsonb), :machine) RETURNING id
            """),
            {
                "account": taken.inside.account.id,
                "name": name,
                "contact": taken.inside.contacts[member],
                "at": NOW + after,
                "machine": properties.pop("machine", False),
                "properties": orjson.dumps(properties).decode(),
            },
        )
        event_id: UUID = made.scalar_one()
        return event_id


async def contacts(account: TestAccount) -> list[Any]:
    async with account.transaction() as tx:
        return list((await tx.execute(text("SELECT * FROM contacts ORDER BY id"))).all())


# -- questions -------------------------------------------------------------------------------------------------------


async def test_criteria_are_asked_of_each_at_the_moment_of_the_journey(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox(), prune=False)
    await happen(taken, 1, "purchase", after=-timedelta(days=2))
    criteria = {"event": "purchase", "within": "3 days"}
    asked = taken.inside.step({"criteria": criteria})
    assert [each.value for each in await taken.take("matches", asked)] == [False, True, False]
    later = asked.model_copy(update={"now": NOW + timedelta(days=2)})
    assert [each.value for each in await taken.take("matches", later)] == [False, False, False]


async def test_criteria_that_are_none_say_so(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox())
    asked = taken.inside.step({"criteria": {"all": [{"field": "shoe_size", "is": 5}]}})
    for answer in await taken.take("matches", asked):
        assert answer.final and "no such field" in answer.error


async def test_engagement_counts_the_messages_of_this_source_and_people_alone(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox(), prune=False)
    await execute(account, "UPDATE enrollments SET entered_at = :at", at=NOW - timedelta(hours=1))
    await taken.send(call=0)
    await taken.send(call=1, now=NOW + timedelta(days=1))
    for member in (0, 1):
        await happen(taken, member, "message.opened")  # of another source
    async with account.transaction() as tx:
        for name, member, call, machine in (
            ("message.opened", 0, 0, False),
            ("message.opened", 0, 0, False),
            ("message.clicked", 0, 1, False),
            ("message.opened", 1, 0, True),
        ):
            await tx.execute(
                text("""
                    INSERT INTO events (account_id, name, contact_id, campaign_id, delivery_id, occurred_at, machine)
                    SELECT account_id, :name, contact_id, campaign_id, id, :at, :machine FROM deliveries
                    WHERE campaign_id = :source AND contact_id = :contact AND call = :call
                """),
                {
                    "name": name,
                    "at": NOW + timedelta(days=2),
                    "machine": machine,
                    "source": taken.inside.automation_id,
                    "contact": taken.inside.contacts[member],
                    "call": call,
                },
            )
    now = {"now": NOW + timedelta(days=3)}
    whole = await taken.take("engagement", taken.inside.step({}).model_copy(update=now))
    assert [each.value for each in whole] == [
        {"sent": 2, "opened": 1, "clicked": 1},
        {"sent": 2, "opened": 0, "clicked": 0},
        {"sent": 2, "opened": 0, "clicked": 0},
    ]
    since = taken.inside.step({"since": (NOW + timedelta(hours=12)).isoformat()}).model_copy(update=now)
    assert (await taken.take("engagement", since))[0].value == {"sent": 1, "opened": 1, "clicked": 1}


# -- what is known of contacts ---------------------------------------------------------------------------------------


async def test_contacts_enter_and_leave_a_static_segment_by_its_name_or_id(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox())
    async with account.transaction() as tx:
        segment = await stored_segments.create(tx, account.id, SegmentDefinition(name="At risk", kind="static"))
    for _ in range(2):
        assert await taken.take("add_to", taken.inside.step({"segment": "At risk"})) == [Answer()] * 3
    await taken.take("remove_from", taken.inside.step({"segment": str(segment.id)}, members=[1]))
    async with account.transaction() as tx:
        inside = await memberships.among(tx, segment.id, taken.inside.contacts)
    assert inside == {taken.inside.contacts[0], taken.inside.contacts[2]}
    (nowhere, *_) = await taken.take("add_to", taken.inside.step({"segment": "Nowhere"}))
    assert nowhere.final and "no static segment “Nowhere”" in nowhere.error


async def test_contacts_are_changed_as_through_the_api_and_once(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox())
    await execute(
        account,
        """UPDATE contacts SET attributes = '{"plan": "free", "seats": 3}' WHERE id = :id""",
        id=taken.inside.contacts[0],
    )
    changes = {"country": "FR", "first_name": None, "attributes": {"plan": "gold", "seats": None}}
    step = taken.inside.step({"changes": changes})
    for _ in range(2):
        assert await taken.take("update_contact", step) == [Answer()] * 2
    for row in await contacts(account):
        assert (row.country, row.first_name, row.attributes) == ("FR", None, {"plan": "gold"})
    async with account.transaction() as tx:
        query = text("SELECT contact_id, properties, occurred_at FROM events WHERE name = 'contact.changed'")
        told = {row.contact_id: row for row in await tx.execute(query)}
    first, second = (told[each].properties["changed"] for each in taken.inside.contacts)
    assert first == ["attributes.plan", "attributes.seats", "country", "first_name"]
    assert second == ["attributes.plan", "country", "first_name"]
    assert {row.occurred_at for row in told.values()} == {NOW}


async def test_what_a_contact_cannot_be_is_refused(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    (answer,) = await taken.take("update_contact", taken.inside.step({"changes": {"country": "Atlantis"}}))
    assert answer.final and "no country" in answer.error


async def test_tags_come_and_go_once(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox())
    await execute(account, "UPDATE contacts SET tags = '{old, kept}' WHERE id = :id", id=taken.inside.contacts[0])
    step = taken.inside.step({"add": ["vip"], "remove": ["old"]})
    for _ in range(2):
        assert await taken.take("tag", step) == [Answer()] * 2
    assert [row.tags for row in await contacts(account)] == [["kept", "vip"], ["vip"]]
    async with account.transaction() as tx:
        told = (await tx.execute(text("SELECT properties FROM events WHERE name = 'contact.changed'"))).scalars().all()
    assert sorted(each["tags_added"] for each in told) == [["vip"], ["vip"]]


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("matches", {"criteria": {"field": "tags", "contains": "vip"}}),
        ("tag", {"add": ["vip"]}),
        ("watch", {"event": "purchase"}),
        ("update_contact", {"changes": {"country": "FR"}}),
    ],
)
async def test_no_step_is_taken_in_a_pause_after_the_end_or_by_who_has_left(
    account: TestAccount, kind: str, args: dict[str, Any]
) -> None:
    taken = await steps(account, 2, Outbox())
    await execute(
        account,
        "UPDATE enrollments SET left_at = now(), state = 'exited', reason = 'goal' WHERE contact_id = :id",
        id=taken.inside.contacts[0],
    )
    before = await contacts(account)
    await taken.inside.set_state("paused")
    assert await taken.take(kind, taken.inside.step(args)) == [Answer(held=True)] * 2
    await taken.inside.set_state("draft")
    assert await taken.take(kind, taken.inside.step(args)) == [CANCELLED] * 2
    assert await contacts(account) == before
    await taken.inside.set_state("active")
    gone, here = await taken.take(kind, taken.inside.step(args))
    assert gone == Answer(leave="goal")
    assert here.leave is None and not here.held


# -- waiting ---------------------------------------------------------------------------------------------------------


def watching(taken: Steps, *, members: list[int] | None = None, call: int = 1, **args: Any) -> StepCall:
    asked = taken.inside.step({"event": "purchase", **args}, members=members, call=call)
    return asked.model_copy(update={"since": NOW, "now": NOW + timedelta(minutes=1)})


async def route(taken: Steps, *events: UUID) -> list[tuple[int, int]]:
    async with taken.inside.account.transaction() as tx:
        return [(each.member, each.call) for each in await waits.happened(tx, events, now=NOW)]


async def test_what_has_happened_since_the_contact_woke_is_answered_and_the_first_counts(account: TestAccount) -> None:
    taken = await steps(account, 4, Outbox(), prune=False)
    await happen(taken, 0, "purchase", after=-timedelta(seconds=1))  # before it woke
    first = await happen(taken, 1, "purchase", after=timedelta(seconds=10))
    await happen(taken, 1, "purchase", after=timedelta(seconds=20))
    await happen(taken, 2, "purchase", machine=True)
    await happen(taken, 3, "visit")
    answers = await taken.take("watch", watching(taken))
    occurred_at = (NOW + timedelta(seconds=10)).isoformat()
    found = Answer(value={"id": str(first), "name": "purchase", "occurred_at": occurred_at})
    assert answers == [Answer(), found, Answer(), Answer()]


async def test_when_a_wait_is_over_only_what_happened_until_then_is_answered(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox(), prune=False)
    assert await taken.take("watch", watching(taken)) == [Answer()] * 3
    until = NOW + timedelta(minutes=5)
    in_time = await happen(taken, 0, "purchase", after=timedelta(minutes=5))
    await happen(taken, 1, "purchase", after=timedelta(minutes=6))
    found, late, nothing = await taken.take("watch", watching(taken).model_copy(update={"until": until}))
    assert found.value["id"] == str(in_time)
    assert late == nothing == Answer()


async def test_what_is_being_written_when_a_wait_ends_is_waited_for(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox(), last_look=PATIENCE)
    at = datetime.now(UTC)
    step = watching(taken).model_copy(update={"since": at - timedelta(minutes=1), "now": at})
    assert await taken.take("watch", step) == [Answer()]
    looks: asyncio.Queue[str] = asyncio.Queue()

    def hear(*told: Any) -> None:
        if "pg_snapshot_xmin" in told[2]:
            looks.put_nowait(told[2])

    engine = account.database.engine.sync_engine
    async with account.transaction() as tx:
        insert = "INSERT INTO events (account_id, name, contact_id, occurred_at) VALUES (:a, 'purchase', :c, :at)"
        await tx.execute(text(insert), {"a": account.id, "c": taken.inside.contacts[0], "at": at})
        event.listen(engine, "before_cursor_execute", hear)
        asked = asyncio.create_task(taken.take("watch", step.model_copy(update={"until": at})))
        looking = asyncio.create_task(looks.get())
        await asyncio.wait([asked, looking], return_when=asyncio.FIRST_COMPLETED)
        looking.cancel()
        event.remove(engine, "before_cursor_execute", hear)
    (answer,) = await asked
    assert answer.value["occurred_at"] == at.isoformat()


async def test_of_what_occurs_at_one_moment_a_contact_hears_one_after_the_other(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox(), prune=False)
    first, second = [await happen(taken, 0, "purchase") for _ in range(2)]
    for call, (heard, found) in enumerate(((None, first), (first, second), (second, None)), 1):
        step = watching(taken, call=call)
        step.callers[0].heard = heard
        (answer,) = await taken.take("watch", step)
        assert (answer.value and answer.value["id"]) == (found and str(found))


async def test_an_event_while_a_contact_waits_is_found_for_it_and_for_nobody_else(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox())
    assert await taken.take("watch", watching(taken, members=[0, 2])) == [Answer()] * 2
    events = [await happen(taken, member, "purchase", after=timedelta(minutes=2)) for member in range(3)]
    assert await route(taken, *events) == [(0, 1), (2, 1)]
    early = await happen(taken, 0, "purchase", after=-timedelta(minutes=2))
    other = await happen(taken, 0, "visit")
    machine = await happen(taken, 0, "purchase", machine=True)
    assert await route(taken, early, other, machine) == []


async def test_only_an_event_of_which_it_holds_ends_a_wait(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox(), prune=False)
    where = {"field": "properties.step", "is": "welcome"}
    await happen(taken, 0, "purchase", step="other")
    (right, wrong) = [
        await happen(taken, 1, "purchase", step=step, after=timedelta(seconds=second))
        for second, step in ((5, "welcome"), (2, "other"))
    ]
    nothing, found = await taken.take("watch", watching(taken, where=where))
    assert nothing == Answer()
    assert found.value["id"] == str(right)
    assert await route(taken, right, wrong) == [(1, 1)]


async def test_what_a_pass_began_with_is_not_what_it_waits_for(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox(), prune=False)
    began = await happen(taken, 0, "purchase")
    await execute(account, "UPDATE enrollments SET event_id = :id", id=began)
    assert await taken.take("watch", watching(taken)) == [Answer()]
    assert await route(taken, began) == []


async def test_whoever_has_left_waits_for_nothing(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    await taken.take("watch", watching(taken))
    await execute(account, "UPDATE enrollments SET left_at = now(), state = 'completed'")
    assert await route(taken, await happen(taken, 0, "purchase")) == []


async def test_the_first_wait_for_an_event_waits_for_what_began_before_triggers_looked_for_it(
    account: TestAccount,
) -> None:
    taken = await steps(account, 1, Outbox(), prune=True)
    at = datetime.now(UTC)
    step = watching(taken).model_copy(update={"since": at - timedelta(seconds=1), "now": at})
    async with account.transaction() as tx:
        insert = "INSERT INTO events (account_id, name, contact_id, occurred_at) VALUES (:a, 'purchase', :c, :at)"
        await tx.execute(text(insert), {"a": account.id, "c": taken.inside.contacts[0], "at": at})
        asked = asyncio.create_task(taken.take("watch", step))
        found = False
        while not found:  # which this one can't know that had begun before
            found = await looked_for(account)
        assert not asked.done()
    (answer,) = await asked
    assert answer.value["occurred_at"] == at.isoformat()


async def looked_for(account: TestAccount) -> bool:
    async with account.transaction() as tx:
        query = text("SELECT EXISTS (SELECT FROM automation_subjects WHERE role = 'wait')")
        return bool((await tx.execute(query)).scalar_one())
