"""How many recipients does an experiment need, and how long does that take at this account's pace?"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from database import counters
from tests.api.test_campaigns import created
from tests.conftest import TestAccount, client_for

ASKED = {"baseline": 0.10, "minimum_detectable_effect": 0.02, "power": 0.8, "confidence": 0.95}


async def was_sent(account: TestAccount, campaign: str, messages: int, *, days_ago: float) -> None:
    async with account.transaction() as tx:
        moment = datetime.now(UTC) - timedelta(days=days_ago)
        await counters.add(tx, account.id, UUID(campaign), {"sent": messages}, now=moment, channel="email")


async def test_a_plan_says_how_many_recipients_it_takes(api: httpx.AsyncClient) -> None:
    answer = await api.post("/api/experiments/plan", json=ASKED)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["sample_size_per_variant"] == 3_841  # Fleiss, Levin & Paik 2003, chapter 4
    assert plan["total"] == 7_682
    assert plan["total_at_any_time"] > plan["total"]
    assert (plan["recipients_per_day"], plan["days"]) == (None, None)
    assert plan["sentence"] == (
        "To tell 12 % from 10 %, in 80 % of experiments, it takes 3,841 recipients for each of 2 variants, 7,682 in "
        "all. Nothing was sent in the last 28 days that would tell how long that is."
    )


async def test_days_are_reckoned_by_what_the_account_has_sent(api: httpx.AsyncClient, account: TestAccount) -> None:
    campaigns = [await created(api), await created(api)]
    await was_sent(account, campaigns[0], 7_000, days_ago=9.99)
    await was_sent(account, campaigns[1], 3_000, days_ago=1)
    await was_sent(account, campaigns[1], 1_000_000, days_ago=40)
    assert (await api.post("/api/experiments/plan", json=ASKED)).json()["days"] is None  # drafts have sent nothing
    async with account.transaction() as tx:
        await tx.exec_driver_sql(
            "UPDATE campaigns SET state = 'completed', launched_at = now() - interval '50 days', finished_at = now()"
        )
    plan = (await api.post("/api/experiments/plan", json={**ASKED, "variants": 3})).json()
    assert plan["recipients_per_day"] == pytest.approx(1_000, rel=0.01)
    assert plan["days"] == -(-plan["total"] // plan["recipients_per_day"])
    assert plan["sentence"].endswith(" messages a day.")


async def test_whoever_knows_the_pace_better_says_so(api: httpx.AsyncClient) -> None:
    plan = (await api.post("/api/experiments/plan", json={**ASKED, "recipients_per_day": 10_000})).json()
    assert (plan["days"], plan["recipients_per_day"]) == (1, 10_000)
    assert plan["sentence"].endswith("7,682 in all: a day at 10,000 messages a day.")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"baseline": 0.5, "minimum_detectable_effect": 0.6}, "a rate can neither rise nor fall by so much"),
        ({"minimum_detectable_effect": 1e-9}, "no list is long enough to see so small an effect"),
        ({"baseline": 10}, "body.baseline"),
        ({"lift": 0.2}, "body.lift"),
    ],
)
async def test_what_can_not_be_planned_is_refused_with_what_to_do(
    api: httpx.AsyncClient, changed: dict[str, float], message: str
) -> None:
    refused = await api.post("/api/experiments/plan", json={**ASKED, **changed})
    assert refused.status_code == 422 and message in refused.text


async def test_a_viewer_may_plan(app: FastAPI, account: TestAccount) -> None:
    async with client_for(app, await account.key_for("viewer")) as viewer:
        assert (await viewer.post("/api/experiments/plan", json=ASKED)).status_code == 200
