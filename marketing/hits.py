"""What do openings and clicks amount to: who was it, is it the first, and how do the figures change?"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from marketing.machines import Action, Sign, bursts, sign_in_timing

OPENED, CLICKED = "message.opened", "message.clicked"
_FIGURE = {OPENED: "opened", CLICKED: "clicked"}


class Hit(NamedTuple):
    """One request for a pixel or a tracked link. `sign` is what it gave away by itself."""

    action: Action
    delivery_id: UUID
    at: datetime
    sign: Sign | None = None
    link: int = 0
    url: str | None = None


class Delivery(NamedTuple):
    """A delivery as the ledger has it. `sent_at` may not be on record yet."""

    id: UUID
    campaign_id: UUID
    contact_id: UUID
    channel: str
    step: str
    variant: str
    sent_at: datetime | None
    opened_at: datetime | None  # first by a person
    clicked_at: datetime | None


class Earlier(NamedTuple):
    """A click on record, or the opening that it implied, which may turn out to belong to a burst."""

    event_id: UUID
    name: str
    delivery_id: UUID
    at: datetime
    machine: bool
    link: int | None


class Event(NamedTuple):
    """What to put on record."""

    name: str
    delivery: Delivery
    at: datetime
    machine: bool
    properties: Mapping[str, object]


class Firsts(NamedTuple):
    """When a person first opened and first clicked."""

    opened_at: datetime | None
    clicked_at: datetime | None


class Tally(NamedTuple):
    """Where a figure counts: `database.counters` keeps one row for each of these and each name."""

    campaign_id: UUID
    hour: datetime
    channel: str
    step: str
    variant: str


@dataclass
class Findings:
    """What a group of hits adds to the record, and which events on record were a machine's after all."""

    events: list[Event] = field(default_factory=list)
    machines_after_all: list[Earlier] = field(default_factory=list)

    def firsts(self) -> dict[UUID, Firsts]:
        """The deliveries whose first opening or click by a person is another one now, but for the unsettled."""
        found: dict[UUID, Firsts] = {}
        for event in self.events:
            if event.machine:
                continue
            delivery = event.delivery
            known = found.get(delivery.id) or Firsts(delivery.opened_at, delivery.clicked_at)
            first = known.opened_at if event.name == OPENED else known.clicked_at
            if first is None or event.at < first:
                opened, clicked = (event.at, known.clicked_at) if event.name == OPENED else (known.opened_at, event.at)
                found[delivery.id] = Firsts(opened, clicked)
        for id in self.unsettled():
            found.pop(id, None)
        return found

    def unsettled(self) -> set[UUID]:
        """The deliveries where a person was a machine after all: only the record knows who came first."""
        return {each.delivery_id for each in self.machines_after_all}


def judge(hits: Iterable[Hit], deliveries: Mapping[UUID, Delivery], earlier: Iterable[Earlier]) -> Findings:
    """Tell people from machines among hits on these deliveries; `earlier` is on record from just before them."""
    groups: defaultdict[UUID, list[Hit]] = defaultdict(list)
    on_record: defaultdict[UUID, list[Earlier]] = defaultdict(list)
    for hit in hits:
        groups[hit.delivery_id].append(hit)
    for each in earlier:
        on_record[each.delivery_id].append(each)
    findings = Findings()
    for delivery_id, group in groups.items():
        _judge_one(findings, deliveries[delivery_id], group, on_record[delivery_id])
    return findings


def changes(
    findings: Findings, deliveries: Mapping[UUID, Delivery], firsts: Mapping[UUID, Firsts]
) -> dict[Tally, Counter[str]]:
    """By how much each figure changes; by less than nothing where a machine had been counted as a person.

    `opened` and `clicked` count what people did, `…_unique` how many people did it, `…_machine` what machines did.
    """
    change: defaultdict[Tally, Counter[str]] = defaultdict(Counter)
    for event in findings.events:
        change[_tally(event.delivery, event.at)][_FIGURE[event.name] + "_machine" * event.machine] += 1
    for each in findings.machines_after_all:
        figures = change[_tally(deliveries[each.delivery_id], each.at)]
        figures[_FIGURE[each.name]] -= 1
        figures[_FIGURE[each.name] + "_machine"] += 1
    for delivery_id, first in firsts.items():
        delivery = deliveries[delivery_id]
        for name, before, now in (
            ("opened_unique", delivery.opened_at, first.opened_at),
            ("clicked_unique", delivery.clicked_at, first.clicked_at),
        ):
            if before is not None:
                change[_tally(delivery, before)][name] -= 1
            if now is not None:
                change[_tally(delivery, now)][name] += 1
    return dict(sorted(change.items()))


def _judge_one(findings: Findings, delivery: Delivery, group: Sequence[Hit], on_record: Sequence[Earlier]) -> None:
    before = [(each, each.link) for each in on_record if each.link is not None]
    clicks = [hit for hit in group if hit.action is Action.CLICK]
    burst = bursts([(each.at, link) for each, link in before] + [(hit.at, hit.link) for hit in clicks])
    in_burst = {each.at for position, (each, _) in enumerate(before) if position in burst}
    caught = [each for each in on_record if each.at in in_burst and not each.machine]
    events = [_event(delivery, hit, hit.sign) for hit in group if hit.action is Action.OPEN]
    for position, hit in enumerate(clicks, start=len(before)):
        events.append(_event(delivery, hit, hit.sign or (Sign.BURST if position in burst else None)))
    findings.events += events
    if delivery.opened_at is None or delivery.opened_at in in_burst:
        still_people = [each.at for each, _ in before if not each.machine and each.at not in in_burst]
        findings.events += _implied_opening(delivery, events, still_people)
    findings.machines_after_all += caught


def _implied_opening(delivery: Delivery, events: Sequence[Event], earlier_clicks: Sequence[datetime]) -> list[Event]:
    """A person who clicks has opened the message, whether or not their mail program loads images."""
    by_people = [event for event in events if not event.machine]
    clicks = [*earlier_clicks, *(event.at for event in by_people)]
    if not clicks or any(event.name == OPENED for event in by_people):
        return []
    properties = {"implied": True} | ({"step": delivery.step} if delivery.step else {})
    return [Event(OPENED, delivery, min(clicks), False, properties)]


def _event(delivery: Delivery, hit: Hit, sign: Sign | None) -> Event:
    sign = sign or sign_in_timing(hit.action, hit.at, delivery.sent_at)
    properties: dict[str, object] = {"sign": sign} if sign else {}
    if delivery.step:
        properties["step"] = delivery.step
    if hit.action is Action.OPEN:
        return Event(OPENED, delivery, hit.at, sign is not None, properties)
    return Event(CLICKED, delivery, hit.at, sign is not None, {"link": hit.link, "url": hit.url, **properties})


def _tally(delivery: Delivery, at: datetime) -> Tally:
    hour = at.replace(minute=0, second=0, microsecond=0)
    return Tally(delivery.campaign_id, hour, delivery.channel, delivery.step, delivery.variant)
