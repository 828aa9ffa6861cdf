"""What others tell of, on a real PostgreSQL: stored once, of the right contact, whatever happens meanwhile."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from database import event_intake
from database.engine import AWAY
from database.event_intake import OnRecord, Outcome
from marketing.contacts import LONGEST_TEXT
from marketing.events import ANOTHER, LONGEST_KEY, NOBODY, Fault, NewEvent, Refusal, digest, read
from tests.conftest import TestAccount

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
ZOE = {"email": "zoe@example.com"}


def event(contact: dict[str, str] = ZOE, **more: Any) -> NewEvent:
    made = read({"contact": contact, "name": "purchase", **more}, NOW)
    assert isinstance(made, NewEvent), made
    return made


async def store(account: TestAccount, *events: NewEvent) -> list[Outcome]:
    async with account.transaction() as tx:
        return await event_intake.store(tx, account.id, events)


async def told(account: TestAccount) -> Sequence[Any]:
    """Whom each event on record is about, in the order of ids."""
    async with account.transaction() as tx:
        found = """SELECT events.*, contacts.email, contacts.external_id FROM events
                   JOIN contacts ON contacts.id = contact_id WHERE name NOT LIKE 'contact.%' ORDER BY events.id"""
        return (await tx.execute(text(found))).all()


async def change(account: TestAccount, statement: str, **values: object) -> None:
    async with account.transaction() as tx:
        await tx.execute(text(statement), values)


async def known(account: TestAccount, **values: str) -> UUID:
    async with account.transaction() as tx:
        names = ", ".join(values)
        adding = f"INSERT INTO contacts (account_id, {names}) VALUES (:a, :{', :'.join(values)}) RETURNING id"
        found: UUID = (await tx.execute(text(adding), {"a": account.id, **values})).scalar_one()
        return found


async def test_whoever_is_known_is_found_by_each_of_their_names(account: TestAccount) -> None:
    zoe = await known(account, email="Zoe@Example.com", external_id="crm-1")
    await store(account, event(), event({"external_id": "crm-1"}), event({"id": str(zoe)}))
    assert [row.contact_id for row in await told(account)] == [zoe] * 3


async def test_whoever_is_unknown_is_created_once_and_subscribed_to_nothing(account: TestAccount) -> None:
    people = [ZOE, {"external_id": "crm-1"}, ZOE, {"email": "ann@example.com"}]
    outcomes = await store(account, *map(event, people))
    rows = await told(account)
    assert [OnRecord(row.id, repeated=False) for row in rows] == outcomes
    assert [(row.email, row.external_id) for row in rows] == [(p.get("email"), p.get("external_id")) for p in people]
    assert rows[0].contact_id == rows[2].contact_id
    async with account.transaction() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM contacts")) == 3
        assert await tx.scalar(text("SELECT count(*) FROM subscriptions")) == 0
        made = await tx.execute(text("SELECT contact_id, properties FROM events WHERE name = 'contact.created'"))
        assert {row.contact_id: row.properties for row in made} == {row.contact_id: {"how": "event"} for row in rows}


async def test_an_account_may_refuse_those_it_does_not_know(account: TestAccount) -> None:
    await known(account, **ZOE)
    await change(account, "UPDATE accounts SET create_unknown_contacts = false")
    by_email, by_id, taken = await store(
        account, event({"email": "ann@example.com"}), event({"id": str(UUID(int=7))}), event()
    )
    assert isinstance(by_email, Refusal) and by_email.faults == (("contact.email", NOBODY),)
    assert isinstance(by_id, Refusal) and by_id.faults == (("contact.id", NOBODY),)
    assert isinstance(taken, OnRecord)
    assert len(await told(account)) == 1


async def test_nobody_is_created_by_an_id(account: TestAccount) -> None:
    (outcome,) = await store(account, event({"id": str(UUID(int=7))}))
    assert isinstance(outcome, Refusal)
    async with account.transaction() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM contacts")) == 0


async def test_who_was_deleted_is_unknown_and_may_come_back_as_another(account: TestAccount) -> None:
    gone = await known(account, **ZOE)
    await change(account, "UPDATE contacts SET deleted_at = now()")
    by_id, by_email = await store(account, event({"id": str(gone)}), event())
    assert isinstance(by_id, Refusal) and isinstance(by_email, OnRecord)
    (row,) = await told(account)
    assert row.contact_id != gone


async def test_contacts_and_keys_of_another_account_are_unknown(
    account: TestAccount, other_account: TestAccount
) -> None:
    theirs = await known(other_account, **ZOE)
    await store(other_account, event(idempotency_key="1"))
    by_id, by_email = await store(account, event({"id": str(theirs)}), event(idempotency_key="1"))
    assert isinstance(by_id, Refusal)
    assert isinstance(by_email, OnRecord) and not by_email.repeated
    (row,) = await told(account)
    assert row.contact_id != theirs


async def test_a_key_is_stored_once_and_tells_the_first_event(account: TestAccount) -> None:
    first, again = await store(account, event(idempotency_key="1"), event(idempotency_key="1"))
    assert isinstance(first, OnRecord) and not first.repeated
    later, other, keyless = await store(account, event(idempotency_key="1"), event(idempotency_key="2"), event())
    assert again == later == OnRecord(first.id, repeated=True)
    assert {outcome.repeated for outcome in (other, keyless) if isinstance(outcome, OnRecord)} == {False}
    assert [row.id for row in await told(account)] == [
        outcome.id for outcome in (first, other, keyless) if isinstance(outcome, OnRecord)
    ]


async def test_a_key_stands_for_the_first_event_that_is_about_somebody(account: TestAccount) -> None:
    nobody = event({"id": str(UUID(int=7))}, idempotency_key="1")
    assert isinstance((await store(account, nobody))[0], Refusal)
    first, taken = await store(account, nobody, event(idempotency_key="1"))
    assert isinstance(taken, OnRecord) and not taken.repeated
    assert [first] == await store(account, nobody) == [REFUSED]
    assert len(await told(account)) == 1


REFUSED = Refusal((Fault("idempotency_key", ANOTHER),))
FULL: dict[str, Any] = {
    "occurred_at": "2026-11-02T10:30:00+01:00",
    "properties": {"order": "A-1", "items": [1, {"a": 2, "b": None}]},
    "value": 49.9,
    "currency": "EUR",
    "idempotency_key": "1",
}
OTHERS: list[dict[str, Any]] = [
    {"contact": {"email": "ann@example.com"}},
    {"contact": {"external_id": "zoe@example.com"}},
    {"name": "refund"},
    {"occurred_at": "2026-11-02T10:30:00Z"},
    {"occurred_at": None},
    {"properties": {"order": "A-1", "items": [1, {"a": 2}]}},
    {"properties": {}},
    {"value": 49.91},
    {"value": None},
    {"currency": "CHF"},
    {"currency": None},
]


@pytest.mark.parametrize("changed", OTHERS, ids=str)
async def test_a_key_told_again_with_another_event_is_refused_in_one_set_and_in_another(
    account: TestAccount, changed: dict[str, Any]
) -> None:
    other = event(**FULL | changed)
    first, refused = await store(account, event(**FULL), other)
    assert isinstance(first, OnRecord) and refused == REFUSED
    assert await store(account, other, event(**FULL)) == [REFUSED, OnRecord(first.id, repeated=True)]
    assert [row.id for row in await told(account)] == [first.id]
    async with account.transaction() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM contacts")) == 1, "nobody is made of whom nothing is stored"


async def test_another_spelling_of_an_event_is_a_repetition(account: TestAccount) -> None:
    spelled = {
        "contact": {"email": " Zoe@EXAMPLE.com"},
        "occurred_at": "2026-11-02T09:30:00.000Z",
        "properties": {"items": [1, {"b": None, "a": 2}], "order": "A-1"},
        "value": "49.900",
    }
    first, again = await store(account, event(**FULL), event(**FULL | spelled))
    assert isinstance(first, OnRecord) and again == OnRecord(first.id, repeated=True)


async def test_a_repetition_is_known_whatever_became_of_the_contact(account: TestAccount) -> None:
    (first,) = await store(account, event(idempotency_key="1"))
    assert isinstance(first, OnRecord)
    await change(account, "UPDATE contacts SET email = 'new@example.com'")
    await known(account, **ZOE)
    assert await store(account, event(idempotency_key="1")) == [OnRecord(first.id, repeated=True)]


async def test_of_several_events_with_one_key_at_once_one_is_stored_and_the_others_are_refused(
    account: TestAccount,
) -> None:
    answers = await asyncio.gather(*(store(account, event(idempotency_key="1", value=n // 2)) for n in range(12)))
    (row,) = await told(account)
    outcomes = [outcome for (outcome,) in answers]
    assert sorted(map(str, outcomes)) == sorted(
        [str(OnRecord(row.id, repeated=repeated)) for repeated in (False, True)] + [str(REFUSED)] * 10
    )


async def test_many_at_once_with_the_same_keys_and_contacts_store_each_once(account: TestAccount) -> None:
    events = [event({"email": f"person-{n % 7}@example.com"}, idempotency_key=f"{n}") for n in range(40)]
    answers = await asyncio.gather(*(store(account, *(events if n % 2 else events[::-1])) for n in range(12)))
    rows = await told(account)
    assert len(rows) == 40 and len({row.contact_id for row in rows}) == 7
    outcomes = [outcome for answer in answers for outcome in answer if isinstance(outcome, OnRecord)]
    assert len(outcomes) == 12 * 40 and sum(not outcome.repeated for outcome in outcomes) == 40
    assert {outcome.id for outcome in outcomes} == {row.id for row in rows}


async def test_who_loses_a_race_for_a_key_that_then_fails_stores_the_event(account: TestAccount) -> None:
    async with account.transaction() as tx:
        await event_intake.store(tx, account.id, [event(idempotency_key="1")])
        behind = asyncio.create_task(store(account, event(idempotency_key="1")))
        await waiting(account)
        await tx.rollback()
    (outcome,) = await behind
    assert isinstance(outcome, OnRecord) and not outcome.repeated
    assert [row.id for row in await told(account)] == [outcome.id]


async def waiting(account: TestAccount) -> None:
    """Until a transaction waits for another."""
    async with asyncio.timeout(10), account.transaction() as tx:
        while not await tx.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
            pass


async def test_a_killed_connection_stores_nothing_and_the_same_again_stores_once(
    account: TestAccount, database_url: str
) -> None:
    events = [event(idempotency_key=f"{n}") for n in range(50)]

    async def killed() -> None:
        async with account.transaction() as tx:
            backend = await tx.scalar(text("SELECT pg_backend_pid()"))
            await event_intake.store(tx, account.id, events)
            async with await psycopg.AsyncConnection.connect(database_url) as owner:
                await owner.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])

    with pytest.raises(AWAY):
        await killed()
    assert await told(account) == []
    first = await store(account, *events)
    again = await store(account, *events)  # whoever missed the answer asks again
    assert again == [OnRecord(each.id, repeated=True) for each in first if isinstance(each, OnRecord)]
    assert [each.id for each in again if isinstance(each, OnRecord)] == [row.id for row in await told(account)]


async def test_what_occurred_without_a_moment_occurred_now(account: TestAccount) -> None:
    await store(account, event(), event(occurred_at="1999-12-31T23:59:59.123456Z"))
    now, long_ago = await told(account)
    assert abs((now.occurred_at - datetime.now(UTC)).total_seconds()) < 60
    assert long_ago.occurred_at == datetime(1999, 12, 31, 23, 59, 59, 123456, tzinfo=UTC)


TEXT = st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), min_size=1)
QUOTES = st.sampled_from(['"', "\\", "\\N", "\\.", "'", ",", "\u2028", "\x85", "NULL", "a b", "é", "\U0001f600"])
# A whole number is kept as it is written; beyond 2^53, what is written for a float is another whole number.
WHOLE_AND_BROKEN = st.floats(-(2**53), 2**53)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | WHOLE_AND_BROKEN
    | TEXT
    | QUOTES
    | st.just("tab\tand\nline"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | QUOTES, inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.fixed_dictionaries(
    {
        "contact": st.fixed_dictionaries({"external_id": TEXT | QUOTES | st.just("x" * LONGEST_TEXT)})
        | st.fixed_dictionaries({"email": st.emails()}),
        "name": st.from_regex(r"\A[A-Za-z]([A-Za-z0-9 _.:/-]{0,98}[A-Za-z0-9_])?\Z"),
    },
    optional={
        "occurred_at": st.datetimes(datetime(1900, 1, 2), datetime(2026, 11, 20)).map(lambda at: f"{at.isoformat()}Z"),  # noqa: DTZ001 - Z is added
        "properties": st.dictionaries(TEXT | QUOTES, JSON, max_size=3),
        "value": st.decimals(-(10**14), 10**14, places=6).map("{:f}".format) | st.integers(-(10**14), 10**14),
        "currency": st.sampled_from(["EUR", "JPY"]),
        "idempotency_key": TEXT | QUOTES | st.just("k" * LONGEST_KEY),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENTS, min_size=1, max_size=20))
async def test_whatever_is_taken_can_be_stored_and_is_read_back_the_same(
    account: TestAccount, given_events: list[dict[str, Any]]
) -> None:
    events = [each for each in (read(each, NOW) for each in given_events) if isinstance(each, NewEvent)]
    await change(account, "DELETE FROM event_keys")
    outcomes = await store(account, *events)
    first: dict[str, NewEvent] = {}
    rows = {row.id: row for row in await told(account)}
    for asked, outcome in zip(events, outcomes, strict=True):
        if asked.idempotency_key and digest(first.setdefault(asked.idempotency_key, asked)) != digest(asked):
            assert outcome == REFUSED
            continue
        assert isinstance(outcome, OnRecord), outcome
        if outcome.repeated:
            continue
        row = rows[outcome.id]
        assert (row.email, row.external_id) == (asked.contact.email, asked.contact.external_id)
        assert (row.name, row.value, row.currency) == (asked.name, asked.value, asked.currency)
        assert row.properties == asked.properties
        assert asked.occurred_at is None or row.occurred_at == asked.occurred_at
