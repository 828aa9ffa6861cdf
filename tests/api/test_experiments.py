"""Can a marketer make an experiment of a campaign, start it, see what it shows, and decide?"""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client

from channels.sink import Sink
from tests.audience import EMAIL, people
from tests.broadcast import come
from tests.conftest import PATIENCE, TestAccount, client_for
from tests.experimenting import FEW, Experimenting, click, letters, newest, out, tomorrow

VARIANTS = [{"name": name, "content": {"email": {"subject": f"{name} says hello"}}} for name in "AB"]
EXPERIMENT = {
    "variants": VARIANTS,
    "test_fraction": 0.5,
    "metric": "HIGHEST_CLICK_RATE",
    "decide": "manual",
    "minimum_sample": FEW,
}
ALL = "/api/campaigns/ab-tests"


async def campaign(api: httpx.AsyncClient, **changes: Any) -> str:
    whole = {"name": "Autumn", "content": {"email": EMAIL}, "audience": {"everyone": True}, **changes}
    answer = await api.post("/api/campaigns", json=whole)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def drafted(api: httpx.AsyncClient, **changes: Any) -> str:
    """The path of an experiment that can be started."""
    of = await campaign(api)
    answer = await api.post(f"/api/campaigns/{of}/ab-tests", json={**EXPERIMENT, **changes})
    assert answer.status_code == 201, answer.text
    assert answer.json()["id"] == answer.json()["campaign_id"] == of
    return f"{ALL}/{of}"


async def started(api: httpx.AsyncClient, temporal: Client, account: TestAccount, **changes: Any) -> str:
    """The path of an experiment whose test is out."""
    path = await drafted(api, **changes)
    answer = await api.post(f"{path}/start")
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "testing"
    await out(newest(temporal, of(account, path)))
    return path


def of(account: TestAccount, path: str) -> Experimenting:
    return Experimenting(UUID(path.rpartition("/")[2]), account)


async def results(api: httpx.AsyncClient, path: str) -> Any:
    answer = await api.get(f"{path}/results")
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- its life --------------------------------------------------------------------------------------------------------


async def test_a_campaign_is_tested_looked_at_and_the_winner_sent_to_the_rest(
    api: httpx.AsyncClient, temporal: Client, app: FastAPI, sink: Sink, account: TestAccount, worker: None
) -> None:
    await people(account, 100)
    path = await started(api, temporal, account, holdout=0.1)
    clicked = await click(app, sink, of(account, path), {"B": 0.9})
    told = await results(api, path)
    assert (told["state"], told["winner"], told["metric"]) == ("testing", None, "click_rate")
    assert told["sentence"].startswith("The test is out, and waits for a person to decide.")
    assert [each["code"] for each in told["warnings"]] == ["nothing_to_compare"]
    given = Counter((await of(account, path).variants()).values())
    shown = {each["name"]: each for each in (*told["variants"], told["holdout"], told["rest"])}
    assert {name: each["planned"] for name, each in shown.items()} == {
        "A": given["A"],
        "B": given["B"],
        "holdout": given["holdout"],
        "rest": given[""],
    }
    assert [shown[name]["clicked"]["unique"] for name in "AB"] == [0, clicked["B"]]
    assert shown["B"]["click_rate"] == clicked["B"] / given["B"]
    assert (shown["A"]["share"], shown["rest"]["share"]) == (0.5, None)
    assert told["analysis"]["leader"] == "B"
    assert [each["always_valid"]["peeking_safe"] for each in told["analysis"]["comparisons"]] == [True]
    assert [each["test"]["peeking_safe"] for each in told["analysis"]["comparisons"]] == [False]
    assert (await api.get(f"{path}/analytics")).json().keys() == told.keys()

    chosen = await api.post(f"{path}/apply-winner", json={"reason": "Clear enough"})
    assert chosen.status_code == 200, chosen.text
    assert (chosen.json()["state"], chosen.json()["winner"]) == ("decided", "B")
    await newest(temporal, of(account, path)).result()
    after = await results(api, path)
    assert after["sentence"] == "The winner is “B”. A person chose it: Clear enough."
    assert (after["decided_by"], after["decision"]["leader"]) == ("person", "B")
    assert after["rest"]["sent"] == given[""]
    assert {subject for _, subject, _ in letters(sink, account)[-given[""] :]} == {"B says hello"}
    again = await api.post(f"{path}/apply-winner")
    assert again.status_code == 409, again.text


