"""What can an automation do with a contact, step by step?"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from itertools import count
from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from marketing.accounts import ChannelName, LocalTime, checked_zone
from marketing.campaigns import CampaignDefinition
from marketing.contacts import (
    DEEPEST_ATTRIBUTES,
    CheckedAttributes,
    Line,
    Tags,
    checked_json,
    json_schema,
    normal_country,
    normal_locale,
    normal_timezone,
)
from marketing.content import EmailContent
from marketing.kinds import ACTIVITY, MAYBE_STEP_ID, STEP_ID, EventWhere, part, told_apart
from marketing.segment_names import Duration, EventName
from marketing.segment_nodes import Node, Place, kept_by, refuse
from marketing.segment_operands import DAY, IDENTIFIER, whole
from marketing.segments import Criteria
from marketing.text import Printable, printable

CONTACT = "contact"  # for a zone: each contact's own

SegmentId = Annotated[UUID, kept_by(IDENTIFIER), WithJsonSchema(IDENTIFIER.schema)]
Steps = tuple["Step", ...]
DEEPEST, MOST_STEPS = 10, 200
_ELSEWHERE = "Put some of it into an automation of its own."


class _Step(Node):
    """One step; its `id` is its name in figures and timelines, and what it is known by in the next version."""

    id: str = part("", pattern=MAYBE_STEP_ID, description="Left out, it gets one, such as `send-2`.")

    @property
    def ways(self) -> Mapping[Place, Steps]:
        """The steps within this one, by where they are written, such as `("then",)`."""
        return {}


# -- messages --------------------------------------------------------------------------------------------------------


class Send(_Step):
    """Send a message: a stored template, as it is at that moment, or what is written here."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": [one],
                    "properties": {one: {"type": kind}, other: {"type": "null"}},
                }
                for one, kind, other in (("template", "string", "content"), ("content", "object", "template"))
            ]
        }
    )

    type: Literal["send"]
    channel: ChannelName = "email"
    fallback: ChannelName | None = part(description="The channel to take if this one can't reach the contact.")
    template: Annotated[Printable, Field(min_length=1, max_length=200)] | None = part(
        description="Its id, or its name."
    )
    content: EmailContent | None = part()

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.template is None) == (self.content is None):
            raise ValueError("give exactly one of template and content")
        if self.fallback == self.channel:
            raise ValueError("the fallback is the channel itself. Leave it out, or give another")
        return self


# -- time ------------------------------------------------------------------------------------------------------------


class Wait(_Step):
    """Wait so long."""

    type: Literal["wait"]
    duration: Duration


def _zone(name: str) -> str:
    return name if name == CONTACT else checked_zone(name)


Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Day = Annotated[date, kept_by(DAY), WithJsonSchema(DAY.schema)]


