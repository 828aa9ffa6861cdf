"""Does PostgreSQL tell the same people as somebody who reckons by hand?"""

import secrets
import sys
from bisect import bisect_left, bisect_right
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from database.engine import Connection
from database.segment_fields import coming
from database.segments import condition, plan_well
from marketing.events import FURTHEST_AHEAD
from marketing.segment_fields import AMOUNTS, CONTACT_FIELDS, COUNTS, EVENT_FIELDS, MOMENTS, Kind
from marketing.segments import parse, written
from tests.conftest import TestAccount
from tests.marketing import criteria as random
from tests.marketing.belonging import Person, belongs
from tests.marketing.criteria import NOWS, Written, criteria
from tests.marketing.persons import Crowd

PEOPLE = 24


async def stored(tx: Connection, account_id: UUID, people: list[Person]) -> None:
    """Put them where everybody's contacts, events and members are."""
    await tx.execute(
        text("UPDATE accounts SET default_timezone = :zone WHERE id = :id"),
        {"id": account_id, "zone": people[0].default_zone},
    )
    rows: dict[str, list[dict[str, Any]]] = {
        "contacts": [
            {
                "id": person.id,
                **person.columns,
                "attributes": orjson.dumps(person.attributes).decode(),
                "tags": person.tags,
            }
            for person in people
        ],
        "subscriptions": [
            {"contact_id": person.id, "channel": channel, "topic": topic, "status": status}
            for person in people
            for (channel, topic), status in person.statuses.items()
        ],
        "suppressions": [
            {"channel": channel, "address": address_of(person, channel), "reason": "bounced"}
            for person in people
            for channel in person.suppressed
        ],
        "segment_members": [
            {"contact_id": person.id, "segment_id": UUID(segment)} for person in people for segment in person.segments
        ],
        "events": [
            {
                **vars(event),
                "id": received(event.occurred_at),
                "contact_id": person.id,
                "properties": orjson.dumps(event.properties).decode(),
            }
            for person in people
            for event in person.events
        ],
    }
    for table, found in rows.items():
        if found:
            names = ["account_id", *found[0]]
            values = ", ".join(f"CAST(:{name} AS jsonb)" if name in JSON else f":{name}" for name in names)
            await tx.execute(
                text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"),
                [{"account_id": account_id, **row} for row in found],
            )


JSON = ("attributes", "properties")


def address_of(person: Person, channel: str) -> str:
    return str(person.columns["email"]).lower() if channel == "email" else str(person.columns["phone"])


def received(occurred_at: datetime) -> UUID:
    """An id as early as it may be: our clock was behind theirs as far as we let it. Months are known by ids."""
    moment = max(int((occurred_at - FURTHEST_AHEAD).timestamp() * 1000), 0)
    return UUID(int=moment << 80 | 7 << 76 | 2 << 62 | secrets.randbits(60))


async def told(tx: Connection, asked: Written, now: datetime, among: list[UUID] | None = None) -> set[UUID]:
    """Whom PostgreSQL tells; `among` limits the work to some."""
    where, parameters = condition(parse(asked), now=now, prefix="x_", among="these" if among is not None else None)
    if among is not None:
        parameters["these"] = among
    rows = await tx.execute(text(f"SELECT id FROM contacts WHERE {where}"), parameters)
    return {row.id for row in rows}


async def agree(account: TestAccount, people: list[Person], several: list[Written], now: datetime) -> None:
    everybody, some = {person.id for person in people}, [person.id for person in people[::2]]
    async with account.transaction() as tx:
        nobody_else = await tx.begin_nested()
        await stored(tx, account.id, people)
        await plan_well(tx, parse(several[0]))
        for number, one in enumerate(several):
            plain = written(parse(one))
            expected = {person.id for person in people if belongs(plain, person, now)}
            assert await told(tx, one, now) == expected, one
            if number % 2:
                assert await told(tx, {"not": one}, now) == everybody - expected, one
            else:
                assert await told(tx, one, now, among=some) == expected & set(some), one
        await nobody_else.rollback()


