"""What a recipient's mail program and browser get to see, and what is on record once they have seen it."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from tests.sent import LINKS, SentMessage, links, sent_messages

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(app, None) as client:
        client.headers["user-agent"] = FIREFOX
        yield client


@pytest.fixture
async def message(account: TestAccount) -> SentMessage:
    return (await sent_messages(account))[0]


async def on_record(message: SentMessage) -> list[tuple[str, bool, dict[str, object]]]:
    async with message.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT name, machine, properties FROM events WHERE delivery_id = :id ORDER BY id"),
            {"id": message.delivery_id},
        )
        return [(row.name, row.machine, row.properties) for row in rows]


async def test_the_pixel_is_a_picture_that_nobody_keeps(browser: httpx.AsyncClient, message: SentMessage) -> None:
    pixel = await browser.get(message.pixel)
    assert (pixel.status_code, pixel.headers["content-type"]) == (200, "image/gif")
    assert pixel.content.startswith(b"GIF89a\x01\x00\x01\x00")
    assert "no-store" in pixel.headers["cache-control"]
    assert await on_record(message) == [("message.opened", False, {})]


async def test_a_click_is_on_record_before_it_leads_on(browser: httpx.AsyncClient, message: SentMessage) -> None:
    answer = await browser.get(message.click(1))
    assert (answer.status_code, answer.headers["location"]) == (302, LINKS[0])
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "no-store" in answer.headers["cache-control"]
    assert await on_record(message) == [
        ("message.clicked", False, {"link": 1, "url": LINKS[0]}),
        ("message.opened", False, {"implied": True}),
    ]


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_every_stored_address_arrives_as_it_was_written(
    browser: httpx.AsyncClient, message: SentMessage, number: int
) -> None:
    location = (await browser.get(message.click(number))).headers["location"]
    assert location.isascii()
    assert unquote(location) == unquote(LINKS[number - 1])


async def test_a_link_written_for_one_recipient_leads_there(browser: httpx.AsyncClient, message: SentMessage) -> None:
    url = "https://shop.example.com/basket?of=anna%40example.com&x=1"
    assert (await browser.get(message.click_to(url))).headers["location"] == url


async def test_what_is_added_to_a_link_leads_nowhere_else(browser: httpx.AsyncClient, message: SentMessage) -> None:
    answer = await browser.get(message.click(1) + "?url=https://evil.example.net&to=//evil.example.net")
    assert answer.headers["location"] == LINKS[0]


async def test_a_link_checker_is_led_on_and_counted_as_a_machine(
    browser: httpx.AsyncClient, message: SentMessage
) -> None:
    answer = await browser.head(message.click(1))
    assert (answer.status_code, answer.headers["location"], answer.content) == (302, LINKS[0], b"")
    assert await on_record(message) == [("message.clicked", True, {"link": 1, "url": LINKS[0], "sign": "head"})]


async def test_forged_damaged_and_outlived_links_all_get_the_same_nothing(
    browser: httpx.AsyncClient, message: SentMessage, other_account: TestAccount
) -> None:
    stranger = links.click(other_account.id, message.delivery_id, 1)
    token = message.click(1).rpartition("/")[2]
    paths = ["", "/", "%00", "%ff%fe", "é", "a" * 5_000, token[:-1], token + "A", token + "/", f"x/{token}"]
    paths = [f"/t/{kind}/{path}" for kind in "oc" for path in paths]
    paths += [f"/t/o/{token}", f"/u/{token}", f"/p/{token}", stranger, message.click(99)]
    paths += [f"/{page}/{path}" for page in "up" for path in ("", "x", token[:40], "%00")]
    answers = [await browser.get(path) for path in paths]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, b"")}
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1
    assert await on_record(message) == []


async def test_nothing_but_looking_is_allowed(browser: httpx.AsyncClient, message: SentMessage) -> None:
    for address in (message.pixel, message.click(1)):
        refused = await browser.post(address)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert await on_record(message) == []


async def test_requests_that_come_together_are_stored_together(
    browser: httpx.AsyncClient, account: TestAccount
) -> None:
    messages = await sent_messages(account, 50)
    answers = await asyncio.gather(*(browser.get(message.pixel) for message in messages * 4))
    assert {answer.status_code for answer in answers} == {200}
    async with account.transaction() as tx:
        stored = await tx.execute(text("SELECT count(*), count(DISTINCT xmin::text) FROM events"))
        events, transactions = stored.one()
        counted = await tx.execute(text("SELECT name, n::int FROM counters ORDER BY name"))
        assert [tuple(row) for row in counted] == [("opened", 200), ("opened_unique", 50)]
    assert events == 200
    assert transactions < 20


async def test_without_a_database_nothing_is_acknowledged(temporal: Client, message: SentMessage) -> None:
    nowhere = create_app(
        Database("postgresql://nobody@127.0.0.1:1/nothing"), temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY
    )
    async with client_for(nowhere, None) as browser:
        answers = {
            "pixel": await browser.get(message.pixel),
            "click": await browser.get(message.click(1)),
            "click to": await browser.get(message.click_to("https://example.com/")),
            "one click": await browser.post(message.unsubscribe, data={"List-Unsubscribe": "One-Click"}),
        }
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 503)
    assert {answer.headers["retry-after"] for answer in answers.values()} == {"3"}
    assert 'http-equiv="refresh"' in answers["click"].text


async def test_who_is_cut_off_from_the_database_is_told_to_come_back(
    database_url: str, temporal: Client, message: SentMessage
) -> None:
    cut = Database(f"{database_url}{'&' if '?' in database_url else '?'}application_name=cut", pool_size=1)
    app = create_app(cut, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    theirs = "FROM pg_stat_activity WHERE application_name = 'cut'"
    owner = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with client_for(app, None) as browser, owner, asyncio.timeout(30):
        browser.headers["user-agent"] = FIREFOX
        async with message.account.transaction() as tx:
            await tx.execute(text("SELECT FROM deliveries WHERE id = :id FOR UPDATE"), {"id": message.delivery_id})
            held_up = asyncio.create_task(browser.get(message.pixel))
            while not await (await owner.execute(f"SELECT 1 {theirs} AND wait_event_type = 'Lock'")).fetchone():
                assert not held_up.done(), await held_up
            await owner.execute(f"SELECT pg_terminate_backend(pid) {theirs}")
            assert (await held_up).status_code == 503
        assert await on_record(message) == []
        assert (await browser.get(message.pixel)).status_code == 200
    assert await on_record(message) == [("message.opened", False, {})]
    await cut.close()
