"""Whom do criteria mean? The one place where they become SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database.eligibility import ADDRESS
from database.engine import Connection, TooSlow, deadline
from database.segment_fields import Fields, Given
from marketing.segment_conditions import Condition, Where, WhereAll, WhereAny, WhereCondition, WhereNot
from marketing.segment_events import Event, Total
from marketing.segment_fields import Kind
from marketing.segment_names import DaysWithoutActivity, Engagement, SpendingLevel, SubscriptionTier
from marketing.segments import AllOf, AnyOf, Bucket, Criterion, InSegment, Not, expanded, nodes

Parameters = dict[str, Any]

# Events are received at most so much before they happen, so their ids tell which months to look into.
_AHEAD = timedelta(hours=1)
# To plan 10 joins takes 30 ms, 50 two seconds, 100 a minute; a set that is looked up takes 1 ms each, however many.
_MOST_JOINS = 8


def condition(
    criteria: Criterion, *, now: datetime, prefix: str = "", among: str | None = None, prune: bool = True
) -> tuple[str, Parameters]:
    """SQL that is true for a row of `contacts` that belongs, false or NULL for another, and its parameters.

    Whether the contact was deleted is not asked.

    Args:
        prefix: begins the names of the parameters, so that several conditions go into one statement.
        among: the name of a parameter with an array of ids of contacts: only they, and what they did, are looked at.
        prune: whether the ids of events tell when they happened: not where `now` is ahead of the database's clock.
    """
    compiler = _Compiler(Given(prefix), now, among, prune)
    belongs = compiler.criterion(criteria)
    if among:
        belongs = f"contacts.id = ANY (CAST(:{among} AS uuid[])) AND {belongs}"
    return belongs, compiler.given.parameters


def event_condition(where: Where, *, now: datetime, prefix: str = "") -> tuple[str, Parameters]:
    """SQL that is true for a row of `events` of which this holds, false or NULL for another, and its parameters."""
    compiler = _Compiler(Given(prefix), now, None)
    return compiler.where(where), compiler.given.parameters


@dataclass(frozen=True)
class _Done:
    """Events of any of these names, otherwise as asked."""

    names: tuple[str, ...]
    asked: Event | Total


@dataclass
class _Compiler:
    """What is known of contacts in other tables makes sets of ids, and what is asked is whether a contact is in a set.

    Where all of several must hold, PostgreSQL joins with the set, or with what is not in it (`joins`). Below an `any`
    it can't, and looks each contact up in a hash table of the set, if that should fit into memory: see `plan_well`.
    """

    given: Given
    now: datetime
    among: str | None
    prune: bool = True
    joined: int = 0

    @cached_property
    def _contacts(self) -> Fields:
        return Fields("contacts", "attributes", self.given, self.now)

    @cached_property
    def _events(self) -> Fields:
        return Fields("events", "properties", self.given, self.now)

    def criterion(self, node: Criterion | _Done, *, holds: bool = True, joins: bool = True) -> str:
        """SQL for whether the criterion holds; or, with `holds=False`, for whether it does not."""
        match node:
            case AllOf(all=parts):
                return self._several(parts, "AND" if holds else "OR", holds, joins)
            case AnyOf(any=parts):
                return self._several(parts, "OR" if holds else "AND", holds, joins)
            case Not(not_=one):
                return self.criterion(one, holds=not holds, joins=joins)
            case SpendingLevel() | Engagement() | SubscriptionTier() | DaysWithoutActivity():
                return self.criterion(expanded(node), holds=holds, joins=joins)
            case Event():
                return self.criterion(_Done((node.event,), node), holds=holds, joins=joins)
            case Total():
                return self._total(node, holds, joins)
            case _Done(names=names, asked=Event() as event):
                return self._event(names, event, holds, joins)
            case InSegment(segment=segment):
                members = f"SELECT contact_id FROM segment_members WHERE segment_id = {self.given(segment, 'uuid')}"
                return self._is_in(members + self._limit("contact_id"), holds, joins)
            case Condition() if node.subject.kind is Kind.SUBSCRIPTION:
                return self._subscription(node, holds, joins)
            case Condition() if node.subject.kind is Kind.SUPPRESSION:
                return self._suppression(node, holds, joins)
            case Condition():
                asked = self._contacts.holds(node)
            case Bucket():
                asked = self._bucket(node)
        return f"({asked})" if holds else f"({asked}) IS NOT TRUE"

    def _several(self, parts: Sequence[Criterion], word: str, holds: bool, joins: bool) -> str:
        # “Neither opened nor clicked” and “opened or clicked” are one set each, of events of either name.
        whole: Sequence[Criterion | _Done] = _together(parts) if (word == "AND") != holds else parts
        joins = joins and word == "AND"
        return f"({f' {word} '.join(self.criterion(part, holds=holds, joins=joins) for part in whole)})"

    # -- sets of contacts --------------------------------------------------------------------------------------------

    def _is_in(self, ids: str, holds: bool, joins: bool, key: str = "contacts.id") -> str:
        if not joins or self.joined == _MOST_JOINS:
            return f"({key} IN ({ids})) IS {'' if holds else 'NOT '}TRUE"
        self.joined += 1
        if holds:
            return f"{key} IN ({ids})"
        return f"NOT EXISTS (SELECT FROM ({ids}) AS these (key) WHERE these.key = {key})"

    def _limit(self, ids: str) -> str:
        return f" AND {ids} = ANY (CAST(:{self.among} AS uuid[]))" if self.among else ""

    def _subscription(self, asked: Condition, holds: bool, joins: bool) -> str:
        channel, topic = asked.subject.path
        found = (
            f"SELECT contact_id FROM subscriptions WHERE channel = {self.given(channel, 'text')}"
            f" AND topic = {self.given(topic, 'text')}{self._limit('contact_id')}"
        )
        match asked.operator, asked.operand:
            case "exists", there:
                return self._is_in(found, holds == there, joins)
            case operator, tuple(statuses):
                found += f" AND status = ANY ({self.given(list(statuses), 'text[]')})"
            case operator, status:
                found += f" AND status = {self.given(status, 'text')}"
        return self._is_in(found, holds == (operator in ("is", "in")), joins)

    def _suppression(self, asked: Condition, holds: bool, joins: bool) -> str:
        (channel,) = asked.subject.path
        address = ADDRESS[channel]
        found = f"SELECT address FROM suppressions WHERE channel = {self.given(channel, 'text')}"
        if self.among:
            theirs = f"SELECT {address} FROM contacts WHERE id = ANY (CAST(:{self.among} AS uuid[]))"
            found += f" AND address = ANY (ARRAY ({theirs}))"
        return self._is_in(found, holds == asked.operand, joins, address)

    def _bucket(self, drawn: Bucket) -> str:
        """As `marketing.segments.bucket_of`."""
        low, high = drawn.bucket
        digest = f"sha256(convert_to({self.given(drawn.seed, 'text')} || CAST(contacts.id AS text), 'UTF8'))"
        bucket = f"mod(CAST(substr({digest}, 1, 4) AS bigint), 100)"
        return f"{bucket} >= {self.given(low, 'int')} AND {bucket} < {self.given(high, 'int')}"

    # -- what they did -----------------------------------------------------------------------------------------------

    def _event(self, names: Sequence[str], event: Event, holds: bool, joins: bool) -> str:
        low, high = event.count.range if event.count else (0, 0) if event.never else (1, None)
        timings = [
            (aggregate, timing.span(self.now))
            for aggregate, timing in (("min", event.first), ("max", event.last))
            if timing
        ]
        if timings:
            low = max(low, 1)
        found = self._happened(names, event)
        if low == 0:  # who did it more often does not belong, and all the others do
            assert high is not None
            low, high, holds = high + 1, None, not holds
        having = [self.given.within(f"{aggregate}(occurred_at)", span) for aggregate, span in timings]
        having += [f"count(*) >= {self.given(low, 'bigint')}"] if low > 1 else []
        having += [f"count(*) <= {self.given(high, 'bigint')}"] if high is not None else []
        if having:
            found += f" GROUP BY contact_id HAVING {' AND '.join(having)}"
        return self._is_in(found, holds, joins)

    def _total(self, total: Total, holds: bool, joins: bool) -> str:
        reached = self._events.total(total.path, total.operator, total.operand)
        # Whoever has done none of it comes to 0. If that is as asked, those who don't belong are found instead.
        enough = _is_enough(0, total)
        having = f"NOT ({reached})" if enough else reached
        found = f"{self._happened((total.event,), total)} GROUP BY contact_id HAVING {having}"
        return self._is_in(found, holds != enough, joins)

    def _happened(self, names: Sequence[str], asked: Event | Total) -> str:
        """The contact of each such event."""
        span = asked.span(self.now)
        conditions = [
            f"name = ANY ({self.given(list(names), 'text[]')})"
            if names[1:]
            else f"name = {self.given(names[0], 'text')}",
            "contact_id IS NOT NULL",
        ]
        if span.start or span.end:
            conditions.append(self.given.within("occurred_at", span))
        if not asked.machines:
            conditions.append("NOT machine")
        if asked.where:
            conditions.append(self.where(asked.where))
        if self.among and span.start and self.prune:
            # Or else every month is looked into for every contact. For a whole account the index tells at once that a
            # month has none; and as it does not hold the id, each event would have to be read.
            conditions.append(f"events.id >= uuidv7_floor({self.given(span.start - _AHEAD, 'timestamptz')})")
        return f"SELECT contact_id FROM events WHERE {' AND '.join(conditions)}{self._limit('contact_id')}"

    def where(self, node: Where) -> str:
        match node:
            case WhereAll(all=parts):
                return f"({' AND '.join(map(self.where, parts))})"
            case WhereAny(any=parts):
                return f"({' OR '.join(map(self.where, parts))})"
            case WhereNot(not_=one):
                return f"({self.where(one)}) IS NOT TRUE"
            case WhereCondition():
                return f"({self._events.holds(node)})"


def _is_enough(number: float, total: Total) -> bool:
    match total.operator, total.operand:
        case "exactly", asked:
            return number == asked
        case "at_least", int() | float() as asked:
            return number >= asked
        case "at_most", int() | float() as asked:
            return number <= asked
        case "more_than", int() | float() as asked:
            return number > asked
        case "less_than", int() | float() as asked:
            return number < asked
        case "between", (int() | float() as low, int() | float() as high):
            return low <= number <= high
    raise AssertionError(total)


def _together(parts: Sequence[Criterion]) -> list[Criterion | _Done]:
    """Events that differ by their names alone become one."""
    alike: dict[Criterion, list[str]] = {}
    for part in parts:
        plain = isinstance(part, Event) and not (part.count or part.first or part.last or part.never)
        names = alike.setdefault(part.model_copy(update={"event": ""}) if plain else part, [])
        names += [part.event] if isinstance(part, Event) else []
    return [
        _Done(tuple(dict.fromkeys(names)), part) if isinstance(part, Event) else part for part, names in alike.items()
    ]


# -- a look at whom they mean ----------------------------------------------------------------------------------------

# In all, for the hash tables of one statement.
_MEMORY_MB, _WORK_MEM_MB = 2048, 16


class TakesTooLong(TooSlow):
    """The criteria ask for more than can be told while somebody waits; the transaction can only be rolled back."""


async def plan_well(tx: Connection, criteria: Criterion) -> None:
    """Have the rest of this transaction planned as whole accounts want it, or hundreds of contacts at once."""
    sets = sum(isinstance(node, Event | Total | InSegment) for node in nodes(criteria))
    settings = {
        "jit": "off",
        # A set that is not expected to fit into memory would be looked through from end to end for each contact.
        "work_mem": f"{_WORK_MEM_MB}MB",
        "hash_mem_multiplier": str(max(1, _MEMORY_MB // _WORK_MEM_MB // max(1, sets))),
        # The same statement is another one with another event.
        "plan_cache_mode": "force_custom_plan",
    }
    calls = ", ".join(f"set_config('{name}', :{name}, true)" for name in settings)
    await tx.execute(text(f"SELECT {calls}"), settings)


async def count_and_sample(
    tx: Connection, criteria: Criterion, *, now: datetime, limit: int = 10, seconds: float = 5
) -> tuple[int, list[UUID]]:
    """How many living contacts belong, and the ids of some of them.

    Raises:
        TakesTooLong: it could not be told within so many seconds.
    """
    await plan_well(tx, criteria)
    belongs, parameters = condition(criteria, now=now)
    whom = f"FROM contacts WHERE contacts.deleted_at IS NULL AND {belongs}"
    # Counted, with one of each of sixteen groups: both come of one pass, in which all processes take part. By GROUP BY
    # they would not: PostgreSQL expects as many groups as there are contacts.
    one_of = "any_value(contacts.id) FILTER (WHERE uuid_hash(contacts.id) & 15 = {})"
    counting = text(f"SELECT count(*), {', '.join(one_of.format(group) for group in range(16))} {whom}")
    try:
        async with deadline(tx, seconds):
            size, *drawn = (await tx.execute(counting, parameters)).one()
            some = [each for each in drawn if each][:limit]
            if len(some) < min(size, limit):  # of the few that there are, several are of one group
                some = list(
                    (await tx.execute(text(f"SELECT contacts.id {whom} LIMIT {limit:d}"), parameters)).scalars()
                )
    except TooSlow as error:
        raise TakesTooLong(
            f"These criteria take more than {seconds:g} seconds to be tried. Ask for less, or make a segment of them:"
            " its members are found in the background."
        ) from error
    return size, some