# Every operator of every field, and all else by itself, some of them in each example.
EVERY = [
    *(
        random.condition(field, operator)
        for field in CONTACT_FIELDS
        for operator in field.operators
        for _ in range(3 if field.kind is Kind.JSON else 1)
    ),
    *(
        random.condition(field, operator).map(lambda where: {"event": "purchase", "where": where})
        for field in EVENT_FIELDS
        for operator in field.operators
    ),
    *(random.count_of(operator).map(lambda found: {"event": "purchase", "count": found}) for operator in COUNTS),
    *(
        st.fixed_dictionaries({"event": st.just("purchase"), which: random.operator_of(operator)})
        for operator in MOMENTS
        for which in ("first", "last")
    ),
    *(
        random.operator_of(operator, "value").map(lambda found: {"total": "purchase.value", **found})
        for operator in AMOUNTS
    ),
    *(random.never, random.happened, random.totals, random.buckets, random.in_segments, random.named),
]
SEEDS = st.integers(0, 2**32)
PARTS = 6  # so that one example is not too large for Hypothesis
# Without shrinking: what fails is one of the criteria, and the people are few.
_SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
ALONE, TOGETHER = settings(_SETTINGS, max_examples=8), settings(_SETTINGS, max_examples=25)


@pytest.mark.parametrize("part", range(PARTS))
@ALONE
@given(st.data())
async def test_every_operator_by_itself_tells_whom_it_means(
    account: TestAccount, part: int, data: st.DataObject
) -> None:
    now = data.draw(st.sampled_from(NOWS))
    people = Crowd(data.draw(SEEDS), now).people(PEOPLE)
    several = [data.draw(each) for each in EVERY[part::PARTS]]
    await agree(account, people, several, now)


@TOGETHER
@given(st.data())
async def test_whatever_is_put_together_tells_whom_it_means(account: TestAccount, data: st.DataObject) -> None:
    now = data.draw(st.sampled_from(NOWS))
    people = Crowd(data.draw(SEEDS), now).people(PEOPLE)
    several = data.draw(st.lists(criteria, min_size=16, max_size=16))
    await agree(account, people, several, now)


@pytest.mark.parametrize(
    "evil", ["'; DROP TABLE contacts; --", "zq'||zq", "zq%s(zq)s", ":zq", "zq\\", '"zq', "$zq$", "/*zq*/"]
)
def test_nothing_that_somebody_writes_is_in_the_sql(evil: str) -> None:
    field, within = f"attributes.{evil}.{evil}", {"field": f"properties.{evil}", "is": evil}
    asked = [
        *({"field": field, operator: evil} for operator in ("is", "is_not", "contains", "starts_with", "ends_with")),
        *({"field": field, operator: [evil]} for operator in ("in", "contains_any", "contains_all", "contains_none")),
        *({"field": field, "within": "1 day"}, {"field": field, "at_least": 1}, {"field": field, "exists": True}),
        *({"field": name, "contains": evil} for name in ("email", "first_name", "tags")),
        {"field": f"subscriptions.email.{evil}", "is": "subscribed"},
        {"event": "purchase", "where": within},
        {"total": f"purchase.properties.{evil}", "at_least": 1, "where": within},
        {"bucket": [0, 1], "seed": evil},
        {"named": "subscription_tier", "is": evil, "attribute": evil},
    ]
    sql, parameters = condition(parse({"all": asked}), now=NOWS[0])
    assert "zq" not in sql and "DROP" not in sql
    assert str(parameters).count("zq") + str(parameters).count("DROP") > len(asked)


# -- bounds ----------------------------------------------------------------------------------------------------------

