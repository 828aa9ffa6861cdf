"""What the workflows of journeys are handed, and hand on."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from activities.journey_inputs import CohortRef, Member, SourceRef
from activities.routing_inputs import SourceState
from marketing.discretion import Discreet


class CohortInput(CohortRef):
    """Contacts that go through an automation together, all on one version of it."""

    name: Discreet = ""  # for the operators' page
    version: int = 1
    code: str | None = None  # the name of an automation written in Python
    definition: dict[str, Any] | None = None  # or a declarative one
    topic: str | None = None
    members: list[Member] = Field(default_factory=list)
    first: int = 0  # the number of the first of them
    time_limit: str = "180 days"  # of one pass
    attempts: int = 3  # of a step whose answers are errors
    most_events: int = 8000  # of one run; what is in flight then still adds a few
    handed_over: str | None = None  # by the run before, packed; has the members too
    parts: int = 0  # of the journal, which are on record


class Migration(BaseModel):
    """Argument of the signal `migrate`: those whose step is in this version too go on in it."""

    version: int
    definition: dict[str, Any]


class CohortProgress(BaseModel):
    """Answer of the query `progress`."""

    state: str  # running or paused
    inside: int
    left: dict[str, int]  # how many, by state
    steps: list["StepProgress"]


class StepProgress(BaseModel):
    """How it went with a step so far."""

    step: str
    inside: int = 0
    done: int = 0
    failed: int = 0


class AutomationState(BaseModel):
    """What one run of an automation's workflow hands to the next (continue-as-new)."""

    state: SourceState
    reason: Discreet = ""
    cohort: int | None = None  # the newest that is known
    members: int = 0  # of it
    formed_at: datetime | None = None
    untold: bool = True  # cohorts may not know the state
    cancelled: bool = False  # some cohorts are that, and may not know
    migrations: list["Migration"] = []  # that they are to be told of


class AutomationInput(SourceRef):
    """The workflow of an automation or a drip, for as long as it is active."""

    name: Discreet = ""
    most_events: int = 1500
    progress: AutomationState | None = None  # set when continued as new


class AutomationProgress(BaseModel):
    """Answer of the query `progress` and of the updates."""

    state: SourceState
    reason: Discreet = ""
    cohorts: int = 0  # formed so far


class Reason(BaseModel):
    """Argument of the signal `cancel`."""

    reason: Discreet = ""


def workflow_id(source: SourceRef) -> str:
    """`automation-<id>`, and for drips `campaign-<id>`."""
    return f"{'campaign' if source.kind == 'drip' else 'automation'}-{source.source_id}"


def cohort_workflow_id(source: SourceRef, cohort: int) -> str:
    return f"{workflow_id(source)}/cohort-{cohort}"
