"""Whom does what happened concern? It lets contacts into automations and drips, wakes those who wait for it, and has
others leave.

What is told to cohorts may be told again: whoever is told twice does nothing the second time.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text

from database import leaving, sources, waits
from database.engine import Connection, plan_anew
from database.enrolling import Candidate, enroll
from database.journey_touches import Touch
from database.leaving import CLOCKS_DIFFER, DELETED, EXIT, GOAL, REFUSED_AT, UNSUBSCRIBED, Inside
from database.looking_back import look_back
from database.segments import condition, event_condition, plan_well
from database.sources import Kind, Source
from marketing.automations import GoalEvent
from marketing.exits import ExitEvent, ExitIf
from marketing.segment_conditions import Where
from marketing.segments import Criterion
from marketing.triggers import OnEvent

# Nobody is welcomed because of what happened so long before it was told.
OLD = timedelta(hours=72)


@dataclass(frozen=True)
class Awaited:
    """An event that a member waits for."""

    member: int
    call: int
    event_id: UUID
    name: str
    occurred_at: datetime


@dataclass(frozen=True)
class Leaving:
    """A member must leave."""

    member: int
    reason: str
    converted: bool = False


@dataclass(frozen=True)
class Told:
    """What a cohort is to be told, and because of which touches."""

    awaited: list[Awaited] = field(default_factory=list)
    leaving: list[Leaving] = field(default_factory=list)
    touches: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Routed:
    """What follows from some touches: the sources for which somebody is pending, and what cohorts are to be told, by
    source and number."""

    pending: dict[UUID, Kind] = field(default_factory=dict)
    cohorts: dict[tuple[UUID, int], Told] = field(default_factory=lambda: defaultdict(Told))
    drips: set[UUID] = field(default_factory=set)  # those of these sources that are none of automations

    def kind_of(self, source_id: UUID) -> Kind:
        return "drip" if source_id in self.drips else "automation"


async def route(
    tx: Connection, account_id: UUID, touches: Sequence[Touch], now: datetime, *, rehearsed: UUID | None = None
) -> Routed:
    """Enroll whom these touches let in, and find what cohorts are to be told once this transaction is committed.

    Args:
        rehearsed: the source of a rehearsal, whose clock `now` is: nothing that happens there concerns another.
    """
    await plan_anew(tx)
    turn = await _begin(tx, account_id, touches, now, rehearsed)
    await turn.wake()
    for part in turn.rounds():
        await part.have_leave()
        await part.let_in()
    await turn.look_back()
    if told := {source for source, _ in turn.routed.cohorts}:
        turn.routed.drips.update((await tx.execute(_DRIPS, {"ids": list(told)})).scalars())
    return turn.routed


class Happened(NamedTuple):
    """An event of somebody."""

    id: UUID
    name: str
    occurred_at: datetime
    properties: dict[str, Any]


_LOOKING = text("SELECT subject, source_id, role FROM automation_subjects WHERE subject = ANY (:subjects)")
_HAPPENED = text("SELECT id, name, occurred_at, properties FROM events WHERE id = ANY (:ids) AND NOT machine")


async def _begin(
    tx: Connection, account_id: UUID, touches: Sequence[Touch], now: datetime, rehearsed: UUID | None
) -> "_Turn":
    looking = (await tx.execute(_LOOKING, {"subjects": list({each.subject for each in touches})})).all()
    looking = [row for row in looking if rehearsed in (None, row.source_id)]
    roles = frozenset((row.subject, row.source_id, row.role) for row in looking)
    known = await sources.read(tx, {row.source_id for row in looking if row.role != "wait"})
    ids = [each.event_id for each in touches if each.event_id]
    happened = {row.id: Happened(*row) for row in await tx.execute(_HAPPENED, {"ids": ids})} if ids else {}
    # Without those whose event is gone, or turned out to be a machine's.
    real = [each for each in touches if each.event_id is None or each.event_id in happened]

    def when(touch: Touch) -> tuple[datetime, int, int]:
        """In the order in which it occurred, as far as clocks can be believed."""
        event = happened[touch.event_id] if touch.event_id else None
        if event is None:
            return touch.touched_at, 0, touch.id
        return min(event.occurred_at, touch.touched_at), event.id.int, touch.id

    return _Turn(tx, account_id, now, sorted(real, key=when), roles, known, happened, rehearsed)


_DRIPS = text("SELECT id FROM campaigns WHERE id = ANY (:ids)")
_REFUSED = text(f"""
    SELECT contact_id, channel, topic, updated_at, {REFUSED_AT} AS refused_at FROM subscriptions
    WHERE contact_id = ANY (:contacts) AND status = 'unsubscribed'
