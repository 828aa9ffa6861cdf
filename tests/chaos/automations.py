"""Programs that are killed while contacts are inside an automation."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from temporalio.testing import TimeSkipper

from channels.sink import Received
from tests.chaos.campaign import EMAIL, Verdict, people
from tests.chaos.cases import case
from tests.chaos.ground import WORKERS, Ground
from workflows.connection import connect

INSIDE = 5_000
IN_A_COHORT = 1_000
IN_HAND = 50  # messages of one cohort, at the most
KILLS = 2  # while the first messages leave, and as many while the second do
WAIT = timedelta(hours=1)


@case("J1", "a worker is killed (-9) four times with contacts inside an automation")
async def killed_with_contacts_inside(ground: Ground) -> Verdict:
    """Two messages to each, with a wait and a question in between."""
    count = min(INSIDE, ground.scale.messages_in_passing)
    ground.slow_down(ground.scale.rate)
    automation = await activated(ground, "j1", count)
    slowest = await automation.killed(0)
    await automation.all_wait()
    before = len(automation.received)
    _, again = await asyncio.gather(automation.skip_the_wait(), automation.killed(before))
    slowest = max(slowest, again)
    return await automation.judged(uncertain=2 * KILLS * IN_HAND * -(-count // IN_A_COHORT), recovered=slowest)


@dataclass(frozen=True)
class Automation:
    """An automation of two messages, followed over HTTP and at the mail server."""

    ground: Ground
    id: str
    group: str
    people: list[str]

    @property
    def path(self) -> str:
        return f"/api/automations/{self.id}"

    @property
    def received(self) -> list[Received]:
        return self.ground.sink.by_group[self.group]

    async def arrivals(self, count: int) -> None:
        while len(self.received) < count:
            await self.ground.sink.next_arrival()

    async def killed(self, before: int) -> float:
        """Kill workers in the midst of the messages after so many; seconds until the slowest is back."""
        slowest = 0.0
        for moment in self.ground.moments(KILLS, len(self.people)):
            await self.arrivals(before + moment)
            slowest = max(slowest, await self.ground.kill(self.ground.chance.choice(WORKERS)))
        return slowest

    async def all_wait(self) -> None:
        """Until everybody has the first message behind them."""
        async for stats in self.ground.looks(f"{self.path}/stats"):
            if any(each["step"] == "wait" and each["entered"] == len(self.people) for each in stats["steps"]):
                return

    async def skip_the_wait(self) -> None:
        temporal = await connect(self.ground.up.state["temporal_address"])
        skipper = TimeSkipper(temporal)
        ids = f"WorkflowId STARTS_WITH 'automation-{self.id}/cohort-' AND ExecutionStatus = 'Running'"
        handles = [temporal.get_workflow_handle(each.id) async for each in temporal.list_workflows(ids)]
        # Moments so far away are rounded up to the minute.
        await asyncio.gather(*(skipper.fast_forward(each, WAIT + timedelta(minutes=2)) for each in handles))

    async def judged(self, *, uncertain: int, recovered: float) -> Verdict:
        """When nobody is inside any more: hold what we say of every message against what the mail server took."""
        count = len(self.people)
        async for stats in self.ground.looks(f"{self.path}/stats"):
            if stats["enrolled"] == count and not stats["pending"] + stats["active"]:
                break
        asked = {"state": "uncertain", "campaign_id": self.id}
        doubtful = {UUID(each["delivery_id"]): each async for each in self.ground.pages("/api/deliveries", asked)}
        arrived = Counter(UUID(each.message_id.strip("<>").partition("@")[0]) for each in self.received)
        each_got = Counter(each.recipient for each in self.received)
        figures, steps = stats["messages"], {each["step"]: each for each in stats["steps"]}
        return Verdict(
            messages=2 * count,
            lost=2 * count - len(arrived.keys() | doubtful.keys()),
            twice=arrived.total() - len(arrived),
            uncertain=len(doubtful),
            twice_allowed=0,
            uncertain_allowed=uncertain,
            doubts=Counter(each["reason"] for each in doubtful.values()),
            recovered=recovered,
            claims={
                "everybody has gone all the way": stats["completed"] == count,
                "everybody has taken each step once": all(
                    steps[step]["entered"] == steps[step]["done"] == count for step in ("first", "wait", "second")
                ),
                "every message is accounted for": figures["planned"] == 2 * count
                and figures["sent"] + figures["uncertain"] == 2 * count,
                "the figures are the witness's": figures["sent"] == len(arrived.keys() - doubtful.keys())
                and figures["uncertain"] == len(doubtful),
                "nobody has more than both": max(each_got.values()) == 2,
            },
        )


async def activated(ground: Ground, group: str, count: int) -> Automation:
    """An automation into which so many people come at once, with an import."""
    sent = {"event": "message.sent", "within": "1 day", "where": {"field": "properties.step", "is": "first"}}
    second = {"type": "send", "id": "second", "content": EMAIL}
    definition = {
        "name": f"To {group}",
        "trigger": {"type": "tag_added", "tag": group},
        "steps": [
            {"type": "send", "id": "first", "content": EMAIL},
            {"type": "wait", "id": "wait", "duration": "1 hour"},
            # Whose first message is in doubt has no such event, and gets the second all the same.
            {"type": "branch", "id": "question", "if": {"any": [sent, {"not": sent}]}, "then": [second]},
        ],
    }
    made = await ground.ask("POST", "/api/automations", json=definition)
    await ground.ask("POST", f"/api/automations/{made['id']}/activate")
    return Automation(ground, made["id"], group, await people(ground, group, count))
