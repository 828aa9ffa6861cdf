"""What may an account say about itself?"""

import httpx
import pytest


async def test_settings_are_replaced_and_read_back(api: httpx.AsyncClient) -> None:
    settings = {
        "name": "Example Outfitters",
        "sender_domains": ["News.Example.com"],
        "default_timezone": "Europe/Paris",
        "frequency_caps": {"email": {"messages": 3, "hours": 24}},
        "quiet_hours": {"start": "21:00", "end": "08:00"},
        "topics": [{"key": "news", "name": "Newsletter"}],
        "create_unknown_contacts": False,
        "event_retention_days": 90,
        "notification_emails": ["Marketing@Example.com"],
    }
    replaced = await api.put("/api/account", json=settings)
    assert replaced.status_code == 200
    read = (await api.get("/api/account")).json()
    assert read == replaced.json()
    assert read["sender_domains"] == ["news.example.com"]
    assert read["quiet_hours"] == {"start": "21:00:00", "end": "08:00:00"}
    assert (read["create_unknown_contacts"], read["event_retention_days"]) == (False, 90)
    assert read["notification_emails"] == ["marketing@example.com"]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"default_timezone": "Paris"}, "Europe/Paris"),
        ({"sender_domains": ["not a domain"]}, "news.example.com"),
        ({"error_threshold": 2}, "takes 1 or less"),
        ({"event_retention_days": 29}, "takes 30 or more"),
        ({"create_unknown_contacts": 0}, "takes true or false"),
        ({"notification_emails": ["nobody"]}, "@-sign"),
        ({"nmae": "x"}, "nmae"),
        ({"quiet_hours": {"start": "21:00+05:00", "end": "08:00"}}, "without an offset"),
    ],
)
async def test_malformed_settings_say_what_is_wrong(
    api: httpx.AsyncClient, wrong: dict[str, object], hint: str
) -> None:
    refused = await api.put("/api/account", json={"name": "Example", **wrong})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert hint in refused.json()["detail"]


async def test_the_stack_is_alive_and_ready(api: httpx.AsyncClient) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.get("/readyz")).json() == {"status": "ok"}
