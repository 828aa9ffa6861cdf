"""Does a campaign for segments reach exactly those who belong?"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.campaigns import Campaigns
from activities.inputs import FreezeInput
from channels.sink import Sink
from tests.api.test_campaigns import created, finished
from tests.audience import people
from tests.broadcast import arrived, broadcast
from tests.conftest import TestAccount
from tests.delivering import NOW, freeze
from tests.segments import of_contacts, segment, settled

EVENS = {"field": "first_name", "in": [f"Person {n}" for n in range(2, 100, 2)]}


def addresses(account: TestAccount, *numbers: int) -> list[str]:
    return sorted(f"person-{number}-{str(account.id)[-12:]}@example.org" for number in numbers)


async def planned(api: httpx.AsyncClient, audience: dict[str, Any]) -> int:
    """How many would be in it, by reach."""
    reach = (await api.post(f"/api/campaigns/{await created(api, audience=audience)}/reach")).json()
    assert reach["total"] == reach["sendable"] + sum(reach["skipped"].values())
    return int(reach["total"])


# -- who is in it ----------------------------------------------------------------------------------------------------


async def test_a_broadcast_to_segments_goes_to_each_member_once_and_to_nobody_else(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    ids = await people(account, 12)
    await people(account, 2, name="stranger")
    one, two = await of_contacts(api, ids[:6]), await of_contacts(api, ids[3:10])
    without = await of_contacts(api, ids[7:8])
    audience = {"segments": [one, two], "exclude_segments": [without], "filter": {"not": EVENS}}
    campaign = await created(api, audience=audience)
    assert (await api.get(f"/api/campaigns/{campaign}")).json()["audience"].items() >= audience.items()
    reach = (await api.post(f"/api/campaigns/{campaign}/reach")).json()
    assert reach == {"total": 5, "sendable": 5, "skipped": {}}
    preview = (await api.post(f"/api/campaigns/{campaign}/preview", json={"sample": 20})).json()
    assert sorted(each["email"] for each in preview["previews"]) == addresses(account, 1, 3, 5, 7, 9)
    assert (await api.post(f"/api/campaigns/{campaign}/launch")).status_code == 202
    await finished(temporal, campaign)
    stats = (await api.get(f"/api/campaigns/{campaign}/stats")).json()
    assert (stats["planned"], stats["sent"]) == (5, 5)
    assert arrived(sink, account) == addresses(account, 1, 3, 5, 7, 9)


async def test_segments_exclusions_and_criteria_combine(api: httpx.AsyncClient, account: TestAccount) -> None:
    ids = await people(account, 10)
    one, two = await of_contacts(api, ids[:6]), await of_contacts(api, ids[4:8])
    looking = {"all": [{"segment": one}, {"not": {"segment": two}}]}
    expectations: list[tuple[dict[str, Any], int]] = [
        ({"segments": [one]}, 6),
        ({"segments": [one, two]}, 8),
        ({"segments": [one, one]}, 6),
        ({"exclude_segments": [one]}, 4),
        ({"exclude_segments": [one, two]}, 2),
        ({"segments": [one], "exclude_segments": [two]}, 4),
        ({"filter": EVENS}, 5),
        ({"filter": looking}, 4),
        ({"segments": [two], "filter": EVENS}, 2),
        ({"exclude_segments": [two], "filter": EVENS}, 3),
        ({"segments": [await segment(api)]}, 0),
    ]
    for audience, expected in expectations:
        assert await planned(api, audience) == expected, audience


async def test_reach_tells_why_members_would_be_skipped(api: httpx.AsyncClient, account: TestAccount) -> None:
    agreed, silent = await people(account, 3), await people(account, 2, name="silent", subscribed=False)
    made = await of_contacts(api, [*agreed, *silent])
    campaign = await created(api, audience={"segments": [made]})
    reach = (await api.post(f"/api/campaigns/{campaign}/reach")).json()
    assert reach == {"total": 5, "sendable": 3, "skipped": {"no_consent": 2}}
    assert (await api.delete(f"/api/segments/{made}")).status_code == 204, "no open campaign uses it"
    refused = await api.post(f"/api/campaigns/{campaign}/reach")
    assert refused.status_code == 409 and made in refused.json()["detail"]
    assert [each["code"] for each in refused.json()["problems"]] == ["unknown_segment"]


async def test_missing_variables_and_zones_are_those_of_the_members(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    ids = await people(account, 3, timezone="Pacific/Kiritimati")
    others = await people(account, 2, name="late", timezone="Pacific/Honolulu")
    made, late = await of_contacts(api, ids), await of_contacts(api, others)
    async with account.transaction() as tx:
        await tx.execute(
            text("UPDATE contacts SET first_name = NULL WHERE id = :id OR email LIKE 'late%'"), {"id": ids[0]}
        )
    content = {
        "email": {
            "subject": "Hello {{ contact.first_name }}",
            "html": '<p>x</p><a href="{{ unsubscribe_url }}">Unsubscribe</a>',
            "from_name": "Example",
            "from_email": "news@example.com",
        }
    }
    for audience in ({"segments": [made]}, {"filter": {"segment": made}}):
        campaign = await created(api, audience=audience, content=content)
        problems = (await api.post(f"/api/campaigns/{campaign}/validate")).json()["problems"]
        assert [(each["code"], each["count"]) for each in problems] == [("missing_fallback", 1)]
    soon = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M")
    schedule = {"send_at": soon, "timezone": "recipient"}
    for chosen, passed in ((made, True), (late, False)):
        campaign = await created(api, audience={"segments": [chosen]}, schedule=schedule)
        codes = {each["code"] for each in (await api.post(f"/api/campaigns/{campaign}/validate")).json()["problems"]}
        assert ("schedule_passed" in codes) == passed


@pytest.mark.parametrize(
    "audience",
    [
        {},
        {"segments": []},
        {"exclude_segments": []},
        {"everyone": True, "segments": [str(UUID(int=7))]},
        {"tags": {"any": ["vip"]}, "filter": EVENS},
        {"segments": ["x"]},
        {"segments": [str(UUID(int=7))] * 101},
    ],
)
async def test_an_audience_that_is_none_is_refused(api: httpx.AsyncClient, audience: dict[str, Any]) -> None:
    refused = await api.post("/api/campaigns", json={"name": "x", "audience": audience})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"].startswith("body.audience")


# -- the moment ------------------------------------------------------------------------------------------------------


async def test_a_campaign_is_neither_launched_nor_counted_before_it_is_known_who_belongs(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    building = await segment(api, "New ones", criteria=EVENS)
    await settled(api, temporal, building)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE segments SET state = 'building'"))
    gone = str(UUID(int=7))
    for name, audience in (
        ("segments", {"segments": [building, gone]}),
        ("exclude_segments", {"exclude_segments": [building, gone]}),
        ("filter", {"filter": {"any": [{"segment": building}, {"not": {"segment": gone}}]}}),
    ):
        campaign = await created(api, audience=audience)
        refused = await api.post(f"/api/campaigns/{campaign}/launch")
        uncounted = await api.post(f"/api/campaigns/{campaign}/reach")
        assert refused.status_code == uncounted.status_code == 409
        assert refused.json()["problems"] == uncounted.json()["problems"]
        told = {each["code"]: each for each in refused.json()["problems"]}
        assert set(told) == {"unknown_segment", "segment_building"}
        assert {each["part"] for each in told.values()} == {f"audience.{name}"}
        assert "“New ones”" in told["segment_building"]["message"] and gone in told["unknown_segment"]["message"]
        assert not (await api.post(f"/api/campaigns/{campaign}/validate")).json()["launchable"]


async def test_who_belongs_is_asked_when_the_audience_is_frozen(api: httpx.AsyncClient, account: TestAccount) -> None:
    ids = await people(account, 5)
    made = await of_contacts(api, ids[:2])
    sent = await broadcast(account, audience={"segments": [made]})
    later = {"contacts": [{"id": str(each)} for each in ids[2:]]}
    assert (await api.post(f"/api/segments/{made}/members", json=later)).is_success
    assert (await freeze(sent)).planned == 5
    assert (await api.request("DELETE", f"/api/segments/{made}/members", json=later)).is_success
    assert (await sent.ledger()) == {"planned": 5}, "whoever leaves after that stays in it"


async def test_a_start_waits_until_the_members_of_a_changed_segment_are_found(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    await people(account, 4)
    made = await segment(api, criteria=EVENS)
    await settled(api, temporal, made)
    sent = await broadcast(account, audience={"filter": {"segment": made}})
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE segments SET state = 'building'"))
    campaigns = Campaigns(account.database)
    wanted = FreezeInput(account_id=account.id, campaign_id=sent.id, now=NOW, shard_size=10)
    with pytest.raises(ApplicationError, match="still being found") as raised:
        await ActivityEnvironment().run(campaigns.freeze_audience, wanted)
    assert not raised.value.non_retryable
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE segments SET state = 'ready'"))
    assert (await ActivityEnvironment().run(campaigns.freeze_audience, wanted)).planned == 2
