"""What has an experiment brought so far: figures for each variant, and what they show?"""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel, Field

from marketing.campaigns import ENDED, CampaignState
from marketing.experiment_analysis import analyse
from marketing.experiment_results import Caution, Comparison, Metric, Results, VariantCounts
from marketing.experiments import Conversion
from marketing.reports import Figures


class Converted(Protocol):
    """Sums over those who converted."""

    @property
    def converted(self) -> int: ...
    @property
    def conversions(self) -> int: ...
    @property
    def revenue(self) -> float: ...


class Rates(BaseModel):
    """What a variant comes to, per recipient."""

    name: str
    share: float | None = Field(None, description="Of those who take part; null: it follows the results.")
    open_rate: float | None = Field(
        None, description="Of the messages `sent` or `uncertain`, each counted once, machines left out."
    )
    click_rate: float | None = None
    converted: int | None = Field(None, description="Recipients; null: the experiment counts no conversions.")
    conversions: int | None = Field(None, description="Each time, also several of one recipient.")
    conversion_rate: float | None = None
    revenue: float | None = None
    revenue_per_recipient: float | None = None


class VariantFigures(Figures, Rates):
    """What became of the messages of one variant; of the holdout, of those that were kept back."""


def variant_figures(name: str, share: float | None, figures: Figures, converted: Converted | None) -> VariantFigures:
    """With what they come to per recipient; of the holdout, per contact that was kept back."""
    out = figures.sent + figures.uncertain  # of the latter some arrive, and are opened
    recipients = figures.skipped_by_reason.get("holdout", 0) if name == "holdout" else out
    answer = VariantFigures(
        name=name,
        share=share,
        **dict(figures),
        open_rate=_per(figures.opened.unique, out),
        click_rate=_per(figures.clicked.unique, out),
    )
    if converted is not None:
        answer.converted, answer.conversions, answer.revenue = (
            converted.converted,
            converted.conversions,
            round(converted.revenue, 6),
        )
        answer.conversion_rate = _per(converted.converted, recipients)
        answer.revenue_per_recipient = _per(converted.revenue, recipients)
    return answer


def _per(n: float, whole: int) -> float | None:
    return n / whole if whole else None


class Incrementality(BaseModel):
    """What sending brought at all: those to whom the test went, beside those who were held out."""

    sentence: str
    comparison: Comparison


TREATED = "treated"


def incrementality(
    treated: VariantCounts, held_out: VariantCounts, metric: Metric, confidence: float
) -> Incrementality | None:
    """Of conversions or revenue; None until there is somebody on both sides.

    How many there should be of each is not asked: of whom nothing is known any more is on neither side.
    """
    counts = [held_out, treated.model_copy(update={"name": TREATED})]
    shares = {each.name: float(each.recipients) for each in counts}
    if not all(shares.values()):
        return None
    results = analyse(counts, metric, confidence=confidence, weights=shares)
    if not results.comparisons:
        return None
    (pair,) = results.comparisons
    return Incrementality(sentence=_brought(results, pair), comparison=pair)


def _brought(results: Results, pair: Comparison) -> str:
    """People look again and again, so only what is always valid is told."""
    held, sent = (each.estimate.value for each in results.variants if each.estimate)
    apart, between, sure = pair.difference.value, pair.always_valid_difference, pair.always_valid
    if results.metric is Metric.REVENUE_PER_RECIPIENT:
        scale, decimals, more, less = 1, 2, "more", "less"
        each_of = f"Contacts who were sent the campaign brought {sent:,.2f} each, those held out {held:,.2f}"
    else:
        scale, decimals, more, less = 100, 1, "points more", "points fewer"
        each_of = (
            f"{100 * sent:.1f} % of the contacts who were sent the campaign converted, "
            f"{100 * held:.1f} % of those held out"
        )
    sign = -scale if apart < 0 else scale
    difference = f"{sign * apart:,.{decimals}f} {less if apart < 0 else more}"
    if between:
        low, high = sorted((sign * between.low, sign * between.high))
        difference += f" ({100 * between.confidence:.4g} % interval {low:,.{decimals}f} to {high:,.{decimals}f})"
    made = sure is not None and sure.p <= 1 - results.confidence
    doubt = "which sending made" if made else "and too early to say whether sending made that"
    return f"{each_of}: {difference}, {doubt}.".replace("-", "−")


