"""Experiments that were launched, and people who read what they got."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from random import Random
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import TimeSkipper

from activities import launches
from activities.inputs import Totals
from channels.sink import Sink
from database import campaigns, experiments
from database.experiments import Standing
from marketing.campaigns import Audience, CampaignDefinition, CampaignPlan, Content
from marketing.content import EmailContent
from marketing.experiments import Experiment
from tests.audience import EMAIL, people
from tests.broadcast import Broadcast
from tests.conftest import TestAccount, client_for
from tests.delivering import execute
from workflows.campaigns import campaign_workflow_id, start_options
from workflows.experiments import ExperimentWorkflow
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION

Run = WorkflowHandle[ExperimentWorkflow, Totals]

READER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
FEW = {"recipients": 10, "clicks": 5, "conversions": 5}
_LINK = re.compile(r"http://carillon\.test(/t/c/[\w.=-]+)")


@dataclass(frozen=True)
class Experimenting(Broadcast):
    """An experiment on record as launched, and how to look at it."""

    async def standing(self) -> Standing:
        async with self.account.transaction() as tx:
            found = await experiments.read(tx, self.id)
        assert found
        return found

    async def plan(self) -> CampaignPlan:
        async with self.account.transaction() as tx:
            return await campaigns.load_plan(tx, self.id)

    async def variants(self) -> dict[UUID, str]:
        """What each contact of the audience has."""
        async with self.account.transaction() as tx:
            rows = await tx.execute(
                text("SELECT contact_id, variant FROM deliveries WHERE campaign_id = :id"), {"id": self.id}
            )
            return {row.contact_id: row.variant for row in rows}

    async def became(self) -> dict[str, dict[str, int]]:
        """What became of each variant's messages: how many are in each `state` or `state:reason`."""
        found: dict[str, dict[str, int]] = {}
        async with self.account.transaction() as tx:
            rows = await tx.execute(
                text("""
                    SELECT variant, concat_ws(':', state, reason) AS what, count(*) AS n FROM deliveries
                    WHERE campaign_id = :id GROUP BY 1, 2 ORDER BY 1, 2
                """),
                {"id": self.id},
            )
            for row in rows:
                found.setdefault(row.variant, {})[row.what] = row.n
        return found


async def experiment(account: TestAccount, *, email: Mapping[str, Any] = EMAIL, **changes: Any) -> Experimenting:
    """Compares two subjects, `A says …` and `B says …`, on half of everyone; `changes` are fields of `Experiment`."""
    told = {
        "variants": [{"name": name, "content": {"email": {"subject": f"{name} says hello"}}} for name in "AB"],
        "test_fraction": 0.5,
        "metric": "click_rate",
        "minimum_sample": FEW,
        **changes,
    }
    definition = CampaignDefinition(
        name="Test",
        kind="experiment",
        content=Content(email=EmailContent.model_validate(email)),
        audience=Audience(everyone=True),
        experiment=Experiment.model_validate(told),
    )
    async with account.transaction() as tx:
        campaign = await campaigns.create(tx, account.id, definition)
        await launches.launch(tx, account.id, campaign, datetime.now(UTC))
    return Experimenting(campaign.id, account)


def tomorrow() -> dict[str, str]:
    """The schedule of a variant that leaves when nobody is in a hurry."""
    moment = datetime.now(UTC) + timedelta(days=1)
    return {"send_at": f"{moment:%Y-%m-%dT%H:%M}", "timezone": "UTC"}


async def start(temporal: Client, sent: Broadcast, *, shard_size: int = 2000, most_events: int = 1500) -> Run:
    input = CampaignInput(
        account_id=sent.account.id,
        campaign_id=sent.id,
        name="Test",
        kind="experiment",
        shard_size=shard_size,
        most_events=most_events,
    )
    return await temporal.start_workflow(
        ExperimentWorkflow.run, input, task_queue=ORCHESTRATION, **start_options(input, "running")
    )


def newest(temporal: Client, sent: Broadcast) -> Run:
    """Whichever run carries it on."""
    return temporal.get_workflow_handle_for(ExperimentWorkflow.run, campaign_workflow_id(sent.id))


async def out(run: Run) -> None:
    """Wait until the test is."""
    while (standing := (await run.query(ExperimentWorkflow.progress)).experiment) is None or not standing.test_sent_at:
        pass


async def skip(temporal: Client, run: Run, **time: float) -> None:
    """Let so much time pass for it."""
    await TimeSkipper(temporal).fast_forward(run, timedelta(**time))


async def under_way(
    temporal: Client, account: TestAccount, count: int = 200, **changes: Any
) -> tuple[Experimenting, Run]:
    """An experiment with so many people, whose test is out."""
    await people(account, count)
    sent = await experiment(account, **changes)
    run = await start(temporal, sent, shard_size=40)
    await out(run)
    return sent, run


def letters(sink: Sink, account: TestAccount) -> list[tuple[str, str, str]]:
    """What the sink took for the account's people: to whom, the subject, and where its first link leads."""
    found = []
    theirs = str(account.id)[-12:].encode()
    for content in list(sink.contents):
        if theirs in content:
            message = message_from_bytes(content)
            html = next(part for part in message.walk() if part.get_content_type() == "text/html")
            body = html.get_payload(decode=True)
            assert isinstance(body, bytes)
            link = _LINK.search(body.decode())
            assert link
            found.append((message["To"], message["Subject"], link[1]))
    return found


async def click(
    app: FastAPI, sink: Sink, sent: Broadcast, rates: Mapping[str, float], *, asked: set[str] | None = None
) -> Counter[str]:
    """Of those who got a variant this share follows its first link, five minutes after they got it.

    Args:
        asked: to whom; they are not asked again, and whoever is now is added.

    Returns:
        how many they are, by variant.
    """
    at = datetime.now(UTC) - timedelta(minutes=5)  # whatever the time is for the workflow
    earlier = "UPDATE deliveries SET leased_at = :at, finished_at = :at WHERE campaign_id = :id AND state = 'sent'"
    await execute(sent.account, earlier, id=sent.id, at=at)
    asked = set() if asked is None else asked
    chance = Random(len(asked))
    new = [each for each in sorted(letters(sink, sent.account)) if each[0] not in asked]
    asked |= {to for to, _, _ in new}
    follow = [each for each in new if chance.random() < rates.get(each[1][0], 0)]
    few = asyncio.Semaphore(10)  # nobody is kept waiting for so long that it is told to come again
    async with client_for(app, None) as reader:

        async def get(link: str) -> int:
            async with few:
                return (await reader.get(link, headers=READER)).status_code

        assert set(await asyncio.gather(*(get(link) for _, _, link in follow))) <= {302}
    return Counter(subject[0] for _, subject, _ in follow)
