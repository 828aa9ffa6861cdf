"""Can a marketer say who belongs, over HTTP?"""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from temporalio.client import Client

from tests.api.test_campaigns import created
from tests.audience import people
from tests.conftest import TestAccount, client_for
from tests.segments import members, segment, settled

FRENCH = {"field": "country", "is": "FR"}
NOBODY_KNOWS = "01976e1c-7c40-7000-8000-00000000dead"


async def some_french(api: httpx.AsyncClient, account: TestAccount) -> list[str]:
    """Seven people; the ids of the three of them who live in France."""
    french = [str(each) for each in await people(account, 7)][:3]
    for each in french:
        assert (await api.patch(f"/api/contacts/{each}", json={"country": "FR"})).is_success
    return french


# -- who belongs -----------------------------------------------------------------------------------------------------


async def test_a_dynamic_segment_finds_its_members_and_says_who_they_are(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    french = await some_french(api, account)
    made = await api.post("/api/segments", json={"name": "French", "criteria": FRENCH})
    assert made.status_code == 201
    assert (made.json()["state"], made.json()["kind"], made.json()["size"]) == ("building", "dynamic", 0)
    read = await settled(api, temporal, made.json()["id"])
    assert (read["size"], read["criteria"], read["problem"]) == (3, FRENCH, "")
    assert read["description"] == "Contacts whose country is “FR”."
    assert read["settled_at"] > read["created_at"]
    assert await members(api, read["id"]) == sorted(french, reverse=True)


async def test_other_criteria_change_who_belongs(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    french = await some_french(api, account)
    made = await segment(api, criteria=FRENCH)
    await settled(api, temporal, made)
    changed = await api.put(f"/api/segments/{made}", json={"name": "Abroad", "criteria": {"not": FRENCH}})
    assert (changed.status_code, changed.json()["state"], changed.json()["name"]) == (200, "building", "Abroad")
    assert (await settled(api, temporal, made))["size"] == 4
    assert not set(await members(api, made)) & set(french)
    renamed = await api.put(f"/api/segments/{made}", json={"name": "Not French", "criteria": {"not": FRENCH}})
    assert (renamed.json()["state"], renamed.json()["size"]) == ("ready", 4), "nobody's belonging has changed"


async def test_a_refresh_is_taken_up_by_dynamic_segments_alone(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    await some_french(api, account)
    made = await segment(api, criteria=FRENCH)
    before = await settled(api, temporal, made)
    assert (await api.post(f"/api/segments/{made}/refresh")).status_code == 202
    after = await settled(api, temporal, made)
    assert (after["size"], after["settled_at"] > before["settled_at"]) == (3, True)
    refused = await api.post(f"/api/segments/{await segment(api)}/refresh")
    assert refused.status_code == 409 and "members" in refused.json()["detail"]


async def test_a_preview_counts_and_shows_some_and_keeps_nothing(api: httpx.AsyncClient, account: TestAccount) -> None:
    french = await some_french(api, account)
    seen = await api.post("/api/segments/preview", json={"criteria": FRENCH})
    assert seen.status_code == 200, seen.text
    assert seen.json()["size"] == 3
    assert {each["id"] for each in seen.json()["sample"]} == set(french)
    assert seen.json()["description"] == "Contacts whose country is “FR”."
    everybody = (await api.post("/api/segments/preview", json={"criteria": {"bucket": [0, 100]}})).json()
    assert (everybody["size"], len(everybody["sample"])) == (7, 7)
    assert (await api.get("/api/segments")).json()["items"] == []


# -- segments of segments --------------------------------------------------------------------------------------------


async def test_segments_name_each_other_in_their_descriptions(api: httpx.AsyncClient) -> None:
    vips = await segment(api, "VIPs")
    made = await segment(api, "Others", criteria={"not": {"segment": vips}})
    assert "VIPs" in (await api.get(f"/api/segments/{made}")).json()["description"]
    await api.put(f"/api/segments/{vips}", json={"name": "Friends of the house", "kind": "static"})
    listed = (await api.get("/api/segments", params={"search": "other"})).json()["items"]
    assert "Friends of the house" in listed[0]["description"]


async def test_campaigns_are_named_in_descriptions(api: httpx.AsyncClient) -> None:
    campaign = await created(api)
    where = {
        "any": [{"field": "campaign_id", "is": campaign}, {"field": "campaign_id", "in": [campaign, NOBODY_KNOWS]}]
    }
    criteria = {"not": {"event": "message.clicked", "where": where}}
    sentence = (
        "Contacts with no “message.clicked” events (whose campaign is “Autumn”,"
        f" or whose campaign is “Autumn” or {NOBODY_KNOWS})."
    )
    made = await segment(api, criteria=criteria)
    assert (await api.get(f"/api/segments/{made}")).json()["description"] == sentence
    preview = await api.post("/api/segments/preview", json={"criteria": criteria})
    assert preview.json()["description"] == sentence


async def test_a_loop_is_refused_and_named(api: httpx.AsyncClient) -> None:
    one = await segment(api, "One", criteria=FRENCH)
    two = await segment(api, "Two", criteria={"segment": one})
    three = await segment(api, "Three", criteria={"any": [{"segment": two}, FRENCH]})
    for looked_at, way in ((three, [one, three, two, one]), (two, [one, two, one]), (one, [one, one])):
        closing = {"not": {"all": [{"segment": looked_at}, FRENCH]}}
        refused = await api.put(f"/api/segments/{one}", json={"name": "One", "criteria": closing})
        assert refused.status_code == 409
        assert refused.json()["loop"] == way
    assert "“One” → “One”" in refused.json()["detail"]
    assert (await api.get(f"/api/segments/{one}")).json()["criteria"] == FRENCH


async def test_a_segment_that_asks_who_entered_or_left_it_is_refused(api: httpx.AsyncClient) -> None:
    one, two = await segment(api, "One", criteria=FRENCH), await segment(api, "Two", criteria=FRENCH)

    def asking(name: str, where: dict[str, Any]) -> dict[str, Any]:
        return {"name": "One", "criteria": {"all": [FRENCH, {"not": {"event": name, "where": where}}]}}

    own: dict[str, Any] = {"field": "properties.segment_id", "is": one}
    other: dict[str, Any] = {**own, "is": two}
    both = {"field": "properties.segment_id", "in": [two, one]}
    for name in ("segment.entered", "segment.left"):
        certain: list[dict[str, Any]] = [own, both, {"all": [own]}, {"any": [{"not": other}, own]}]
        for where in certain:
            refused = await api.put(f"/api/segments/{one}", json=asking(name, where))
            assert (refused.status_code, refused.json().get("loop")) == (409, [one, one]), where
            assert "“One” → “One”" in refused.json()["detail"]
        for where in (other, {"not": own}):
            assert (await api.put(f"/api/segments/{one}", json=asking(name, where))).is_success
    total = {"total": "segment.entered.value", "at_least": 0, "where": own}
    assert (await api.put(f"/api/segments/{one}", json={"name": "One", "criteria": total})).status_code == 409
    assert (await api.put(f"/api/segments/{two}", json=asking("purchase", other))).is_success


async def test_a_segment_that_there_is_not_is_refused_with_its_place(api: httpx.AsyncClient) -> None:
    known = await segment(api)
    criteria = {"all": [{"segment": known}, {"not": {"any": [FRENCH, {"segment": NOBODY_KNOWS}]}}]}
    asked = [
        await api.post("/api/segments", json={"name": "x", "criteria": criteria}),
        await api.put(f"/api/segments/{await segment(api, criteria=FRENCH)}", json={"name": "x", "criteria": criteria}),
        await api.post("/api/segments/preview", json={"criteria": criteria}),
    ]
    for answer in asked:
        assert answer.status_code == 422
        (wrong,) = answer.json()["errors"]
        assert wrong["path"] == "body.criteria.all.1.not.any.1.segment" and NOBODY_KNOWS in wrong["message"]


# -- deleting --------------------------------------------------------------------------------------------------------


async def test_a_deleted_segment_is_gone(api: httpx.AsyncClient) -> None:
    made = await segment(api)
    path = f"/api/segments/{made}"
    assert (await api.delete(path)).status_code == 204
    asked = [
        await api.get(path),
        await api.delete(path),
        await api.put(path, json={"name": "x", "kind": "static"}),
        await api.post(f"{path}/refresh"),
        *[await api.get(f"{path}/{what}") for what in ("members", "performance", "history")],
        await api.post(f"{path}/members", json={"tag": "vip"}),
        await api.post("/api/segments/compare", json={"segments": [made, await segment(api)]}),
    ]
    assert {answer.status_code for answer in asked} == {404}
    assert len((await api.get("/api/segments")).json()["items"]) == 1


async def test_a_segment_in_use_is_not_deleted_and_its_users_are_told(
    api: httpx.AsyncClient, worker: None, temporal: Client, account: TestAccount
) -> None:
    await people(account, 1)
    used = await segment(api, "VIPs")
    path = f"/api/segments/{used}"
    user = await segment(api, "Others", criteria={"not": {"segment": used}})
    refused = await api.delete(path)
    assert refused.status_code == 409
    assert refused.json()["used_by"] == [{"kind": "segment", "id": user, "name": "Others"}]
    assert (await api.delete(f"/api/segments/{user}")).status_code == 204

    later = {"schedule": {"send_at": "2100-01-01T09:00"}}
    for audience in ({"segments": [used]}, {"exclude_segments": [used]}, {"filter": {"not": {"segment": used}}}):
        campaign = await created(api, audience=audience, **later)
        assert (await api.post(f"/api/campaigns/{campaign}/launch")).status_code == 202
        refused = await api.delete(path)
        assert refused.status_code == 409 and "“Autumn”" in refused.json()["detail"]
        assert [each["id"] for each in refused.json()["used_by"]] == [campaign]
        assert (await api.post(f"/api/campaigns/{campaign}/cancel")).is_success
        await temporal.get_workflow_handle(f"campaign-{campaign}").result()

    draft = await created(api, audience={"segments": [used]})
    assert (await api.delete(path)).status_code == 204
    refused = await api.post(f"/api/campaigns/{draft}/launch")
    assert refused.status_code == 409
    assert [each["code"] for each in refused.json()["problems"]] == ["unknown_segment"]


# -- lists and roles -------------------------------------------------------------------------------------------------


async def test_lists_have_pages_and_filters(api: httpx.AsyncClient) -> None:
    static = [await segment(api, f"List {number}") for number in range(4)]
    dynamic = await segment(api, "100% French", criteria=FRENCH)

    async def listed(**params: Any) -> list[str]:
        return [each["id"] for each in (await api.get("/api/segments", params=params)).json()["items"]]

    assert await listed() == [dynamic, *static[::-1]]
    assert await listed(kind="static") == static[::-1]
    assert await listed(kind="dynamic") == await listed(search="0% F") == [dynamic]
    first = (await api.get("/api/segments", params={"limit": 2})).json()
    assert [each["id"] for each in first["items"]] + await listed(cursor=first["next_cursor"]) == await listed()


async def test_viewers_read_and_editors_write(app: FastAPI, api: httpx.AsyncClient, account: TestAccount) -> None:
    made = await segment(api)
    path, definition = f"/api/segments/{made}", {"name": "x", "kind": "static"}
    async with client_for(app, await account.key_for("viewer")) as viewer:
        for what in ("", "/members", "/performance", "/history"):
            assert (await viewer.get(f"{path}{what}")).status_code == 200
        assert (await viewer.post("/api/segments/preview", json={"criteria": FRENCH})).status_code == 200
        refused = [
            await viewer.post("/api/segments", json=definition),
            await viewer.put(path, json=definition),
            await viewer.post(f"{path}/refresh"),
            await viewer.post(f"{path}/members", json={"tag": "vip"}),
            await viewer.request("DELETE", f"{path}/members", json={"tag": "vip"}),
            await viewer.delete(path),
        ]
        assert {answer.status_code for answer in refused} == {403}
    async with client_for(app, await account.key_for("editor")) as editor:
        assert (await editor.put(path, json=definition)).status_code == 200


async def test_the_same_idempotency_key_makes_one_segment(api: httpx.AsyncClient) -> None:
    definition, headers = {"name": "x", "kind": "static"}, {"Idempotency-Key": str(uuid4())}
    first, second = [await api.post("/api/segments", json=definition, headers=headers) for _ in range(2)]
    assert (second.json(), second.headers["idempotency-replayed"]) == (first.json(), "true")
    assert len((await api.get("/api/segments")).json()["items"]) == 1


# -- bad input -------------------------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    criteria: dict[str, Any] = FRENCH
    for _ in range(levels - 1):
        criteria = {"not": criteria}
    return criteria


BAD = [
    ({"field": "country", "is": 5}, ".is"),
    ({"field": "country; DROP TABLE contacts", "is": "FR"}, ".field"),
    ({"all": [FRENCH, {"field": "nope", "is": "x"}]}, ".all.1.field"),
    ({"any": [{"not": {"event": "purchase", "within": "a while"}}]}, ".any.0.not.within"),
    ({"event": "purchase", "where": {"field": "value", "at_least": "much"}}, ".where.at_least"),
    ({"event": "purchase", "count": {"at_least": "2"}}, ".count.at_least"),
    ({"segment": "' OR true --"}, ".segment"),
    ({"field": "country", "in": []}, ".in"),
    ([FRENCH], ""),
    ("country = 'FR'", ""),
    ({}, ""),
    (nested(21), ".not" * 20),
    ({"any": [FRENCH] * 500}, ".any.499"),
    ({"any": [FRENCH] * 10_000}, ".any.499"),
]


@pytest.mark.parametrize(("criteria", "place"), BAD, ids=range(len(BAD)))
async def test_criteria_that_are_none_are_refused_with_the_place(
    api: httpx.AsyncClient, criteria: object, place: str
) -> None:
    (whole, audience) = ({"name": "x", "criteria": criteria}, {"name": "x", "audience": {"filter": criteria}})
    asked = [
        (await api.post("/api/segments", json=whole), f"body.criteria{place}"),
        (await api.put(f"/api/segments/{await segment(api, criteria=FRENCH)}", json=whole), f"body.criteria{place}"),
        (await api.post("/api/segments/preview", json={"criteria": criteria}), f"body.criteria{place}"),
        (await api.post("/api/campaigns", json=audience), f"body.audience.filter{place}"),
    ]
    for answer, path in asked:
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"][0]["path"] == path, answer.text


@pytest.mark.parametrize("levels", [100, 1_000, 100_000])
async def test_however_many_levels_are_refused(api: httpx.AsyncClient, levels: int) -> None:
    criteria = '{"not": ' * levels + '{"field": "country", "is": "FR"}' + "}" * levels
    for path, body in (
        ("/api/segments", f'{{"name": "x", "criteria": {criteria}}}'),
        ("/api/segments/preview", f'{{"criteria": {criteria}}}'),
        ("/api/campaigns", f'{{"name": "x", "audience": {{"filter": {criteria}}}}}'),
    ):
        refused = await api.post(path, content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code == 422, refused.text
        (wrong,) = refused.json()["errors"]
        assert "levels" in wrong["message"] and wrong["path"].startswith("body"), wrong


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ({"kind": "dynamic"}, "body"),
        ({"kind": "static", "criteria": FRENCH}, "body"),
        ({"kind": "static", "name": ""}, "body.name"),
        ({"kind": "static", "name": "a\0b"}, "body.name"),
        ({"kind": "fluid"}, "body.kind"),
        ({"kind": "static", "size": 3}, "body.size"),
    ],
)
async def test_a_definition_that_is_none_is_refused(
    api: httpx.AsyncClient, definition: dict[str, Any], path: str
) -> None:
    refused = await api.post("/api/segments", json={"name": "x"} | definition)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, path)


async def test_a_number_of_thousands_of_digits_is_refused(api: httpx.AsyncClient) -> None:
    told = {
        5_000: {"path": "body", "message": "has a number of more than 4,300 digits"},
        4_300: {"path": "body.criteria.at_least", "message": "takes a number of at most 64 bits."},
    }
    for digits, wrong in told.items():
        body = '{"criteria": {"field": "attributes.age", "at_least": ' + "9" * digits + "}}"
        refused = await api.post("/api/segments/preview", content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code == 422
        assert refused.json()["errors"] == [wrong]


async def test_a_segment_stays_of_its_kind(api: httpx.AsyncClient) -> None:
    static, dynamic = await segment(api), await segment(api, criteria=FRENCH)
    for made, definition in ((static, {"criteria": FRENCH}), (dynamic, {"kind": "static"})):
        refused = await api.put(f"/api/segments/{made}", json={"name": "x", **definition})
        assert refused.status_code == 409 and "stays" in refused.json()["detail"]
