"""Does a bandit move to the better variant, and can each of its shares be explained afterwards?"""

from collections import Counter
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.experiment_inputs import AllocateInput, ChooseInput
from activities.experiments import Experiments
from channels.sink import Sink
from database import counters, experiments
from database.experiments import Allocation
from marketing.assignment import HOLDOUT, bucket, shared_out
from marketing.experiment_bandits import allocation
from marketing.experiment_results import Metric, VariantCounts
from marketing.experiments import experiment_key
from tests.audience import people
from tests.conftest import TestAccount
from tests.delivering import NOW, freeze
from tests.experimenting import Experimenting, click, experiment, letters, skip, start
from workflows.experiments import ExperimentWorkflow
from workflows.inputs import ChooseWinner

pytestmark = pytest.mark.usefixtures("worker")


BANDIT: dict[str, Any] = {"allocation": "bandit", "test_fraction": 1, "batches": 6, "decide": {"after": "6 hours"}}


async def allocations(sent: Experimenting) -> list[Allocation]:
    async with sent.account.transaction() as tx:
        return await experiments.all_allocations(tx, sent.id)


async def allocate(sent: Experimenting, shard: int) -> None:
    input = AllocateInput(account_id=sent.account.id, campaign_id=sent.id, shard=shard, now=NOW)
    await ActivityEnvironment().run(Experiments(sent.account.database).allocate_shard, input)


async def until_sent(sent: Experimenting, batches: int) -> None:
    """All of the first ones are, and who was in them was shared out."""
    left = "SELECT count(*) FROM deliveries WHERE shard < :batches AND state IN ('planned', 'sending')"
    while True:
        if len(await allocations(sent)) >= batches:
            async with sent.account.transaction() as tx:
                if not (await tx.execute(text(left), {"batches": batches})).scalar_one():
                    return


async def test_shares_move_to_the_better_variant_and_all_of_it_adds_up(
    temporal: Client, app: FastAPI, sink: Sink, account: TestAccount
) -> None:
    await people(account, 240)
    sent = await experiment(account, **BANDIT)
    run = await start(temporal, sent)
    asked: set[str] = set()
    for batch in range(1, 7):
        await until_sent(sent, batch)
        await click(app, sink, sent, {"A": 0.1, "B": 0.8}, asked=asked)
        await skip(temporal, run, hours=1)
    assert (await run.result()).sent == 240
    shares = [each.weights["B"] for each in await allocations(sent)]
    assert 0.45 < shares[0] < 0.55 and min(shares[2:]) > 0.9
    standing, given = await sent.standing(), Counter((await sent.variants()).values())
    assert (standing.winner, standing.decided_by) == ("B", "bandit")
    assert given["B"] > 180 and given["A"] + given["B"] == 240
    stats = await sent.stats()
    assert {name: each.planned for name, each in stats.per_variant.items() if each.planned} == given
    assert stats.reconciles and all(each.reconciles for each in stats.per_variant.values())


async def test_every_share_and_every_place_can_be_computed_again(account: TestAccount) -> None:
    await people(account, 240)
    sent = await experiment(account, **BANDIT)
    await freeze(sent)
    seen = {("A", "sent"): 100, ("A", "clicked_unique"): 10, ("B", "sent"): 90, ("B", "clicked_unique"): 12}
    async with account.transaction() as tx:
        await counters.add_to_variants(tx, account.id, sent.id, seen, now=NOW, channel="email")
    for shard in range(6):
        await allocate(sent, shard)
    first, *_ = made = await allocations(sent)
    assert first.seen == {"A": {"recipients": 100, "successes": 10}, "B": {"recipients": 90, "successes": 12}}
    counts = [VariantCounts(name=name, **told) for name, told in first.seen.items()]
    assert all(each.weights == allocation(counts, Metric.CLICK_RATE, each.seed) for each in made)
    assert len({each.seed for each in made}) == 6
    async with account.transaction() as tx:
        rows = (await tx.execute(text("SELECT contact_id, shard, variant FROM deliveries"))).all()
    key = experiment_key(sent.id)
    for row in rows:
        place = bucket(f"{key}:{row.shard}", row.contact_id)
        assert row.variant == shared_out(made[row.shard].weights).of(place)


async def test_a_shard_is_shared_out_once(account: TestAccount) -> None:
    await people(account, 60)
    sent = await experiment(account, **BANDIT)
    await freeze(sent)
    await allocate(sent, 0)
    given, [first] = await sent.variants(), await allocations(sent)
    async with account.transaction() as tx:
        known = {("A", "sent"): 100, ("B", "sent"): 100, ("B", "clicked_unique"): 99}
        await counters.add_to_variants(tx, account.id, sent.id, known, now=NOW, channel="email")
    await allocate(sent, 0)
    assert (await sent.variants(), await allocations(sent)) == (given, [first])
    assert given != dict.fromkeys(given, "") and "" in given.values()


async def test_once_there_is_a_winner_it_gets_whatever_is_left_at_once(
    temporal: Client, sink: Sink, account: TestAccount
) -> None:
    await people(account, 100)
    sent = await experiment(account, **BANDIT, holdout=0.2)
    run = await start(temporal, sent)
    await until_sent(sent, 1)
    await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=1))
    totals = await run.result()
    assert [each.shard for each in await allocations(sent)] == [0]
    became = await sent.became()
    assert set(became["A"]) == set(became["B"]) == set(became[""]) == {"sent"}
    assert set(became[HOLDOUT]) == {"skipped:holdout"} and totals.sent + totals.skipped == 100
    assert Counter(subject[0] for _, subject, _ in letters(sink, account)) == {
        "A": became["A"]["sent"],
        "B": became["B"]["sent"] + became[""]["sent"],
    }


async def test_a_batch_that_is_shared_out_as_the_winner_is_chosen_joins_the_rest(account: TestAccount) -> None:
    await people(account, 60)
    sent = await experiment(account, **BANDIT)
    await freeze(sent)
    chosen = ChooseInput(account_id=account.id, campaign_id=sent.id, now=NOW, variant=0)
    await ActivityEnvironment().run(Experiments(account.database).choose_winner, chosen)
    await allocate(sent, 3)
    assert (await allocations(sent), set((await sent.variants()).values())) == ([], {""})
    async with account.transaction() as tx:
        assert await experiments.may_send(tx, sent.id, 3, is_bandit=True) == (True, "A")
