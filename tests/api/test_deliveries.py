"""What can an operator do about messages of which nobody knows whether they arrived?"""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client

from activities.campaigns import Campaigns
from activities.inputs import StateChange, Totals
from api.app import create_app
from channels.base import Message, Uncertain
from channels.sink import Sink
from database import campaigns, experiments
from database.engine import Database
from local_stack import EmbeddedTemporal
from marketing.campaigns import CampaignState
from tests.audience import people
from tests.broadcast import Broadcast, arrived, broadcast, come, taken
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from tests.delivering import Provider, deliver, execute, freeze
from tests.experimenting import experiment
from tests.journeys import steps
from workflows.campaigns import CampaignWorkflow, campaign_workflow_id
from workflows.connection import connect
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION
from workflows.sweeps import SweepWorkflow

DOUBT = "The server hung up after the message."


async def campaign_in_doubt(
    account: TestAccount,
    uncertain: int,
    sent: int = 0,
    state: CampaignState = CampaignState.COMPLETED,
    *,
    of_experiment: bool = False,
) -> Broadcast:
    """A campaign at its end, to everyone: of so many more messages nobody knows whether they arrived."""
    await people(account, uncertain, name=f"doubtful-{uuid4().hex}")
    await people(account, sent, name="certain")

    async def answer(message: Message) -> None:
        if message.to.startswith("doubtful"):
            raise Uncertain(DOUBT)

    made = await experiment(account, test_fraction=1) if of_experiment else await broadcast(account)
    await freeze(made)
    await deliver(made, Provider(answer))
    await made.set_state(state)
    if state is CampaignState.COMPLETED:
        async with account.transaction() as tx:
            await campaigns.mark_finished(tx, made.id)
    return made


