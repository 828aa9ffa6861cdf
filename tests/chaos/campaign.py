"""A campaign, followed over HTTP and at the mail server, and the verdict on it."""

from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from time import time
from typing import Any
from uuid import UUID

from temporalio.testing import TimeSkipper

from channels.sink import Received
from tests.chaos.ground import Answer, Ground
from workflows.campaigns import campaign_workflow_id
from workflows.connection import connect

# How many messages are in hand at the most: `deliver` activities of one campaign, with so many each.
UNDER_WAY = 4 * 50
OVER = ("completed", "cancelled", "failed")

EMAIL = {
    "subject": 'Hello {{ contact.first_name | default: "there" }}',
    "html": '<p>Hello {{ contact.first_name | default: "there" }}!</p>'
    '<p><a href="https://shop.example.com/autumn">The collection</a></p>'
    '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
    "from_name": "Example Outfitters",
    "from_email": "news@example.com",
}


async def people(ground: Ground, group: str, count: int) -> list[str]:
    """Import people who agreed to be written to, and return their addresses."""
    addresses = [f"{group}-{number:06}@example.org" for number in range(count)]
    rows = "".join(f"{address},Person {n},{group}\n" for n, address in enumerate(addresses))
    accepted = await ground.ask(
        "POST",
        "/api/contacts/import",
        params={"subscribe": "email", "consent": "at the counter"},
        content=f"email,first name,tags\n{rows}",
        headers={"Content-Type": "text/csv"},
    )
    async for seen in ground.looks(f"/api/contacts/import/{accepted['id']}"):
        if seen["status"] in ("completed", "failed"):
            assert seen["counts"]["added"] == count, seen
            break
    return addresses


def wording(group: str) -> Answer:
    """A campaign to a group, as the API takes it."""
    return {"name": f"To {group}", "content": {"email": EMAIL}, "audience": {"tags": {"any": [group]}}}


async def drafted(ground: Ground, group: str, to: int | list[str] | None = None, **changes: Any) -> "Campaign":
    """A draft to so many people of its own, or to those whom `people` has imported as this group."""
    to = ground.scale.messages if to is None else to
    addresses = await people(ground, group, to) if isinstance(to, int) else to
    made = await ground.ask("POST", "/api/campaigns", json={**wording(group), **changes})
    return Campaign(ground, made["id"], group, addresses)


async def launched(ground: Ground, group: str, to: int | list[str] | None = None, **changes: Any) -> "Campaign":
    """`drafted`, and launched."""
    campaign = await drafted(ground, group, to, **changes)
    await campaign.launch()
    return campaign


