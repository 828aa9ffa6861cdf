"""The audience of an experiment is shared out by chance over contacts, and by nothing else for one of them."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from scipy.stats import chisquare
from sqlalchemy import text

from database import planning
from marketing.assignment import bucket
from marketing.experiments import REST_SHARD, Experiment, experiment_key
from marketing.schedules import Schedule
from tests.audience import people
from tests.broadcast import Broadcast
from tests.conftest import TestAccount
from tests.delivering import NOW, execute, freeze
from tests.experimenting import experiment


class Planned(NamedTuple):
    id: UUID
    contact_id: UUID
    variant: str
    shard: int
    not_before: datetime


async def planned(sent: Broadcast) -> list[Planned]:
    async with sent.account.transaction() as tx:
        rows = await tx.execute(
            text(f"SELECT {', '.join(Planned._fields)} FROM deliveries WHERE campaign_id = :id ORDER BY id"),
            {"id": sent.id},
        )
        return [Planned(*row) for row in rows]


def variants(*names: str, **parts: Any) -> list[dict[str, Any]]:
    return [{"name": name, **parts.get(name, {})} for name in names]


async def test_the_ledger_has_for_everybody_the_variant_that_their_place_says(account: TestAccount) -> None:
    contacts = await people(account, 2000)
    written: dict[str, Any] = {
        "variants": variants("A", "B", "C"),
        "allocation": {"A": 1, "B": 1, "C": 2},
        "holdout": 0.1,
        "test_fraction": 0.4,
    }
    sent = await experiment(account, **written)
    await freeze(sent)
    cells = Experiment(metric="click_rate", **written).cells
    rows = await planned(sent)
    assert {row.contact_id: row.variant for row in rows} == {
        each: cells.of(bucket(experiment_key(sent.id), each)) for each in contacts
    }
    found = Counter(row.variant for row in rows)
    assert chisquare([found[name] for name in ("holdout", "A", "B", "C", "")], [200, 180, 180, 360, 1080]).pvalue > 1e-4
    stats = await sent.stats()
    assert {name: figures.planned for name, figures in stats.per_variant.items()} == {
        **{name: n for name, n in found.items() if name},
        "rest": found[""],
    }
    assert (stats.planned, stats.reconciles) == (2000, True)


async def test_the_rest_has_shards_of_its_own_which_are_told_apart(account: TestAccount) -> None:
    await people(account, 300)
    sent = await experiment(account, holdout=0.1)
    frozen = await freeze(sent, shard_size=20)
    shards = defaultdict(set)
    for row in await planned(sent):
        shards[row.shard].add(row.variant)
    test = {number for number in shards if number < REST_SHARD}
    rest = shards.keys() - test
    assert test == set(range(len(test))) and rest == set(range(REST_SHARD, REST_SHARD + len(rest)))
    assert set.union(*(shards[number] for number in test)) == {"A", "B", "holdout"}
    assert all(shards[number] == {""} for number in rest)
    assert [(wave.first, wave.last) for wave in frozen.waves] == [
        (0, len(test) - 1),
        (REST_SHARD, REST_SHARD + len(rest) - 1),
    ]
    standing = await sent.standing()
    assert (standing.rest_shard, standing.test_began_at, standing.state) == (REST_SHARD, NOW, "testing")


async def test_whoever_freezes_again_finds_everybody_where_they_were(account: TestAccount) -> None:
    await people(account, 200)
    sent = await experiment(account, holdout=0.2)
    await freeze(sent)
    before = await sent.variants()
    assert (await freeze(sent)).planned == 200
    assert len(await planned(sent)) == 200
    # As if all had been taken back with the transaction of a worker that was killed in between.
    await execute(account, "DELETE FROM deliveries WHERE campaign_id = :id", id=sent.id)
    await execute(account, "UPDATE campaigns SET started_at = NULL WHERE id = :id", id=sent.id)
    await freeze(sent)
    assert await sent.variants() == before
    assert len({row.id for row in await planned(sent)}) == 200


async def test_another_experiment_shares_the_same_contacts_out_anew(account: TestAccount) -> None:
    await people(account, 400)
    first, second = await experiment(account, test_fraction=1), await experiment(account, test_fraction=1)
    for each in (first, second):
        await freeze(each)
    one, other = await first.variants(), await second.variants()
    both = Counter((one[contact], other[contact]) for contact in one)
    assert chisquare([both[a, b] for a in "AB" for b in "AB"]).pvalue > 1e-4


async def test_a_bandits_test_leaves_in_batches_over_its_time_and_nobody_has_a_variant_before(
    account: TestAccount,
) -> None:
    await people(account, 400)
    sent = await experiment(account, allocation="bandit", batches=4, decide={"after": "4 hours"}, holdout=0.1)
    frozen = await freeze(sent)
    rows = await planned(sent)
    assert {row.variant for row in rows} == {"", "holdout"}
    test = [row for row in rows if row.shard < REST_SHARD]
    assert {row.not_before - NOW for row in test if row.shard == 2} == {timedelta(hours=2)}
    found = Counter(row.shard for row in test)
    assert chisquare([found[number] for number in range(4)]).pvalue > 1e-4
    held = Counter(row.shard for row in rows if row.variant == "holdout")
    assert set(held) == {0, 1, 2, 3}, "who is held out waits as long as those with whom they are compared"
    assert {row.not_before for row in rows if row.shard >= REST_SHARD} == {NOW}
    assert [(wave.first, wave.last) for wave in frozen.waves] == [
        *((number, number) for number in range(4)),
        (REST_SHARD, REST_SHARD),
    ]


async def test_an_audience_of_nobody_is_frozen_too(account: TestAccount) -> None:
    sent = await experiment(account)
    frozen = await freeze(sent)
    assert (frozen.planned, frozen.waves) == (0, [])
    assert (await sent.standing()).test_began_at == NOW


async def test_the_rest_gets_a_schedule_that_has_won_when_the_clock_shows_it_next(account: TestAccount) -> None:
    for zone in ("Asia/Tokyo", "Europe/Paris", None):
        await people(account, 20, name=str(zone), timezone=zone)
    sent = await experiment(account)
    await freeze(sent)
    passed = Schedule.model_validate({"send_at": "2026-11-26T19:00", "timezone": "recipient"})
    async with account.transaction() as tx:
        await planning.put_off_rest(tx, sent.id, passed, now=NOW, default_timezone="UTC")
    moments = defaultdict(set)
    for row in await planned(sent):
        moments[row.shard >= REST_SHARD].add(row.not_before)
    tokyo, paris, utc = (NOW.replace(day=day, hour=hour) for day, hour in ((28, 10), (27, 18), (27, 19)))
    assert moments == {False: {NOW}, True: {tokyo, paris, utc}}


async def test_a_variant_with_a_schedule_of_its_own_leaves_when_that_says(account: TestAccount) -> None:
    for zone in ("Asia/Tokyo", "Europe/Paris", None):
        await people(account, 20, name=str(zone), timezone=zone)
    local = {"schedule": {"send_at": "2126-11-27T09:00", "timezone": "recipient"}}
    fixed = {"schedule": {"send_at": "2126-11-27T10:00", "timezone": "Europe/Paris"}}
    names = variants("A", "B", "C", B=local, C=fixed)
    sent = await experiment(account, variants=names, test_fraction=0.9)
    await freeze(sent)
    moments = defaultdict(set)
    for row in await planned(sent):
        moments[row.variant].add(row.not_before)
    morning = datetime(2126, 11, 27, tzinfo=UTC)
    assert moments == {
        "A": {NOW},
        "": {NOW},
        "B": {morning, morning + timedelta(hours=8), morning + timedelta(hours=9)},
        "C": {morning + timedelta(hours=9)},
    }
