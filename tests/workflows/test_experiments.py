"""Does an experiment find its winner, send it to the rest, and fall back to what was asked for where there is none?"""

from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from temporalio.client import Client

from activities.inputs import Totals
from channels.sink import Sink
from database import event_intake, experiments
from marketing.assignment import HOLDOUT, bucket
from marketing.campaigns import CampaignState
from marketing.events import NewEvent
from marketing.experiment_results import Metric, Results
from marketing.experiments import experiment_key
from marketing.schedules import Schedule
from tests.audience import people
from tests.broadcast import arrived, come
from tests.conftest import TestAccount
from tests.experimenting import click, experiment, letters, newest, out, skip, start, tomorrow, under_way
from workflows.experiments import ExperimentWorkflow
from workflows.inputs import ChooseWinner, Command

pytestmark = pytest.mark.usefixtures("worker")

CLEAR = {"A": 0.4, "B": 0.95}


async def test_the_better_variant_wins_and_goes_to_the_rest(
    temporal: Client, app: FastAPI, api: httpx.AsyncClient, sink: Sink, account: TestAccount
) -> None:
    sent, run = await under_way(temporal, account)
    clicked = await click(app, sink, sent, CLEAR)
    half = letters(sink, account)
    await skip(temporal, run, hours=4)
    assert (await run.result()).sent == 200
    standing = await sent.standing()
    assert (standing.state, standing.winner, standing.decided_by) == ("decided", "B", "time")
    became = await sent.became()
    assert became == {
        "": {"sent": 200 - len(half)},
        "A": {"sent": became["A"]["sent"]},
        "B": {"sent": became["B"]["sent"]},
    }
    subjects = Counter(subject[0] for _, subject, _ in letters(sink, account))
    assert subjects == {"A": became["A"]["sent"], "B": became["B"]["sent"] + became[""]["sent"]}
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 200
    results = Results.model_validate(standing.decision)
    assert {each.name: (each.recipients, each.successes) for each in results.variants} == {
        name: (became[name]["sent"], clicked[name]) for name in "AB"
    }
    stats = await sent.stats()
    assert stats.reconciles and all(each.reconciles for each in stats.per_variant.values())
    assert {name: each.sent for name, each in stats.per_variant.items()} == {
        "A": became["A"]["sent"],
        "B": became["B"]["sent"],
        "rest": became[""]["sent"],
    }
    assert (await sent.state())[0] is CampaignState.COMPLETED
    [told] = (await api.get("/api/notifications")).json()["items"]
    assert told["kind"] == "decided" and told["text"].startswith("The winner is “B”. ")
    [noted] = (await api.get(f"/api/campaigns/{sent.id}/events?name=campaign.winner_decided")).json()["items"]
    assert noted["properties"] == {"winner": "B", "by": "time", "reason": standing.reason}


async def test_everybody_gets_what_the_hash_says(temporal: Client, account: TestAccount) -> None:
    sent, run = await under_way(temporal, account, holdout=0.2, allocation={"A": 3, "B": 1}, decide="manual")
    given = await sent.variants()
    planned = (await sent.plan()).experiment
    assert planned
    assert given == {contact: planned.cells.of(bucket(experiment_key(sent.id), contact)) for contact in given}
    assert set(given.values()) == {"A", "B", "", HOLDOUT}
    await run.execute_update(ExperimentWorkflow.cancel, Command())


async def test_what_can_be_believed_early_decides_early(
    temporal: Client, app: FastAPI, sink: Sink, account: TestAccount
) -> None:
    sent, run = await under_way(temporal, account, decide={"when_significant": True, "no_later_than": "10 hours"})
    await click(app, sink, sent, CLEAR)
    await skip(temporal, run, hours=1)
    assert (await run.result()).sent == 200
    standing = await sent.standing()
    assert (standing.winner, standing.decided_by) == ("B", "significance")
    assert standing.test_sent_at and standing.decided_at
    assert standing.decided_at - standing.test_sent_at < timedelta(minutes=4)  # a two-hundredth of the time, or so


async def test_what_is_never_believed_is_looked_at_till_the_end_whatever_the_length_of_a_history(
    temporal: Client, account: TestAccount
) -> None:
    decide = {"when_significant": True, "no_later_than": "20 minutes"}
    await people(account, 12)
    sent = await experiment(account, decide=decide, fallback="control")
    run = await start(temporal, sent, shard_size=1, most_events=60)
    await out(run)
    await skip(temporal, newest(temporal, sent), minutes=20)
    assert (await newest(temporal, sent).result()).sent == 12
    first = await temporal.get_workflow_handle(run.id, run_id=run.first_execution_run_id).fetch_history()
    assert len(first.events) < 100
    assert first.events[-1].HasField("workflow_execution_continued_as_new_event_attributes")
    standing = await sent.standing()
    assert (standing.winner, standing.decided_by) == ("A", "fallback")
    assert standing.test_sent_at and standing.decided_at
    assert timedelta(minutes=20) <= standing.decided_at - standing.test_sent_at < timedelta(minutes=21)


