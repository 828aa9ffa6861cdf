"""What do a campaign's counters add up to?"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from pydantic import BaseModel, Field


class Counted(Protocol):
    """One figure of one hour, channel, step and variant."""

    @property
    def hour(self) -> datetime: ...
    @property
    def channel(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def n(self) -> int: ...


class Engagement(BaseModel):
    """What people did: `total` counts each time, `unique` each message once, `machine` what no person did.

    Somebody who unsubscribes and comes back counts in `total` only.
    """

    total: int = 0
    unique: int = 0
    machine: int = 0


class Outcomes(BaseModel):
    """What became of messages, and what people did with them.

    `delivered`, `bounced` and `complained` say what became of sent ones, as far as providers tell.
    """

    sent: int = 0
    accepted: int = Field(
        0, description="Those of `sent` that a person took as sent: nobody knew whether they arrived."
    )
    skipped: int = 0
    skipped_by_reason: dict[str, int] = {}
    failed: int = 0
    failed_by_reason: dict[str, int] = {}
    uncertain: int = 0
    delivered: int = 0
    bounced: int = 0
    complained: int = 0
    opened: Engagement = Field(default_factory=Engagement)
    clicked: Engagement = Field(default_factory=Engagement)
    unsubscribed: Engagement = Field(default_factory=Engagement)


class Figures(Outcomes):
    """At every moment `planned = pending + sent + skipped + failed + uncertain`."""

    planned: int = 0
    pending: int = 0

    @property
    def reconciles(self) -> bool:
        return self.planned == self.pending + self.sent + self.skipped + self.failed + self.uncertain


class Hour(Outcomes):
    """What happened within one hour, UTC. Nothing is planned for an hour, or pending in one."""

    hour: datetime


class CampaignStats(Figures):
    """A campaign's figures: in all, per channel, per hour, of a drip per message, of an experiment per variant."""

    per_channel: dict[str, Figures] = {}
    per_message: dict[str, Figures] = Field({}, description="Of a drip: `message-1`, `message-2`, …")
    per_variant: dict[str, Figures] = Field(
        {}, description="Of an experiment: its variants, the `holdout`, and the `rest` that waits for the winner."
    )
    per_hour: list[Hour] = []
    contacts: dict[str, int] = Field(
        {}, description="Of a drip: who was `enrolled`, is `inside`, has `completed` it or left it: `exited:goal`, …"
    )


def campaign_stats(counted: Iterable[Counted]) -> CampaignStats:
    """The whole report of a campaign."""
    rows = list(counted)
    variants = {variant: _figures(_sums(within)) for variant, within in _by(attrgetter("variant"), rows)}
    return CampaignStats(
        **dict(_figures(_sums(rows))),
        per_channel={channel: _figures(_sums(within)) for channel, within in _by(attrgetter("channel"), rows)},
        per_message={step: _figures(_sums(within)) for step, within in _by(attrgetter("step"), rows) if step},
        per_variant={variant or "rest": figures for variant, figures in variants.items()} if any(variants) else {},
        per_hour=[Hour(hour=hour, **dict(_outcomes(_sums(within)))) for hour, within in _by(attrgetter("hour"), rows)],
    )


class Passed(Protocol):
    """One figure of a step of a journey; of the passes as a whole, where the step is empty."""

    @property
    def step(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def n(self) -> int: ...


def contact_figures(counted: Iterable[Passed]) -> dict[str, int]:
    """`enrolled = inside + completed + all exited + failed + timed_out + cancelled` at every moment."""
    passes = {each.name: each.n for each in counted if not each.step}
    left = [n for name, n in passes.items() if name.partition(":")[0] not in ("enrolled", "converted", "refused")]
    return {"enrolled": 0, **passes, "inside": passes.get("enrolled", 0) - sum(left)}


def _by(key: Callable[[Counted], Any], rows: list[Counted]) -> Iterator[tuple[Any, Iterator[Counted]]]:
    return groupby(sorted(rows, key=key), key)


def _sums(counted: Iterable[Counted]) -> Counter[str]:
    sums = Counter[str]()
    for each in counted:
        sums[each.name] += each.n
    return sums


def _figures(sums: Counter[str]) -> Figures:
    answer = Figures(planned=sums["planned"], **dict(_outcomes(sums)))
    answer.pending = answer.planned - answer.sent - answer.skipped - answer.failed - answer.uncertain
    return answer


def _outcomes(sums: Counter[str]) -> Outcomes:
    skipped, failed = _by_reason(sums, "skipped"), _by_reason(sums, "failed")
    return Outcomes(
        sent=sums["sent"],
        accepted=sums["accepted"],
        skipped=sum(skipped.values()),
        skipped_by_reason=skipped,
        failed=sum(failed.values()),
        failed_by_reason=failed,
        uncertain=sums["uncertain"],
        delivered=sums["delivered"],
        bounced=sums["bounced"],
        complained=sums["complained"],
        opened=_engagement(sums, "opened"),
        clicked=_engagement(sums, "clicked"),
        unsubscribed=_engagement(sums, "unsubscribed"),
    )


def _by_reason(sums: Counter[str], state: str) -> dict[str, int]:
    return {name.partition(":")[2]: n for name, n in sorted(sums.items()) if name.startswith(f"{state}:") and n}


def _engagement(sums: Counter[str], name: str) -> Engagement:
    return Engagement(total=sums[name], unique=sums[f"{name}_unique"], machine=sums[f"{name}_machine"])
