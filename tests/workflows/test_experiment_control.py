"""Does an experiment do as people say, at whatever moment, and survive whatever becomes of its worker?"""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.testing import ActivityEnvironment

from activities.experiment_inputs import AtMoment
from activities.experiments import Experiments
from channels.sink import Sink
from marketing.campaigns import CampaignState
from marketing.schedules import Schedule
from tests.audience import people
from tests.broadcast import arrived, come
from tests.conftest import TestAccount
from tests.delivering import NOW, execute, freeze
from tests.experimenting import FEW, click, experiment, newest, out, skip, start, tomorrow, under_way
from tests.workflows.test_sweeps import sweep
from workflows.experiments import ExperimentWorkflow
from workflows.inputs import ChooseWinner, Command

pytestmark = pytest.mark.usefixtures("worker")


async def test_by_hand_the_rest_waits_for_a_person_however_long(
    temporal: Client, app: FastAPI, sink: Sink, account: TestAccount
) -> None:
    sent, run = await under_way(temporal, account, 60, decide="manual")
    await click(app, sink, sent, {"B": 1.0})
    await skip(temporal, run, days=30)
    before = len(arrived(sink, account))
    assert before < 60
    await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner())
    assert (await run.result()).sent == 60
    standing = await sent.standing()
    assert (standing.winner, standing.decided_by) == ("B", "person")
    assert standing.reason.startswith("A person chose “B”. ")


async def test_a_winner_is_chosen_once(temporal: Client, account: TestAccount) -> None:
    sent, run = await under_way(temporal, account, 20, decide="manual")
    await run.execute_update(ExperimentWorkflow.pause, Command())  # so that it is not over before the second is heard
    both = [run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=n)) for n in (0, 1)]
    answers = await asyncio.gather(*both, return_exceptions=True)
    [refused] = [each for each in answers if isinstance(each, BaseException)]
    assert isinstance(refused, WorkflowUpdateFailedError) and "already" in str(refused.cause)
    await run.execute_update(ExperimentWorkflow.resume, Command())
    await run.result()
    assert (await sent.standing()).winner == "AB"[answers.index(refused) - 1]


async def test_what_is_chosen_while_the_test_is_still_going_out_is_sent_at_once(
    temporal: Client, sink: Sink, account: TestAccount
) -> None:
    await people(account, 60)
    sent = await experiment(account, decide="manual")
    run = await start(temporal, sent, shard_size=5)
    await come(sink, account)
    await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=0))
    assert (await run.result()).sent == 60
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 60


async def test_a_test_that_goes_on_after_the_decision_is_known_to_be_out_in_the_end(
    temporal: Client, sink: Sink, account: TestAccount
) -> None:
    await people(account, 60)
    late = tomorrow()
    sent = await experiment(account, variants=[{"name": "A"}, {"name": "B", "schedule": late}], decide="manual")
    run = await start(temporal, sent, shard_size=10)
    await come(sink, account)
    await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=0))
    while set((became := await sent.became())["A"]) | set(became[""]) != {"sent"}:
        pass
    assert (set(became["B"]), (await sent.standing()).test_sent_at) == ({"planned"}, None)
    await skip(temporal, run, days=1)
    assert (await run.result()).sent == 60
    test_sent_at = (await sent.standing()).test_sent_at
    assert test_sent_at and test_sent_at >= Schedule.model_validate(late).starts_at()


async def test_what_is_stopped_sends_nothing_more_and_keeps_what_it_found(
    temporal: Client, app: FastAPI, sink: Sink, account: TestAccount
) -> None:
    sent, run = await under_way(temporal, account, 60)
    before = len(arrived(sink, account))
    progress = await run.execute_update(ExperimentWorkflow.stop, Command(reason="The price is wrong"))
    assert progress.experiment and progress.experiment.state == "stopped"
    totals = await run.result()
    assert (totals.sent, totals.skipped) == (before, 60 - before)
    assert (await sent.became())[""] == {"skipped:stopped": 60 - before}
    assert await sent.state() == (CampaignState.COMPLETED, "The price is wrong")
    assert len(arrived(sink, account)) == before


@pytest.mark.parametrize("decided", [False, True])
async def test_what_is_cancelled_is_over_wherever_it_stands(
    temporal: Client, sink: Sink, account: TestAccount, decided: bool
) -> None:
    sent, run = await under_way(temporal, account, 60, decide="manual")
    if decided:
        await run.execute_update(ExperimentWorkflow.pause, Command())
        await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=1))
    await run.execute_update(ExperimentWorkflow.cancel, Command(reason="Sold out"))
    totals = await run.result()
    assert totals.planned == totals.sent + totals.skipped == 60
    assert set((await sent.became())[""]) == {"skipped:cancelled"}
    assert (await sent.state()) == (CampaignState.CANCELLED, "Sold out")
    assert len(arrived(sink, account)) == totals.sent


