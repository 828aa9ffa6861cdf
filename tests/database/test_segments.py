"""Does PostgreSQL tell the same people as somebody who reckons by hand?"""

import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from database.engine import Connection
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