LONG = ".".join(letter * 100 for letter in "abc")
ASKED: dict[str, list[Any]] = {
    "exists": [True] * 499,
    "anniversary_within": [f"{days % 366} days" for days in range(499)],
    "within": [f"{days} days" for days in range(1, 500)],
    "between": [["2026-01-01", f"2026-02-{1 + days % 28:02}"] for days in range(499)],
}
# As many of each kind as criteria may have.
LARGEST: dict[str, list[Written]] = {
    **{
        f"{field.written} {operator}": [{"field": name, operator: operand} for operand in operands]
        for field in CONTACT_FIELDS
        for name in [field.written.replace("NAME", LONG).replace("CHANNEL", "email")]
        for operator, operands in ASKED.items()
        if operator in field.operators
    },
    "suppressions": [{"field": "suppressions.email", "is": True}] * 499,
    "texts": [{"field": "first_name", "contains": f"{number} {'x' * 900}"} for number in range(499)],
    "values in JSON": [{"field": f"attributes.{LONG}", "in": [*range(n, n + 1_000)]} for n in range(10)],
    "values": [{"field": "external_id", "in": [f"crm-{n}-{k}" for k in range(1_000)]} for n in range(10)],
    "few values": [{"field": "tags", "contains_any": [f"{n}-{k}" for k in range(20)]} for n in range(499)],
    "topics": [{"field": f"subscriptions.email.t{n}", "not_in": ["subscribed", "pending"]} for n in range(499)],
    "events": [
        {"event": f"e{n}", "count": {"at_least": 2}, "first": {"within": "9 days"}, "last": {"older_than": "1 day"}}
        for n in range(499)
    ],
    "wheres": [
        {"event": f"e{n}", "within": "9 days", "where": {"field": f"properties.{LONG}", "within_next": "1 day"}}
        for n in range(249)
    ],
    "one where": [{"event": "e", "where": {"any": [{"field": "properties.x", "at_most": n} for n in range(497)]}}],
    "alike": [{"event": f"e{n}", "within": "9 days"} for n in range(499)],
    "totals": [{"total": f"e{n}.properties.{LONG}", "between": [1, n + 1]} for n in range(499)],
    "buckets": [{"bucket": [0, 1], "seed": f"{n}"} for n in range(499)],
    "segments": [{"segment": str(UUID(int=n))} for n in range(499)],
    "levels": [{"named": "spending_level", "is": "medium", "event": f"e{n}"} for n in range(120)],
    "engagement": [{"named": "engagement", "is": "cooling", "recent": f"{n + 1} days"} for n in range(50)],
    "days": [{"named": "days_without_activity", "at_least": n + 1} for n in range(60)],
}


def calls(asked: Written) -> tuple[int, int, int]:
    """How many calls it takes to make SQL of criteria, how long that is, and how many parameters it has."""
    tree, made = parse(asked), 0
    condition(tree, now=NOWS[2])  # once, for what is looked up once for all

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        sql, parameters = condition(tree, now=NOWS[2])
    finally:
        sys.setprofile(None)
    return made, len(sql), len(parameters)


@pytest.mark.parametrize("kind", LARGEST)
@pytest.mark.parametrize("word", ["all", "any"])
def test_the_largest_criteria_of_every_kind_take_little_work(word: str, kind: str) -> None:
    made, length, parameters = calls({word: LARGEST[kind]})
    assert made <= 50_000
    assert length <= 1_000_000
    assert parameters <= 10_000  # PostgreSQL takes 65,535


def test_an_anniversary_comes_on_exactly_the_days_that_are_near() -> None:
    days = [date(2027, 1, 1) + timedelta(days=ahead) for ahead in range(1500)]
    # Who was born on 29 February has the day on the 28th where there is no 29th.
    names = [{"02-28", "02-29"} if f"{day:%m-%d}" == "02-28" and day.year % 4 else {f"{day:%m-%d}"} for day in days]
    year = sorted(set().union(*names))
    assert len(year) == 366
    for number, today in enumerate(days[: 3 * 366]):
        for most in (0, 1, 27, 59, 200, 306, 307, 363, 364, 365, 366):
            first, last = coming(today, most)
            near = year[bisect_left(year, first) if first <= last else 0 : bisect_right(year, last)]
            near += year[bisect_left(year, first) :] if first > last else []
            assert set(near) == set().union(*names[number : number + most + 1]), (today, most)
