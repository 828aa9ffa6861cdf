"""What does each variant's contact get, and what may leave when?"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from typing import Any
from uuid import UUID

from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.campaigns import Campaigns
from activities.inputs import SkipRestInput
from channels.outbox import Outbox
from channels.sink import Sink
from channels.smtp import SmtpChannel
from database import experiments, tracking
from database.experiments import Allocation
from marketing.accounts import FrequencyCap
from marketing.campaigns import CampaignState
from marketing.experiment_decisions import Verdict
from marketing.experiments import REST_SHARD, experiment_key
from marketing.hits import Hit
from marketing.machines import Action
from marketing.tracking import Clicked, Tokens
from tests.audience import people
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount
from tests.delivering import NOW, change_account, deliver, execute, freeze
from tests.experimenting import Experimenting, experiment

TOKENS, NOWHERE = Tokens(SECRET_KEY), Clicked(UUID(int=0), UUID(int=0), -1, None)
OWN = (
    '<p><a href="https://shop.example.com/own">Own</a> <a href="https://shop.example.com/sale">The sale</a></p>'
    '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
VARIANTS: list[dict[str, Any]] = [
    {"name": "A", "content": {"email": {"subject": "A for {{ contact.first_name }}"}}},
    {"name": "B", "content": {"email": {"html": OWN, "from_name": "Anna", "from_email": "anna@example.com"}}},
]


async def decided(sent: Experimenting, winner: str) -> None:
    async with sent.account.transaction() as tx:
        said = Verdict(winner, "person", "Why.")
        assert await experiments.decide(tx, sent.account.id, sent.id, said, {}, NOW)


# -- who gets what ---------------------------------------------------------------------------------------------------


def parts(content: bytes) -> Mapping[str, str]:
    """What an e-mail says in its head, and its HTML."""
    message = message_from_bytes(content, policy=default)
    html = message.get_body(("html",))
    assert html
    return {**{name.lower(): str(value) for name, value in message.items()}, "html": html.get_content()}


async def test_each_variant_has_its_own_content_and_sender_and_the_campaigns_for_the_rest(account: TestAccount) -> None:
    await people(account, 40)
    sent = await experiment(account, variants=VARIANTS, test_fraction=1)
    await freeze(sent)
    async with Sink(keep_contents=100) as sink:
        email = SmtpChannel(sink.url, connections=4)
        await deliver(sent, email)
        await email.close()
    async with account.transaction() as tx:
        rows = await tx.execute(
            text(
                "SELECT email, variant FROM deliveries, contacts WHERE campaign_id = :id AND contacts.id = contact_id"
            ),
            {"id": sent.id},
        )
        variant = {row.email: row.variant for row in rows}
    got = {each["to"]: each for each in map(parts, sink.contents)}
    assert got.keys() == variant.keys() and set(variant.values()) == {"A", "B"}
    for to, message in got.items():
        says = {
            "A": ("A for Person", "Example Outfitters <news@example.com>", ["The collection", "The sale"]),
            "B": ("Hello Person", "Anna <anna@example.com>", ["Own", "The sale"]),
        }[variant[to]]
        assert re.match(rf"{says[0]} \d+$", message["subject"])
        assert message["from"] == says[1]
        assert re.findall(r"<a [^>]*>([^<]*)</a>", message["html"]) == [*says[2], "Unsubscribe"]
        assert message["feedback-id"].split(":")[1] == "experiment"
    assert (await sent.stats()).per_variant["A"].sent == list(variant.values()).count("A")


async def test_a_link_has_one_number_whichever_variant_it_is_in(account: TestAccount) -> None:
    await people(account, 20)
    sent = await experiment(account, variants=VARIANTS, test_fraction=1)
    await freeze(sent)
    outbox = Outbox()
    await deliver(sent, outbox)
    async with account.transaction() as tx:
        rows = await tx.execute(text("SELECT number, url FROM links WHERE campaign_id = :id"), {"id": sent.id})
        numbers = {row.url.rpartition("/")[2]: row.number for row in rows}
    assert numbers == {"autumn": 0, "sale": 1, "own": 2}
    for message in outbox.messages:
        assert message.html
        tokens = re.findall(rf"{PUBLIC_URL}/t/c/([\w.=-]+)", message.html)
        found = [(TOKENS.read_click(token, datetime.now(UTC)) or NOWHERE).link for token in tokens]
        assert found == ([0, 1] if message.subject.startswith("A") else [2, 1])


async def test_clicks_count_for_the_variant_that_was_clicked(account: TestAccount) -> None:
    await people(account, 60)
    sent = await experiment(account, test_fraction=0.8, holdout=0.1)
    await freeze(sent)
    await deliver(sent, Outbox())
    await decided(sent, "B")
    await deliver(sent, Outbox(), shard=REST_SHARD)
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT id, variant FROM deliveries WHERE campaign_id = :id AND state = 'sent'"), {"id": sent.id}
        )
        ids = {row.id: row.variant for row in rows}
    hits = [Hit(Action.CLICK, id, NOW + timedelta(minutes=5), None, 0) for id, variant in ids.items() if variant != "A"]
    await tracking.store(account.database, account.id, hits)
    stats = await sent.stats()
    clicked = {name: figures.clicked.unique for name, figures in stats.per_variant.items()}
    assert clicked == {"A": 0, "B": stats.per_variant["B"].sent, "holdout": 0, "rest": stats.per_variant["rest"].sent}
    assert all(figures.reconciles for figures in stats.per_variant.values())


# -- who gets nothing ------------------------------------------------------------------------------------------------


async def test_who_is_held_out_gets_nothing_but_for_a_reason_of_their_own(account: TestAccount) -> None:
    contacts = await people(account, 200)
    await people(account, 40, name="silent", subscribed=False)
    sent = await experiment(account, test_fraction=1, holdout=0.4)
    await freeze(sent)
    held = [each for each, variant in (await sent.variants()).items() if variant == "holdout" and each in contacts]
    leaving, gone = held[:5], held[5:8]
    await execute(account, "UPDATE subscriptions SET status = 'unsubscribed' WHERE contact_id = ANY(:ids)", ids=leaving)
    await execute(account, "UPDATE contacts SET deleted_at = now() WHERE id = ANY(:ids)", ids=gone)
    outbox = Outbox()
    await deliver(sent, outbox)
    became = await sent.became()
    silent = became["holdout"].pop("skipped:no_consent")
    assert became["holdout"] == {
        "skipped:contact_deleted": 3,
        "skipped:unsubscribed": 5,
        "skipped:holdout": len(held) - 8,
    }
    assert silent > 0
    assert sum(each.keys() & {"sent"} != set() for each in became.values()) == 2
    stats = await sent.stats()
    assert stats.per_variant["holdout"].skipped_by_reason["holdout"] == len(held) - 8
    assert stats.sent == len(outbox.messages) == stats.per_variant["A"].sent + stats.per_variant["B"].sent


async def test_a_cap_counts_those_who_are_held_out_as_it_counts_the_others(account: TestAccount) -> None:
    """Who could not have got a message is no fair comparison."""
    await people(account, 100)
    earlier = await experiment(account, test_fraction=1)
    await freeze(earlier)
    await deliver(earlier, Outbox())
    await change_account(account, frequency_caps={"email": FrequencyCap(messages=1, hours=24)})
    sent = await experiment(account, test_fraction=1, holdout=0.5)
    await freeze(sent)
    await deliver(sent, Outbox())
    assert {what for each in (await sent.became()).values() for what in each} == {"skipped:frequency_cap"}


async def test_a_budget_is_not_spent_on_those_who_are_held_out(account: TestAccount) -> None:
    await people(account, 60)
    sent = await experiment(account, test_fraction=1, holdout=0.5)
    await execute(
        account, "UPDATE campaigns SET plan = jsonb_set(plan, '{max_messages}', '20') WHERE id = :id", id=sent.id
    )
    await freeze(sent)
    outbox = Outbox()
    await deliver(sent, outbox)
    assert len(outbox.messages) == 20
    became = await sent.became()
    assert became["holdout"].keys() == {"skipped:holdout"}


# -- what may leave when ---------------------------------------------------------------------------------------------


async def test_nothing_of_the_rest_leaves_before_the_decision_and_then_what_the_winner_says(
    account: TestAccount,
) -> None:
    await people(account, 60)
    sent = await experiment(account)
    await freeze(sent)
    outbox = Outbox()
    early = await deliver(sent, outbox, shard=REST_SHARD)
    assert early.stopped and not outbox.messages
    await deliver(sent, outbox)
    test = len(outbox.messages)
    await decided(sent, "B")
    late = await deliver(sent, outbox, shard=REST_SHARD)
    assert (late.stopped, late.next_due) == (False, None)
    assert {each.subject for each in list(outbox.messages)[test:]} == {"B says hello"}
    stats = await sent.stats()
    assert (stats.sent, stats.per_variant["rest"].sent, stats.pending) == (60, 60 - test, 0)


async def test_nothing_at_all_leaves_of_an_experiment_that_was_stopped(account: TestAccount) -> None:
    await people(account, 20)
    sent = await experiment(account, holdout=0.2)
    await freeze(sent)
    async with account.transaction() as tx:
        assert await experiments.stop(tx, account.id, sent.id, reason="Why.")
    outbox = Outbox()
    for shard in (0, REST_SHARD):
        assert (await deliver(sent, outbox, shard=shard)).stopped
    assert not outbox.messages
    assert (await sent.stats()).pending == 20


async def test_a_shard_of_a_bandit_waits_until_it_is_shared_out_and_that_happens_once(account: TestAccount) -> None:
    await people(account, 120)
    sent = await experiment(account, allocation="bandit", batches=2, holdout=0.2)
    await freeze(sent)
    outbox = Outbox()
    assert (await deliver(sent, outbox)).stopped and not outbox.messages
    weights = ({"A": 0.25, "B": 0.75}, {"A": 1.0, "B": 0.0})
    for share, done in zip(weights, (True, False), strict=True):
        wanted = Allocation(shard=0, weights=share, seen={}, seed=1, allocated_at=NOW)
        async with account.transaction() as tx:
            key = experiment_key(sent.id)
            assert await experiments.allocate(tx, account.id, sent.id, wanted, key=key) is done
    assert not (await deliver(sent, outbox)).stopped
    assert {each.subject[0] for each in outbox.messages} == {"A", "B"}
    assert (await deliver(sent, outbox, shard=1, now=NOW + timedelta(hours=3))).stopped
    stats = await sent.stats()
    assert all(figures.reconciles for figures in stats.per_variant.values())
    assert stats.per_variant["A"].sent + stats.per_variant["B"].sent == len(outbox.messages)
    assert stats.per_variant["rest"].pending == stats.pending - stats.per_variant["holdout"].pending


# -- lost workers ----------------------------------------------------------------------------------------------------


async def test_figures_of_each_variant_reconcile_through_a_killed_worker(account: TestAccount) -> None:
    await people(account, 200)
    sent = await experiment(account, test_fraction=1, holdout=0.2)
    await freeze(sent)
    before = await sent.variants()
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("""
                UPDATE deliveries SET state = 'sending', lease = uuidv7(), lease_until = now() - interval '1 second'
                WHERE id IN (SELECT id FROM deliveries WHERE campaign_id = :id AND variant <> 'holdout' LIMIT 30)
                RETURNING variant
            """),
            {"id": sent.id},
        )
        lost = Counter(rows.scalars())
    await deliver(sent, Outbox(), set_size=20)
    assert await sent.variants() == before
    stats = await sent.stats()
    assert (stats.pending, stats.uncertain, stats.reconciles) == (0, 30, True)
    for name, figures in stats.per_variant.items():
        assert figures.reconciles and figures.pending == 0
        assert figures.uncertain == lost[name]
        assert (figures.sent == 0) == (name == "holdout")
    assert {name: dict(each) for name, each in (await sent.became()).items()} == {
        "A": {"sent": stats.per_variant["A"].sent, "uncertain:worker_lost": lost["A"]},
        "B": {"sent": stats.per_variant["B"].sent, "uncertain:worker_lost": lost["B"]},
        "holdout": {"skipped:holdout": stats.per_variant["holdout"].skipped},
    }


async def test_what_is_cancelled_counts_for_its_variant(account: TestAccount) -> None:
    await people(account, 50)
    sent = await experiment(account, holdout=0.2)
    await freeze(sent)
    await sent.set_state(CampaignState.CANCELLED)
    input = SkipRestInput(account_id=account.id, campaign_id=sent.id, now=NOW)
    await ActivityEnvironment().run(Campaigns(account.database).skip_rest, input)
    stats = await sent.stats()
    assert stats.pending == 0
    assert {name: figures.skipped_by_reason for name, figures in stats.per_variant.items()} == {
        name: {"cancelled": figures.planned} for name, figures in stats.per_variant.items()
    }