""")


@dataclass(frozen=True)
class _Turn:
    tx: Connection
    account_id: UUID
    now: datetime
    touches: list[Touch]
    roles: frozenset[tuple[str, UUID, str]]  # subject, source, and what it is to it
    sources: dict[UUID, Source]
    happened: dict[UUID, Happened]
    rehearsed: UUID | None = None
    routed: Routed = field(default_factory=Routed)

    def rounds(self) -> Iterator["_Turn"]:
        """One after the other, so that whoever enters is inside when it is looked at what the contact did then."""
        parts: dict[int, list[Touch]] = defaultdict(list)
        number: dict[UUID, int] = defaultdict(int)
        entering: set[UUID] = set()
        for touch in self.touches:
            contact = touch.contact_id
            if contact in entering and self._is(touch, "goal", "exit"):
                number[contact] += 1
                entering.remove(contact)
            if self._is(touch, "trigger"):
                entering.add(contact)
            parts[number[contact]].append(touch)
        return (replace(self, touches=parts[each]) for each in sorted(parts))

    async def wake(self) -> None:
        """Those who wait for an event. The first that is as they asked counts, but for one that they have heard of."""
        awaited = {each.event_id: each for each in self.touches if each.event_id and self._is(each, "wait")}
        if not awaited:
            return
        for found in await waits.happened(self.tx, awaited, now=self.now):
            told = self.routed.cohorts[found.source_id, found.cohort]
            told.awaited.append(Awaited(found.member, found.call, found.event_id, found.name, found.occurred_at))
            told.touches.add(awaited[found.event_id].id)

    # -- those who leave ---------------------------------------------------------------------------------------------

    async def have_leave(self) -> None:
        """Those who have reached the goal, meet what makes them leave, refuse our messages or are gone."""
        touches = [each for each in self.touches if self._is(each, "goal", "exit")]
        if not touches:
            return
        by_contact: dict[UUID, list[Touch]] = defaultdict(list)
        for touch in touches:
            by_contact[touch.contact_id].append(touch)
        inside = [one for one in await leaving.inside(self.tx, by_contact) if self.rehearsed in (None, one.source_id)]
        leaves = await self._leaves(inside, touches)
        reasons: dict[UUID, tuple[Inside, str, Touch]] = {}
        for one in inside:
            for touch in by_contact[one.contact_id]:
                if one.id not in reasons and (reason := leaves(one, touch)):
                    reasons[one.id] = one, reason, touch
        pending = {id: reason for id, (one, reason, _) in reasons.items() if one.place is None}
        places = await leaving.end_pending(self.tx, self.account_id, pending, now=self.now)
        for id, (one, reason, touch) in reasons.items():
            if place := one.place or places.get(id):
                told = self.routed.cohorts[one.source_id, place.cohort]
                told.leaving.append(Leaving(place.member, reason, converted=reason == GOAL))
                told.touches.add(touch.id)

    async def _leaves(
        self, inside: Sequence[Inside], touches: Sequence[Touch]
    ) -> Callable[[Inside, Touch], str | None]:
        """Why somebody who is inside leaves because of a touch, if so."""
        held = {each.source_id: self.sources[each.source_id] for each in inside if each.source_id in self.sources}
        refused = await self._refused([each.contact_id for each in touches if each.subject == "unsubscribed"])
        goals = {id: await self._events(source.goals, touches) for id, source in held.items()}
        exits = {
            id: await self._events([each for each in source.terms.exit_on if isinstance(each, ExitEvent)], touches)
            for id, source in held.items()
        }
        meets = {
            id: await self._meet(
                [each.if_ for each in source.terms.exit_on if isinstance(each, ExitIf)],
                [each.contact_id for each in inside if each.source_id == id],
            )
            for id, source in held.items()
        }

        def reason(one: Inside, touch: Touch) -> str | None:
            if touch.subject == "contact.deleted":
                return DELETED
            source = held.get(one.source_id)
            if source is None:
                return None
            if touch.subject == "unsubscribed":
                return (
                    UNSUBSCRIBED if any(_has_one_leave(row, one, source) for row in refused[one.contact_id]) else None
                )
            event = self.happened[touch.event_id] if touch.event_id else None
            if event and _is_after(event, one):
                if event.id in goals[source.id]:
                    return GOAL
                if event.id in exits[source.id]:
                    return EXIT
            return EXIT if one.contact_id in meets[source.id] and self._is(touch, "exit", of=source.id) else None

        return reason

    async def _refused(self, contacts: Collection[UUID]) -> Mapping[UUID, list[Row[Any]]]:
        """The channels and topics that they refuse, and since when."""
        found: dict[UUID, list[Row[Any]]] = defaultdict(list)
        for row in await self.tx.execute(_REFUSED, {"contacts": list(contacts)}) if contacts else ():
            found[row.contact_id].append(row)
        return found

    async def _events(self, asked: Sequence[GoalEvent | ExitEvent], touches: Iterable[Touch]) -> set[UUID]:
        """Those of these touches that are one of these events."""
        found: set[UUID] = set()
        for each in asked:
            named = {touch.event_id for touch in touches if touch.event_id and touch.subject == f"event:{each.event}"}
            found |= set(await self._matching(each.where, named))
        return found

    async def _matching(self, where: Where | None, events: Collection[UUID]) -> Collection[UUID]:
        """Those of these events of which this holds."""
        if where is None or not events:
            return events
        holds, parameters = event_condition(where, now=self.now, prefix="where_")
        query = text(f"SELECT id FROM events WHERE id = ANY (:events) AND {holds}")
        return set((await self.tx.execute(query, {**parameters, "events": list(events)})).scalars())

    async def _meet(self, criteria: Sequence[Criterion], contacts: Collection[UUID]) -> set[UUID]:
        """Those of these contacts of whom any of these criteria hold."""
        found: set[UUID] = set()
        for each in criteria if contacts else ():
            await plan_well(self.tx, each)
            belongs, parameters = condition(
                each, now=self.now, prefix="exit_", among="among", prune=self.rehearsed is None
            )
            query = text(f"SELECT contacts.id FROM contacts WHERE {belongs}")
            found |= set((await self.tx.execute(query, {**parameters, "among": list(contacts)})).scalars())
        return found

    # -- those who enter ---------------------------------------------------------------------------------------------

    async def let_in(self) -> None:
        for source in self.sources.values():
            candidates = [self._candidate(each) for each in await self._triggering(source)]
            prune = self.rehearsed is None
            outcomes = await enroll(self.tx, self.account_id, source, candidates, now=self.now, prune=prune)
            # Of whom it is known already, perhaps nobody was told: whoever was to tell it may have been interrupted.
            if outcomes["enrolled"] or outcomes.total() < len(candidates):
                self.routed.pending[source.id] = source.kind

    async def look_back(self) -> None:
        """Of what those who entered did since, we may have been told before they were inside: of what comes in bulk
        later than of what comes one by one."""
        for source in self.sources.values():
            if entered := {each.contact_id for each in self.touches if self._is(each, "trigger", of=source.id)}:
                prune = self.rehearsed is None
                await look_back(self.tx, self.account_id, source, entered, now=self.now, prune=prune)

    async def _triggering(self, source: Source) -> list[Touch]:
        """The touches that let somebody in."""
        touches = [each for each in self.touches if self._is(each, "trigger", of=source.id)]
        trigger = source.terms.trigger
        if isinstance(trigger, OnEvent) and trigger.where:
            as_asked = await self._matching(trigger.where, {each.event_id for each in touches if each.event_id})
            return [each for each in touches if each.event_id in as_asked]
        return touches

    def _candidate(self, touch: Touch) -> Candidate:
        if touch.event_id is None:
            return Candidate(touch.contact_id, f"touch:{touch.id}", at=self._told_at(touch))
        event = self.happened[touch.event_id]
        old = touch.touched_at - event.occurred_at > OLD
        return Candidate(touch.contact_id, f"event:{event.id}", event.id, event.properties, old, self._told_at(touch))

    def _told_at(self, touch: Touch) -> datetime | None:
        return touch.touched_at if self.rehearsed is None else None  # its clock is another one

    def _is(self, touch: Touch, *roles: str, of: UUID | None = None) -> bool:
        """Whether it is of such a role, to this source or to any."""
        return not self._roles[touch.subject].isdisjoint({(role, of) for role in roles})

    @cached_property
    def _roles(self) -> Mapping[str, set[tuple[str, UUID | None]]]:
        """By subject, each role with the source that it has it to, and with none for any."""
        found: dict[str, set[tuple[str, UUID | None]]] = defaultdict(set)
        for subject, source, role in self.roles:
            found[subject] |= {(role, source), (role, None)}
        return found


def _has_one_leave(refusal: Row[Any], one: Inside, source: Source) -> bool:
    """What it began with does not, nor what was before."""
    if refusal.channel not in source.channels or refusal.topic not in ("", source.topic):
        return False
    return bool(refusal.updated_at > one.began_at and refusal.refused_at != one.began_at)


def _is_after(event: Happened, one: Inside) -> bool:
    """What it began with is no goal, nor what was before."""
    if event.occurred_at > one.began_at:
        return True
    told_after = event.id > (one.event_id or one.id)
    return told_after and event.occurred_at >= one.began_at - (CLOCKS_DIFFER if one.event_id is None else timedelta())