class AllocationReport(BaseModel):
    """How one part of a bandit's audience was shared out, and by what."""

    shard: int
    weights: dict[str, float]
    seen: dict[str, dict[str, float]]
    allocated_at: datetime


class ExperimentReport(BaseModel):
    """Everything there is to say about an experiment."""

    id: UUID
    campaign_id: UUID
    name: str
    status: str = Field(description="Of the campaign.")
    state: str
    winner: str | None
    decided_by: str | None
    reason: str
    sentence: str = Field(description="How it stands, in plain English.")
    test_sent_at: datetime | None
    decides_at: datetime | None = Field(
        description="When it is decided at the latest; null: a person decides, the test is not out yet, or it is over."
    )
    decided_at: datetime | None
    metric: Metric
    conversion: Conversion | None
    variants: list[VariantFigures]
    holdout: VariantFigures | None
    rest: VariantFigures | None = Field(description="Who waits for the winner, or got it: no part of the comparison.")
    analysis: Results = Field(description="Of the figures as they stand now.")
    decision: Results | None = Field(description="Of the figures when it was decided, or at the last look before.")
    incrementality: Incrementality | None = Field(description="With a holdout and conversions: what sending brought.")
    allocations: list[AllocationReport] = Field(description="Of a bandit, part by part.")
    warnings: list[Caution] = Field(description="Beside those of the analysis.")


def how_it_stands(
    state: str,
    winner: str | None,
    decided_by: str | None,
    reason: str,
    analysis: Results,
    *,
    is_out: bool,
    decides_at: datetime | None,
    status: CampaignState = CampaignState.RUNNING,
) -> str:
    """In plain English, what is going on and what is known.

    Args:
        status: of the campaign, which may have ended though nothing was decided.
    """
    if state in ("testing", "asking") and status in ENDED:
        ended = "has failed" if status is CampaignState.FAILED else f"was {status}"
        return f"The campaign {ended} before there was a winner. {analysis.sentence}"
    match state:
        case "decided" if winner is None:
            return f"Nobody waits for a winner, so it ended without one. {analysis.sentence}"
        case "decided":
            by_hand = decided_by == "person" and not reason.startswith("A person ")
            return f"The winner is “{winner}”. {f'A person chose it: {_ended(reason)}' if by_hand else reason}"
        case "asking":
            return f"No winner could be believed when it was time, so choose one. {analysis.sentence}"
        case "stopped":
            return f"It was stopped: {_ended(reason)} {analysis.sentence}"
    return f"{_before_the_decision(status, is_out, decides_at)} {analysis.sentence}"


def _before_the_decision(status: CampaignState, is_out: bool, decides_at: datetime | None) -> str:
    paused = status is CampaignState.PAUSED
    if status is CampaignState.SCHEDULED:
        return "The test has not begun: the campaign is scheduled for later."
    if not is_out:
        return f"The test {'is paused while it goes out' if paused else 'is still going out'}."
    until = (
        f"is decided by {decides_at:%Y-%m-%d %H:%M} UTC at the latest" if decides_at else "waits for a person to decide"
    )
    rest = " The campaign is paused, so nobody gets the winner before it is resumed." if paused else ""
    return f"The test is out, and {until}.{rest}"


def _ended(reason: str) -> str:
    """What a person wrote, as a sentence that others may follow."""
    return reason if reason.endswith((".", "!", "?", "…")) else f"{reason}."
