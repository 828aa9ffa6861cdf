"""Can a marketer draft an experiment, see what is wrong with it and look at what each variant says?"""

from typing import Any

import httpx

from tests.audience import EMAIL, people
from tests.conftest import TestAccount

HTML = '<p>{{ contact.attributes.plan }} <a href="https://shop.example.com/own">Own</a></p>'
TO_UNSUBSCRIBE = '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'


def draft(experiment: dict[str, Any], **changes: Any) -> dict[str, Any]:
    told = {
        "variants": [
            {"name": "question", "content": {"email": {"subject": "Have you seen it?"}}},
            {"name": "number", "content": {"email": {"subject": "24 new things", "from_email": "anna@example.com"}}},
        ],
        "metric": "HIGHEST_CLICK_RATE",
        **experiment,
    }
    whole = {"name": "Autumn", "kind": "experiment", "content": {"email": EMAIL}, "audience": {"everyone": True}}
    return {**whole, "experiment": told, **changes}


async def created(api: httpx.AsyncClient, experiment: dict[str, Any] | None = None, **changes: Any) -> str:
    answer = await api.post("/api/campaigns", json=draft(experiment or {}, **changes))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def problems(api: httpx.AsyncClient, campaign: str) -> list[tuple[str, str, str]]:
    found = (await api.post(f"/api/campaigns/{campaign}/validate")).json()["problems"]
    return [(each["severity"], each["code"], each["part"]) for each in found]


async def test_an_experiment_is_kept_as_it_was_written(api: httpx.AsyncClient) -> None:
    campaign = await created(api, {"decide": {"after": "1 day"}, "allocation": {"question": 1, "number": 2}})
    read = (await api.get(f"/api/campaigns/{campaign}")).json()
    assert (read["kind"], read["experiment"]["metric"]) == ("experiment", "click_rate")
    assert read["experiment"]["variants"][1]["content"]["email"]["subject"] == "24 new things"
    assert read["experiment"]["decide"] == {"after": "1 day"}
    answered = {name: read[name] for name in draft({})}
    again = await api.put(f"/api/campaigns/{campaign}", json=answered)
    assert {name: again.json()[name] for name in answered} == answered
    copy = await api.post(f"/api/campaigns/{campaign}/duplicate")
    assert copy.json()["experiment"] == read["experiment"]
    (listed,) = (await api.get("/api/campaigns", params={"kind": "experiment", "search": "Copy"})).json()["items"]
    assert listed["id"] == copy.json()["id"]


async def test_problems_tell_their_place_and_what_variants_have_in_common_once(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 10)
    variants = [
        {"name": "question", "content": {"email": {"subject": "{% if %}", "from_email": "a@b.example"}}},
        {"name": "number", "schedule": {"send_at": "2020-11-27T09:00"}},
    ]
    email = {**EMAIL, "html": "<p>{% if %}</p>"}
    campaign = await created(api, {"variants": variants, "control": "x"}, content={"email": email})
    found = await problems(api, campaign)
    assert found.count(("error", "unusable_content", "html")) == 1
    assert {
        ("error", "unknown_variant", "experiment.control"),
        ("error", "unusable_content", "experiment.variants.0.content.email.subject"),
        ("error", "foreign_sender", "experiment.variants.0.content.email.from_email"),
        ("error", "schedule_passed", "experiment.variants.1.schedule"),
        ("warning", "small_test", "experiment"),
    } <= set(found)


async def test_a_variant_without_an_email_is_told_and_a_small_test_is_only_worth_a_look(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 40)
    variants = [{"name": "A", "content": {"email": EMAIL}}, {"name": "B"}]
    bare = await created(api, {"variants": variants}, content={})
    assert ("error", "no_content", "experiment.variants.1.content.email") in await problems(api, bare)
    whole = await created(api, {"minimum_sample": {"recipients": 5}, "allocation": {"question": 3, "number": 1}})
    answer = (await api.post(f"/api/campaigns/{whole}/validate")).json()
    assert answer["launchable"]
    (small,) = [each for each in answer["problems"] if each["code"] == "small_test"]
    assert (small["count"], small["severity"]) == (2, "warning")
    assert small["message"].startswith("About 2 contacts get 'number'. With fewer than 5 ")
    enough = await created(api, {"minimum_sample": {"recipients": 4}})
    assert await problems(api, enough) == []


async def test_a_preview_shows_what_a_variant_says(api: httpx.AsyncClient, account: TestAccount) -> None:
    await people(account, 1)
    variants = [
        {"name": "question", "content": {"email": {"subject": "Have you seen it?"}}},
        {"name": "number", "content": {"email": {"html": HTML + TO_UNSUBSCRIBE, "from_email": "anna@example.com"}}},
    ]
    campaign = await created(api, {"variants": variants, "control": "number"})
    path = f"/api/campaigns/{campaign}/preview"
    (control,) = (await api.post(path, json={})).json()["previews"]
    assert (control["subject"], "shop.example.com/own" in control["html"]) == ("Hello Person 1", True)
    assert "anna@example.com" in control["headers"]["From"]
    (other,) = (await api.post(path, json={"variant": "question"})).json()["previews"]
    assert (other["subject"], "The collection" in other["html"]) == ("Have you seen it?", True)
    missing = await api.post(path, json={"variant": "third"})
    assert (missing.status_code, "'question', 'number'" in missing.json()["detail"]) == (404, True)
    broadcast = await created(api, kind="broadcast", experiment=None)
    assert (await api.post(f"/api/campaigns/{broadcast}/preview", json={"variant": "A"})).status_code == 404


async def test_reach_leaves_out_those_who_are_to_get_nothing(api: httpx.AsyncClient, account: TestAccount) -> None:
    await people(account, 20)
    await people(account, 5, name="silent", subscribed=False)
    campaign = await created(api, {"holdout": 0.1}, budget={"max_messages": 15})
    reach = (await api.post(f"/api/campaigns/{campaign}/reach")).json()
    assert reach == {"total": 25, "sendable": 15, "skipped": {"no_consent": 5, "holdout": 2, "budget": 3}}
