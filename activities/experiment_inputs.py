"""What the activities of experiments are handed, and what they answer: ids and numbers, never people."""

from datetime import datetime, timedelta
from typing import Literal

from activities.inputs import CampaignRef
from marketing.discretion import Discreet


class AtMoment(CampaignRef):
    now: datetime  # the campaign's clock


class ExperimentStanding(CampaignRef):
    """How an experiment stands, as far as its workflow has to know.

    Args:
        winner: its number among the variants, from 0.
        rest_shard: the first shard of those who wait for the winner.
        decides_at: when figures are looked at last; None: a person decides, the test is not out yet, or it is over.
        looks_every: how often they are looked at before that.
        changed: what was asked for was done.
    """

    state: Literal["testing", "asking", "decided", "stopped"]
    reason: Discreet = ""
    winner: int | None = None
    rest_shard: int
    is_bandit: bool = False
    test_sent_at: datetime | None = None
    decides_at: datetime | None = None
    looks_every: timedelta | None = None
    changed: bool = False


class ChooseInput(AtMoment):
    """A person decides. `variant` is its number among the variants, from 0; None: the best so far."""

    variant: int | None = None
    reason: Discreet = ""


class StopInput(CampaignRef):
    reason: Discreet = ""


class AllocateInput(AtMoment):
    shard: int
