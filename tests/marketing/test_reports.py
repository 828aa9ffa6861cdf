"""Do the figures add up, whatever the counters say?"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from marketing.deliveries import FailReason, SkipReason
from marketing.reports import campaign_stats

NAMES = [
    "planned",
    "sent",
    "uncertain",
    *(f"skipped:{reason}" for reason in SkipReason),
    *(f"failed:{reason}" for reason in FailReason),
    *(f"{what}{kind}" for what in ("opened", "clicked") for kind in ("", "_unique", "_machine")),
    "unsubscribed",
]
START = datetime(2026, 11, 27, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Count:
    hour: datetime
    channel: str
    name: str
    n: int


COUNTS = st.lists(
    st.builds(
        Count,
        hour=st.integers(0, 5).map(lambda hours: START + timedelta(hours=hours)),
        channel=st.sampled_from(["email", "sms"]),
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
    for name in ("sent", "skipped", "failed", "uncertain"):
        assert getattr(stats, name) == sum(getattr(hour, name) for hour in stats.per_hour)
    assert stats.skipped == sum(stats.skipped_by_reason.values())
    assert stats.failed == sum(stats.failed_by_reason.values())
    assert [hour.hour for hour in stats.per_hour] == sorted({count.hour for count in counts})
