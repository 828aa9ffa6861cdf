"""What do a campaign's counters add up to?"""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, Field


class Counted(Protocol):
    """One figure of one hour and channel."""

    @property
    def hour(self) -> datetime: ...
    @property
    def channel(self) -> str: ...
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


class Figures(BaseModel):
    """At every moment `planned = pending + sent + skipped + failed + uncertain`.

    `delivered`, `bounced` and `complained` say what became of sent ones, as far as providers tell.
    """

    planned: int = 0
    pending: int = 0
    sent: int = 0
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

    @property
    def reconciles(self) -> bool:
        return self.planned == self.pending + self.sent + self.skipped + self.failed + self.uncertain


class Hour(BaseModel):
    """What happened within one hour, UTC."""

    hour: datetime
    sent: int = 0
    skipped: int = 0
    failed: int = 0
    uncertain: int = 0
    opened: int = 0
    clicked: int = 0
    unsubscribed: int = 0


class CampaignStats(Figures):
    """A campaign's figures: in all, per channel and per hour."""

    per_channel: dict[str, Figures] = {}
    per_hour: list[Hour] = []


def figures(counted: Iterable[Counted]) -> Figures:
    """Sum counters of whatever hours and channels."""
    sums: dict[str, int] = {}
    for each in counted:
        sums[each.name] = sums.get(each.name, 0) + each.n

    def by_reason(state: str) -> dict[str, int]:
        return {name.partition(":")[2]: n for name, n in sorted(sums.items()) if name.startswith(f"{state}:") and n}

    skipped, failed = by_reason("skipped"), by_reason("failed")
    answer = Figures(
        planned=sums.get("planned", 0),
        sent=sums.get("sent", 0),
        skipped=sum(skipped.values()),
        skipped_by_reason=skipped,
        failed=sum(failed.values()),
        failed_by_reason=failed,
        uncertain=sums.get("uncertain", 0),
        delivered=sums.get("delivered", 0),
        bounced=sums.get("bounced", 0),
        complained=sums.get("complained", 0),
        opened=_engagement(sums, "opened"),
        clicked=_engagement(sums, "clicked"),
        unsubscribed=_engagement(sums, "unsubscribed"),
    )
    answer.pending = answer.planned - answer.sent - answer.skipped - answer.failed - answer.uncertain
    return answer


def campaign_stats(counted: Iterable[Counted]) -> CampaignStats:
    """The whole report of a campaign."""
    rows = list(counted)
    channels = sorted({row.channel for row in rows})
    per_channel = {channel: figures(row for row in rows if row.channel == channel) for channel in channels}
    per_hour = [_hour(hour, [row for row in rows if row.hour == hour]) for hour in sorted({row.hour for row in rows})]
    return CampaignStats(**figures(rows).model_dump(), per_channel=per_channel, per_hour=per_hour)


def _engagement(sums: dict[str, int], name: str) -> Engagement:
    return Engagement(
        total=sums.get(name, 0), unique=sums.get(f"{name}_unique", 0), machine=sums.get(f"{name}_machine", 0)
    )


def _hour(hour: datetime, rows: list[Counted]) -> Hour:
    within = figures(rows)
    return Hour(
        hour=hour,
        sent=within.sent,
        skipped=within.skipped,
        failed=within.failed,
        uncertain=within.uncertain,
        opened=within.opened.total,
        clicked=within.clicked.total,
        unsubscribed=within.unsubscribed.total,
    )