async def test_while_a_variant_has_not_left_nobody_is_missing_and_nothing_is_compared(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, sink: Sink, worker: None
) -> None:
    await people(account, 60)
    late = {**VARIANTS[1], "schedule": tomorrow()}
    path = await drafted(api, variants=[VARIANTS[0], late])
    assert (await api.post(f"{path}/start")).status_code == 202
    await come(sink, account)
    while (told := await results(api, path))["variants"][0]["pending"]:
        pass
    assert [each["code"] for each in told["warnings"]] == ["different_times"]
    assert told["analysis"]["sample_ratio"]["mismatch"] is False
    assert told["sentence"].endswith("Too early to say: too few variants have been sent to anyone yet.")
    assert (await api.post(f"{path}/stop")).status_code == 200
    await newest(temporal, of(account, path)).result()
    assert (await results(api, path))["analysis"]["sample_ratio"]["mismatch"] is False


async def test_what_is_stopped_keeps_its_results(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 20)
    path = await started(api, temporal, account)
    stopped = await api.post(f"{path}/stop", json={"reason": "The price is wrong"})
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")
    await newest(temporal, of(account, path)).result()
    told = await results(api, path)
    assert told["sentence"].startswith("It was stopped: The price is wrong. ")
    assert told["rest"]["skipped_by_reason"] == {"stopped": told["rest"]["planned"]}
    for verb in ("stop", "apply-winner"):
        refused = await api.post(f"{path}/{verb}")
        assert refused.status_code == 409 and "is over" in refused.json()["detail"]


async def test_of_what_is_cancelled_no_decision_is_announced(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 20)
    path = await started(api, temporal, account, decide={"after": "4 hours"})
    before = await results(api, path)
    assert before["decides_at"] and "is decided by" in before["sentence"]
    assert (await api.post(f"{path.replace('/ab-tests', '')}/cancel")).status_code == 200
    after = await results(api, path)
    assert (after["status"], after["decides_at"]) == ("cancelled", None)
    assert after["sentence"].startswith("The campaign was cancelled before there was a winner. ")


async def test_of_what_is_decided_no_other_decision_is_announced(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 20)
    path = await started(api, temporal, account, decide={"after": "4 hours"})
    of_campaign = path.replace("/ab-tests", "")
    assert (await api.post(f"{of_campaign}/pause")).status_code == 200  # so that it is not over at once
    assert (await api.post(f"{path}/apply-winner")).status_code == 200
    told = await results(api, path)
    assert (told["status"], told["state"], told["decides_at"]) == ("paused", "decided", None)
    assert (await api.post(f"{of_campaign}/cancel")).status_code == 200


async def test_what_waits_for_its_moment_can_not_be_decided_yet(
    api: httpx.AsyncClient, account: TestAccount, worker: None
) -> None:
    await people(account, 5)
    later = await campaign(api, schedule={"send_at": "2126-11-27T09:00"}, kind="experiment", experiment=EXPERIMENT)
    assert (await api.post(f"{ALL}/{later}/start")).status_code == 202
    for verb in ("apply-winner", "stop"):
        refused = await api.post(f"{ALL}/{later}/{verb}")
        assert (refused.status_code, refused.json()["detail"]) == (409, "This experiment has not begun yet.")


async def test_the_same_request_with_the_same_key_decides_once(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 20)
    path = await started(api, temporal, account)
    asked = {"json": {"variant": "A"}, "headers": {"Idempotency-Key": "choose"}}
    first, second = [await api.post(f"{path}/apply-winner", **asked) for _ in range(2)]  # type: ignore[arg-type]
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json() and first.json()["winner"] == "A"
    assert second.headers["idempotency-replayed"] == "true"


async def test_a_bandit_tells_how_each_part_was_shared_out(
    api: httpx.AsyncClient, account: TestAccount, worker: None
) -> None:
    await people(account, 20)
    decide = {"after": "1 hour"}
    path = await drafted(api, allocation="bandit", batches=2, decide=decide, test_fraction=None)
    assert (await api.post(f"{path}/start")).status_code == 202
    async with asyncio.timeout(PATIENCE):
        while not (told := await results(api, path))["allocations"]:
            pass
    first = told["allocations"][0]
    assert first["seen"] == {name: {"recipients": 0, "successes": 0} for name in "AB"}
    assert sum(first["weights"].values()) == pytest.approx(1)
    assert told["sentence"].startswith("The test is still going out.")
    assert [each["share"] for each in told["variants"]] == [None, None]
    assert told["analysis"]["adaptive"] is True
    assert (await api.post(f"{path}/stop")).json()["state"] == "stopped"


