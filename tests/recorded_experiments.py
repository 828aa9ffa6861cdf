"""Histories of experiments, for `record_histories`."""

from typing import Any

from temporalio.client import Client

from channels.sink import Sink
from tests.audience import people
from tests.broadcast import come
from tests.conftest import TestAccount
from tests.experimenting import Run, experiment, out, skip, start, tomorrow, under_way
from workflows.experiments import ExperimentWorkflow
from workflows.inputs import ChooseWinner, Command


async def tested(temporal: Client, account: TestAccount, **changes: Any) -> Run:
    """One whose test is out."""
    return (await under_way(temporal, account, 40, **changes))[1]


async def decided(temporal: Client, account: TestAccount, _: Sink) -> Run:
    """After some looks at figures that nobody can believe."""
    decide = {"when_significant": True, "no_later_than": "5 minutes"}
    run = await tested(temporal, account, decide=decide)
    await skip(temporal, run, minutes=5)
    return run


async def chosen(temporal: Client, account: TestAccount, _: Sink) -> Run:
    """By a person who was asked, while it was paused."""
    run = await tested(temporal, account, fallback="ask")
    await skip(temporal, run, hours=4)
    await run.execute_update(ExperimentWorkflow.pause, Command())
    await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=1))
    await run.execute_update(ExperimentWorkflow.resume, Command())
    return run


async def chosen_early(temporal: Client, account: TestAccount, sink: Sink) -> Run:
    """By a person, before the last variant has left."""
    await people(account, 40)
    late = {"name": "B", "schedule": tomorrow()}
    run = await start(temporal, await experiment(account, variants=[{"name": "A"}, late], decide="manual"))
    await come(sink, account)
    await run.execute_update(ExperimentWorkflow.choose_winner, ChooseWinner(variant=0))
    await skip(temporal, run, days=1)
    return run


async def stopped(temporal: Client, account: TestAccount, _: Sink) -> Run:
    run = await tested(temporal, account)
    await run.execute_update(ExperimentWorkflow.stop, Command(reason="enough"))
    return run


async def bandit(temporal: Client, account: TestAccount, _: Sink) -> Run:
    await people(account, 40)
    shared: dict[str, Any] = {"allocation": "bandit", "batches": 3, "test_fraction": 0.5}
    run = await start(temporal, await experiment(account, **shared))
    await skip(temporal, run, hours=3)
    await out(run)
    await skip(temporal, run, hours=1)
    return run
