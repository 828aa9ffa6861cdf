"""What is an automation: who enters it, what it does, and when somebody leaves?"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    model_validator,
)

from marketing.exits import Exit, exit_subjects
from marketing.kinds import CODE, EventWhere, in_our_words, part, told_apart
from marketing.segment_names import Duration, EventName
from marketing.segment_nodes import Node, refuse
from marketing.segments import Criteria
from marketing.spans import ahead
from marketing.steps import AllSteps, Wait, WaitFor, walk
from marketing.text import Printable
from marketing.triggers import OnEvent, OnFieldChanged, OnSegmentEntered, OnSegmentLeft, OnTagAdded, Trigger

TIME_LIMIT = "180 days"
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)  # to compare times such as 30 days and 1 month


class AutomationState(StrEnum):
    """draft → active ⇄ paused."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"


class After(Node):
    """`{"after": "30 days"}`: again, so long after the contact entered last."""

    after: Duration


Reentry = Annotated[
    Annotated[Literal["once", "always"], Tag("word")] | Annotated[After, Tag("after")],
    Discriminator(lambda written: "after" if isinstance(written, dict | After) else "word"),
    told_apart,
]


class GoalEvent(Node):
    """What the automation is to bring about: whoever does it has reached it, and leaves."""

    event: EventName
    where: EventWhere | None = part(description="What holds of the event.")


class Terms(Node):
    """Who enters, how often, and when somebody leaves."""

    trigger: Trigger | None = None
    entry: Criteria | None = Field(None, description="Who may enter: criteria as those of segments.")
    reentry: Reentry = Field("once", description="Nobody passes through twice at the same time.")
    goal: GoalEvent | None = None
    exit_on: tuple[Exit, ...] = Field((), max_length=20)
    topic: Printable | None = Field(None, min_length=1, max_length=63, description="Key of a topic of the account.")
    time_limit: Duration = Field(TIME_LIMIT, description="Whoever is inside for longer leaves as `timed_out`.")


_EXAMPLE: dict[str, Any] = {
    "name": "Welcome",
    "trigger": {"type": "event", "event": "contact.subscribed"},
    "entry": {"not": {"field": "tags", "contains": "staff"}},
    "goal": {"event": "purchase"},
    "steps": [
        {"type": "wait", "duration": "5 minutes"},
        {
            "type": "send",
            "content": {
                "subject": "Welcome, {{ contact.first_name | default: 'friend' }}",
                "html": '<p>Good to have you.</p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
                "from_name": "Example Outfitters",
                "from_email": "news@example.com",
            },
        },
        {
            "type": "wait_for",
            "event": "message.clicked",
            "within": "3 days",
            "then": [{"type": "tag", "add": ["interested"]}],
        },
    ],
}
_EITHER: list[Any] = [
    {
        "required": ["trigger", "steps"],
        "properties": {"trigger": {"type": "object"}, "steps": {"minItems": 1}, "code": {"type": "null"}},
    },
    {"required": ["code"], "properties": {"code": {"type": "string"}, "steps": {"maxItems": 0}}},
]


class AutomationDefinition(Terms):
    """An automation as its author writes it: a trigger and steps, or the name of one that is written in Python."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE, "anyOf": _EITHER})

    name: Printable = Field(min_length=1, max_length=200)
    code: str | None = Field(None, pattern=CODE, description="The name of an automation written in Python.")
    steps: AllSteps = ()

    @model_validator(mode="wrap")
    @classmethod
    def _told(cls, written: object, read: ValidatorFunctionWrapHandler) -> Self:
        definition: Self = in_our_words(written, read)
        return definition

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.code is None and self.trigger is None:
            raise ValueError("say what lets contacts in: a trigger, or the code that says so")
        if (self.code is None) != bool(self.steps):
            raise ValueError("give steps, or the code that takes them, and not both")
        limit = ahead(_SOME_DAY, self.time_limit)
        for place, step in walk(self.steps):
            time = step.duration if isinstance(step, Wait) else step.within if isinstance(step, WaitFor) else None
            if time and ahead(_SOME_DAY, time) >= limit:
                refuse((place, f"waits as long as the time limit of {self.time_limit}: nobody would go on from here."))
        return self


# -- what it looks at ------------------------------------------------------------------------------------------------

Role = Literal["trigger", "goal", "exit", "wait"]
Subject = tuple[str, Role]


def subjects(definition: AutomationDefinition) -> frozenset[Subject]:
    """What must happen to a contact to concern the automation (`automation_subjects`)."""
    found: set[Subject] = set()
    if definition.trigger and (cause := trigger_subject(definition.trigger)):
        found.add((cause, "trigger"))
    if definition.goal:
        found.add((f"event:{definition.goal.event}", "goal"))
    found |= {(subject, "exit") for subject in exit_subjects(definition.exit_on)}
    found |= {(f"event:{step.event}", "wait") for _, step in walk(definition.steps) if isinstance(step, WaitFor)}
    return frozenset(found)


def trigger_subject(trigger: Trigger) -> str | None:
    """What must happen to a contact that is to enter; None if the clock or the API lets it in."""
    match trigger:
        case OnEvent():
            return f"event:{trigger.event}"
        case OnSegmentEntered():
            return f"segment.entered:{trigger.segment}"
        case OnSegmentLeft():
            return f"segment.left:{trigger.segment}"
        case OnTagAdded():
            return f"tag:{trigger.tag}"
        case OnFieldChanged():
            return f"contact.{trigger.field}"
    return None


# -- another version -------------------------------------------------------------------------------------------------


class Inside(BaseModel):
    """How many are at a step of a version; `step` is empty for those who have not begun."""

    version: int
    step: str
    contacts: int


class Becomes(Inside):
    """And in which version they go on."""

    goes_on_in: int


def after_change(
    versions: Mapping[int, AutomationDefinition], newest: int, inside: Iterable[Inside], *, migrate: bool
) -> list[Becomes]:
    """What a new version means for those inside: they finish on theirs, unless they are to migrate and the step at
    which they are, known by its id and type, is in the new one too. Who has not begun migrates in any case."""
    types = {
        version: {step.id: step.type for _, step in walk(definition.steps)} for version, definition in versions.items()
    }

    def follows(each: Inside) -> bool:
        if not migrate or each.version == newest:
            return False
        kind = types.get(each.version, {}).get(each.step)
        return not each.step or (kind is not None and types[newest].get(each.step) == kind)

    return [Becomes(**vars(each), goes_on_in=newest if follows(each) else each.version) for each in inside]
