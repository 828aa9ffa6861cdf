"""Does the benchmark see all runs of a campaign, and all that they keep?"""

import base64
from collections.abc import Iterator
from typing import Any

from temporalio.client import Client

from bench import histories
from tests.audience import people
from tests.broadcast import broadcast
from tests.conftest import TestAccount
from tests.workflows.test_campaigns import start


async def test_every_run_is_looked_at(temporal: Client, worker: None, account: TestAccount) -> None:
    await people(account, 40)
    sent = await broadcast(account)
    run = await start(temporal, sent, shard_size=1, most_events=60)
    await run.result()
    kept = await histories.of_campaign(temporal, sent.id)
    runs = [each async for each in temporal.list_workflows(f"WorkflowId = '{run.id}'")]
    found = [await temporal.get_workflow_handle(run.id, run_id=each.run_id).fetch_history() for each in runs]
    assert kept.runs == len(found) > 1
    assert kept.most_events == max(len(history.events) for history in found)
    biggest = max(data for history in found for data in data_sizes(history.to_json_dict()))
    assert biggest < kept.largest_payload < biggest + 100  # the encoding's name comes on top
    assert 0 < kept.freeze_seconds < 60


def data_sizes(node: Any) -> Iterator[int]:
    """How many bytes each payload in a history's JSON holds."""
    if isinstance(node, dict):
        if "metadata" in node and isinstance(data := node.get("data"), str):
            yield len(base64.b64decode(data))
        for child in node.values():
            yield from data_sizes(child)
    elif isinstance(node, list):
        for child in node:
            yield from data_sizes(child)
