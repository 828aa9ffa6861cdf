"""Do the figures add up, whatever the counters say?"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from marketing.deliveries import FailReason, SkipReason
from marketing.reports import campaign_stats

ENGAGEMENTS = ("opened", "clicked", "unsubscribed")
NAMES = [
    "planned",
    "sent",
    "uncertain",
    *(f"skipped:{reason}" for reason in SkipReason),
    *(f"failed:{reason}" for reason in FailReason),
    *(f"{what}{kind}" for what in ENGAGEMENTS for kind in ("", "_unique", "_machine")),
    "delivered",
    "bounced",
    "complained",
]
START = datetime(2026, 11, 27, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Count:
    hour: datetime
    channel: str
    step: str
    variant: str
    name: str
    n: int


COUNTS = st.lists(
    st.builds(
        Count,
        hour=st.integers(0, 5).map(lambda hours: START + timedelta(hours=hours)),
        channel=st.sampled_from(["email", "sms"]),
        step=st.sampled_from(["", "message-1", "message-2"]),
        variant=st.sampled_from(["", "question", "holdout"]),
        name=st.sampled_from(NAMES),
        n=st.integers(0, 10**9),
    ),
    max_size=60,
)


@given(COUNTS)
def test_every_report_reconciles_in_all_and_per_channel_and_hour(counts: list[Count]) -> None:
    stats = campaign_stats(counts)
    assert stats.reconciles
    assert all(channel.reconciles for channel in stats.per_channel.values())
    for name in ("planned", "sent", "skipped", "failed", "uncertain"):
        assert getattr(stats, name) == sum(getattr(channel, name) for channel in stats.per_channel.values())
    assert [hour.hour for hour in stats.per_hour] == sorted({count.hour for count in counts})


@given(COUNTS)
def test_the_variants_of_an_experiment_add_up_to_the_whole(counts: list[Count]) -> None:
    stats = campaign_stats(counts)
    seen = {count.variant for count in counts}
    assert stats.per_variant.keys() == ({each or "rest" for each in seen} if any(seen) else set())
    assert all(each.reconciles for each in stats.per_variant.values())
    if stats.per_variant:
        for name in ("planned", "pending", "sent", "skipped", "failed", "uncertain"):
            assert getattr(stats, name) == sum(getattr(each, name) for each in stats.per_variant.values())


@given(COUNTS)
def test_an_hour_is_as_complete_as_a_channel_and_each_adds_up_to_the_whole(counts: list[Count]) -> None:
    stats = campaign_stats(counts)
    for parts in (list(stats.per_channel.values()), stats.per_hour):
        for name in ("sent", "skipped", "failed", "uncertain", "delivered", "bounced", "complained"):
            assert getattr(stats, name) == sum(getattr(part, name) for part in parts)
        for name in ("skipped_by_reason", "failed_by_reason"):
            assert getattr(stats, name) == dict(sum((Counter(getattr(part, name)) for part in parts), Counter[str]()))
        for what, kind in product(ENGAGEMENTS, ("total", "unique", "machine")):
            assert getattr(getattr(stats, what), kind) == sum(getattr(getattr(part, what), kind) for part in parts)
    for part in (stats, *stats.per_channel.values(), *stats.per_hour):
        assert part.skipped == sum(part.skipped_by_reason.values())
        assert part.failed == sum(part.failed_by_reason.values())
