"""What is a campaign, and what may happen to it next?"""

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from marketing.content import EmailContent, Prepared
from marketing.drips import Drip
from marketing.experiments import Conversion, Experiment
from marketing.schedules import Schedule
from marketing.segments import Criteria, segments_in
from marketing.text import Printable


class CampaignState(StrEnum):
    """draft → scheduled → running ⇄ paused → completed | failed | cancelled."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(StrEnum):
    """What people do to a campaign."""

    EDIT = "edit"
    DELETE = "delete"
    LAUNCH = "launch"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


_ALLOWED: dict[CampaignState, frozenset[Move]] = {
    CampaignState.DRAFT: frozenset({Move.EDIT, Move.DELETE, Move.LAUNCH}),
    CampaignState.SCHEDULED: frozenset({Move.CANCEL}),
    CampaignState.RUNNING: frozenset({Move.PAUSE, Move.CANCEL}),
    CampaignState.PAUSED: frozenset({Move.RESUME, Move.CANCEL}),
    CampaignState.COMPLETED: frozenset({Move.DELETE}),
    CampaignState.FAILED: frozenset({Move.DELETE}),
    CampaignState.CANCELLED: frozenset({Move.DELETE}),
}

ENDED = frozenset({CampaignState.COMPLETED, CampaignState.FAILED, CampaignState.CANCELLED})


class WrongMove(Exception):
    """The campaign's state does not allow this; `allowed` says what it does allow."""

    def __init__(self, move: Move, state: CampaignState) -> None:
        self.allowed = sorted(_ALLOWED[state])
        either = " or ".join(self.allowed) or "nothing"
        super().__init__(f"A campaign that is {state} can't take '{move}'. Allowed now: {either}.")


def check_move(move: Move, state: CampaignState) -> None:
    """Raise WrongMove unless a campaign in this state allows the move."""
    if move not in _ALLOWED[state]:
        raise WrongMove(move, state)


def states_that_allow(move: Move) -> list[CampaignState]:
    return [state for state, moves in _ALLOWED.items() if move in moves]


# -- the audience ----------------------------------------------------------------------------------------------------

Tag = Annotated[Printable, Field(min_length=1, max_length=100)]