class WaitUntil(_Step):
    """Wait until the next time that it is so late, on such a day."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}} for name in ("at", "weekday", "date")
            ]
        }
    )

    type: Literal["wait_until"]
    at: LocalTime | None = part(description="Left out: the beginning of the day.")
    weekday: Weekday | None = part()
    date: Day | None = part(description="A day that has passed is not waited for.")
    zone: Annotated[str, AfterValidator(_zone)] = part(
        CONTACT, description="`contact`: each contact's own.", examples=[CONTACT, "Europe/Paris"]
    )

    @model_validator(mode="after")
    def _says_until_when(self) -> Self:
        if self.at is None and self.weekday is None and self.date is None:
            raise ValueError("say until when: at, weekday or date")
        if self.weekday and self.date:
            raise ValueError("give one of weekday and date, not both")
        return self


class WaitFor(_Step):
    """Wait for something to happen to the contact; what happened since its last wait counts already."""

    type: Literal["wait_for"]
    event: EventName
    where: EventWhere | None = part(description="What holds of the event.")
    within: Duration
    then: Steps = part((), description="If it has happened.")
    else_: Steps = part((), alias="else", description="If it has not.")

    @property
    def ways(self) -> Mapping[Place, Steps]:
        return {("then",): self.then, ("else",): self.else_}


# -- ways ------------------------------------------------------------------------------------------------------------


class Branch(_Step):
    """Go one way or the other."""

    type: Literal["branch"]
    if_: Criteria = Field(alias="if", description="Criteria as those of segments.")
    then: Steps = part((), description="For whom they hold.")
    else_: Steps = part((), alias="else", description="For all others.")

    @property
    def ways(self) -> Mapping[Place, Steps]:
        return {("then",): self.then, ("else",): self.else_}


_WEIGHT = whole(1, 10_000)
Weight = Annotated[int, kept_by(_WEIGHT), WithJsonSchema(_WEIGHT.schema)]


class Variant(Node):
    """One way of a split."""

    weight: Weight = Field(description="The share of contacts, of the sum of all weights.")
    steps: Steps = ()


class Split(_Step):
    """Go a way by chance; the same contact always goes the same."""

    type: Literal["split"]
    variants: dict[Annotated[str, Field(pattern=f"^{STEP_ID}$")], Variant] = Field(min_length=2, max_length=20)

    @property
    def ways(self) -> Mapping[Place, Steps]:
        return {("variants", name, "steps"): variant.steps for name, variant in self.variants.items()}


class Exit(_Step):
    """Leave."""

    type: Literal["exit"]
    reason: Annotated[str, Field(pattern=f"^{STEP_ID}$")] = part("exit", description="Told in figures, as it is here.")


# -- contacts --------------------------------------------------------------------------------------------------------


StaticSegment = Annotated[Printable, Field(min_length=1, max_length=200, description="Its id, or its name.")]


class AddTo(_Step):
    """Add the contact to a static segment."""

    type: Literal["add_to"]
    segment: StaticSegment


class RemoveFrom(_Step):
    """Remove the contact from a static segment."""

    type: Literal["remove_from"]
    segment: StaticSegment


def _kept(normal: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda text: normal(text) if text is not None else None)


class Changes(Node):
    """What is known of the contact from now on; null forgets it; attributes are merged name by name."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    first_name: Line = None
    last_name: Line = None
    country: Annotated[Printable | None, _kept(normal_country)] = None
    locale: Annotated[Printable | None, _kept(normal_locale)] = None
    timezone: Annotated[Printable | None, _kept(normal_timezone)] = None
    attributes: CheckedAttributes | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}


class UpdateContact(_Step):
    """Change what is known of the contact."""

    type: Literal["update_contact"]
    changes: Changes


