"""What activities are handed, and what they answer: ids and numbers, never people."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from marketing.discretion import Discreet


class Totals(BaseModel):
    """A reading of a campaign's counters; `planned` less the rest is what is still to come."""

    planned: int = 0
    sent: int = 0
    skipped: int = 0
    failed: int = 0
    uncertain: int = 0

    @property
    def pending(self) -> int:
        return self.planned - self.sent - self.skipped - self.failed - self.uncertain

    def or_newer(self, other: "Totals") -> "Totals":
        """The later of two readings: messages are only ever finished, so the one with less pending. One without
        anything planned is none."""
        return other if other.planned and (other.pending <= self.pending or not self.planned) else self


class ShardDue(BaseModel):
    """A shard with something left to do, and when."""

    shard: int
    due: datetime


class WaveOfShards(BaseModel):
    """Shards `first` to `last`, all due from `due` on."""

    due: datetime
    first: int
    last: int


# Of those that a campaign's workflow carries out; a drip has that of a journey.
CampaignKind = Literal["broadcast", "experiment"]


class CampaignRef(BaseModel):
    account_id: UUID
    campaign_id: UUID


class FreezeInput(CampaignRef):
    now: datetime
    shard_size: int


class Frozen(BaseModel):
    planned: int
    waves: list[WaveOfShards]


class StateChange(CampaignRef):
    state: Literal["running", "paused", "cancelled", "completed", "failed"]
    reason: Discreet = ""
    final: bool = False  # the workflow ends with this


class StateAnswer(BaseModel):
    """The state that the campaign has now, whoever gave it."""

    state: str
    reason: Discreet = ""


class DeliverInput(CampaignRef):
    shard: int
    now: datetime  # the campaign's clock


class Delivered(BaseModel):
    """How a campaign stands after one `deliver`, and what that left in its shard."""

    totals: Totals
    next_due: datetime | None = None  # None: the shard is finished
    stopped: bool = False  # the campaign is not running (any more)
    unavailable: bool = False  # the provider can't be reached


class SkipRestInput(CampaignRef):
    now: datetime
    reason: Literal["cancelled", "stopped"] = "cancelled"


class OpenShardsInput(CampaignRef):
    below: int | None = None  # shards from this one on are not asked for


class OpenShards(BaseModel):
    """The shards in which something is planned or under way, the first thousand."""

    shards: list[ShardDue]
    totals: Totals = Totals()


class RestSkipped(BaseModel):
    totals: Totals
    wait_seconds: float | None = None  # until what a lost worker had in hand can be settled


class ImportRef(BaseModel):
    account_id: UUID
    import_id: UUID


class UnattendedCampaign(CampaignRef):
    name: Discreet  # the sweep's history keeps it too
    kind: CampaignKind = "broadcast"
    starts_at: datetime | None
    state: str = "running"
    reason: Discreet = ""
    begun: bool = False  # its audience is frozen: only the ledger knows what is left


class Unattended(BaseModel):
    """What the sweep found."""

    never_started: list[UnattendedCampaign] = []  # or ended, though the record says that there is more to do
    not_told: list[UUID] = []  # cancelled in the database, still at work
    waiting: list[ImportRef] = []  # imports at which nobody is at work
    broken_off: list[ImportRef] = []  # imports whose file will never be complete


class SendSample(CampaignRef):
    """Send a campaign's message to these addresses, marked as a test, as one contact would get it."""

    contact_id: UUID | None  # None: somebody made up
    addresses: list[str]
    message: int = 1  # of a drip, which
    now: datetime


class SampleSent(BaseModel):
    """What became of each test message: 'sent', or why not."""

    results: dict[str, str]


class ImportFailure(ImportRef):
    problem: str  # for people


class ImportProgress(BaseModel):
    """How an import stands after a stretch of work."""

    state: str
    rows: int = 0
    rejected: int = 0
    merged: int = 0  # rows whose people are among the contacts now


class Forgotten(BaseModel):
    """What was older than the accounts keep it."""

    months: int = 0  # dropped as a whole
    events: int = 0  # deleted one by one
    keys: int = 0  # idempotency keys of events
    silently: bool = False  # months were dropped, or may have been by an attempt that was lost: that touches nobody


class SegmentRef(BaseModel):
    account_id: UUID
    segment_id: UUID


class FollowInput(BaseModel):
    """Settle what changes in the accounts of one of so many lanes, until a moment."""

    lane: int
    lanes: int
    until: datetime


class SweepInput(BaseModel):
    nightly: bool = False  # all segments; otherwise those that time changes
    events_forgotten: bool = False  # and those that ask for events
    now: datetime  # when the sweep began


class Recomputed(BaseModel):
    """What became of segments whose members were computed anew."""

    segments: int = 0
    entered: int = 0
    left: int = 0
    drift: int = 0  # entered or left, though nothing that was told would explain it
