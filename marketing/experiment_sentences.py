"""How does the result of an experiment read in English?"""

import math
from collections.abc import Sequence

from marketing.experiment_results import Comparison, Estimate, Metric, Results, VariantResult

_DID = {Metric.OPEN_RATE: "opened", Metric.CLICK_RATE: "clicked", Metric.CONVERSION_RATE: "converted"}
_MONEY = Metric.REVENUE_PER_RECIPIENT
_HARDLY_EVER = 0.0001


def sentence(results: Results) -> str:
    """One sentence: who leads by how much, what chance alone would do, and whether that may be believed already.

    Where that holds however often one looks, so does each of its numbers; what an earlier look has shown is called so.
    """
    leader, pair = results.leader, deciding(results)
    seen = [each for each in results.variants if each.estimate is not None]
    if len(results.variants) == 1:
        return f"There is only “{results.control}”: nothing to compare it with."
    if len(seen) < 2:
        return "Too early to say: too few variants have been sent to anyone yet."
    if leader is None or pair is None:
        what = "paid" if results.metric is _MONEY else _DID[results.metric]
        everybody = all(each.successes == each.recipients for each in seen) and results.metric is not _MONEY
        return f"Nothing to tell the variants apart: {'everybody' if everybody else 'nobody'} has {what} so far."
    by_name = {each.name: each for each in results.variants}
    rival = pair.variant if pair.baseline == leader else pair.baseline
    at_any_time = results.winner_at_any_time is not None
    between = pair.always_valid_difference if at_any_time else pair.difference
    said = _against(results.metric, by_name[leader], by_name[rival], pair, between)
    if why := _not_by_chance(results):
        return f"{said}; {why}."
    return f"{said}{_chance(results.metric, pair, at_any_time)}; {_verdict(results, pair)}."


def deciding(results: Results) -> Comparison | None:
    """What the leader stands or falls with: its comparison with the control, or the control's with the next best."""
    values = {each.name: each.estimate.value for each in results.variants if each.estimate}
    leader = results.leader
    if leader is None or len(values) < 2:
        return None
    others = [name for name in values if name != leader]
    wanted = {leader, results.control if results.control in others else max(others, key=values.__getitem__)}
    return next(each for each in results.comparisons if {each.variant, each.baseline} == wanted)


def _against(
    metric: Metric, ahead: VariantResult, behind: VariantResult, pair: Comparison, between: Estimate | None
) -> str:
    of, flipped = between or pair.difference, pair.baseline == ahead.name
    assert ahead.estimate is not None and behind.estimate is not None  # compared are those that have one
    low, high = (-of.high, -of.low) if flipped else (of.low, of.high)
    best, second, more = ahead.estimate.value, behind.estimate.value, abs(pair.difference.value)
    if metric is _MONEY:
        said = _written([best, second, more, low, high], high - low, 2)
        rates, unit = f"“{ahead.name}” earned {said[0]} per recipient, “{behind.name}” {said[1]}", ""
    else:
        said = _written([share * 100 for share in (best, second, more, low, high)], (high - low) * 100, 1)
        rates, unit = (
            f"{said[0]} % of those who got “{ahead.name}” {_DID[metric]}, {said[1]} % of those who got “{behind.name}”",
            " points",
        )
    difference = f"{said[2]}{unit} more" if float(said[2].replace(",", "")) else "no difference"
    interval = f" ({of.confidence * 100:.4g} % interval {said[3]} to {said[4]})" if between else ""
    return f"{rates}: {difference}{interval}"


def _written(numbers: Sequence[float], width: float, decimals: int) -> list[str]:
    """All with as many decimals as an interval of this width is worth."""
    worth = decimals if width <= 0 else min(6, max(decimals, math.ceil(-math.log10(width / 2))))
    return [f"{round(number, worth) + 0.0:,.{worth}f}".replace("-", "−") for number in numbers]


def _chance(metric: Metric, pair: Comparison, at_any_time: bool) -> str:
    if at_any_time and pair.always_valid:
        p, much = pair.always_valid.p_adjusted, f"as much{_as_before(metric, pair)}"
        often = f"ever show {much} in {'' if p < _HARDLY_EVER else 'at most '}"
    else:
        p = pair.test.p_adjusted
        often = "show as much in "
    if p > 0.995:
        return ""
    return f"; if they were equally good, luck alone would {often}{_percent_of_chance(p)} of experiments"


def _as_before(metric: Metric, pair: Comparison) -> str:
    """What p was earned by, where it is not what is seen now."""
    between = pair.always_valid_difference
    if between is None or pair.always_valid is None or pair.always_valid.shown_before is None:
        return ""
    unit, scale, decimals = ("", 1, 2) if metric is _MONEY else (" points", 100, 1)
    shown, width = abs(pair.always_valid.shown_before), between.high - between.low
    return f" as the {_written([shown * scale], width * scale, decimals)[0]}{unit} of an earlier look"


def _percent_of_chance(p: float) -> str:
    return "fewer than 0.01 %" if p < _HARDLY_EVER else f"{p * 100:.2g} %"


_CONFOUNDED = {
    "sample_ratio_mismatch": "the variants did not get the shares of recipients that they should have",
    "shares_changed": "the shares were changed, so one way was gone at other times than another",
    "shares_unknown": "the shares stand in code, and if they were changed one way was gone at other times than another",
}


def _not_by_chance(results: Results) -> str:
    """Why no test applies, and what there is instead; empty if one does."""
    if why := next((_CONFOUNDED[each.code] for each in results.warnings if each.code in _CONFOUNDED), ""):
        return f"not to be believed, as {why}"
    if results.adaptive:
        best = results.most_likely_best
        believed = f"“{best.name}” is the best with probability {best.belief.probability_to_be_best:.2f}"
        few = _too_few(results, best.name)
        return f"shares follow the results, so no test applies: {believed}{f', but {few}' if few else ''}"
    return ""


def _verdict(results: Results, pair: Comparison) -> str:
    few = _too_few(results)
    if few and (results.winner_at_any_time or results.winner_if_planned):
        return few
    if results.winner_at_any_time is not None:
        return "it may be believed now, however often you have looked"
    if results.winner_if_planned is not None:
        return (
            "it may be believed if this was the moment to look that was planned, and is too early to say if it was not"
        )
    more = pair.reach.more_recipients_per_variant
    if more is None:
        return "too early to say, and so small a difference may never be found"
    if more == 0:
        return "too early to say"
    return f"too early to say: about {_rounded(more):,} more recipients per variant are needed"


def _too_few(results: Results, name: str = "") -> str:
    """Of this variant, or of any."""
    messages = (each.message for each in results.warnings if each.code == "small_sample" and name in ("", each.variant))
    few = next(messages, "")
    return few and f"too early to say: {few.rstrip('.')}"


def _rounded(n: int) -> int:
    """To two digits: it is an estimate."""
    step: int = 10 ** max(0, len(str(n)) - 2)
    return -(-n // step) * step
