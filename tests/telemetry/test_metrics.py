"""What is counted, and when."""

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from channels.base import Deferred, Message, Rejected, Unavailable, Uncertain
from channels.outbox import Outbox
from channels.sink import Misdeed, Sink
from channels.smtp import SmtpChannel
from database import counters
from telemetry import metrics
from tests.audience import people
from tests.broadcast import broadcast
from tests.channels.messages import a_message
from tests.conftest import TestAccount
from tests.delivering import NOW, Provider, change_account, run
from tests.unreliable import Lost

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
OURS = "a test"  # a channel of which nobody else in this process counts anything


class Change:
    """By how much a metric has changed since it was first looked at; labels that are not given are summed over."""

    def __init__(self, name: str, **labels: str) -> None:
        self.name, self.labels = name, labels
        self.before = self._sum()

    def _sum(self) -> float:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name == self.name]
        return sum(sample.value for sample in samples if self.labels.items() <= sample.labels.items())

    def __call__(self) -> float:
        return self._sum() - self.before


async def test_messages_are_counted_by_state_and_reason_and_sets_by_what_they_take(account: TestAccount) -> None:
    def messages(state: str, reason: str = "") -> Change:
        return Change("carillon_messages_total", channel="email", state=state, reason=reason)

    planned, sent, failed = messages("planned"), messages("sent"), messages("failed", "rejected")
    await people(account, 60)
    await people(account, 10, name="unknown")

    async def refuse_the_unknown(message: Message) -> None:
        if message.to.startswith("unknown"):
            raise Rejected("550 5.1.1 User unknown")

    provider = Provider(refuse_the_unknown)
    provider.name = OURS
    await change_account(account, error_threshold=1.0)
    await run(account, provider)
    assert (planned(), sent(), failed()) == (70, 60, 10)
    names = ("set_messages_count", "set_messages_sum", "record_seconds_count", "lease_seconds_count")
    sizes = [REGISTRY.get_sample_value(f"carillon_{name}", {"channel": OURS}) for name in names]
    assert sizes == [2, 70, 2, 3]  # the third lease found nothing


async def test_what_is_rolled_back_is_not_counted(account: TestAccount) -> None:
    sent = await broadcast(account)
    counted = Change("carillon_messages_total", channel=OURS)
    with suppress(Lost):
        async with account.transaction() as tx:
            await counters.add(tx, account.id, sent.id, {"sent": 7}, now=NOW, channel=OURS)
            raise Lost("rolled back")
    assert counted() == 0


async def test_a_message_that_leaves_a_state_is_counted_where_it_comes_to_and_people_are_not(
    account: TestAccount,
) -> None:
    sent = await broadcast(account)
    came, in_all = (Change("carillon_messages_total", channel=OURS, **each) for each in ({"state": "sent"}, {}))
    async with account.transaction() as tx:
        figures = {"sent": 2, "uncertain": -2, "opened": 3}
        await counters.add(tx, account.id, sent.id, figures, now=NOW, channel=OURS)
    assert came() == 2 == in_all()


async def test_a_rate_limit_shows_in_the_time_that_sets_waited_for_it(account: TestAccount) -> None:
    waited = Change("carillon_rate_limit_wait_seconds_total", channel=OURS)
    await people(account, 30)
    await run(account, Outbox(OURS), rate_limit_per_second=20)
    assert 1.0 < waited() < 2.0  # 29 intervals of 50 ms lie between 30 messages


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, "sent"),
        ("450 4.2.0 Greylisted", "deferred"),
        ("550 5.1.1 User unknown", "rejected"),
        ("421 4.3.2 Closing", "unavailable"),
        (Misdeed.KEEP_AND_CUT, "uncertain"),
    ],
)
async def test_a_channel_counts_how_the_provider_answers(answer: str | Misdeed | None, outcome: str) -> None:
    counted = Change("carillon_send_seconds_count", channel=OURS, outcome=outcome)
    in_all = Change("carillon_send_seconds_count", channel=OURS)
    open_ones = Change("carillon_smtp_connections")
    async with Sink(policy=lambda moment: answer if moment.step == "CONTENT" else None) as sink:
        channel = SmtpChannel(sink.url, name=OURS)
        with suppress(Rejected, Deferred, Unavailable, Uncertain):
            await channel.send(a_message())
            assert open_ones() == 1
        await channel.close()
    assert (counted(), in_all()) == (1, 1)
    await asyncio.sleep(0)  # the event loop tells of a connection's end in its next turn
    assert open_ones() == 0


def test_the_page_tells_of_every_metric_with_its_labels_and_of_no_other() -> None:
    rows = re.findall(r"^\| `(carillon_\w+)` \|(.*?)\|", PAGE.read_text(), re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    ours = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    assert told == {full_name(each): tuple(each._labelnames) for each in ours}


def test_alerts_and_dashboards_ask_for_metrics_that_there_are() -> None:
    ours = {full_name(each) for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)}
    for page in (PAGE, PAGE.with_name("grafana.json")):
        asked = set(re.findall(r"\b(carillon_\w+)", page.read_text()))
        assert {re.sub("_(bucket|count|sum)$", "", name) for name in asked} - ours == set()


def test_the_dashboard_has_a_place_and_a_source_for_each_of_its_panels() -> None:
    board = json.loads(PAGE.with_name("grafana.json").read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places) > 10
    for panel in board["panels"]:
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")


def full_name(metric: MetricWrapperBase) -> str:
    [family] = metric.describe()
    return f"{family.name}_total" if family.type == "counter" else family.name
