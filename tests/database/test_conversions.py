"""Is each contact's conversion counted once, however often somebody looks, and only if it came after the message?"""

from datetime import UTC, datetime, timedelta
from math import log1p
from typing import Any

import pytest

from database import conversions, event_intake, tracking
from database.conversions import Sums
from marketing.events import NewEvent
from marketing.experiments import Conversion
from marketing.hits import Hit
from marketing.machines import Action
from tests.conftest import TestAccount
from tests.delivering import execute
from tests.sent import SentMessage, sent_messages

SENT = datetime.now(UTC) - timedelta(hours=2)
BOUGHT = Conversion(event="bought", within="3 hours")


async def messages(account: TestAccount, count: int) -> list[SentMessage]:
    """Of an experiment, sent two hours ago: of variant A the first half, of B the second."""
    sent = await sent_messages(account, count, sent_at=SENT)
    await execute(
        account,
        "INSERT INTO experiments (campaign_id, account_id, test_began_at) VALUES (:id, :account_id, :began)",
        id=sent[0].campaign_id,
        account_id=account.id,
        began=SENT,
    )
    for variant, half in (("A", sent[: count // 2]), ("B", sent[count // 2 :])):
        ids = [each.contact_id for each in half]
        await execute(account, "UPDATE deliveries SET variant = :v WHERE contact_id = ANY (:ids)", v=variant, ids=ids)
    return sent


async def bought(message: SentMessage, after: timedelta = timedelta(hours=1), **told: Any) -> None:
    event = {"name": "bought", "contact": {"id": message.contact_id}, "occurred_at": SENT + after, **told}
    async with message.account.transaction() as tx:
        await event_intake.store(tx, message.account.id, [NewEvent.model_validate(event)])


async def folded(account: TestAccount, sent: list[SentMessage], of: Conversion = BOUGHT) -> dict[str, Sums]:
    async with account.transaction() as tx:
        await conversions.fold(tx, account.id, sent[0].campaign_id, of)
        return await conversions.sums(tx, sent[0].campaign_id)


async def test_who_converts_is_counted_once_and_each_time_is(account: TestAccount) -> None:
    sent = await messages(account, 4)
    await bought(sent[0])
    await bought(sent[0])
    await bought(sent[3])
    found = await folded(account, sent)
    assert {name: (sums.converted, sums.conversions) for name, sums in found.items()} == {"A": (1, 2), "B": (1, 1)}


async def test_folding_again_changes_nothing_and_what_came_meanwhile_is_added(account: TestAccount) -> None:
    sent = await messages(account, 2)
    await bought(sent[0], value=10)
    first = await folded(account, sent)
    assert await folded(account, sent) == first
    await bought(sent[0], value=5)
    assert (await folded(account, sent))["A"] == Sums(
        converted=1, conversions=2, paid=1, revenue=15, squares=225, logs=log1p(15), log_squares=log1p(15) ** 2
    )


async def test_only_what_comes_after_the_message_and_in_time_counts(account: TestAccount) -> None:
    sent = await messages(account, 6)
    short = Conversion(event="bought", within="1 hour")
    for message, after in zip(sent, (-1, 0, 3_599, 3_600, 4_000), strict=False):
        await bought(message, timedelta(seconds=after))
    found = await folded(account, sent, short)
    assert {name: sums.converted for name, sums in found.items()} == {"A": 2}


async def test_others_who_did_it_are_not_counted(account: TestAccount, other_account: TestAccount) -> None:
    sent, elsewhere = await messages(account, 2), await messages(other_account, 2)
    await bought(elsewhere[0])
    [not_of_it] = await sent_messages(account)
    await bought(not_of_it)
    await execute(account, "UPDATE deliveries SET state = 'failed' WHERE id = :id", id=sent[0].delivery_id)
    await bought(sent[0])
    assert await folded(account, sent) == {}


async def test_those_who_got_nothing_on_purpose_are_counted_as_such(account: TestAccount) -> None:
    sent = await messages(account, 2)
    held = "UPDATE deliveries SET variant = 'holdout', state = 'skipped', reason = 'holdout', leased_at = NULL"
    await execute(account, f"{held} WHERE id = :id", id=sent[0].delivery_id)
    await bought(sent[0])
    assert (await folded(account, sent))["holdout"].converted == 1


async def test_a_click_that_was_a_machines_after_all_is_no_conversion_any_more(account: TestAccount) -> None:
    sent = await messages(account, 4)
    clicked = Conversion(event="message.clicked")

    async def click(message: SentMessage, after: timedelta, link: int) -> None:
        hit = Hit(Action.CLICK, message.delivery_id, SENT + after, link=link)
        await tracking.store(account.database, account.id, [hit])

    for message in (sent[0], sent[3]):
        await click(message, timedelta(minutes=1), link=1)
    assert {name: sums.converted for name, sums in (await folded(account, sent, clicked)).items()} == {"A": 1, "B": 1}
    await click(sent[0], timedelta(minutes=1, milliseconds=200), link=2)
    assert {name: sums.converted for name, sums in (await folded(account, sent, clicked)).items()} == {"B": 1}
    await click(sent[0], timedelta(minutes=9), link=2)
    assert {name: sums.converted for name, sums in (await folded(account, sent, clicked)).items()} == {"A": 1, "B": 1}


@pytest.mark.parametrize(("currency", "revenue"), [(None, 30), ("EUR", 10)])
async def test_revenue_is_of_the_currency_that_was_asked_for(
    account: TestAccount, currency: str | None, revenue: int
) -> None:
    sent = await messages(account, 2)
    await bought(sent[1], value=10, currency="EUR")
    await bought(sent[1], value=20, currency="CZK")
    of = BOUGHT.model_copy(update={"currency": currency})
    assert (await folded(account, sent, of))["B"].revenue == revenue
    async with account.transaction() as tx:
        assert await conversions.currencies(tx, sent[0].campaign_id) == ([currency] if currency else ["CZK", "EUR"])


async def test_refunds_are_taken_off_and_are_no_conversions_themselves(account: TestAccount) -> None:
    sent = await messages(account, 4)
    await bought(sent[0], value=10)
    await bought(sent[0], value=-4)
    await bought(sent[1], value=-50)
    sums = (await folded(account, sent))["A"]
    assert (sums.converted, sums.conversions, sums.paid, sums.revenue) == (1, 1, 1, 6)
    async with account.transaction() as tx:
        assert await conversions.payments(tx, sent[0].campaign_id) == {"A": [6]}


async def test_what_was_counted_stays_so_when_its_event_is_kept_no_longer(account: TestAccount) -> None:
    sent = await messages(account, 4)
    soon, late, too_late = (timedelta(minutes=minutes) for minutes in (30, 60, 100))
    short = Conversion(event="bought", within="90 minutes")
    for message, after in ((sent[0], soon), (sent[0], late), (sent[3], soon)):
        await bought(message, after, value=10)
    first = await folded(account, sent, short)
    assert {name: sums.conversions for name, sums in first.items()} == {"A": 2, "B": 1}
    await execute(account, "DELETE FROM events WHERE occurred_at = :soon", soon=SENT + soon)
    for message in (sent[0], sent[3]):
        await bought(message, too_late, value=10)
    assert await folded(account, sent, short) == first
