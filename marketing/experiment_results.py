"""What did an experiment count, what does that show, and which of its numbers may be believed at any moment?"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# Larger ones would lose their cents in a float, and their squares would leave its range.
Money = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Squares = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]


class Metric(StrEnum):
    OPEN_RATE = "open_rate"
    CLICK_RATE = "click_rate"
    CONVERSION_RATE = "conversion_rate"
    REVENUE_PER_RECIPIENT = "revenue_per_recipient"


class VariantCounts(BaseModel, frozen=True):
    """What was counted for one variant.

    `recipients` are all who were sent it; `successes` those of them who opened, clicked or converted, each counted
    once, machines left out. For revenue, `successes` are those who paid at all, and the sums run over recipients, each
    with all that they paid (refunds taken off, 0 at least): of the amounts, of their squares, of log(1 + amount) and of
    its squares. All amounts are in one currency.

    `waiting` are those who have the variant but whom nobody has tried to send it yet: they count for its share alone.

    Variants have had the same time to be answered: of those sent at different hours, only what came in the same time
    after each of them may be counted.
    """

    name: str
    recipients: int = Field(ge=0, le=10**12)
    waiting: int = Field(0, ge=0, le=10**12)
    successes: int = Field(0, ge=0)
    revenue: Money = 0
    revenue_squares: Squares = 0
    log_revenue: Money = 0
    log_revenue_squares: Squares = 0

    @model_validator(mode="after")
    def _no_more_than_all(self) -> Self:
        if self.successes > self.recipients:
            raise ValueError(f"{self.name}: {self.successes} of {self.recipients} recipients can't be")
        return self


def _no_percentage(written: object) -> object:
    if isinstance(written, int | float) and 1 < written <= 100:
        raise ValueError(f"takes a share of 1: {written:g} % is {written / 100:g}")
    return written


NO_PERCENTAGE = BeforeValidator(_no_percentage)


def _no_truth(written: object) -> object:
    if isinstance(written, bool):
        raise ValueError("takes a whole number")
    return written


Fewest = Annotated[int, Field(ge=0, le=10**12), BeforeValidator(_no_truth)]


class MinimumSample(BaseModel, frozen=True, extra="forbid"):
    """What each variant should have before its figures are looked at; with less, there is a warning."""

    recipients: Fewest = 1_000
    clicks: Fewest = 100
    conversions: Fewest = 30


class Estimate(BaseModel, frozen=True):
    """A number and the interval that holds the true one with this confidence; a share, or revenue per recipient."""

    value: Finite
    low: Finite
    high: Finite
    confidence: Share
    method: str
    peeking_safe: bool


class Significance(BaseModel, frozen=True):
    """How often as much would be seen if there were no difference: `p`, and `p_adjusted` for all pairs tested.

    `shown_before` is what was seen instead, where p was earned by a difference at an earlier look.
    """

    method: str
    statistic: Finite | None = None
    p: Share
    p_adjusted: Share
    shown_before: Finite | None = None
    peeking_safe: bool


class Belief(BaseModel, frozen=True):
    """How likely is this variant the best, and how much is lost on average by taking it (in the metric's own unit)?

    Not safe for peeking: whoever stops at the first 95 % is wrong more often than in 5 % of cases.
    """

    probability_to_be_best: Share
    expected_loss: Finite
    method: str
    peeking_safe: bool = False


class VariantResult(BaseModel, frozen=True):
    """`estimate` is None where nothing can be said yet: no recipients, or for revenue a single one."""

    name: str
    recipients: int
    successes: int
    estimate: Estimate | None
    belief: Belief
    enough: bool


class Reach(BaseModel, frozen=True):
    """What this many recipients can show: the smallest true difference that is found with this `power`.

    `more_recipients_per_variant` would find a difference as large as the one seen; 0 where it is found already, None
    where there is none, or it is so small that there would have to be more than a billion.
    """

    minimum_detectable_effect: Finite | None
    power: Share
    more_recipients_per_variant: int | None
    peeking_safe: bool = False


class Comparison(BaseModel, frozen=True):
    """`variant` against `baseline`. A `lift` of 0.21 is 21 % more; None where the baseline has nothing to compare with.

    `test` and `difference` hold for one look, at a moment that was planned. Always-valid ones hold at every look; only
    comparisons with the control have them, and none where allocation follows the results. `log_test` is there for
    revenue when `test` is on the amounts themselves.
    """

    variant: str
    baseline: str
    difference: Estimate
    lift: Estimate | None
    test: Significance
    log_test: Significance | None = None
    always_valid: Significance | None = None
    always_valid_difference: Estimate | None = None
    reach: Reach


class SampleRatio(BaseModel, frozen=True):
    """Do as many people have each variant as should? With a mismatch, no figure of the experiment is to be believed."""

    p: Share
    threshold: Share
    mismatch: bool
    expected: dict[str, Share]
    peeking_safe: bool = False


class Caution(BaseModel, frozen=True):
    """`code` is for programs, `message` for people."""

    code: str
    message: str
    variant: str | None = None


class Results(BaseModel, frozen=True):
    """All that can be said of an experiment from its counters; `adaptive` where allocation followed the results.

    `leader` has the best figure so far. `winner_if_planned` is believed if this moment was fixed before the start,
    `winner_at_any_time` at whatever moment one looks; None where there is none to be believed.
    """

    metric: Metric
    confidence: Share
    control: str
    adaptive: bool
    sentence: str
    leader: str | None
    winner_if_planned: str | None
    winner_at_any_time: str | None
    variants: list[VariantResult]
    comparisons: list[Comparison]
    omnibus: Significance | None
    sample_ratio: SampleRatio | None
    warnings: list[Caution]

    @property
    def most_likely_best(self) -> VariantResult:
        """Of equals the control."""
        return max(self.variants, key=lambda each: (each.belief.probability_to_be_best, each.name == self.control))
