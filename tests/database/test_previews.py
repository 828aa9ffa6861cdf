"""Whom criteria mean, counted and shown while somebody waits."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from database.segments import TakesTooLong, condition, count_and_sample, plan_well
from marketing.segments import MOST_NODES, parse
from tests.conftest import TestAccount

NOW = datetime.now(UTC)


async def people(account: TestAccount, count: int) -> list[UUID]:
    """So many contacts, whose attribute `n` counts them, and a third of whom bought something."""
    async with account.transaction() as tx:
        made = await tx.execute(
            text("""
                INSERT INTO contacts (account_id, external_id, attributes)
                SELECT :account, n, jsonb_build_object('n', n) FROM generate_series(0, :count - 1) AS n RETURNING id
            """),
            {"account": account.id, "count": count},
        )
        ids = list(made.scalars())
        await tx.execute(
            text("""
                INSERT INTO events (account_id, name, contact_id, value)
                SELECT :account, 'purchase', id, 10 FROM contacts WHERE mod(CAST(attributes ->> 'n' AS int), 3) = 0
            """),
            {"account": account.id},
        )
    return ids


async def counted(account: TestAccount, criteria: dict[str, Any]) -> tuple[int, list[UUID]]:
    async with account.transaction() as tx:
        return await count_and_sample(tx, parse(criteria), now=NOW)


async def test_the_size_is_exact_and_ten_are_shown(account: TestAccount) -> None:
    ids = await people(account, 500)
    size, some = await counted(account, {"field": "attributes.n", "at_least": 100})
    assert size == 400
    assert len(set(some)) == 10
    assert set(some) <= set(ids[100:])


@pytest.mark.parametrize("few", range(1, 11))
async def test_of_few_all_are_shown(account: TestAccount, few: int) -> None:
    ids = await people(account, 60)
    size, some = await counted(account, {"field": "attributes.n", "less_than": few})
    assert size == few
    assert sorted(some) == ids[:few]


async def test_of_nobody_nobody_is_shown(account: TestAccount) -> None:
    assert await counted(account, {"event": "purchase"}) == (0, [])


async def test_who_was_deleted_is_not_counted(account: TestAccount) -> None:
    ids = await people(account, 12)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE contacts SET deleted_at = now() WHERE id = :id"), {"id": ids[3]})
    size, some = await counted(account, {"event": "purchase"})
    assert (size, set(some)) == (3, {ids[0], ids[6], ids[9]})


async def test_an_account_sees_its_own(account: TestAccount, other_account: TestAccount) -> None:
    await people(account, 30)
    assert await counted(other_account, {"not": {"event": "purchase"}}) == (0, [])


async def test_what_takes_too_long_is_ended_and_told(account: TestAccount) -> None:
    await people(account, 20_000)
    slow = {"any": [{"field": "attributes.n", "contains": f"no such {n}"} for n in range(MOST_NODES - 2)]}
    with pytest.raises(TakesTooLong, match="make a segment of them"):
        async with account.transaction() as tx:
            await count_and_sample(tx, parse(slow), now=NOW, seconds=0.05)


def nested(leaves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All of them in one tree of pairs, as much negated as not."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    return {"any": [{"not": nested(leaves[:half])}, {"all": [nested(leaves[half:])]}]}


LEAVES: list[Callable[[int], dict[str, Any]]] = [
    lambda n: {"field": f"attributes.n{n}", "exists": False},
    lambda n: {"event": f"purchase {n}", "never": True},
    lambda n: {"event": "purchase", "count": {"less_than": 2 + n}, "within": "30 days"},
    lambda n: {"total": "purchase.value", "at_most": 10 + n},
]


@pytest.mark.parametrize("leaf", LEAVES)
async def test_as_many_criteria_as_there_may_be_are_answered_in_time(
    account: TestAccount, leaf: Callable[[int], dict[str, Any]]
) -> None:
    """To plan joins takes the longer the more there are: a hundred a minute."""
    await people(account, 300)
    together = {"all": [leaf(n) for n in range(MOST_NODES - 2)]}
    assert (await counted(account, together))[0] == 300
    assert (await counted(account, {"not": together}))[0] == 0
    entangled = nested([leaf(n) for n in range(100)])
    assert (await counted(account, entangled))[0] in (0, 300)


async def test_what_is_planned_well_is_planned_so_until_the_transaction_ends(account: TestAccount) -> None:
    asked = text("SELECT current_setting('work_mem'), current_setting('plan_cache_mode')")
    async with account.transaction() as tx:
        before = (await tx.execute(asked)).one()
        await plan_well(tx, parse({"event": "purchase"}))
        within = (await tx.execute(asked)).one()
    async with account.transaction() as tx:
        after = (await tx.execute(asked)).one()
    assert before == after != within


async def test_a_large_set_is_looked_up_and_not_looked_through(account: TestAccount) -> None:
    """Below an `any`, what is not expected to fit into memory would be read once for each contact."""
    criteria = parse({"any": [{"field": "attributes.n", "is": 1}, {"event": "purchase"}]})
    where, parameters = condition(criteria, now=NOW)
    async with account.transaction() as tx:
        await plan_well(tx, criteria)
        plan = (await tx.execute(text(f"EXPLAIN SELECT id FROM contacts WHERE {where}"), parameters)).scalars()
        assert "hashed" in "\n".join(plan)