@dataclass
class Campaign:
    """A campaign, followed over HTTP and at the mail server."""

    ground: Ground
    id: str
    group: str
    people: list[str]
    before: int = 0  # messages that these people had got before it was launched

    @property
    def path(self) -> str:
        return f"/api/campaigns/{self.id}"

    @property
    def received(self) -> list[Received]:
        """What the mail server took for its people."""
        return self.ground.sink.by_group[self.group][self.before :]

    async def launch(self) -> None:
        self.before = len(self.ground.sink.by_group[self.group])
        await self.ask("POST", "/launch")

    async def ask(self, method: str, what: str = "", **request: Any) -> Answer:
        return await self.ground.ask(method, self.path + what, **request)

    async def arrivals(self, count: int) -> None:
        """Wait until the mail server has taken so many."""
        while len(self.received) < count:
            await self.ground.sink.next_arrival()

    async def moves(self) -> float:
        """Seconds until one more message arrives, from now."""
        assert len(self.received) < len(self.people), "everything had arrived before the damage was done"
        now = time()
        await self.arrivals(len(self.received) + 1)
        return self.received[-1].at - now

    async def over(self) -> str:
        """Wait for its end; its state."""
        async for seen in self.ground.looks(self.path):
            if seen["status"] in OVER:
                return str(seen["status"])
        raise AssertionError("unreachable")

    async def skip_time(self) -> None:
        """Whatever the campaign waits for comes at once, until its end."""
        temporal = await connect(self.ground.up.state["temporal_address"])
        await TimeSkipper(temporal).fast_forward(temporal.get_workflow_handle(campaign_workflow_id(UUID(self.id))))

    async def told(self, state: str) -> dict[str, Answer]:
        """Those whose message is in this state, by address."""
        return {each["email"]: each async for each in self.pages("/recipients", {"state": state})}

    async def events(self, name: str) -> set[str]:
        """The deliveries of which there is such an event."""
        return {each["delivery_id"] async for each in self.pages("/events", {"name": name})}

    def pages(self, what: str, asked: dict[str, str]) -> AsyncIterator[Answer]:
        return self.ground.pages(self.path + what, asked)

    async def judged(
        self,
        *,
        uncertain: int = 0,
        twice: int = 0,
        failed: Collection[str] = (),
        skipped: Collection[str] = (),
        recovered: float | None = None,
        **claims: bool,
    ) -> "Verdict":
        """Hold what we say of every person against what the mail server took for them.

        Args:
            uncertain, twice: so many are allowed.
            failed, skipped: to whom this may happen. Whoever else gets no message is lost, whatever we say of it.
            recovered: seconds.
            claims: what else must hold in this case.
        """
        stats = await self.ask("GET", "/stats")
        arrived = Counter(each.recipient for each in self.received)
        doubtful, refused, left_out = [await self.told(state) for state in ("uncertain", "failed", "skipped")]
        explained = doubtful.keys() | (refused.keys() & set(failed)) | (left_out.keys() & set(skipped))
        settled = ("sent", "skipped", "failed", "uncertain")
        return Verdict(
            messages=len(self.people),
            lost=len(set(self.people) - arrived.keys() - explained),
            twice=arrived.total() - len(arrived),
            uncertain=len(doubtful),
            twice_allowed=twice,
            uncertain_allowed=uncertain,
            doubts=Counter(each["reason"] for each in doubtful.values()),
            recovered=recovered,
            claims={
                "every message is accounted for": stats["planned"] == sum(stats[each] for each in settled)
                and stats["planned"] == len(self.people)
                and not stats["pending"],
                "the figures are the witness's": stats["sent"] == len(arrived.keys() - doubtful.keys())
                and stats["uncertain"] == len(doubtful)
                and stats["failed"] == len(refused)
                and stats["skipped"] == len(left_out),
                "who is told to have none has none": not arrived.keys() & (refused.keys() | left_out.keys()),
                "every doubt has a reason": all(each["reason"] for each in doubtful.values()),
                **{claim.replace("_", " "): holds for claim, holds in claims.items()},
            },
        )


@dataclass(frozen=True)
class Verdict:
    """What a case came to."""

    messages: int
    lost: int
    twice: int
    uncertain: int
    twice_allowed: int
    uncertain_allowed: int
    doubts: Counter[str]  # why they are uncertain
    recovered: float | None
    claims: dict[str, bool]
    measured: str = ""

    @property
    def broken(self) -> list[str]:
        """What does not hold."""
        return [
            *([f"{self.lost} lost"] if self.lost else []),
            *([f"{self.twice} twice"] if self.twice > self.twice_allowed else []),
            *([f"{self.uncertain} uncertain ({self._doubts})"] if self.uncertain > self.uncertain_allowed else []),
            *(f"not true: {claim}" for claim, holds in self.claims.items() if not holds),
        ]

    @property
    def _doubts(self) -> str:
        return ", ".join(f"{reason} {n}" for reason, n in self.doubts.most_common())

    def and_also(self, measured: str = "", **claims: bool) -> "Verdict":
        """With more that must hold."""
        more = {claim.replace("_", " "): holds for claim, holds in claims.items()}
        return replace(self, measured=measured, claims=self.claims | more)

    def __str__(self) -> str:
        figures = [
            f"{self.messages:,} messages",
            f"lost {self.lost}",
            f"twice {self.twice}",
            f"uncertain {self.uncertain}",
            f"recovered in {self.recovered:.1f} s" if self.recovered is not None else "nothing to recover from",
            *([self.measured] if self.measured else []),
        ]
        return ", ".join(figures) + "".join(f"; {each.upper()}" for each in self.broken)