# -- who saw what, and what others count -----------------------------------------------------------------------------


async def test_exposures_are_told_page_by_page_in_the_order_of_contacts(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 60)
    path = await started(api, temporal, account, holdout=0.3)
    given = {contact: variant for contact, variant in (await of(account, path).variants()).items() if variant}
    seen: dict[UUID, str] = {}
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(f"{path}/exposures", params={"limit": "7", **cursor})).json()
        seen |= {UUID(each["contact_id"]): each["variant"] for each in page["items"]}
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == given
    assert list(seen) == sorted(given)
    held = (await api.get(f"{path}/exposures", params={"variant": "holdout", "limit": "100"})).json()["items"]
    assert {UUID(each["contact_id"]) for each in held} == {each for each in given if given[each] == "holdout"}


async def test_conversions_that_others_count_are_told_once_and_for_those_who_take_part(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 40)
    paid = {"metric": "HIGHEST_REVENUE_PER_RECIPIENT", "conversion": {"event": "purchase", "within": "2 days"}}
    path = await started(api, temporal, account, holdout=0.3, **paid)
    given = await of(account, path).variants()
    one = {variant: next(each for each in given if given[each] == variant) for variant in ("A", "holdout", "")}
    items: list[dict[str, Any]] = [
        {"contact": {"id": str(contact)}, "value": "20.50", "currency": "EUR", "idempotency_key": f"order {contact}"}
        for contact in one.values()
    ]
    unknown = {"contact": {"external_id": "nobody"}, "occurred_at": "2199-01-01T00:00:00Z"}
    early = [{"contact": {"id": str(one[name])}, "occurred_at": "2020-01-01T00:00:00Z"} for name in ("A", "holdout")]
    first = await api.post(f"{path}/track", json={"items": [*items, unknown, *early]})
    assert first.status_code == 207, first.text
    told = first.json()["results"]
    assert [each["status"] for each in told] == [201, 201, 201, 422, 201, 201]
    assert [each.get("variant") for each in told] == ["A", "holdout", None, None, None, None]
    assert told[3]["path"] == "occurred_at"
    again = await api.post(f"{path}/track", json={"items": items})
    assert (again.status_code, {each["status"] for each in again.json()["results"]}) == (201, {200})
    read = await results(api, path)
    figures = {each["name"]: each for each in (*read["variants"], read["holdout"])}
    assert [(figures[name]["converted"], figures[name]["revenue"]) for name in ("A", "B", "holdout")] == [
        (1, 20.5),
        (0, 0),
        (1, 20.5),
    ]
    assert figures["holdout"]["conversion_rate"] == 1 / figures["holdout"]["skipped_by_reason"]["holdout"]
    assert read["conversion"] == {"event": "purchase", "within": "2 days", "currency": None}
    assert read["incrementality"]["sentence"].startswith("Contacts who were sent the campaign brought ")
    dollars = {"contact": {"id": str(one["A"])}, "value": 5, "currency": "USD"}
    assert (await api.post(f"{path}/track", json={"items": [dollars]})).status_code == 201
    assert [each["code"] for each in (await results(api, path))["warnings"]] == ["several_currencies"]


# -- what can't be done ----------------------------------------------------------------------------------------------


async def test_before_it_is_started_it_is_told_so(api: httpx.AsyncClient) -> None:
    path = await drafted(api)
    draft = (await api.get(path)).json()
    assert (draft["status"], draft["state"], draft["experiment"]["metric"]) == ("draft", None, "click_rate")
    for method, verb in (("GET", "results"), ("POST", "apply-winner"), ("POST", "stop"), ("POST", "track")):
        body = {"items": [{"contact": {"email": "zoe@example.com"}}]} if verb == "track" else None
        answer = await api.request(method, f"{path}/{verb}", json=body)
        assert answer.status_code == 409 and "start" in answer.json()["detail"], answer.text
    assert (await api.get(f"{path}/exposures")).json()["items"] == []
    refused = await api.post(f"{path}/start")  # nobody is there
    assert refused.status_code in (202, 409)


