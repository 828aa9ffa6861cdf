"""What the activities of journeys are handed, and what they answer: ids and numbers, never people."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from marketing.discretion import Discreet

Kind = Literal["automation", "drip"]
LeftAs = Literal["completed", "exited", "failed", "timed_out", "cancelled"]


class SourceRef(BaseModel):
    """What enrolls: an automation, or a campaign of kind `drip`."""

    account_id: UUID
    source_id: UUID
    kind: Kind = "automation"


class CohortRef(SourceRef):
    cohort: int


# -- one step of many contacts ---------------------------------------------------------------------------------------


class Caller(BaseModel):
    """Whose step it is: the member of the cohort, and the ordinal of the call in its pass. Together they are the key
    under which a step happens once."""

    member: int
    call: int
    since: datetime | None = Field(None, exclude_if=lambda since: since is None)  # if it woke later than the first
    # What it waited for last, if that may have occurred at the very moment from which on things count: not this again.
    heard: UUID | None = Field(None, exclude_if=lambda heard: heard is None)


class StepCall(CohortRef):
    """The same step for many contacts, at the same moment."""

    step: str
    args: dict[str, Any] = {}
    callers: list[Caller]
    attempt: int = 1
    now: datetime  # the journey's clock, which a rehearsal skips
    since: datetime | None = None  # when the first of these contacts woke last: what happened from then on counts
    until: datetime | None = None  # of a wait that is over: what happened until then counts

    def since_of(self, caller: Caller) -> datetime | None:
        """When this contact woke last."""
        return caller.since or self.since


class Answer(BaseModel):
    """What became of one contact's step; answers come in the order of the callers."""

    value: Any = Field(None, exclude_if=lambda value: value is None)
    later: datetime | None = Field(None, exclude_if=lambda later: later is None)  # not now: ask again then
    held: bool = Field(False, exclude_if=lambda held: not held)  # the source is paused: ask again when it goes on
    error: Discreet = Field("", exclude_if=lambda error: not error)  # tried again, up to three attempts
    final: bool = Field(False, exclude_if=lambda final: not final)  # no other attempt can help
    leave: str | None = Field(None, exclude_if=lambda leave: leave is None)  # the contact must leave, for this reason
    left_as: LeftAs = Field("exited", exclude_if=lambda left_as: left_as == "exited")  # what its pass is then

    @classmethod
    def gone(cls, state: str, reason: str | None) -> "Answer":
        """The pass is over already, on record."""
        return cls.model_validate({"leave": reason or "", "left_as": state})


CANCELLED = Answer(leave="cancelled", left_as="cancelled")


# -- what people read ------------------------------------------------------------------------------------------------


class Note(BaseModel):
    """A step that contacts are in, or have ended, all at the same moments."""

    callers: list[Caller]
    step: str
    kind: str
    entered_at: datetime
    left_at: datetime | None = None
    due_at: datetime | None = None  # when a wait ends
    outcome: Discreet = ""
    error: Discreet = ""
    broken_off: bool = Field(False, exclude_if=lambda broken_off: not broken_off)  # it did not end by itself


class Left(BaseModel):
    """Passes that are over, all in the same way."""

    members: list[int]
    state: LeftAs
    at: datetime
    reason: Discreet = ""
    problem: Discreet = ""
    converted: bool = False


class NoteInput(CohortRef):
    version: int
    notes: list[Note] = []
    left: list[Left] = []
    ended: bool = False  # nobody is inside any more
    now: datetime


class JournalPart(CohortRef):
    """Some of what the code of a cohort's members was told, packed."""

    part: int
    content: str = ""  # to be kept


class Failures(CohortRef):
    """Passes that have failed, for the owner of the account to know."""

    version: int
    left: list[Left]
    now: datetime


# -- cohorts ---------------------------------------------------------------------------------------------------------


class Member(BaseModel):
    """One of a cohort; its number is its place in the list, counted from the `first` of the list."""

    contact_id: UUID
    zone: str
    entered_at: datetime
    # When what it began with occurred, if that was before: from then on, what it does counts.
    since: datetime | None = Field(None, exclude_if=lambda since: since is None)
    # What it began with, for automations written in Python: names, numbers and ids, never what tells who somebody is.
    trigger: dict[str, Any] = Field({}, exclude_if=lambda trigger: not trigger)


class FormInput(SourceRef):
    limit: int = 1000  # most members of a cohort
    now: datetime
    cohort: int | None = None  # the newest that the caller knows of, for whose first `members` it has seen to
    members: int = 0
    joins: bool = False  # it is young: whoever waits joins it, as far as there is room and the version is the same


class Formed(BaseModel):
    """Those who waited longest, in a new cohort or in the newest, which they join; no cohort if nobody waits.

    All of one cohort are on one version. Asked again by one who has not heard the answer, it is the same.
    """

    cohort: int | None = None
    first: int = 0  # the number of the first of these members; more than 0: they join
    version: int = 1
    code: str | None = None  # the name of an automation written in Python
    definition: dict[str, Any] | None = None  # or the steps of a declarative one
    name: Discreet = ""
    topic: str | None = None
    time_limit: str | None = None  # of one pass, if the author has said so
    members: list[Member] = []
    more: bool = False  # others wait


class Join(BaseModel):
    """Newcomers of a young cohort, told by the signal `join`; their numbers go on from `first`.

    Told twice, or of somebody who is inside already, it changes nothing. If the cohort is over at this moment, it is
    started again under its id with these alone, from `first` on. Whoever must leave may have been told to before.
    """

    first: int
    members: list[Member]


# -- what is told to cohorts -----------------------------------------------------------------------------------------


class Happened(BaseModel):
    """An event that a member waits for."""

    member: int
    call: int
    event_id: UUID
    name: str
    occurred_at: datetime


class Leave(BaseModel):
    """A member must leave: its goal is reached, it has unsubscribed, …"""

    member: int
    state: LeftAs = "exited"
    reason: Discreet
    converted: bool = False
