"""What the activities around enrolling are handed, and what they answer: ids and numbers, never people."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from activities.journey_inputs import CohortRef, SourceRef
from marketing.discretion import Discreet

SourceState = Literal["active", "paused", "over"]


class SourceCommand(SourceRef):
    """Give an automation or a drip a state."""

    state: Literal["active", "paused", "cancelled"]
    reason: Discreet = ""


class SourceStanding(BaseModel):
    """How it stands on record; `over`: it lets nobody in any more, and nobody goes on."""

    state: SourceState
    reason: Discreet = ""
    name: Discreet = ""
    cancelled: bool = False  # cohorts are that, and have not ended yet


class TellInput(SourceRef):
    """Tell all cohorts how their source stands, or of a new version."""

    migration: dict[str, Any] | None = None
    now: datetime


class DueInput(SourceRef):
    """Let in those whose time has come: after `since`, if that is known, and not after `moment`."""

    since: datetime | None = None
    moment: datetime


class Due(BaseModel):
    """Until when it is done, and how many were let in."""

    until: datetime
    enrolled: int = 0


class Lost(BaseModel):
    """What nobody is at work on."""

    sources: list[SourceRef] = []  # without a workflow
    unheard: list[SourceRef] = []  # with one that may not know that somebody is pending
    cohorts: list[CohortRef] = []  # that nobody carries; none of those inside has begun, so they can be started