@pytest.mark.parametrize(("fallback", "winner"), [("control", "A"), ("best_so_far", "B")])
async def test_without_evidence_the_rest_gets_what_was_said_before(
    temporal: Client, app: FastAPI, sink: Sink, account: TestAccount, fallback: str, winner: str
) -> None:
    sent, run = await under_way(temporal, account, 80, fallback=fallback, minimum_sample={"recipients": 1_000})
    await click(app, sink, sent, CLEAR)
    await skip(temporal, run, hours=4)
    assert (await run.result()).sent == 80
    standing = await sent.standing()
    assert (standing.winner, standing.decided_by) == (winner, "fallback")
    rest = [contact for contact, variant in (await sent.variants()).items() if not variant]
    subjects = Counter(subject[0] for _, subject, _ in letters(sink, account))
    given = Counter((await sent.variants()).values())
    assert subjects[winner] == given[winner] + len(rest)


async def test_where_people_are_to_decide_they_are_asked_and_the_rest_waits(
    temporal: Client, api: httpx.AsyncClient, sink: Sink, account: TestAccount
) -> None:
    sent, run = await under_way(temporal, account, 60, fallback="ask")
    await skip(temporal, run, hours=5)
    while (asked := (await run.query(ExperimentWorkflow.progress)).experiment) and asked.state == "testing":
        pass
    assert asked and asked.state == "asking" and asked.reason.startswith("No winner can be believed, so choose one.")
    [told] = (await api.get("/api/notifications")).json()["items"]
    assert (told["kind"], told["source_id"], told["text"]) == ("asked", str(sent.id), asked.reason)
    progress = await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=1, reason="It is nicer"))
    assert progress.experiment and (progress.experiment.state, progress.experiment.winner) == ("decided", 1)
    assert (await run.result()).sent == 60
    standing = await sent.standing()
    assert (standing.winner, standing.decided_by, standing.reason) == ("B", "person", "It is nicer")


@pytest.mark.parametrize("changes", [{"decide": "manual"}, {"decide": {"after": "4 hours"}, "fallback": "ask"}])
async def test_where_nobody_waits_for_a_winner_nobody_is_asked_for_one(
    temporal: Client, api: httpx.AsyncClient, account: TestAccount, changes: dict[str, Any]
) -> None:
    sent, run = await under_way(temporal, account, 20, test_fraction=1, **changes)
    if changes["decide"] != "manual":
        await skip(temporal, run, hours=4)
    assert (await run.result()).sent == 20
    assert (await sent.state())[0] is CampaignState.COMPLETED
    standing = await sent.standing()
    assert (standing.state, standing.winner, standing.decided_by) == ("decided", None, None)
    told = (await api.get("/api/notifications")).json()["items"]
    if changes["decide"] == "manual":
        assert (standing.reason, told) == ("Nobody waits for a winner, so nobody has to choose one.", [])
    else:
        assert standing.reason.startswith("No winner can be believed, and nobody waits for one. ")
        assert [(each["kind"], each["text"]) for each in told] == [("decided", standing.reason)]


async def test_what_sending_brings_shows_in_who_got_nothing(temporal: Client, account: TestAccount) -> None:
    bought: dict[str, Any] = {"metric": "conversion_rate", "conversion": {"event": "bought", "within": "2 days"}}
    sent, run = await under_way(temporal, account, holdout=0.4, **bought)
    given = await sent.variants()
    buyers = [contact for contact, variant in given.items() if variant == "B" or (variant and contact.int % 4 == 0)]
    events = [NewEvent.model_validate({"name": "bought", "contact": {"id": each}, "value": 10}) for each in buyers]
    async with account.transaction() as tx:
        await event_intake.store(tx, account.id, events)
    await skip(temporal, run, hours=4)
    await run.result()
    assert (await sent.standing()).winner == "B"
    expected = Counter(given[each] for each in buyers)
    async with account.transaction() as tx:
        counts = await experiments.counted(tx, sent.id, ["A", "B"], Metric.CONVERSION_RATE)
        treated, held = await experiments.treated_and_held(tx, sent.id, ["A", "B"], Metric.REVENUE_PER_RECIPIENT)
    assert {each.name: each.successes for each in counts} == {name: expected[name] for name in "AB"}
    assert (held.recipients, held.successes) == (Counter(given.values())[HOLDOUT], expected[HOLDOUT])
    tested = sum(variant in ("A", "B") for variant in given.values())  # the rest has only just left
    assert (treated.recipients, treated.revenue) == (tested, 10 * (expected["A"] + expected["B"]))


async def test_the_time_to_decide_begins_when_the_last_variant_has_left(
    temporal: Client, sink: Sink, account: TestAccount
) -> None:
    late = tomorrow()
    await people(account, 60)
    sent = await experiment(account, variants=[{"name": "A"}, {"name": "B", "schedule": late}], decide="manual")
    run = await start(temporal, sent)
    await come(sink, account)
    standing, became = await sent.standing(), await sent.became()
    assert (standing.test_sent_at, set(became["B"])) == (None, {"planned"})
    await skip(temporal, run, days=1)
    await out(run)
    standing, became = await sent.standing(), await sent.became()
    assert standing.test_sent_at and standing.test_sent_at >= Schedule.model_validate(late).starts_at()
    assert set(became["B"]) == {"sent"} and set(became[""]) == {"planned"}
    await run.execute_update(ExperimentWorkflow.cancel, Command())


async def test_nobody_in_the_audience_ends_it_at_once(temporal: Client, account: TestAccount) -> None:
    sent = await experiment(account)
    run = await start(temporal, sent)
    assert await run.result() == Totals()
    assert await sent.state() == (CampaignState.COMPLETED, "Nobody is in the audience.")
    assert (await sent.standing()).state == "stopped"
