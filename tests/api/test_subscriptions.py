"""Leaving, coming back and choosing: by a person on a page, by a mail program in one click, and never by a scanner."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from activities.journey_inputs import Answer
from channels.outbox import Outbox
from database import accounts
from marketing.accounts import AccountSettings, Topic
from tests.conftest import TestAccount, client_for
from tests.delivering import execute
from tests.journeys import steps
from tests.sent import SentMessage, links, sent_messages

ONE_CLICK = {"List-Unsubscribe": "One-Click"}  # RFC 8058, §3.1
TOPICS = [
    Topic(key="news", name="Newsletter", description="What is new, once a month"),
    Topic(key="offers", name="Offers & <sales>"),
]


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(app, None) as client:
        yield client


@pytest.fixture
async def shop(account: TestAccount) -> TestAccount:
    """An account with topics."""
    async with account.transaction() as tx:
        settings = AccountSettings(name="Example Outfitters", topics=TOPICS, postal_address="1 Example Street, Paris")
        await accounts.replace(tx, account.id, settings)
    return account


@pytest.fixture
async def letter(shop: TestAccount) -> SentMessage:
    """A message about the newsletter."""
    return (await sent_messages(shop, topic="news"))[0]


@pytest.fixture
async def message(account: TestAccount) -> SentMessage:
    """A message about no topic, of an account that has none."""
    return (await sent_messages(account))[0]


async def statuses(message: SentMessage) -> Mapping[str, str]:
    async with message.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT topic, status FROM subscriptions WHERE contact_id = :id"), {"id": message.contact_id}
        )
        return {row.topic: row.status for row in rows}


async def counted(message: SentMessage) -> tuple[int, int, bool]:
    """How often people left, how many stay away, and whether the delivery says so."""
    async with message.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT name, sum(n)::int FROM counters WHERE campaign_id = :id GROUP BY name"),
            {"id": message.campaign_id},
        )
        figures: dict[str, int] = dict(tuple(row) for row in rows)
        left = await tx.execute(
            text("SELECT unsubscribed_at IS NOT NULL FROM deliveries WHERE id = :id"), {"id": message.delivery_id}
        )
        return figures.get("unsubscribed", 0), figures.get("unsubscribed_unique", 0), left.scalar_one()


async def events(message: SentMessage) -> list[str]:
    async with message.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT name FROM events WHERE contact_id = :id ORDER BY id"), {"id": message.contact_id}
        )
        return list(rows.scalars())


def heading(page: httpx.Response) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page.text, re.DOTALL)
    return found[1] if found else ""


async def test_looking_at_the_page_changes_nothing(browser: httpx.AsyncClient, letter: SentMessage) -> None:
    for look in (browser.get, browser.head, browser.options):
        await look(letter.unsubscribe)
        await look(letter.preferences)
    assert await statuses(letter) == {"": "subscribed"}
    assert await events(letter) == []


async def test_one_click_leaves_without_login_cookie_or_redirect(
    browser: httpx.AsyncClient, message: SentMessage
) -> None:
    answer = await browser.post(message.unsubscribe, data=ONE_CLICK)
    assert (answer.status_code, answer.text) == (200, "You are unsubscribed.\n")
    assert "set-cookie" not in answer.headers
    assert await statuses(message) == {"": "unsubscribed"}
    assert await counted(message) == (1, 1, True)
    assert await events(message) == ["contact.unsubscribed", "message.unsubscribed"]


async def test_one_click_works_as_a_multipart_form_too(browser: httpx.AsyncClient, message: SentMessage) -> None:
    answer = await browser.post(message.unsubscribe, files={"List-Unsubscribe": (None, "One-Click")})
    assert answer.status_code == 200
    assert await statuses(message) == {"": "unsubscribed"}


@pytest.mark.parametrize("body", [b"", b"x" * 100_000, b"\xff\x00&&&===", b"&".join([b"do=return"] * 2_000)])
async def test_whatever_else_is_posted_is_taken_for_a_wish_to_leave(
    browser: httpx.AsyncClient, message: SentMessage, body: bytes
) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await browser.post(message.unsubscribe, content=body, headers=headers)).status_code == 200
    assert await statuses(message) == {"": "unsubscribed"}


async def test_leaving_twenty_times_at_once_is_leaving_once(browser: httpx.AsyncClient, message: SentMessage) -> None:
    answers = await asyncio.gather(*(browser.post(message.unsubscribe, data=ONE_CLICK) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert await counted(message) == (1, 1, True)
    assert await events(message) == ["contact.unsubscribed", "message.unsubscribed"]


async def test_the_proof_says_when_how_from_where_and_what_was_before(
    browser: httpx.AsyncClient, message: SentMessage
) -> None:
    await browser.post(message.unsubscribe, data=ONE_CLICK, headers={"user-agent": "A mail program"})
    async with message.account.transaction() as tx:
        row = (await tx.execute(text("SELECT * FROM subscriptions"))).one()
    assert (row.consent_how, row.consent_where) == ("one-click", "127.0.0.1")
    assert row.consent_at is not None
    assert row.proof["user_agent"] == "A mail program"
    assert row.proof["delivery_id"] == str(message.delivery_id)
    assert row.proof["before"]["status"] == "subscribed"
    assert row.proof["before"]["how"] == "a form"


async def test_one_click_leaves_the_topic_that_the_message_was_about(
    browser: httpx.AsyncClient, letter: SentMessage
) -> None:
    await browser.post(letter.unsubscribe, data=ONE_CLICK)
    assert await statuses(letter) == {"": "subscribed", "news": "unsubscribed"}


async def test_the_page_says_who_sends_to_which_address_about_what(
    browser: httpx.AsyncClient, letter: SentMessage
) -> None:
    page = await browser.get(letter.unsubscribe)
    assert heading(page) == "Unsubscribe from “Newsletter”?"
    for words in ("Example Outfitters", "a…@example.com", "1 Example Street, Paris", "Unsubscribe from everything"):
        assert words in page.text
    assert "anna." not in page.text


async def test_a_message_about_no_topic_offers_one_button(browser: httpx.AsyncClient, message: SentMessage) -> None:
    page = await browser.get(message.unsubscribe)
    assert heading(page) == "Unsubscribe?"
    assert re.findall(r"<button.*?>(.*?)</button>", page.text) == ["Unsubscribe"]
    assert " about " not in page.text
    assert "Choose what you receive" not in page.text


async def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing(
    browser: httpx.AsyncClient, letter: SentMessage
) -> None:
    for address in (letter.unsubscribe, letter.preferences):
        page = await browser.get(address)
        assert not re.search(r"https?://|<script|<img|<link|@import|url\(|\son\w+=", page.text)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"


async def test_what_the_page_shows_is_text_whatever_it_contains(
    browser: httpx.AsyncClient, letter: SentMessage
) -> None:
    async with letter.account.transaction() as tx:
        await tx.execute(text("UPDATE accounts SET name = '<b>&{{ token }}', postal_address = '</p><script>'"))
    page = await browser.get(letter.unsubscribe)
    assert "&lt;b&gt;&amp;{{ token }}" in page.text
    assert "<script>" not in page.text
    assert "Offers &amp; &lt;sales&gt;" in (await browser.get(letter.preferences)).text


async def test_a_person_leaves_undoes_and_leaves_everything(browser: httpx.AsyncClient, letter: SentMessage) -> None:
    page = await browser.post(letter.unsubscribe, data={"do": "leave"})
    assert heading(page) == "You are unsubscribed"
    assert await counted(letter) == (1, 1, True)

    page = await browser.post(letter.unsubscribe, data={"do": "return"})
    assert heading(page) == "You are subscribed again"
    assert await statuses(letter) == {"": "subscribed", "news": "subscribed"}
    assert await counted(letter) == (1, 0, False)

    page = await browser.post(letter.unsubscribe, data={"do": "leave everything"})
    assert heading(page) == "You are unsubscribed"
    assert "Unsubscribe from everything" not in page.text
    assert await statuses(letter) == {"": "unsubscribed", "news": "subscribed"}
    assert await counted(letter) == (2, 1, True)

    assert heading(await browser.get(letter.unsubscribe)) == "You are unsubscribed"
    await browser.post(letter.unsubscribe, data={"do": "return"})
    assert await statuses(letter) == {"": "subscribed", "news": "subscribed"}


async def test_leaving_the_topic_and_then_everything_counts_one_person(
    browser: httpx.AsyncClient, letter: SentMessage
) -> None:
    await browser.post(letter.unsubscribe, data={"do": "leave"})
    await browser.post(letter.unsubscribe, data={"do": "leave everything"})
    assert await counted(letter) == (2, 1, True)


async def test_coming_back_to_a_topic_is_no_consent_to_everything(
    browser: httpx.AsyncClient, shop: TestAccount
) -> None:
    [letter] = await sent_messages(shop, topic="news", statuses={"news": "subscribed"})
    await browser.post(letter.unsubscribe, data={"do": "leave everything"})
    await browser.post(letter.unsubscribe, data={"do": "return"})
    assert await statuses(letter) == {"": "pending", "news": "subscribed"}


async def test_the_preference_page_ticks_what_is_received(browser: httpx.AsyncClient, shop: TestAccount) -> None:
    [letter] = await sent_messages(shop, statuses={"": "subscribed", "offers": "unsubscribed"})
    page = await browser.get(letter.preferences)
    assert re.findall(r'value="(\w+)"( checked)?', page.text) == [("news", " checked"), ("offers", ""), ("save", "")]


async def test_choosing_topics_saves_exactly_those(browser: httpx.AsyncClient, letter: SentMessage) -> None:
    page = await browser.post(letter.preferences, data={"do": "save", "topic": ["offers", "no such topic"]})
    assert "Saved." in page.text
    assert await statuses(letter) == {"": "subscribed", "news": "unsubscribed", "offers": "subscribed"}
    assert await counted(letter) == (1, 1, True)

    await browser.post(letter.preferences, data={"do": "save", "topic": ["news", "offers"]})
    assert await statuses(letter) == {"": "subscribed", "news": "subscribed", "offers": "subscribed"}
    assert await counted(letter) == (1, 0, False)


async def test_choosing_nothing_is_leaving_everything(browser: httpx.AsyncClient, letter: SentMessage) -> None:
    await browser.post(letter.preferences, data={"do": "save"})
    assert (await statuses(letter))[""] == "unsubscribed"


async def test_choosing_one_topic_after_leaving_everything_brings_back_that_topic_alone(
    browser: httpx.AsyncClient, letter: SentMessage
) -> None:
    await browser.post(letter.preferences, data={"do": "leave everything"})
    await browser.post(letter.preferences, data={"do": "save", "topic": "offers"})
    assert await statuses(letter) == {"": "pending", "news": "unsubscribed", "offers": "subscribed"}


async def test_an_account_without_topics_offers_the_channel_itself(
    browser: httpx.AsyncClient, message: SentMessage
) -> None:
    assert 'value="" checked' in (await browser.get(message.preferences)).text
    await browser.post(message.preferences, data={"do": "save"})
    assert await statuses(message) == {"": "unsubscribed"}
    await browser.post(message.preferences, data={"do": "save", "topic": ""})
    assert await statuses(message) == {"": "subscribed"}


async def test_a_test_message_unsubscribes_nobody(browser: httpx.AsyncClient, account: TestAccount) -> None:
    nobody = UUID(int=0)
    for address in (links.unsubscribe(account.id, nobody, nobody), links.unsubscribe_of_a_test()):
        assert heading(await browser.get(address)) == "Nothing to do here"
        assert (await browser.post(address, data=ONE_CLICK)).status_code == 200


async def test_a_token_outlives_its_delivery(browser: httpx.AsyncClient, message: SentMessage) -> None:
    async with message.account.transaction() as tx:
        await tx.execute(text("DELETE FROM deliveries"))
    assert (await browser.post(message.unsubscribe, data=ONE_CLICK)).status_code == 200
    assert await statuses(message) == {"": "unsubscribed"}


async def test_one_click_in_a_message_of_an_automation_leaves_its_topic(
    browser: httpx.AsyncClient, account: TestAccount
) -> None:
    outbox = Outbox()
    taken = await steps(account, 1, outbox)
    await execute(account, "UPDATE automations SET topic = 'news'")
    await taken.send()
    way_out = outbox.messages[0].headers["List-Unsubscribe"].strip("<>")
    assert (await browser.post(way_out, data=ONE_CLICK)).status_code == 200
    async with account.transaction() as tx:
        rows = (await tx.execute(text("SELECT topic, status FROM subscriptions ORDER BY topic"))).all()
    assert [tuple(row) for row in rows] == [("", "subscribed"), ("news", "unsubscribed")]
    assert await taken.send(call=1) == [Answer(leave="unsubscribed")]
