"""What workflows are handed, hand on, and answer: ids and numbers, never people."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel

from activities.experiment_inputs import ExperimentStanding
from activities.inputs import CampaignKind, CampaignRef, ShardDue, Totals, WaveOfShards
from marketing.discretion import Discreet


class CampaignProgressState(BaseModel):
    """What one run of a campaign's workflow hands to the next (continue-as-new)."""

    totals: Totals
    waves: list[WaveOfShards]  # not begun yet
    waiting: list[ShardDue]  # begun, with more to come
    state: str
    reason: Discreet = ""


class CampaignInput(BaseModel):
    account_id: UUID
    campaign_id: UUID
    name: Discreet = ""  # for the operators' page
    kind: CampaignKind = "broadcast"
    starts_at: datetime | None = None
    window: int = 4  # shards delivered at the same time
    shard_size: int = 2000
    most_events: int = 1500  # of one run; what is in flight then still adds a few
    progress: CampaignProgressState | None = None  # set when continued as new

    @classmethod
    def to_go_on(cls, begun: CampaignRef, name: str, kind: CampaignKind, state: str, reason: str) -> Self:
        """For a campaign whose audience is frozen: the ledger says what is left to do."""
        progress = CampaignProgressState(totals=Totals(), waves=[], waiting=[], state=state, reason=reason)
        return cls(account_id=begun.account_id, campaign_id=begun.campaign_id, name=name, kind=kind, progress=progress)


class Progress(BaseModel):
    """Answer of the query `progress` and of the updates."""

    state: str
    reason: Discreet
    totals: Totals
    pending: int
    shards_under_way: int
    experiment: ExperimentStanding | None = None  # None: it is none, or its audience is not frozen yet


class Command(BaseModel):
    """Argument of the updates `pause`, `resume`, `cancel` and, of an experiment, `stop`."""

    reason: Discreet = ""


class ChooseWinner(BaseModel):
    """Argument of an experiment's update `choose_winner`."""

    variant: int | None = None  # its number among the variants, from 0; None: the best so far
    reason: Discreet = ""
