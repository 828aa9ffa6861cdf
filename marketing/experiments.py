"""What is an experiment: which variants are compared, on whom, by what, and when is it decided?"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from marketing.assignment import HOLDOUT, REST, Cells, cells_of_test
from marketing.content import LONGEST_SOURCE, EmailContent
from marketing.experiment_results import NO_PERCENTAGE, Metric, MinimumSample
from marketing.kinds import told_apart
from marketing.schedules import Schedule
from marketing.segment_names import Duration
from marketing.text import PRINTABLE, Printable

MOST_VARIANTS = 10
USUAL_BATCHES = 20
# What reports call those who are of no variant.
_TAKEN = (HOLDOUT, "rest")

# The rest has shards of its own from this one on, however large the test is: 2 * 10^9 contacts in shards of 2,000.
REST_SHARD = 1_000_000


def experiment_key(campaign_id: UUID) -> str:
    """What a contact's place in a campaign's experiment is computed from, beside its id."""
    return f"experiment:{campaign_id}"


def _free(name: str) -> str:
    if name in _TAKEN:
        raise ValueError("is what reports call those who are of no variant: take another name")
    return name


_NAME: JsonDict = {
    "type": "string",
    "minLength": 1,
    "maxLength": 60,
    "pattern": PRINTABLE,
    "not": {"enum": list(_TAKEN)},
}
VariantName = Annotated[
    Annotated[Printable, Field(min_length=1, max_length=60)], AfterValidator(_free), WithJsonSchema(_NAME)
]

_SPELLINGS = {spelling: metric for metric in Metric for spelling in (metric.value, f"HIGHEST_{metric.value.upper()}")}
AnyMetric = Annotated[
    Metric,
    BeforeValidator(lambda written: written.lower().removeprefix("highest_") if isinstance(written, str) else written),
    WithJsonSchema({"type": "string", "enum": list(_SPELLINGS)}),
]


# -- what is compared ------------------------------------------------------------------------------------------------

_Source = Annotated[Printable | None, Field(max_length=LONGEST_SOURCE)]


class VariantEmail(BaseModel):
    """What a variant says of its own; the rest it says with the campaign."""

    model_config = ConfigDict(extra="forbid")

    subject: Printable | None = Field(None, max_length=2_000)
    html: _Source = None
    mjml: _Source = None
    text: _Source = None
    preheader: Printable | None = Field(None, max_length=2_000)
    from_name: Printable | None = Field(None, max_length=200)
    from_email: Printable | None = Field(None, max_length=320)
    reply_to: Printable | None = Field(None, max_length=320)
    template_id: UUID | None = None

    @property
    def named(self) -> dict[str, Any]:
        return {name: value for name, value in self if value is not None}


class VariantContent(BaseModel):
    """Per channel."""

    model_config = ConfigDict(extra="forbid")

    email: VariantEmail | None = None


_BODIES = ("html", "mjml", "template_id")


class ExperimentVariant(BaseModel):
    """One of those that are compared. What is not named here comes from the campaign."""

    model_config = ConfigDict(extra="forbid")

    name: VariantName
    content: VariantContent = Field(default_factory=VariantContent)
    schedule: Schedule | None = Field(None, description="When this one leaves, instead of when the campaign does.")
    channel: Literal["email"] | None = None

    @property
    def named(self) -> dict[str, Any]:
        """What it says of its own."""
        return self.content.email.named if self.content.email else {}

    def says(self, campaign: EmailContent | None) -> EmailContent | None:
        """The whole e-mail. A body of its own takes the place of the campaign's, in whatever form that is, and of its
        text part."""
        if campaign is None and not self.named:
            return None
        shared = dict(campaign or ())
        if any(name in self.named for name in _BODIES):
            shared = {name: value for name, value in shared.items() if name not in (*_BODIES, "text")}
        return EmailContent(**(shared | self.named))


# -- by what, and when -----------------------------------------------------------------------------------------------


class Conversion(BaseModel):
    """What counts as a conversion: an event of this name so soon after the message."""

    model_config = ConfigDict(extra="forbid")

    event: Printable = Field(min_length=1, max_length=200)
    within: Duration = "72 hours"
    currency: str | None = Field(None, pattern="^[A-Z]{3}$", description="Only what was paid in it; left out: all.")


class After(BaseModel):
    """So long after the last message of the test has left."""

    model_config = ConfigDict(extra="forbid")

    after: Duration = "4 hours"


def _true(written: object) -> object:
    if written is not True:
        raise ValueError('takes true. To decide at one moment, say {"after": "4 hours"}')
    return written


class WhenSignificant(BaseModel):
    """As soon as a difference can be believed, whenever one looks."""

    model_config = ConfigDict(extra="forbid")

    when_significant: Annotated[Literal[True], BeforeValidator(_true)]
    no_later_than: Duration


def _some_decision(written: object) -> object:
    if written != "manual" and not isinstance(written, Mapping | After | WhenSignificant):
        ways = '{"after": "4 hours"}, {"when_significant": true, "no_later_than": "24 hours"} or "manual"'
        raise ValueError(f"takes {ways}")
    return written


def _kind_of_decision(written: object) -> str:
    match written:
        case WhenSignificant() | {"when_significant": _} | {"no_later_than": _}:
            return "at once"
        case After() | dict():
            return "later"
    return "manual"


Decide = Annotated[
    Annotated[After, Tag("later")]
    | Annotated[WhenSignificant, Tag("at once")]
    | Annotated[Literal["manual"], Tag("manual")],
    Discriminator(_kind_of_decision),
    told_apart,
    BeforeValidator(_some_decision),
]


# Strict: true is no number.
_TESTED = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True), NO_PERCENTAGE]
Weight = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False, strict=True)]


def _some_allocation(written: object) -> object:
    if written != "bandit" and not isinstance(written, Mapping):
        raise ValueError('takes a weight for each variant, such as {"A": 2, "B": 1}, or "bandit"')
    return written


Allocation = Annotated[
    Annotated[dict[VariantName, Weight], Field(min_length=1, max_length=MOST_VARIANTS), Tag("weights")]
    | Annotated[Literal["bandit"], Tag("bandit")],
    Discriminator(lambda written: "weights" if isinstance(written, dict) else "bandit"),
    told_apart,
    BeforeValidator(_some_allocation),
    # Pydantic's own would let those names have any value that are none.
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": MOST_VARIANTS,
                    "propertyNames": _NAME,
                    "additionalProperties": {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000},
                },
                {"const": "bandit"},
            ]
        }
    ),
]

_EXAMPLE: dict[str, Any] = {
    "variants": [
        {"name": "question", "content": {"email": {"subject": "Have you seen our autumn collection?"}}},
        {"name": "number", "content": {"email": {"subject": "24 new things for autumn"}}},
    ],
    "test_fraction": 0.2,
    "metric": "click_rate",
    "decide": {"after": "4 hours"},
}


class Experiment(BaseModel):
    """Which variants are compared, on whom, by what, and when it is decided."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    variants: list[ExperimentVariant] = Field(min_length=2, max_length=MOST_VARIANTS)
    allocation: Allocation | None = Field(
        None,
        description="The weight of each variant; left out, all have the same. `bandit`: those that do better get more.",
    )
    test_fraction: _TESTED | None = Field(
        None,
        description="The share of the audience that takes part, the rest waits for the winner. "
        "Left out: 0.2, and of a bandit all.",
    )
    holdout: Annotated[float, NO_PERCENTAGE] = Field(
        0,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        strict=True,
        description="The share of the audience that gets nothing, to compare with.",
    )
    metric: AnyMetric
    conversion: Conversion | None = Field(
        None, description="For the conversion rate and revenue; left out: the campaign's first goal."
    )
    decide: Decide = Field(default_factory=After)
    confidence: Annotated[float, NO_PERCENTAGE] = Field(0.95, ge=0.8, le=0.999, strict=True)
    minimum_sample: MinimumSample = Field(default_factory=MinimumSample)
    control: VariantName | None = Field(
        None, description="The variant that the others are compared with; left out: the first."
    )
    fallback: Literal["control", "best_so_far", "ask"] = Field(
        "best_so_far", description="What the rest gets after a tie, or with too little to go by."
    )
    batches: int = Field(
        USUAL_BATCHES,
        ge=2,
        le=100,
        description="Of a bandit: in how many parts the test leaves, spread over the time to decide.",
    )

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.variants]

    @property
    def is_bandit(self) -> bool:
        return self.allocation == "bandit"

    @property
    def leaves_at_once(self) -> bool:
        """Whether no variant has a time of its own."""
        return not any(each.schedule for each in self.variants)

    @property
    def weights(self) -> dict[str, float]:
        """Of each variant, in their order; of a bandit before anything is known."""
        given: Mapping[str, float] = self.allocation if isinstance(self.allocation, dict) else {}
        return {name: given.get(name, 1.0) for name in self.names}

    @property
    def tested(self) -> float:
        """The share of those who are not held out that takes part."""
        return self.test_fraction or (1.0 if self.is_bandit else 0.2)

    @property
    def control_name(self) -> str:
        return self.control or self.variants[0].name

    @property
    def window(self) -> Duration | None:
        """How long it is at most until the decision; None: until a person decides."""
        match self.decide:
            case After(after=time) | WhenSignificant(no_later_than=time):
                return time
        return None

    @property
    def cells(self) -> Cells:
        """Who gets what by their place; in a bandit those who take part get their variant later on."""
        weights = {REST: 1.0} if self.is_bandit else self.weights
        return cells_of_test(weights, holdout=self.holdout, test_fraction=self.tested)

    def contents(self, campaign: EmailContent | None) -> list[EmailContent | None]:
        """What each variant says, in their order."""
        return [each.says(campaign) for each in self.variants]
