"""Would runs that began under earlier code go on under this one? Recorded histories are replayed without a server."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from worker import JOURNEYS, WORKFLOWS
from workflows.connection import DATA_CONVERTER

ALL = [*WORKFLOWS, *JOURNEYS]
RECORDED = {path.stem: path.read_text() for path in sorted((Path(__file__).parents[1] / "histories").glob("*.json"))}


@pytest.mark.parametrize("name", RECORDED)
async def test_a_recorded_history_replays(name: str) -> None:
    history = WorkflowHistory.from_json(name, RECORDED[name])
    await Replayer(workflows=ALL, data_converter=DATA_CONVERTER).replay_workflow(history)


def test_there_is_a_history_of_each_workflow() -> None:
    recorded = {name.partition("-")[0] for name in RECORDED}
    assert recorded == {workflow.__name__ for workflow in ALL}