class TagFilter(BaseModel):
    """Contacts that have any of, all of, or none of these tags."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [{"required": [name], "properties": {name: {"minItems": 1}}} for name in ("any", "all", "none")]
        },
    )

    any: list[Tag] = Field([], max_length=100)
    all: list[Tag] = Field([], max_length=100)
    none: list[Tag] = Field([], max_length=100)

    @model_validator(mode="after")
    def _not_empty(self) -> "TagFilter":
        if not (self.any or self.all or self.none):
            raise ValueError("name at least one tag under 'any', 'all' or 'none'")
        return self


_WHOLE = (("everyone", "boolean"), ("tags", "object"), ("contact_ids", "array"))
_BY_SEGMENT = (("segments", "array"), ("exclude_segments", "array"), ("filter", "object"))


def _one_way_only() -> dict[str, Any]:
    """Exactly one of the three that stand alone, or any of those that go together."""
    alone = [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in _WHOLE]
    together = [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in _BY_SEGMENT]
    return {"oneOf": [*alone, {"anyOf": together}]}


Segments = Annotated[list[UUID], Field(min_length=1, max_length=100)]


class Audience(BaseModel):
    """Whom a campaign is for: `everyone`, `tags` or `contact_ids` alone, or any of the other three together.

    Those in any of `segments` (without it: everyone) who are in none of `exclude_segments` and meet `filter`. Each
    contact is in it once.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_one_way_only())

    everyone: Literal[True] | None = None
    tags: TagFilter | None = None
    contact_ids: list[UUID] | None = Field(None, min_length=1, max_length=10_000)
    segments: Segments | None = None
    exclude_segments: Segments | None = None
    filter: Criteria | None = Field(None, description="Criteria as those of segments.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Audience":
        alone = sum(getattr(self, name) is not None for name, _ in _WHOLE)
        together = any(getattr(self, name) is not None for name, _ in _BY_SEGMENT)
        if alone + together != 1:
            raise ValueError(
                "give exactly one of 'everyone': true, 'tags' and 'contact_ids', "
                "or any of 'segments', 'exclude_segments' and 'filter'"
            )
        return self

    def looks_at(self) -> list[tuple[str, UUID]]:
        """Every segment that decides who is in it, with the field that names it."""
        return [
            *(("segments", each) for each in self.segments or ()),
            *(("exclude_segments", each) for each in self.exclude_segments or ()),
            *(("filter", each) for each in sorted(segments_in(self.filter) if self.filter else ())),
        ]


# -- the whole -------------------------------------------------------------------------------------------------------


class Content(BaseModel):
    """What is said, per channel."""

    model_config = ConfigDict(extra="forbid")

    email: EmailContent | None = None


class Goal(BaseModel):
    """What the campaign is to bring about; counted from events of this name after a message."""

    model_config = ConfigDict(extra="forbid")

    event: Printable = Field(min_length=1, max_length=200)
    within_hours: int = Field(72, ge=1, le=24 * 90)


class Budget(BaseModel):
    """Stop at this many messages; the rest is skipped with the reason `budget`."""

    model_config = ConfigDict(extra="forbid")

    max_messages: int = Field(ge=1, le=1_000_000_000)


TopicKey = Annotated[Annotated[Printable, Field(max_length=63)] | None, AfterValidator(lambda key: key or None)]

_EXAMPLE: dict[str, Any] = {
    "name": "Autumn collection",
    "kind": "broadcast",
    "channels": ["email"],
    "content": {
        "email": {
            "subject": 'Hello {{ contact.first_name | default: "there" }}, autumn is here',
            "html": "<p>Hello {{ contact.first_name | default: 'there' }}!</p>"
            '<p><a href="https://shop.example.com/autumn">See the collection</a></p>'
            '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
            "from_name": "Example Outfitters",
            "from_email": "news@example.com",
        }
    },
    "audience": {"tags": {"any": ["customers"]}},
}


class CampaignDefinition(Drip):
    """A campaign as its author writes it: a broadcast says one thing once, a drip one thing after the other, an
    experiment one of several, to find out which."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    name: Printable = Field(min_length=1, max_length=200)
    kind: Literal["broadcast", "drip", "experiment"] = "broadcast"
    channels: list[Literal["email"]] = Field(["email"], min_length=1, max_length=1)
    content: Content = Field(
        default_factory=Content, description="Of a broadcast; of an experiment, what its variants have in common."
    )
    experiment: Experiment | None = Field(None, description="Of an experiment: what is compared.")
    audience: Audience | None = Field(None, description="May come later; a launch needs it.")
    topic: TopicKey = Field(None, description="Key of a topic of the account; '' is none.")
    schedule: Schedule | None = None
    rate_limit_per_second: float | None = Field(
        None, ge=0.001, le=100_000, description="Messages in a second; 0.001 is one in 17 minutes."
    )
    on_uncertain: Literal["hold", "resend"] = Field(
        "hold", description="What to do when nobody can know whether the provider took a message."
    )
    goals: list[Goal] = Field([], max_length=10, description="Whoever reaches one gets no more of a drip.")
    budget: Budget | None = None

    @property
    def is_drip(self) -> bool:
        return self.kind == "drip"

    @property
    def is_experiment(self) -> bool:
        return self.kind == "experiment"

    @property
    def contents(self) -> list[EmailContent | None]:
        """What is said, in order; a broadcast says one thing, an experiment what each of its variants says."""
        if self.is_drip:
            return [each.written for each in self.messages]
        if self.is_experiment and self.experiment:
            return self.experiment.contents(self.content.email)
        return [self.content.email]

    @property
    def conversion(self) -> Conversion | None:
        """What an experiment counts as a conversion."""
        if self.experiment and self.experiment.conversion:
            return self.experiment.conversion
        return next((Conversion(event=goal.event, within=f"{goal.within_hours} hours") for goal in self.goals), None)


class EmailPlan(BaseModel):
    """The e-mail as it is sent: prepared content, and from whom."""

    prepared: Prepared
    from_name: str
    from_email: str
    reply_to: str | None
    account: dict[str, str]  # what `{{ account.* }}` says
    campaign: dict[str, str]  # what `{{ campaign.* }}` says


class CampaignPlan(BaseModel):
    """What was frozen at launch: all that a delivery needs, whatever is edited later."""

    campaign_name: str
    topic: str | None
    on_uncertain: Literal["hold", "resend"]
    rate_limit_per_second: float | None
    max_messages: int | None
    audience: Audience
    schedule: Schedule | None
    email: EmailPlan  # of a drip, its first message; of an experiment, what its control says
    messages: dict[str, EmailPlan] = Field({}, exclude_if=lambda messages: not messages)  # of a drip, by the step's id
    automation: dict[str, Any] | None = Field(None, exclude_if=lambda it: it is None)  # what a drip comes to
    variants: dict[str, EmailPlan] = Field({}, exclude_if=lambda variants: not variants)  # of an experiment, by name
    experiment: Experiment | None = Field(None, exclude_if=lambda it: it is None)

    @property
    def links(self) -> list[str]:
        """Where the links of a broadcast or an experiment lead, in the order of their numbers."""
        if not self.variants:
            return self.email.prepared.links
        return list(dict.fromkeys(url for email in self.variants.values() for url in email.prepared.links))
