"""Do the figures of segments hold what hands have counted?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from tests.audience import people
from tests.conftest import TestAccount
from tests.segments import of_contacts, segment
from tests.sent import SentMessage, sent_messages

NOW = datetime.now(UTC)


async def happened(
    account: TestAccount,
    contacts: Sequence[UUID],
    name: str = "purchase",
    *,
    days_ago: float = 1,
    value: str | None = None,
    currency: str | None = None,
    machine: bool = False,
) -> None:
    """One such event of each of these contacts."""
    at = NOW - timedelta(days=days_ago)
    async with account.transaction() as tx:
        await tx.execute(
            text("""
                INSERT INTO events (id, account_id, name, contact_id, occurred_at, machine, value, currency)
                SELECT uuidv7(:at - clock_timestamp()), :account, :name, contact, :at, :machine,
                       CAST(:value AS numeric), :currency
                FROM unnest(CAST(:contacts AS uuid[])) AS contact
            """),
            {
                "account": account.id,
                "name": name,
                "contacts": contacts,
                "at": at,
                "machine": machine,
                "value": value,
                "currency": currency,
            },
        )


async def mark(account: TestAccount, messages: Sequence[SentMessage], **columns: object) -> None:
    async with account.transaction() as tx:
        values = ", ".join(f"{name} = :{name}" for name in columns)
        ids = [message.delivery_id for message in messages]
        await tx.execute(text(f"UPDATE deliveries SET {values} WHERE id = ANY (:ids)"), {"ids": ids, **columns})


async def performance(api: httpx.AsyncClient, segment_id: str, **asked: Any) -> dict[str, Any]:
    answer = await api.get(f"/api/segments/{segment_id}/performance", params=asked)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# -- performance -----------------------------------------------------------------------------------------------------


async def test_performance_is_what_the_members_were_sent_did_and_bought(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    messages = await sent_messages(account, 10)
    others = await sent_messages(account, 3)
    ids = [message.contact_id for message in messages]
    made = await of_contacts(api, ids)
    await mark(account, messages[:4], opened_at=NOW)
    await mark(account, messages[:1], clicked_at=NOW, unsubscribed_at=NOW)
    await mark(account, others, opened_at=NOW, clicked_at=NOW)  # of others
    await mark(account, messages[8:9], state="skipped", reason="unsubscribed")
    await mark(account, messages[9:], leased_at=NOW - timedelta(days=31))  # before the window
    await happened(account, ids[:2], value="49.90", currency="EUR")
    await happened(account, ids[:1], value="0.10", currency="EUR")
    await happened(account, ids[2:3], value="7", currency="USD")
    await happened(account, ids[3:4])  # of no value
    await happened(account, ids[4:5], value="3.5")  # of no currency
    await happened(account, ids[5:6], days_ago=31, value="1000", currency="EUR")
    await happened(account, ids[6:7], machine=True, value="1000", currency="EUR")
    await happened(account, ids[7:8], "signup", value="1000", currency="EUR")
    await happened(account, [others[0].contact_id], value="1000", currency="EUR")

    found = await performance(api, made)
    assert datetime.fromisoformat(found["until"]) - datetime.fromisoformat(found["since"]) == timedelta(days=30)
    assert {name: value for name, value in found.items() if name not in ("since", "until")} == {
        "goal": "purchase",
        "members": 10,
        "messages": 8,
        "opens": 4,
        "clicks": 1,
        "unsubscribes": 1,
        "conversions": 6,
        "converted": 5,
        "revenue": {"": "3.5", "EUR": "99.90", "USD": "7"},
        "open_rate": 0.5,
        "click_rate": 0.125,
        "conversion_rate": 0.5,
    }


async def test_window_and_goal_are_whatever_is_asked(api: httpx.AsyncClient, account: TestAccount) -> None:
    messages = await sent_messages(account, 4, sent_at=NOW - timedelta(days=50))
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE campaigns SET created_at = :at"), {"at": NOW - timedelta(days=51)})
    ids = [message.contact_id for message in messages]
    made = await of_contacts(api, ids)
    await happened(account, ids[:3], "signup", days_ago=45)
    await happened(account, ids[:1], "signup", days_ago=5)
    assert (await performance(api, made))["messages"] == 0
    asked = {"since": (NOW - timedelta(days=60)).isoformat(), "until": (NOW - timedelta(days=40)).isoformat()}
    found = await performance(api, made, **asked, goal="signup")
    assert (found["messages"], found["conversions"], found["converted"], found["revenue"]) == (4, 3, 3, {})
    only_since = await performance(api, made, since=asked["since"], goal="signup")
    assert (only_since["messages"], only_since["conversions"], only_since["converted"]) == (4, 4, 3)
    at_the_end = await performance(api, made, until=(NOW - timedelta(days=50)).isoformat())
    assert at_the_end["messages"] == 0, "`until` is not in it"


async def test_opens_of_machines_are_not_counted(api: httpx.AsyncClient, account: TestAccount) -> None:
    messages = await sent_messages(account, 2)
    made = await of_contacts(api, [message.contact_id for message in messages])
    assert (await api.get(messages[0].pixel, headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"})).is_success
    assert (await api.head(messages[1].click(1), headers={"User-Agent": "ExampleLinkScanner (bot)"})).status_code == 302
    found = await performance(api, made)
    assert (found["messages"], found["opens"], found["clicks"]) == (2, 1, 0)


async def test_an_empty_segment_has_no_rates(api: httpx.AsyncClient) -> None:
    found = await performance(api, await segment(api))
    assert (found["members"], found["messages"], found["revenue"]) == (0, 0, {})
    assert found["open_rate"] is found["click_rate"] is found["conversion_rate"] is None


@pytest.mark.parametrize("asked", [{"since": "2026-11-02T00:00:00Z", "until": "2026-11-02T00:00:00Z"}, {"goal": ""}])
async def test_a_window_that_is_none_is_refused(api: httpx.AsyncClient, asked: dict[str, str]) -> None:
    made = await segment(api)
    assert (await api.get(f"/api/segments/{made}/performance", params=asked)).status_code == 422
    body = {"segments": [made, await segment(api)], **asked}
    assert (await api.post("/api/segments/compare", json=body)).status_code == 422


# -- comparing -------------------------------------------------------------------------------------------------------


async def test_segments_are_compared_side_by_side(api: httpx.AsyncClient, account: TestAccount) -> None:
    messages = await sent_messages(account, 10)
    ids = [message.contact_id for message in messages]
    one, two, three = [
        await of_contacts(api, those, name)
        for those, name in ((ids[:6], "One"), (ids[4:9], "Two"), (ids[5:7], "Three"))
    ]
    await mark(account, messages[5:8], opened_at=NOW)
    await happened(account, ids[4:6], "signup", value="10", currency="EUR")
    answer = await api.post("/api/segments/compare", json={"segments": [three, one, two], "goal": "signup"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["union"], found["common"], found["goal"]) == (9, 1, "signup")
    assert found["overlaps"] == [
        {"segments": [three, one], "contacts": 1},
        {"segments": [three, two], "contacts": 2},
        {"segments": [one, two], "contacts": 2},
    ]
    assert [(each["id"], each["name"], each["size"], each["unique"]) for each in found["segments"]] == [
        (three, "Three", 2, 0),
        (one, "One", 6, 4),
        (two, "Two", 5, 2),
    ]
    figures = ("members", "messages", "opens", "conversions", "revenue")
    assert [tuple(each["performance"][name] for name in figures) for each in found["segments"]] == [
        (2, 2, 2, 1, {"EUR": "10"}),
        (6, 6, 1, 2, {"EUR": "20"}),
        (5, 5, 3, 2, {"EUR": "20"}),
    ]
    alone = await performance(api, one, since=found["since"], until=found["until"], goal="signup")
    assert {**found["segments"][1]["performance"], **{n: found[n] for n in ("since", "until", "goal")}} == alone


async def test_only_two_to_five_segments_are_compared_each_once(api: httpx.AsyncClient) -> None:
    made = [await segment(api) for _ in range(6)]
    for wrong in (made[:1], made, [made[0], made[0]]):
        assert (await api.post("/api/segments/compare", json={"segments": wrong})).status_code == 422
    empty = (await api.post("/api/segments/compare", json={"segments": made[:5]})).json()
    assert (empty["union"], empty["common"], len(empty["overlaps"])) == (0, 0, 10)
    missing = await api.post("/api/segments/compare", json={"segments": [made[0], str(UUID(int=7))]})
    assert missing.status_code == 404 and str(UUID(int=7)) in missing.json()["detail"]


# -- history ---------------------------------------------------------------------------------------------------------


async def test_history_tells_who_entered_and_left_by_hour_and_by_day(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await segment(api)
    async with account.transaction() as tx:
        hours = [
            ("2026-10-01T22:00Z", 10, 0, 10, 0),
            ("2026-10-01T23:00Z", 5, 2, 13, 0),
            ("2026-10-02T00:00Z", 1, 0, 14, 0),
            ("2026-10-02T09:00Z", 0, 4, 10, 3),
        ]
        row = text("""
            INSERT INTO segment_hours (account_id, segment_id, hour, entered, left_out, size, drift)
            VALUES (:account, :segment, CAST(:hour AS timestamptz), :entered, :left, :size, :drift)
        """)
        for hour, entered, left, size, drift in hours:
            values = {"hour": hour, "entered": entered, "left": left, "size": size, "drift": drift}
            await tx.execute(row, {"account": account.id, "segment": made, **values})
    path = f"/api/segments/{made}/history"
    assert (await api.get(path, params={"by": "day"})).json()["items"] == [
        {"start": "2026-10-02T00:00:00Z", "size": 10, "entered": 1, "left": 4, "drift": 3},
        {"start": "2026-10-01T00:00:00Z", "size": 13, "entered": 15, "left": 2, "drift": 0},
    ]
    first = (await api.get(path, params={"limit": 3})).json()
    rest = (await api.get(path, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    starts = [each["start"] for each in (*first["items"], *rest["items"])]
    assert starts == [f"2026-10-0{hour}:00:00Z" for hour in ("2T09", "2T00", "1T23", "1T22")]
    assert rest["next_cursor"] is None
    days = (await api.get(path, params={"by": "day", "limit": 1})).json()
    last = (await api.get(path, params={"by": "day", "cursor": days["next_cursor"]})).json()["items"]
    assert [each["start"] for each in last] == ["2026-10-01T00:00:00Z"]


async def test_history_grows_as_members_come_and_go(api: httpx.AsyncClient, account: TestAccount) -> None:
    ids = await people(account, 3)
    made = await of_contacts(api, ids)
    gone = {"contacts": [{"id": str(ids[0])}]}
    assert (await api.request("DELETE", f"/api/segments/{made}/members", json=gone)).is_success
    days = (await api.get(f"/api/segments/{made}/history", params={"by": "day"})).json()["items"]
    assert (sum(day["entered"] for day in days), sum(day["left"] for day in days)) == (3, 1)
    assert (days[0]["size"], days[0]["drift"]) == (2, 0)


async def test_a_cursor_of_any_time_is_answered(api: httpx.AsyncClient) -> None:
    made = await segment(api)
    for cursor in (UUID(int=0), UUID(int=2**128 - 1)):
        assert (await api.get(f"/api/segments/{made}/history", params={"cursor": str(cursor)})).status_code == 200