async def test_a_campaign_has_one_experiment_and_a_drip_none(api: httpx.AsyncClient) -> None:
    path = await drafted(api)
    again = await api.post(f"/api/campaigns/{path.rpartition('/')[2]}/ab-tests", json=EXPERIMENT)
    assert again.status_code == 409 and "PUT" in again.json()["detail"]
    drip = {"content": {}, "kind": "drip", "messages": [{"content": EMAIL}]}
    refused = await api.post(f"/api/campaigns/{await campaign(api, **drip)}/ab-tests", json=EXPERIMENT)
    assert refused.status_code == 409 and "split" in refused.json()["detail"]
    plain = await campaign(api)
    for route in ("", "/results", "/exposures"):
        assert (await api.get(f"{ALL}/{plain}{route}")).status_code == 404
    assert (await api.get(ALL)).json()["items"][0]["id"] == path.rpartition("/")[2]


async def test_what_is_launched_can_not_become_an_experiment(api: httpx.AsyncClient) -> None:
    launched = await campaign(api)
    assert (await api.post(f"/api/campaigns/{launched}/launch")).is_success
    refused = await api.post(f"/api/campaigns/{launched}/ab-tests", json=EXPERIMENT)
    assert refused.status_code == 409 and refused.json()["campaign_status"] == "running"


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"variants": VARIANTS[:1]}, "body.variants"),
        ({"metric": "happiness"}, "body.metric"),
        ({"decide": {"when_significant": True}}, "body.decide.no_later_than"),
        ({"minimum_sample": {"clicks": False}}, "body.minimum_sample.clicks"),
        ({"holdout": False}, "body.holdout"),
        ({"holdout": 10}, "body.holdout"),
        ({"allocation": {"A": -1}}, "body.allocation.A"),
        ({"variants": [{"name": "holdout"}, {"name": "B"}]}, "body.variants.0.name"),
    ],
)
async def test_what_is_no_experiment_is_refused_with_its_place(
    api: httpx.AsyncClient, changed: dict[str, Any], path: str
) -> None:
    refused = await api.post(f"/api/campaigns/{await campaign(api)}/ab-tests", json={**EXPERIMENT, **changed})
    assert refused.status_code == 422
    assert [each["path"] for each in refused.json()["errors"]] == [path]


async def test_no_winner_is_chosen_that_is_none_and_no_opens_are_tracked(
    api: httpx.AsyncClient, temporal: Client, account: TestAccount, worker: None
) -> None:
    await people(account, 10)
    path = await started(api, temporal, account)
    for name in ("C", "holdout"):
        unknown = await api.post(f"{path}/apply-winner", json={"variant": name})
        assert unknown.status_code == 422 and "no such variant. There are A, B" in unknown.json()["detail"]
    untold = await api.post(f"{path}/track", json={"items": [{"contact": {"email": "zoe@example.com"}}]})
    assert untold.status_code == 409 and "counts no conversions" in untold.json()["detail"]


async def test_viewers_look_and_editors_decide(app: FastAPI, api: httpx.AsyncClient, account: TestAccount) -> None:
    path = await drafted(api)
    async with client_for(app, await account.key_for("viewer")) as viewer:
        assert (await viewer.get(path)).status_code == (await viewer.get(ALL)).status_code == 200
        assert (await viewer.get(f"{path}/results")).status_code == 409
        for verb in ("start", "apply-winner", "stop"):
            assert (await viewer.post(f"{path}/{verb}")).status_code == 403
        made = await viewer.post(f"/api/campaigns/{path.rpartition('/')[2]}/ab-tests", json=EXPERIMENT)
        assert made.status_code == 403


async def test_experiments_are_listed_page_by_page_with_how_they_stand(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    paths = [await drafted(api) for _ in range(3)]
    async with account.transaction() as tx:
        first = paths[0].rpartition("/")[2]
        standing = (
            "INSERT INTO experiments (campaign_id, account_id, state, winner) VALUES (:id, :account, 'decided', 'B')"
        )
        await tx.execute(text(standing), {"id": first, "account": account.id})
    page = (await api.get(ALL, params={"limit": 2})).json()
    rest = (await api.get(ALL, params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert [f"{ALL}/{each['id']}" for each in (*page["items"], *rest["items"])] == paths[::-1]
    assert [each["winner"] for each in rest["items"]] == ["B"]


async def test_one_that_is_not_written_yet_is_among_them_and_can_be_written(api: httpx.AsyncClient) -> None:
    bare = await campaign(api, kind="experiment")
    assert (await api.get(ALL)).json()["items"][0]["experiment"] is None
    assert (await api.get(f"{ALL}/{bare}")).json()["experiment"] is None
    refused = await api.post(f"{ALL}/{bare}/start")
    assert refused.status_code == 409 and "what is compared" in refused.json()["detail"]
    assert (await api.post(f"/api/campaigns/{bare}/ab-tests", json=EXPERIMENT)).status_code == 201
