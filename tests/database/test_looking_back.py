"""Does whoever is let in leave because of what was routed before others could see them?"""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from database import contacts as stored_contacts
from database import leaving, sources
from database.engine import Connection
from database.enrolling import Candidate, enroll
from marketing.contacts import ContactChanges
from tests.audience import people
from tests.conftest import TestAccount
from tests.database.test_routing import EARLY, NOW, automation, form, happens, minutes, passes, route, told

NEWS: dict[str, Any] = {"topic": "news", "goal": {"event": "purchase"}, "exit_on": [{"event": "complained"}]}


async def let_in(tx: Connection, account: TestAccount, source: UUID, *contacts: UUID, now: datetime = NOW) -> None:
    found = await sources.read(tx, [source])
    await enroll(tx, account.id, found[source], [Candidate(each, "api:1") for each in contacts], now=now)


async def refuses(account: TestAccount, contact: UUID, topic: str = "", channel: str = "email") -> None:
    async with account.transaction() as tx:
        query = text("""
            INSERT INTO subscriptions (account_id, contact_id, channel, topic, status)
            VALUES (:account, :contact, :channel, :topic, 'unsubscribed')
            ON CONFLICT (contact_id, channel, topic) DO UPDATE SET status = 'unsubscribed', updated_at = now()
        """)
        given = {"account": account.id, "contact": contact, "channel": channel, "topic": topic}
        await tx.execute(query, given)


async def is_deleted(account: TestAccount, contact: UUID) -> None:
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE contacts SET deleted_at = now() WHERE id = :id"), {"id": contact})


async def what(account: TestAccount, name: str, contact: UUID) -> None:
    match name:
        case "unsubscribed":
            await refuses(account, contact, "news")
        case "deleted":
            await is_deleted(account, contact)
        case _:
            await happens(account, name, contact)


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        ("purchase", leaving.GOAL),
        ("complained", leaving.EXIT),
        ("unsubscribed", leaving.UNSUBSCRIBED),
        ("deleted", leaving.DELETED),
    ],
)
async def test_what_is_routed_before_an_entry_is_committed_has_that_contact_leave_before_it_begins(
    account: TestAccount, happened: str, reason: str
) -> None:
    source = await automation(account, trigger={"type": "api"}, **NEWS)
    zoe, joe = await people(account, 2)
    async with account.transaction() as tx:  # another connection's, as an audience of a million takes its time
        await let_in(tx, account, source, zoe, joe)
        await what(account, happened, zoe)
        assert told(await route(account)) == []
    formed = await form(account, source)
    assert formed and [each.contact_id for each in formed.members] == [joe]
    assert {contact: why for contact, _, why in await passes(account, source)} == {zoe: reason, joe: None}
    assert await form(account, source) == formed  # the answer was lost


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("happened", ["purchase", "complained"])
async def test_what_was_told_before_somebody_was_let_in_by_no_event_has_nobody_leave(
    account: TestAccount, happened: str, committed: bool
) -> None:
    source = await automation(account, trigger={"type": "api"}, **NEWS)
    before, other_clock, long_ago = await people(account, 3)
    reason = leaving.GOAL if happened == "purchase" else leaving.EXIT
    await happens(account, happened, before)
    async with AsyncExitStack() as entering:
        tx, now = await entering.enter_async_context(account.transaction()), datetime.now(UTC)
        await let_in(tx, account, source, before, other_clock, long_ago, now=now)
        if committed:
            await entering.aclose()
        await happens(account, happened, other_clock, occurred_at=now - timedelta(seconds=30))
        await happens(account, happened, long_ago, occurred_at=now - timedelta(seconds=90))
        await route(account)
    formed = await form(account, source)
    assert formed and {each.contact_id for each in formed.members} == {before, long_ago}
    assert {contact for contact, _, why in await passes(account, source) if why == reason} == {other_clock}


async def test_if_all_of_those_who_wait_have_left_there_is_no_cohort(account: TestAccount) -> None:
    source = await automation(account, trigger={"type": "api"}, **NEWS)
    zoe, joe = await people(account, 2)
    async with account.transaction() as tx:
        await let_in(tx, account, source, zoe, joe)
        for contact in (zoe, joe):
            await happens(account, "purchase", contact)
        await route(account)
    assert await form(account, source, limit=1) is None
    assert {reason for *_, reason in await passes(account, source)} == {leaving.GOAL}


@pytest.mark.parametrize(
    ("topic", "at", "left"),
    [("news", minutes(1), True), ("", minutes(1), True), ("other", minutes(1), False), ("news", minutes(-1), False)],
)
async def test_whoever_has_unsubscribed_between_a_trigger_and_the_word_of_it_leaves_at_once(
    account: TestAccount, topic: str, at: datetime, left: bool
) -> None:
    source = await automation(account, **NEWS)
    (zoe,) = await people(account, 1)
    await refuses(account, zoe, topic)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE subscriptions SET updated_at = :at"), {"at": at})
    await route(account)
    await happens(account, "order.placed", zoe, occurred_at=EARLY)
    await route(account)
    assert await passes(account, source) == [(zoe, *(("exited", "unsubscribed") if left else ("pending", None)))]


async def test_whoever_unsubscribes_may_enter_what_sends_nothing_by_that(account: TestAccount) -> None:
    trigger = {"type": "event", "event": "contact.unsubscribed"}
    steps: list[dict[str, Any]] = [{"type": "tag", "add": ["gone"]}, {"type": "wait", "duration": "1 day"}]
    source = await automation(account, trigger=trigger, steps=steps)
    (zoe,) = await people(account, 1)
    await happens(account, "contact.unsubscribed", zoe, occurred_at=NOW)
    await refuses(account, zoe)
    await route(account)
    assert await passes(account, source) == [(zoe, "pending", None)]
    assert await form(account, source)


@pytest.mark.parametrize("said_at", [None, NOW - timedelta(days=1)])
@pytest.mark.parametrize("routed_before", [False, True])
async def test_only_another_unsubscribing_than_what_a_pass_began_with_has_contacts_leave(
    account: TestAccount, said_at: datetime | None, routed_before: bool
) -> None:
    source = await automation(account, trigger={"type": "event", "event": "contact.unsubscribed"}, topic="news")
    zoe, joe = await people(account, 2)

    async def unsubscribes(contact: UUID, topic: str, at: datetime | None) -> None:
        said = {"channel": "email", "topic": topic, "status": "unsubscribed", "consent": {"at": at}}
        async with account.transaction() as tx:
            await stored_contacts.change(
                tx, account.id, contact, ContactChanges.model_validate({"subscriptions": [said]})
            )

    for contact in (zoe, joe):
        await unsubscribes(contact, "news", said_at)
    await route(account, forget=routed_before)
    assert await passes(account, source) == [(zoe, "pending", None), (joe, "pending", None)]
    formed = await form(account, source)
    assert formed
    (member,) = [number for number, each in enumerate(formed.members) if each.contact_id == zoe]
    await unsubscribes(zoe, "", None)
    assert set(told(await route(account))) == {(member, leaving.UNSUBSCRIBED, False)}
