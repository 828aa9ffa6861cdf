"""What does a timeline tell of one person?"""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from channels.base import Deferred, Message, Rejected, Uncertain
from channels.outbox import Outbox
from marketing.campaigns import Audience
from tests.audience import people
from tests.broadcast import Broadcast, broadcast
from tests.conftest import TestAccount
from tests.delivering import NOW, Provider, deliver, execute, freeze
from tests.journeys import steps
from tests.sent import sent_messages


async def timeline(api: httpx.AsyncClient, contact: object, **asked: Any) -> list[dict[str, Any]]:
    """All of its items, from page to page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await api.get(f"/api/contacts/{contact}/timeline", params={**asked, **cursor})
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


async def purchase(account: TestAccount, contact: object, *, ago: timedelta = timedelta(0), **more: Any) -> None:
    await execute(
        account,
        "INSERT INTO events (account_id, name, contact_id, occurred_at, value, currency)"
        " VALUES (:a, 'purchase', :contact, now() - :ago, :value, :currency)",
        a=account.id,
        contact=contact,
        ago=ago,
        value=more.get("value"),
        currency=more.get("currency"),
    )


async def to_one(account: TestAccount, contact: Any, answer: Exception | None = None, **plan: Any) -> Broadcast:
    """A campaign to one contact, sent by a provider that answers so."""

    async def accept(_: Message) -> None:
        return None

    sent = await broadcast(account, audience=Audience(contact_ids=[contact]), **plan)
    await freeze(sent)
    await deliver(sent, Provider(answer or accept))
    return sent


async def test_whoever_is_made_by_an_event_was_added_before_they_did_it(api: httpx.AsyncClient) -> None:
    contact = {"email": "zoe@example.com"}
    told = await api.post("/api/events", json=[{"contact": contact, "name": name} for name in ("visit", "purchase")])
    assert told.status_code == 201
    (zoe,) = (await api.get("/api/contacts")).json()["items"]
    assert names(await timeline(api, zoe["id"])) == ["purchase", "visit", "contact.created"]


async def test_what_is_done_to_a_contact_over_the_api_is_in_its_timeline_without_what_it_was(
    api: httpx.AsyncClient,
) -> None:
    contact = {"email": "zoe@example.com", "tags": ["new"], "attributes": {"plan": "gold", "city": "Paris"}}
    agreed = {"channel": "email", "status": "subscribed", "consent": {"how": "form", "at": "2026-03-01T10:00:00Z"}}
    made = (await api.post("/api/contacts", json={**contact, "subscriptions": [agreed]})).json()
    url = f"/api/contacts/{made['id']}"
    await api.patch(
        url,
        json={
            "email": "zoe@example.org",
            "first_name": "Zoë",
            "tags": ["vip"],
            "attributes": {"plan": "silver", "city": "Paris", "size": 38},
            "subscriptions": [{"channel": "email", "topic": "news", "status": "unsubscribed"}],
        },
    )
    await api.patch(url, json={"first_name": "Zoë", "tags": ["vip"], "subscriptions": [agreed]})  # nothing new
    await api.delete(url)
    items = await timeline(api, made["id"])
    assert names(items) == [
        "contact.deleted",
        "contact.unsubscribed",
        "contact.changed",
        "contact.created",
        "contact.subscribed",
    ]
    assert items[2]["properties"] == {
        "changed": ["attributes.plan", "attributes.size", "email", "first_name", "tags"],
        "tags_added": ["vip"],
        "tags_removed": ["new"],
    }
    assert (items[4]["at"], items[4]["properties"]) == (
        "2026-03-01T10:00:00Z",
        {"channel": "email", "topic": "", "how": "form"},
    )
    assert [item["summary"] for item in items] == [
        "Was deleted from the contacts.",
        "Does not want “news” by email any more.",
        "Changed: plan, size, email, first name, tags (+vip, -new).",
        "Was added to the contacts.",
        "Agreed to messages by email.",
    ]
    told = str(items)
    assert "example.org" not in told and "example.com" not in told and "silver" not in told


async def test_each_message_is_there_once_with_its_state_and_why_it_was_not_sent(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    (zoe,) = await people(account, 1)
    await execute(account, "UPDATE contacts SET created_at = '2026-01-01Z' WHERE id = :id", id=zoe)
    await to_one(account, zoe)
    await to_one(account, zoe, Rejected("550 no such user"))
    await to_one(account, zoe, Uncertain("The server hung up."))
    await to_one(account, zoe, Deferred("450 later"))
    await to_one(account, zoe, topic="news")
    planned = await broadcast(account, audience=Audience(contact_ids=[zoe]))
    await freeze(planned, now=NOW + timedelta(days=300))
    await execute(
        account,
        "INSERT INTO subscriptions (account_id, contact_id, channel, status) VALUES (:a, :id, 'email', 'unsubscribed')"
        " ON CONFLICT (contact_id, channel, topic) DO UPDATE SET status = 'unsubscribed'",
        a=account.id,
        id=zoe,
    )
    await to_one(account, zoe)
    items = await timeline(api, zoe, limit=2)
    assert len({item["id"] for item in items}) == len(items) == 8
    told = {item["name"]: item for item in items}
    assert names(items)[0] == "message.planned" and names(items)[-1] == "contact.created"
    assert sorted(names(items)) == [
        "contact.created",
        "message.deferred",
        "message.failed",
        "message.planned",
        "message.sent",
        "message.sent",
        "message.skipped",
        "message.uncertain",
    ]
    delivery = told["message.failed"]["delivery"]
    assert (delivery["state"], delivery["reason"], delivery["reply"]) == ("failed", "rejected", "550 no such user")
    assert told["message.skipped"]["delivery"]["reason"] == "unsubscribed"
    assert told["message.deferred"]["delivery"]["attempts"] == 1
    assert told["message.planned"]["campaign"] == {"id": str(planned.id), "name": "Test"}
    assert {name: told[name]["summary"] for name in told} == {
        "contact.created": "Was added to the contacts.",
        "message.deferred": "“Test” could not be delivered yet and will be tried again.",
        "message.failed": "“Test” could not be sent: rejected.",
        "message.planned": "“Test” will be sent by email.",
        "message.sent": "“Test” was sent by email.",
        "message.skipped": "“Test” was not sent: unsubscribed.",
        "message.uncertain": "Nobody knows whether “Test” arrived: connection lost.",
    }


async def test_what_a_person_does_with_a_message_tells_of_the_message(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    (message,) = await sent_messages(account)
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"}
    await api.get(message.click(1), headers=browser)
    await api.post(message.unsubscribe)
    items = await timeline(api, message.contact_id, name="message.*")
    assert names(items)[:1] == ["message.unsubscribed"] and names(items)[-1] == "message.sent"
    clicked = next(item for item in items if item["name"] == "message.clicked")
    assert clicked["delivery"] == {
        "id": str(message.delivery_id),
        "channel": "email",
        "state": "sent",
        "reason": None,
        "reply": None,
        "attempts": 0,
    }
    assert clicked["summary"] == "Clicked https://shop.example.com/autumn in “Autumn”."


async def test_pages_of_any_size_and_every_filter_show_the_same_items_in_the_same_order(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    zoe, other = await people(account, 2)
    for _ in range(3):
        await to_one(account, zoe)
        await purchase(account, zoe, ago=timedelta(days=400), value=49.9, currency="EUR")
    await execute(account, "UPDATE events SET occurred_at = '2025-11-21Z' WHERE name = 'purchase'")  # all at once
    await purchase(account, zoe)
    await purchase(account, other)
    whole = await timeline(api, zoe)
    assert len(whole) == 8
    assert whole == sorted(whole, key=lambda item: (datetime.fromisoformat(item["at"]), item["id"]), reverse=True)
    for limit in (1, 2, 3, 7, 8):
        assert await timeline(api, zoe, limit=limit) == whole
    for name, expected in (("purchase", 4), ("message.*", 3), ("message.sent", 3), ("contact.*", 1), ("p_rchase*", 0)):
        filtered = [item for item in whole if item["name"].startswith(name.removesuffix("*"))]
        assert await timeline(api, zoe, name=name, limit=2) == filtered
        assert len(filtered) == expected
    assert {item["summary"] for item in whole if item["name"] == "purchase"} == {"Purchase: 49.9 EUR.", "Purchase."}


async def test_a_person_of_whom_there_is_nothing_has_no_timeline_and_neither_has_one_of_another_account(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, account: TestAccount
) -> None:
    (zoe,) = await people(account, 1)
    assert (await api.get(f"/api/contacts/{uuid4()}/timeline")).status_code == 404
    assert (await stranger.get(f"/api/contacts/{zoe}/timeline")).status_code == 404
    assert names(await timeline(api, zoe)) == ["contact.created"]


@pytest.mark.parametrize("cursor", ["_" * 43, "A" * 43])
async def test_a_cursor_that_is_made_up_shows_a_page_like_any_other(
    api: httpx.AsyncClient, account: TestAccount, cursor: str
) -> None:
    (zoe,) = await people(account, 1)
    answer = await api.get(f"/api/contacts/{zoe}/timeline", params={"cursor": cursor})
    assert (answer.status_code, len(answer.json()["items"])) == (200, 1 if cursor.startswith("_") else 0)


async def test_a_message_of_an_automation_is_told_with_its_name(api: httpx.AsyncClient, account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    await taken.send()
    timeline = (await api.get(f"/api/contacts/{taken.inside.contacts[0]}/timeline")).json()["items"]
    (told,) = [each for each in timeline if each["name"] == "message.sent"]
    assert told["campaign"] is None
    assert told["automation"]["id"] == str(taken.inside.automation_id)
    assert told["automation"]["name"] in told["summary"]