async def test_a_test_that_is_paused_is_not_out_before_it_goes_on(
    temporal: Client, sink: Sink, account: TestAccount
) -> None:
    await people(account, 60)
    sent = await experiment(account, variants=[{"name": "A"}, {"name": "B", "schedule": tomorrow()}])
    run = await start(temporal, sent, shard_size=5)
    await come(sink, account)
    await run.execute_update(ExperimentWorkflow.pause, Command(reason="a look"))
    await skip(temporal, run, days=2)
    standing = await sent.standing()
    assert (standing.state, standing.test_sent_at) == ("testing", None)
    assert set((await sent.became())["B"]) == {"planned"}
    await run.execute_update(ExperimentWorkflow.resume, Command())
    await out(run)
    await skip(temporal, run, hours=4)
    assert (await run.result()).sent == 60
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 60


@pytest.mark.parametrize("moment", ["testing", "waiting", "decided"])
async def test_whoever_takes_up_what_was_left_lying_changes_nobodys_variant(
    temporal: Client, sink: Sink, account: TestAccount, moment: str
) -> None:
    await people(account, 80)
    sent = await experiment(account, fallback="control")
    run = await start(temporal, sent, shard_size=5)
    await come(sink, account)
    given = await sent.variants()
    if moment != "testing":
        await out(run)
    if moment == "decided":
        await run.execute_update(ExperimentWorkflow.pause, Command())
        await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=0))
        await sent.set_state(CampaignState.RUNNING)
    await run.terminate("by a slip of the hand")
    await execute(account, "UPDATE deliveries SET lease_until = now() WHERE state = 'sending'")
    await sweep(temporal)
    taken_up = newest(temporal, sent)
    if moment != "decided":
        await out(taken_up)
        await skip(temporal, taken_up, hours=4)
    totals = await taken_up.result()
    assert totals.planned == totals.sent + totals.uncertain == 80
    assert await sent.variants() == given
    assert len(set(arrived(sink, account))) == len(arrived(sink, account))
    assert (await sent.standing()).winner == "A"


async def test_a_launch_that_temporal_never_heard_of_is_taken_up_as_an_experiment(
    temporal: Client, account: TestAccount
) -> None:
    await people(account, 20)
    sent = await experiment(account)
    await sweep(temporal)
    run = newest(temporal, sent)
    await out(run)
    attributes = {pair.key.name: pair.value for pair in (await run.describe()).typed_search_attributes}
    assert (attributes["Kind"], attributes["CampaignId"]) == ("experiment", str(sent.id))
    await run.execute_update(ExperimentWorkflow.cancel, Command())


async def test_an_audience_that_is_frozen_again_after_a_crash_keeps_its_variants(account: TestAccount) -> None:
    await people(account, 50)
    sent = await experiment(account)
    await freeze(sent)
    given = await sent.variants()
    assert (await freeze(sent)).waves == []
    assert await sent.variants() == given


async def test_a_test_whose_freezing_was_not_heard_of_goes_out_all_the_same(
    temporal: Client, account: TestAccount
) -> None:
    await people(account, 50)
    sent = await experiment(account)
    await freeze(sent, now=datetime.now(UTC))
    run = await start(temporal, sent)
    await out(run)
    assert set((await sent.became())["A"]) == {"sent"}
    await run.execute_update(ExperimentWorkflow.cancel, Command())


@pytest.mark.parametrize(("test_fraction", "state"), [(1, "decided"), (0.5, "asking")])
async def test_of_a_bandit_that_finds_nothing_people_are_asked_if_somebody_waits(
    account: TestAccount, test_fraction: float, state: str
) -> None:
    await people(account, 50)
    sent = await experiment(account, allocation="bandit", test_fraction=test_fraction, fallback="ask")
    await freeze(sent)
    await execute(
        account, "UPDATE experiments SET test_sent_at = CAST(:now AS timestamptz) - interval '1 day'", now=NOW
    )
    at = AtMoment(account_id=account.id, campaign_id=sent.id, now=NOW + timedelta(days=1))
    told = await ActivityEnvironment().run(Experiments(account.database).decide_winner, at)
    assert (told.state, told.winner) == (state, None)


async def test_a_decision_that_was_made_and_not_heard_of_is_not_made_again(account: TestAccount) -> None:
    await people(account, 50)
    sent = await experiment(account, decide={"after": "1 minute"}, minimum_sample=FEW, fallback="control")
    await freeze(sent)
    decisions = Experiments(account.database)
    at = AtMoment(account_id=account.id, campaign_id=sent.id, now=NOW)
    await execute(
        account, "UPDATE experiments SET test_sent_at = CAST(:now AS timestamptz) - interval '1 day'", now=NOW
    )
    first = await ActivityEnvironment().run(decisions.decide_winner, at)
    decided_at = (await sent.standing()).decided_at
    later = at.model_copy(update={"now": NOW.replace(year=2027)})
    assert await ActivityEnvironment().run(decisions.decide_winner, later) == first
    assert (await sent.standing()).decided_at == decided_at
