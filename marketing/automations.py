"""What is an automation: who enters it, what it does, and when somebody leaves?"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    model_validator,
)

from marketing.kinds import in_our_words, part, told_apart
from marketing.segment_conditions import Where
from marketing.segment_names import Duration, EventName
from marketing.segment_nodes import Node, by_key, refuse
from marketing.segments import Criteria
from marketing.spans import ahead
from marketing.steps import AllSteps, Wait, WaitFor, walk
from marketing.text import Printable
from marketing.triggers import Trigger

CODE = r"^[A-Za-z][A-Za-z0-9_-]{0,99}$"
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


class Goal(Node):
    """What the automation is to bring about: whoever does it has reached it, and leaves."""

    event: EventName
    where: Where | None = part(description="What holds of the event.")


class ExitEvent(Node):
    """Whoever this happens to leaves."""

    event: EventName
    where: Where | None = part(description="What holds of the event.")


class ExitIf(Node):
    """Whoever meets these criteria leaves."""

    if_: Criteria = Field(alias="if", description="Criteria as those of segments.")


Exit = Annotated[
    Annotated[ExitEvent, Tag("event")] | Annotated[ExitIf, Tag("if")],
    by_key("event", "if"),
    told_apart,
]


class Terms(Node):
    """Who enters, how often, and when somebody leaves."""

    trigger: Trigger | None = None
    entry: Criteria | None = Field(None, description="Who may enter: criteria as those of segments.")
    reentry: Reentry = Field("once", description="Nobody passes through twice at the same time.")
    goal: Goal | None = None
    exit_on: tuple[Exit, ...] = Field((), max_length=20)
    topic: Printable | None = Field(None, max_length=63, description="Key of a topic of the account.")
    time_limit: Duration = Field(TIME_LIMIT, description="Whoever is inside for longer leaves as `timed_out`.")


class AutomationDefinition(Terms):
    """An automation as its author writes it: a trigger and steps, or the name of one that is written in Python."""

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