async def resolve(api: httpx.AsyncClient, action: str, **which: Any) -> dict[str, Any]:
    answer = await api.post("/api/deliveries/resolve", json={"action": action, **which})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def uncertain(api: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """All pages of the list."""
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next_cursor": ""}
    while (cursor := page["next_cursor"]) is not None:
        params = {"state": "uncertain", "limit": 3, **query} | ({"cursor": cursor} if cursor else {})
        answer = await api.get("/api/deliveries", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
    return found


async def test_uncertain_messages_are_listed_with_what_the_relays_log_knows_them_by(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    first, second = await campaign_in_doubt(account, 4, sent=2), await campaign_in_doubt(account, 1)
    listed = await uncertain(api)
    assert len({each["delivery_id"] for each in listed}) == len(listed) == 9  # the second went to the first four too
    assert len(await uncertain(api, campaign_id=str(first.id))) == 4
    assert await uncertain(api, reason="worker_lost") == []
    one = (await uncertain(api, campaign_id=str(second.id)))[0]
    assert one["message_id"] == f"<{one['delivery_id'].replace('-', '')}@example.com>"
    assert (one["reason"], one["reply"], one["campaign_name"]) == ("connection_lost", DOUBT, "Test")
    assert one["email"].startswith("doubtful-") and one["leased_at"] and one["uncertain_since"]
    for query in ({"state": "sent"}, {"cursor": "nonsense"}, {"reason": "nonsense"}):
        assert (await api.get("/api/deliveries", params=query)).status_code == 422


async def test_what_is_accepted_counts_as_sent_and_says_that_a_person_said_so(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 5, sent=2)
    two = [each["delivery_id"] for each in await uncertain(api)][:2]
    assert await resolve(api, "accept", delivery_ids=two) == {
        "resolved": 2,
        "remaining": 0,
        "campaigns": [{"campaign_id": str(made.id), "resolved": 2, "status": "completed"}],
        "not_resolved": [],
    }
    assert await made.ledger() == {"sent": 2, "sent:accepted_by_hand": 2, "uncertain:connection_lost": 3}
    stats = (await api.get(f"/api/campaigns/{made.id}/stats")).json()
    assert (stats["planned"], stats["pending"], stats["sent"], stats["accepted"], stats["uncertain"]) == (7, 0, 4, 2, 3)
    assert (await made.stats()).reconciles
    (hour,) = stats["per_hour"]
    assert (hour["sent"], hour["accepted"], hour["uncertain"]) == (4, 2, 3)
    line = (await api.get(f"/api/campaigns/{made.id}/recipients?reason=accepted_by_hand")).json()["items"][0]
    assert (line["state"], line["reply"]) == ("sent", DOUBT)
    told = (await api.get(f"/api/campaigns/{made.id}/events?name=message.accepted")).json()["items"]
    assert {each["delivery_id"] for each in told} == set(two)
    keys = [each["id"] for each in (await api.get("/api/keys")).json()["items"]]
    assert told[0]["properties"] == {"was": "connection_lost", "api_key_id": keys[0]}
    (whole,) = (await api.get(f"/api/campaigns/{made.id}/events?name=campaign.resolved")).json()["items"]
    assert whole["properties"] == {"action": "accept", "messages": "2", "api_key_id": keys[0]}


async def test_a_completed_campaign_runs_again_for_what_is_sent_again(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 6, sent=3)
    before = {each["message_id"]: each["email"] for each in await uncertain(api)}
    answer = await resolve(api, "resend", campaign_id=str(made.id), reason="connection_lost")
    assert answer == {
        "resolved": 6,
        "remaining": 0,
        "campaigns": [{"campaign_id": str(made.id), "resolved": 6, "status": "running"}],
        "not_resolved": [],
    }
    totals = Totals.model_validate(await temporal.get_workflow_handle(campaign_workflow_id(made.id)).result())
    assert (totals.planned, totals.sent, totals.pending) == (9, 9, 0)
    assert {each.message_id: each.recipient for each in taken(sink, account)} == before
    assert (await made.state())[0] is CampaignState.COMPLETED
    assert await made.ledger() == {"sent": 9}
    assert (await made.stats()).reconciles
    names = [each["name"] for each in (await api.get(f"/api/campaigns/{made.id}/events")).json()["items"]]
    assert names[0] == "campaign.completed" and {"campaign.reopened", "message.put_back"} < set(names)
    # And again: the workflow's id was used twice by now.
    await execute(
        account,
        "UPDATE deliveries SET state = 'uncertain', reason = 'worker_lost' WHERE campaign_id = :id AND contact_id ="
        " (SELECT contact_id FROM deliveries WHERE campaign_id = :id LIMIT 1)",
        id=made.id,
    )
    assert (await resolve(api, "resend", campaign_id=str(made.id)))["resolved"] == 1
    await temporal.get_workflow_handle(campaign_workflow_id(made.id)).result()
    assert len(taken(sink, account)) == 7


async def test_a_message_that_is_sent_again_passes_all_checks_again(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 3)
    left, *_ = await uncertain(api)
    await execute(
        account, "UPDATE subscriptions SET status = 'unsubscribed' WHERE contact_id = :id", id=left["contact_id"]
    )
    await resolve(api, "resend", campaign_id=str(made.id))
    await temporal.get_workflow_handle(campaign_workflow_id(made.id)).result()
    assert await made.ledger() == {"sent": 2, "skipped:unsubscribed": 1}
    assert left["email"] not in arrived(sink, account)


async def test_a_running_campaign_sends_again_at_once_although_it_waits_for_something_else(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 4, state=CampaignState.RUNNING)
    await execute(  # one is due much later
        account,
        "UPDATE deliveries SET state = 'planned', reason = NULL, not_before = now() + interval '3 hours'"
        " WHERE id = (SELECT id FROM deliveries WHERE campaign_id = :id LIMIT 1)",
        id=made.id,
    )
    input = CampaignInput(account_id=account.id, campaign_id=made.id)
    run = await temporal.start_workflow(
        CampaignWorkflow.run, input, id=campaign_workflow_id(made.id), task_queue=ORCHESTRATION
    )
    while (await run.query(CampaignWorkflow.progress)).totals.planned == 0:
        pass
    assert (await resolve(api, "resend", campaign_id=str(made.id)))["resolved"] == 3
    await come(sink, account, 3)
    progress = await run.query(CampaignWorkflow.progress)
    assert (progress.state, progress.totals.planned) == ("running", 4)
    await api.post(f"/api/campaigns/{made.id}/cancel")
    await run.result()
    assert await made.ledger() == {"sent": 3, "skipped:cancelled": 1}


async def test_a_paused_campaign_keeps_what_was_put_back_until_it_is_resumed(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 2, state=CampaignState.PAUSED)
    answer = await resolve(api, "resend", campaign_id=str(made.id))
    assert answer["campaigns"] == [{"campaign_id": str(made.id), "resolved": 2, "status": "paused"}]
    assert await made.ledger() == {"planned": 2}
    assert (await api.post(f"/api/campaigns/{made.id}/resume")).json()["status"] == "running"
    await temporal.get_workflow_handle(campaign_workflow_id(made.id)).result()
    assert len(arrived(sink, account)) == 2


@pytest.mark.parametrize("state", [CampaignState.CANCELLED, CampaignState.FAILED])
async def test_nothing_is_put_back_into_a_campaign_that_sends_nothing_any_more(
    api: httpx.AsyncClient, account: TestAccount, state: CampaignState
) -> None:
    made = await campaign_in_doubt(account, 3, state=state)
    body = {"action": "resend", "campaign_id": str(made.id)}
    refused = await api.post("/api/deliveries/resolve", json=body)
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith(f"Its campaign is {state} and sends nothing any more: accept it")
    ids = [each["delivery_id"] for each in await uncertain(api)]
    answer = await resolve(api, "resend", delivery_ids=ids[:1])
    assert (answer["resolved"], answer["not_resolved"][0]["why"]) == (0, refused.json()["detail"])
    assert (await resolve(api, "accept", campaign_id=str(made.id)))["resolved"] == 3
    assert (await made.stats()).reconciles


async def test_nothing_is_put_back_into_an_experiment_that_was_stopped(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 3, of_experiment=True)
    async with account.transaction() as tx:
        assert await experiments.stop(tx, account.id, made.id, reason="The price is wrong")
    body = {"action": "resend", "campaign_id": str(made.id)}
    refused = await api.post("/api/deliveries/resolve", json=body)
    assert refused.status_code == 409, refused.text
    assert refused.json()["detail"].startswith("Its experiment was stopped and sends nothing any more: accept it")
    ids = [each["delivery_id"] for each in await uncertain(api)]
    answer = await resolve(api, "resend", delivery_ids=ids)
    assert {each["why"] for each in answer["not_resolved"]} == {refused.json()["detail"]}
    assert (answer["resolved"], (await made.stats()).uncertain) == (0, 3)
    assert (await resolve(api, "accept", campaign_id=str(made.id)))["resolved"] == 3


async def test_a_deleted_campaign_keeps_its_ledger_and_sends_nothing(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 2)
    assert (await api.delete(f"/api/campaigns/{made.id}")).status_code == 204
    (one, other) = [each["delivery_id"] for each in await uncertain(api)]
    answer = await resolve(api, "resend", delivery_ids=[one])
    assert "was deleted" in answer["not_resolved"][0]["why"]
    assert (await resolve(api, "accept", delivery_ids=[one, other]))["resolved"] == 2


async def test_only_uncertain_messages_of_the_own_account_are_touched(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 1, sent=1)
    sent = (await api.get(f"/api/campaigns/{made.id}/recipients?state=sent")).json()["items"][0]["delivery_id"]
    (doubtful,) = [each["delivery_id"] for each in await uncertain(api)]
    unknown = str(uuid4())
    for action in ("accept", "resend"):
        answer = await resolve(stranger, action, delivery_ids=[doubtful, sent])
        assert [each["why"] for each in answer["not_resolved"]] == ["There is no such delivery."] * 2
        answer = await resolve(api, action, delivery_ids=[sent, unknown, sent])
        assert answer["not_resolved"] == [
            {"delivery_id": sent, "why": "It is not uncertain: sent."},
            {"delivery_id": unknown, "why": "There is no such delivery."},
        ]
    foreign = await stranger.post("/api/deliveries/resolve", json={"action": "accept", "campaign_id": str(made.id)})
    assert foreign.status_code == 404
    assert await uncertain(stranger) == []
    assert await made.ledger() == {"sent": 1, "uncertain:connection_lost": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"action": "accept"},
        {"action": "forget", "campaign_id": str(uuid4())},
        {"action": "accept", "delivery_ids": []},
        {"action": "accept", "delivery_ids": [str(uuid4())] * 1001},
        {"action": "accept", "delivery_ids": [str(uuid4())], "campaign_id": str(uuid4())},
        {"action": "accept", "delivery_ids": [str(uuid4())], "reason": "worker_lost"},
        {"action": "accept", "campaign_id": str(uuid4()), "reason": "bad luck"},
    ],
)
async def test_what_is_not_clear_is_refused(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await api.post("/api/deliveries/resolve", json=body)).status_code == 422


async def test_a_viewer_sees_and_does_not_decide(app: FastAPI, account: TestAccount) -> None:
    made = await campaign_in_doubt(account, 1)
    async with client_for(app, await account.key_for("viewer")) as viewer:
        assert len(await uncertain(viewer)) == 1
        body = {"action": "accept", "campaign_id": str(made.id)}
        assert (await viewer.post("/api/deliveries/resolve", json=body)).status_code == 403


async def test_of_twenty_who_decide_at_once_on_the_same_messages_each_message_has_one(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 40)
    ids = [each["delivery_id"] for each in await uncertain(api, limit=100)]
    which: list[dict[str, Any]] = [{"delivery_ids": ids}, {"delivery_ids": ids[::-1]}, {"campaign_id": str(made.id)}]
    answers = await asyncio.gather(*(resolve(api, ("accept", "resend")[n % 2], **which[n % 3]) for n in range(20)))
    assert sum(each["resolved"] for each in answers) == 40
    stats = await made.stats()
    assert stats.planned == 40 and stats.uncertain == 0 and stats.reconciles
    if stats.accepted < 40:
        await temporal.get_workflow_handle(campaign_workflow_id(made.id)).result()
    ledger = await made.ledger()
    assert len(arrived(sink, account)) == ledger.get("sent", 0) == 40 - stats.accepted
    assert ledger.get("sent:accepted_by_hand", 0) == stats.accepted


async def test_nothing_is_put_back_into_a_campaign_that_is_cancelled_at_this_very_moment(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 2, state=CampaignState.RUNNING)
    async with account.transaction() as tx:
        await campaigns.change_state(tx, account.id, made.id, CampaignState.CANCELLED)
        body = {"action": "resend", "campaign_id": str(made.id)}
        deciding = asyncio.create_task(api.post("/api/deliveries/resolve", json=body))
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        while not (await tx.execute(text(blocked))).scalar_one():
            pass  # until it waits for us
    refused = await deciding
    assert refused.status_code == 409 and "at this very moment" in refused.json()["detail"]
    assert await made.ledger() == {"uncertain:connection_lost": 2}
    assert (await made.stats()).reconciles


async def test_the_same_decision_with_the_same_key_is_made_once(api: httpx.AsyncClient, account: TestAccount) -> None:
    made = await campaign_in_doubt(account, 2)
    body, header = {"action": "accept", "campaign_id": str(made.id)}, {"Idempotency-Key": "once"}
    first, second = [await api.post("/api/deliveries/resolve", json=body, headers=header) for _ in range(2)]
    assert first.json()["resolved"] == 2
    assert second.json() == first.json() and second.headers["Idempotency-Replayed"] == "true"


async def test_a_campaign_into_which_messages_were_put_back_is_not_completed(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    """Temporal may try the last step of a campaign again after the answer to the first try was lost."""
    made = await campaign_in_doubt(account, 1)
    await execute(account, "UPDATE deliveries SET state = 'planned' WHERE campaign_id = :id", id=made.id)
    async with account.transaction() as tx:
        assert await campaigns.reopen(tx, account.id, made.id)
    change = StateChange(account_id=account.id, campaign_id=made.id, state="completed", final=True)
    assert (await Campaigns(account.database).change_state(change)).state == "running"
    assert (await made.state())[0] is CampaignState.RUNNING


async def test_a_decision_that_temporal_did_not_hear_of_is_carried_out_by_the_sweep(
    database: Database, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    made = await campaign_in_doubt(account, 2)
    async with EmbeddedTemporal(durable=False) as server:
        gone = await connect(server.address)
    app = create_app(database, gone, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    async with client_for(app, account.key) as api:
        assert (await resolve(api, "resend", campaign_id=str(made.id)))["resolved"] == 2
    assert await made.ledger() == {"planned": 2}
    await temporal.execute_workflow(SweepWorkflow.run, id=f"sweep-{uuid4()}", task_queue=ORCHESTRATION)
    await temporal.get_workflow_handle(campaign_workflow_id(made.id)).result()
    assert len(arrived(sink, account)) == 2


@pytest.mark.parametrize("cursor", ["x", "x" * 42, "x" * 44, "!" * 43])
async def test_no_page_begins_behind_what_is_no_cursor(api: httpx.AsyncClient, cursor: str) -> None:
    assert (await api.get("/api/deliveries", params={"cursor": cursor})).status_code == 422
    assert (await api.get("/api/deliveries", params={"cursor": "x" * 43})).json()["items"] == []


# -- of automations --------------------------------------------------------------------------------------------------


async def test_what_is_uncertain_of_an_automation_is_listed_with_it_and_can_be_accepted_alone(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    taken = await steps(account, 2, Provider(Uncertain(DOUBT)))
    await taken.send()
    automation = str(taken.inside.automation_id)
    found = await uncertain(api, campaign_id=automation)
    assert len(found) == 2
    for each in found:
        assert each["campaign_id"] == automation and each["campaign_name"].startswith("Welcome ")
        assert each["message_id"] is None
    again = await api.post("/api/deliveries/resolve", json={"action": "resend", "campaign_id": automation})
    assert again.status_code == 409 and "has gone on since" in again.json()["detail"]
    one = await resolve(api, "accept", delivery_ids=[found[0]["delivery_id"]])
    assert one["resolved"] == 1 and not one["not_resolved"]
    assert (await resolve(api, "accept", campaign_id=automation))["resolved"] == 1
    assert await taken.ledger() == {"sent:accepted_by_hand": 2}
    assert await taken.figures() == {"planned": 2, "sent": 2, "accepted": 2}
