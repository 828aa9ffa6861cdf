"""Are the variants of an experiment compared by what is comparable?"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.experiment_inputs import AllocateInput, ChooseInput
from activities.experiments import Experiments, Figures, figures_of
from channels.outbox import Outbox
from database import counters, event_intake
from database.experiments import treated_and_held
from marketing.events import NewEvent
from marketing.experiments import Experiment
from tests.audience import people
from tests.conftest import TestAccount
from tests.delivering import deliver, execute, freeze
from tests.experimenting import experiment as launched
from tests.sent import SentMessage, sent_messages

EARLY, LATE = datetime.now(UTC) - timedelta(hours=3), datetime.now(UTC) - timedelta(minutes=30)
EVENING = {"name": "B", "schedule": {"send_at": "2026-11-27T19:00", "timezone": "UTC"}}


def experiment(metric: str, *, later: bool = True) -> Experiment:
    variants = [{"name": "A"}, EVENING if later else {"name": "B"}]
    return Experiment.model_validate({"variants": variants, "metric": metric, "conversion": {"event": "bought"}})


async def under_way(account: TestAccount, count: int = 6) -> list[SentMessage]:
    """Variant A left three hours ago, and B, the second half, half an hour ago."""
    sent = await sent_messages(account, count, sent_at=EARLY)
    await execute(
        account,
        "INSERT INTO experiments (campaign_id, account_id, test_began_at, test_sent_at) "
        "VALUES (:id, :account_id, :early, :late)",
        id=sent[0].campaign_id,
        account_id=account.id,
        early=EARLY,
        late=LATE,
    )
    for variant, left, half in (("A", EARLY, sent[: count // 2]), ("B", LATE, sent[count // 2 :])):
        await execute(
            account,
            "UPDATE deliveries SET variant = :variant, leased_at = :left, finished_at = :left WHERE id = ANY (:ids)",
            variant=variant,
            left=left,
            ids=[each.delivery_id for each in half],
        )
        await tally(account, sent[0].campaign_id, variant, planned=count // 2, sent=count // 2)
    return sent


async def tally(account: TestAccount, campaign_id: UUID, variant: str, **figures: int) -> None:
    async with account.transaction() as tx:
        now = datetime.now(UTC)
        await counters.add(tx, account.id, campaign_id, figures, now=now, channel="email", variant=variant)


async def react(message: SentMessage, left: datetime, after: timedelta) -> None:
    """Open it, click, and buy for 10."""
    await execute(
        message.account,
        "UPDATE deliveries SET opened_at = :at, clicked_at = :at WHERE id = :id",
        id=message.delivery_id,
        at=left + after,
    )
    told: dict[str, Any] = {"contact": {"id": message.contact_id}, "occurred_at": left + after, "value": 10}
    async with message.account.transaction() as tx:
        await event_intake.store(tx, message.account.id, [NewEvent.model_validate({"name": "bought", **told})])


async def figures(account: TestAccount, sent: list[SentMessage], of: Experiment) -> Figures:
    async with account.transaction() as tx:
        return await figures_of(tx, account.id, sent[0].campaign_id, of)


def successes(found: Figures) -> dict[str, int]:
    return {each.name: each.successes for each in found.counts}


@pytest.mark.parametrize("metric", ["open_rate", "click_rate", "conversion_rate", "revenue_per_recipient"])
async def test_variants_that_leave_at_different_times_are_compared_by_the_same_time(
    account: TestAccount, metric: str
) -> None:
    sent = await under_way(account)
    campaign = sent[0].campaign_id
    await react(sent[0], EARLY, timedelta(minutes=10))
    await react(sent[1], EARLY, timedelta(minutes=90))
    await react(sent[1], EARLY, timedelta(minutes=95))
    await react(sent[3], LATE, timedelta(minutes=20))
    for variant, n in (("A", 2), ("B", 1)):
        await tally(account, campaign, variant, opened_unique=n, clicked_unique=n)
    found = await figures(account, sent, experiment(metric))
    assert successes(found) == {"A": 1, "B": 1}
    if metric == "revenue_per_recipient":
        assert ([each.revenue for each in found.counts], found.payments) == ([10, 10], None)
    assert (found.converted["A"].converted, found.converted["A"].revenue) == (2, 30)
    assert successes(await figures(account, sent, experiment(metric, later=False))) == {"A": 2, "B": 1}
    await execute(account, "UPDATE experiments SET test_sent_at = NULL WHERE campaign_id = :id", id=campaign)
    assert successes(await figures(account, sent, experiment(metric))) == {"A": 0, "B": 0}
    over = "UPDATE campaigns SET finished_at = :late WHERE id = :id"  # as one that was stopped before the rest had left
    await execute(account, over, late=LATE, id=campaign)
    assert successes(await figures(account, sent, experiment(metric))) == {"A": 1, "B": 1}


async def test_what_sending_brought_is_told_of_the_test_alone_and_of_all_to_whom_it_went(account: TestAccount) -> None:
    sent = await under_way(account, 8)
    campaign = sent[0].campaign_id
    held = "UPDATE deliveries SET variant = 'holdout', state = 'skipped', reason = 'holdout' WHERE id = :id"
    await execute(account, held, id=sent[7].delivery_id)
    await execute(account, "UPDATE deliveries SET variant = '' WHERE id = :id", id=sent[6].delivery_id)
    for message in (sent[0], sent[6], sent[7]):
        await react(message, EARLY, timedelta(hours=2.9))
    await tally(account, campaign, "A", **{"failed:hard_bounce": 3, "failed:rejected": 2, "uncertain": 1})
    await tally(account, campaign, "holdout", **{"skipped:holdout": 20, "skipped:unsubscribed": 5})
    await tally(account, campaign, "", sent=40)
    async with account.transaction() as tx:
        together = experiment("conversion_rate", later=False)
        compared = (await figures_of(tx, account.id, campaign, together)).compared
        sides = await treated_and_held(tx, campaign, together.names, together.metric, compared)
    assert [(each.recipients, each.successes) for each in sides] == [(4 + 4 + 6, 1), (20, 1)]


async def test_who_is_held_out_of_a_batch_that_was_never_shared_out_is_compared_with_nobody(
    account: TestAccount,
) -> None:
    await people(account, 120)
    bandit: dict[str, Any] = {"allocation": "bandit", "batches": 4, "holdout": 0.4, "test_fraction": 1}
    sent = await launched(account, **bandit, metric="conversion_rate", conversion={"event": "bought"})
    await freeze(sent, now=datetime.now(UTC))
    at: dict[str, Any] = {"account_id": account.id, "campaign_id": sent.id, "now": datetime.now(UTC)}
    doing = Experiments(account.database)
    await ActivityEnvironment().run(doing.allocate_shard, AllocateInput(**at, shard=0))
    await ActivityEnvironment().run(doing.choose_winner, ChooseInput(**at, variant=0))
    for shard in range(4):
        await deliver(sent, Outbox(), shard=shard, now=datetime.now(UTC))
    assert {what for became in (await sent.became()).values() for what in became} == {"sent", "skipped:holdout"}
    async with account.transaction() as tx:
        rows = (await tx.execute(text("SELECT contact_id, variant, shard FROM deliveries"))).all()
        held = {row.contact_id: row.shard for row in rows if row.variant == "holdout"}
        buyers = [next(each for each in held if not held[each]), *(each for each in held if held[each])]
        told = [NewEvent.model_validate({"name": "bought", "contact": {"id": each}}) for each in buyers]
        await event_intake.store(tx, account.id, told)
    async with account.transaction() as tx:
        of = (await sent.plan()).experiment
        assert of
        found = await figures_of(tx, account.id, sent.id, of)
        sides = await treated_and_held(tx, sent.id, of.names, of.metric, found.compared, is_bandit=True)
    first = Counter(row.variant == "holdout" for row in rows if row.shard == 0)
    assert [(each.recipients, each.successes) for each in sides] == [(first[False], 0), (first[True], 1)]
    assert found.converted["holdout"].converted == len(buyers) > 1


@pytest.mark.parametrize("metric", ["click_rate", "conversion_rate"])
async def test_whoever_may_have_got_it_is_one_of_those_whose_reaction_counts(account: TestAccount, metric: str) -> None:
    sent = await under_way(account)
    campaign = sent[0].campaign_id
    await execute(account, "UPDATE deliveries SET state = 'uncertain' WHERE id = :id", id=sent[0].delivery_id)
    await tally(account, campaign, "A", uncertain=2, clicked_unique=4)
    for message in sent[:3]:
        await react(message, EARLY, timedelta(minutes=10))
    found = await figures(account, sent, experiment(metric, later=False))
    of_a = found.counts[0]
    assert (of_a.recipients, of_a.successes) == (5, {"click_rate": 4, "conversion_rate": 3}[metric])


async def test_whoever_has_not_been_tried_yet_counts_for_the_shares_and_whoever_is_missing_does_not(
    account: TestAccount,
) -> None:
    sent = await under_way(account)
    campaign = sent[0].campaign_id
    await tally(account, campaign, "A", **{"planned": 500, "skipped:cancelled": 60, "skipped:stopped": 40})
    await tally(account, campaign, "B", **{"planned": 500, "failed:rejected": 200, "skipped:unsubscribed": 100})
    found = await figures(account, sent, experiment("click_rate"))
    assert [(each.recipients, each.waiting) for each in found.counts] == [(3, 500), (3, 200)]
