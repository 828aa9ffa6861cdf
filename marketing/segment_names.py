"""Which questions do marketers ask so often that they have a name, and what do these ask exactly?"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field as Part
from pydantic import WithJsonSchema, model_validator

from marketing.segment_nodes import Node, kept_by
from marketing.segment_operands import NUMBER, PIECE, THE_EVENT, TIME, one_of, whole
from marketing.spans import ago

EventName = Annotated[str, kept_by(THE_EVENT), WithJsonSchema(THE_EVENT.schema)]
Duration = Annotated[str, kept_by(TIME), WithJsonSchema(TIME.schema)]
_Amount = Annotated[int | float, kept_by(NUMBER), Part(gt=0), WithJsonSchema({**NUMBER.schema, "exclusiveMinimum": 0})]
_DAYS = whole(1, 3650)
_SPENT = one_of("none", "low", "medium", "high")
_ENGAGED = one_of("engaged", "cooling", "dormant", "unreached")

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)  # to compare times such as 30 days and 1 month

OPENED_OR_CLICKED = ("message.opened", "message.clicked")


class SpendingLevel(Node):
    """How much somebody bought: `high` from the `high` threshold on, `medium` from `medium` on, `low` below that,
    `none` nothing."""

    named: Literal["spending_level"]
    level: Annotated[Literal["none", "low", "medium", "high"], kept_by(_SPENT)] = Part(alias="is")
    event: EventName = "purchase"
    within: Duration = "12 months"
    medium: _Amount = 100
    high: _Amount = 500

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.medium >= self.high:
            raise ValueError("`medium` must be less than `high`")
        if ".properties." in self.event:  # its total would be read as one of a property
            raise ValueError(f"the value of {self.event!r} can't be totalled")
        return self

    def plain(self) -> dict[str, Any]:
        spent = {"total": f"{self.event}.value", "within": self.within}
        match self.level:
            case "none":
                return {**spent, "at_most": 0}
            case "low":
                return {"all": [{**spent, "more_than": 0}, {**spent, "less_than": self.medium}]}
            case "medium":
                return {"all": [{**spent, "at_least": self.medium}, {**spent, "less_than": self.high}]}
            case "high":
                return {**spent, "at_least": self.high}


class Engagement(Node):
    """Whether somebody opens or clicks what they are sent: `engaged` in the time `recent`, `cooling` not then but in
    the time `past`, `dormant` not even then though something was ever sent, `unreached` nothing was."""

    named: Literal["engagement"]
    level: Annotated[Literal["engaged", "cooling", "dormant", "unreached"], kept_by(_ENGAGED)] = Part(alias="is")
    recent: Duration = "30 days"
    past: Duration = "90 days"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not ago(_SOME_DAY, self.past) < ago(_SOME_DAY, self.recent):
            raise ValueError("`recent` must be shorter than `past`")
        return self

    def plain(self) -> dict[str, Any]:
        recently, lately = (
            {"any": [{"event": name, "within": time} for name in OPENED_OR_CLICKED]}
            for time in (self.recent, self.past)
        )
        sent = {"event": "message.sent"}
        match self.level:
            case "engaged":
                return recently
            case "cooling":
                return {"all": [lately, {"not": recently}]}
            case "dormant":
                return {"all": [sent, {"not": lately}]}
            case "unreached":
                return {"not": {"any": [sent, lately]}}


class SubscriptionTier(Node):
    """Which plan somebody has, by the attribute that says so."""

    named: Literal["subscription_tier"]
    tier: Annotated[str, kept_by(PIECE), WithJsonSchema(PIECE.schema)] = Part(alias="is")
    attribute: Annotated[str, Part(pattern=r"^[^.\x00-\x1f\x7f]{1,100}$")] = "plan"

    def plain(self) -> dict[str, Any]:
        return {"field": f"attributes.{self.attribute}", "is": self.tier}


class DaysWithoutActivity(Node):
    """For how many days somebody has done none of these `events`; who came later has not been inactive that long."""

    named: Literal["days_without_activity"]
    days: Annotated[int, kept_by(_DAYS), WithJsonSchema(_DAYS.schema)] = Part(alias="at_least")
    events: tuple[EventName, ...] = Part((*OPENED_OR_CLICKED, "purchase"), min_length=1, max_length=20)

    def plain(self) -> dict[str, Any]:
        time = f"{self.days} days"
        done = [{"event": name, "within": time} for name in self.events]
        return {"all": [{"field": "created_at", "older_than": time}, {"not": {"any": done}}]}


NAMES: dict[str, type[Node]] = {
    "spending_level": SpendingLevel,
    "engagement": Engagement,
    "subscription_tier": SubscriptionTier,
    "days_without_activity": DaysWithoutActivity,
}
Named = Annotated[SpendingLevel | Engagement | SubscriptionTier | DaysWithoutActivity, Part(discriminator="named")]