class Tag(_Step):
    """Give the contact tags, or take them away."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [name], "properties": {name: {"minItems": 1}}} for name in ("add", "remove")]
        }
    )

    type: Literal["tag"]
    add: Tags = part([])
    remove: Tags = part([])

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if not (self.add or self.remove):
            raise ValueError("name at least one tag under add or remove")
        return self


# -- the world -------------------------------------------------------------------------------------------------------

Data = Annotated[JsonValue, AfterValidator(checked_json), WithJsonSchema(json_schema(DEEPEST_ATTRIBUTES))]


_ADDRESS = re.compile(r"^https?://[^\s\x00-\x1f\x7f]+$")


def _address(url: str) -> str:
    if not _ADDRESS.search(url):
        raise ValueError("takes the address of a web page, such as https://example.com/hooks/7.")
    return url


class Webhook(_Step):
    """Tell another program; see docs/automations.md for what it is told."""

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(printable), AfterValidator(_address)] = Field(
        max_length=2_000, json_schema_extra={"pattern": _ADDRESS.pattern}
    )
    data: Data = part(description="Told with the contact, as it is written here.")


class CreateCampaign(_Step):
    """Make a campaign; without an audience it is for this contact."""

    type: Literal["create_campaign"]
    campaign: CampaignDefinition
    launch: bool = part(True, strict=True, description="Launch it at once; else it stays a draft.")


class Notify(_Step):
    """Tell the people of the account."""

    type: Literal["notify"]
    text: Printable = Field(min_length=1, max_length=2_000, description="Liquid, as in messages.")


class Activity(_Step):
    """Call an activity of your own that the workers know."""

    type: Literal["activity"]
    name: str = Field(max_length=200, pattern=ACTIVITY)
    input: Data = part(description="Handed to it, beside the contact.")


Step = Annotated[
    Send
    | Wait
    | WaitUntil
    | WaitFor
    | Branch
    | Split
    | Exit
    | AddTo
    | RemoveFrom
    | UpdateContact
    | Tag
    | Webhook
    | CreateCampaign
    | Notify
    | Activity,
    Field(discriminator="type"),
    told_apart,
]
STEP_TYPES = get_args(get_args(Step)[0])
KINDS = tuple(get_args(each.model_fields["type"].annotation)[0] for each in STEP_TYPES)
for _model in (WaitFor, Branch, Variant, Split):
    _model.model_rebuild()


# -- all of them -----------------------------------------------------------------------------------------------------


def walk(steps: Steps, place: Place = ("steps",)) -> Iterator[tuple[Place, Step]]:
    """Every step with where it is written, in reading order."""
    for number, step in enumerate(steps):
        here = (*place, number)
        yield here, step
        for way, inner in step.ways.items():
            yield from walk(inner, (*here, *way))


def _measured(written: object) -> object:
    """Refuse what is too deep or too much before anything else looks at it."""
    waiting: list[tuple[object, Place, int]] = [(written, (), 1)]
    found = 0
    while waiting:
        steps, place, depth = waiting.pop()
        if not isinstance(steps, list | tuple):
            continue
        if depth > DEEPEST and steps:
            refuse((place, f"Steps are at most {DEEPEST} levels deep. {_ELSEWHERE}"))
        found += len(steps)
        if found > MOST_STEPS:
            refuse((place, f"An automation has at most {MOST_STEPS} steps. {_ELSEWHERE}"))
        for number, step in enumerate(steps):
            if isinstance(step, dict):
                variants = step.get("variants")
                inner: list[tuple[object, Place]] = [(step.get(way), (number, way)) for way in ("then", "else")]
                inner += [
                    (each["steps"], (number, "variants", str(name), "steps"))
                    for name, each in (variants.items() if isinstance(variants, dict) else ())
                    if isinstance(each, dict) and "steps" in each
                ]
                waiting += [(each, (*place, *way), depth + 1) for each, way in inner]
    return written


def with_ids(steps: Steps) -> Steps:
    """The same steps, all of which have an id: those that had none are numbered by their kind, in reading order."""
    taken: set[str] = set()
    for place, step in walk(steps, ()):
        if step.id in taken:
            refuse(((*place, "id"), f"Another step is called {step.id!r} already."))
        if step.id:
            taken.add(step.id)
    numbers = {kind: count(1) for kind in KINDS}

    def next_of(kind: str) -> str:
        return next(name for number in numbers[kind] if (name := f"{kind}-{number}") not in taken)

    def all_named(steps: Steps) -> Steps:
        return tuple(map(named, steps))

    def named(step: Step) -> Step:
        own = step.id or next_of(step.type)
        match step:
            case WaitFor() | Branch():
                within = {"then": all_named(step.then), "else_": all_named(step.else_)}
                return step.model_copy(update={"id": own, **within})
            case Split():
                variants = {
                    name: each.model_copy(update={"steps": all_named(each.steps)})
                    for name, each in step.variants.items()
                }
                return step.model_copy(update={"id": own, "variants": variants})
        return step.model_copy(update={"id": own})

    return all_named(steps)


AllSteps = Annotated[tuple[Step, ...], BeforeValidator(_measured), AfterValidator(with_ids)]
