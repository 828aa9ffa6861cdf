"""How are those who wait put together, up to a thousand at a time, for one workflow to carry them?"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text

from database import leaving, notifications, sources, standings
from database.engine import Connection, plan_anew
from database.enrollments import Over, note
from database.leaving import BEGAN_AT, GOAL
from database.looking_back import look_back, unheard
from database.sources import Kind
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind, how_many


@dataclass(frozen=True)
class Newcomer:
    """A member, and what its pass began with."""

    contact_id: UUID
    zone: str
    entered_at: datetime
    began_at: datetime  # when what its pass began with occurred
    trigger: dict[str, Any]


@dataclass(frozen=True)
class Cohort:
    """Some members of a cohort, from `first` on, and the version that they are on."""

    number: int
    first: int
    version: int
    members: list[Newcomer]
    name: str
    code: str | None
    definition: dict[str, Any]
    topic: str | None


class Known(NamedTuple):
    """The newest cohort that somebody knows of, and how many members of it."""

    cohort: int
    members: int


# Whoever cancels a source waits until nobody is put into its cohorts, and the other way round.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('cohorts of ' || CAST(:source_id AS text), 0))")
# Not while it is held, whoever has not heard of that; of those who waited when it was cancelled, some may be leaving.
_TAKES_IN = text("SELECT state = 'active' FROM automations WHERE id = :source_id")
_NEWEST = text("""
    SELECT number, members, version, CASE WHEN ended_at IS NULL THEN state ELSE 'ended' END AS state
    FROM cohorts WHERE source_id = :source_id
    ORDER BY number DESC LIMIT 1 FOR NO KEY UPDATE
""")
_OLDEST = text("""
    SELECT version FROM enrollments WHERE source_id = :source_id AND state = 'pending' ORDER BY id LIMIT 1
""")
_LONGEST = text("""
    SELECT id, contact_id FROM enrollments WHERE source_id = :source_id AND state = 'pending' AND version = :version
    ORDER BY id LIMIT :room FOR UPDATE SKIP LOCKED
""")
_CLAIM = text("""
    WITH numbered AS (
        SELECT id, CAST(:first AS bigint) - 1 + row_number() OVER (ORDER BY id) AS member FROM enrollments
        WHERE id = ANY (CAST(:ids AS uuid[])) AND state = 'pending'
    )
    UPDATE enrollments SET state = 'active', cohort = :number, member = numbered.member
    FROM numbered WHERE enrollments.id = numbered.id
""")
_HAS_BEGUN = text("""
    SELECT EXISTS (
        SELECT FROM enrollments
        WHERE source_id = :source_id AND cohort = :number AND (step <> '' OR left_at IS NOT NULL)
    )
""")
_NEW = text("""
    INSERT INTO cohorts (account_id, source_id, number, version, members)
    VALUES (:account_id, :source_id, :number, :version, :members)
""")
_GROW = text("UPDATE cohorts SET members = :members WHERE source_id = :source_id AND number = :number")
_MEMBERS = text(f"""
    SELECT contact_id, coalesce(contacts.timezone, accounts.default_timezone), entered_at, {BEGAN_AT}, trigger
    FROM enrollments JOIN accounts ON accounts.id = enrollments.account_id
        LEFT JOIN contacts ON contacts.id = contact_id
    WHERE source_id = :source_id AND cohort = :number AND member >= :first ORDER BY member
""")
_VERSION: Mapping[Kind, Any] = {
    "automation": text("""
        SELECT name, code, definition, topic FROM automations JOIN automation_versions AS versions
            ON automation_id = automations.id AND versions.version = :version WHERE automations.id = :source_id
    """),
    "drip": text("""
        SELECT name, NULL AS code, plan -> 'automation' AS definition, plan ->> 'topic' AS topic
        FROM campaigns WHERE id = :source_id AND CAST(:version AS int) > 0
    """),
}


async def form(
    tx: Connection,
    account_id: UUID,
    source_id: UUID,
    kind: Kind,
    known: Known | None,
    *,
    joins: bool,
    limit: int,
    now: datetime,
    prune: bool = True,
) -> Cohort | None:
    """Put those who have waited longest into a new cohort, or into the newest; None if nobody waits.

    What was formed before, and `known` does not have, is what is answered first: the answer was lost. Whoever knows of
    none may have lost the first answer, or all: the newest is answered if nobody in it has taken a step.

    Args:
        prune: whether the ids of events tell when they happened: not where `now` is ahead of the database's clock.
    """
    await plan_anew(tx)
    await tx.execute(_LOCK, {"source_id": str(source_id)})
    takes_in = kind == "drip" or (await tx.execute(_TAKES_IN, {"source_id": source_id})).scalar()
    newest = (await tx.execute(_NEWEST, {"source_id": source_id})).one_or_none()
    if newest and (newest.number > known.cohort if known else await _is_new(tx, source_id, newest)):
        return await read(tx, source_id, kind, newest.number, newest.version)
    if known and newest and newest.members > known.members:
        return await read(tx, source_id, kind, newest.number, newest.version, first=known.members)
    version = (await tx.execute(_OLDEST, {"source_id": source_id})).scalar_one_or_none() if takes_in else None
    if version is None:
        return None
    grows = joins and newest and (newest.state, newest.version) == ("open", version) and newest.members < limit
    number, first = (newest.number, newest.members) if newest and grows else (newest.number + 1 if newest else 1, 0)
    of = {"account_id": account_id, "source_id": source_id, "number": number, "version": version, "first": first}
    claimed = await _claim(tx, of, room=limit - first, now=now, prune=prune)
    if not claimed:
        return None
    await tx.execute(_GROW if grows else _NEW, {**of, "members": first + claimed})
    return await read(tx, source_id, kind, number, version, first=first)


async def _claim(tx: Connection, of: dict[str, Any], *, room: int, now: datetime, prune: bool) -> int:
    """Put those who have waited longest into a cohort; how many they are. Whoever has met what makes contacts leave,
    and was not inside yet when that was told, leaves before that."""
    source = (await sources.read(tx, [of["source_id"]])).get(of["source_id"])
    while waiting := (await tx.execute(_LONGEST, {**of, "room": room})).all():
        if source:
            those = [row.contact_id for row in waiting]
            await look_back(tx, of["account_id"], source, those, now=now, prune=prune)
        if claimed := (await tx.execute(_CLAIM, {**of, "ids": [row.id for row in waiting]})).rowcount:
            return claimed
    return 0


async def read(tx: Connection, source_id: UUID, kind: Kind, number: int, version: int, *, first: int = 0) -> Cohort:
    """The members of a cohort from a number on."""
    rows = await tx.execute(_MEMBERS, {"source_id": source_id, "number": number, "first": first})
    of = (await tx.execute(_VERSION[kind], {"source_id": source_id, "version": version})).one()
    return Cohort(
        number=number,
        first=first,
        version=version,
        members=[Newcomer(*row) for row in rows],
        name=of.name,
        code=of.code,
        definition=of.definition,
        topic=of.topic,
    )


async def _is_new(tx: Connection, source_id: UUID, newest: Row[Any]) -> bool:
    if newest.state != "open":
        return False
    return not (await tx.execute(_HAS_BEGUN, {"source_id": source_id, "number": newest.number})).scalar_one()


async def somebody_waits(tx: Connection, source_id: UUID) -> bool:
    return (await tx.execute(_OLDEST, {"source_id": source_id})).scalar_one_or_none() is not None


async def open_ones(tx: Connection, source_id: UUID, *, after: int, limit: int) -> dict[int, bool]:
    """The numbers of cohorts with somebody inside, in their order, and whether they are cancelled."""
    query = text("""
        SELECT number, ended_at IS NOT NULL AS cancelled FROM cohorts
        WHERE source_id = :source_id AND state = 'open' AND number > :after ORDER BY number LIMIT :limit
    """)
    given = {"source_id": source_id, "after": after, "limit": limit}
    return {row.number: row.cancelled for row in await tx.execute(query, given)}


# -- those that are cancelled ----------------------------------------------------------------------------------------

# A million in one statement took 23 s and 1.2 GB of log (WAL), and held the source all the while; these take 0.1 s.
CANCELLED_AT_ONCE = 1_000

_CANCEL = text("""
    UPDATE cohorts SET ended_at = :now WHERE source_id = :source_id AND state = 'open' AND ended_at IS NULL
""")


async def cancel(tx: Connection, account_id: UUID, source_id: UUID, reason: str, *, now: datetime) -> None:
    """Whoever is inside takes no other step, whatever state the source has next.

    An open cohort that has an end is a cancelled one: each step looks for that, and its workflow has everybody leave
    when it hears of it. First those who wait: whoever is put into a cohort meanwhile is found in it afterwards. If they
    are many, the rest of them leaves some at a time, by whoever tells the cohorts; none of them is taken in any more.
    """
    await tx.execute(_LOCK, {"source_id": str(source_id)})
    of = (tx, account_id, source_id, reason or "cancelled")
    await leaving.cancel_pending(*of, now=now, limit=CANCELLED_AT_ONCE)
    await tx.execute(_CANCEL, {"source_id": source_id, "now": now})


# Where nothing is cancelled, nobody is looked for.
_LEAVING = text("""
    WITH cancelled AS MATERIALIZED (
        SELECT number FROM cohorts WHERE source_id = :source_id AND state = 'open' AND ended_at IS NOT NULL
    )
    SELECT cohort, version, array_agg(member ORDER BY member) AS members FROM enrollments
    WHERE (SELECT count(*) FROM cancelled) > 0 AND source_id = :source_id AND left_at IS NULL
    AND contact_id = ANY (CAST(:contacts AS uuid[])) AND cohort IN (SELECT number FROM cancelled)
    GROUP BY cohort, version ORDER BY cohort, version
""")


async def let_go(
    tx: Connection, account_id: UUID, source_id: UUID, contacts: Collection[UUID], *, now: datetime
) -> None:
    """Those of them whose cohort is cancelled have left, though its workflow may not have heard of it yet."""
    for row in (await tx.execute(_LEAVING, {"source_id": source_id, "contacts": list(contacts)})).all():
        left = [Over(row.members, "cancelled", now, "cancelled", "", converted=False)]
        await note(tx, account_id, source_id, row.cohort, version=row.version, left=left, now=now)


# -- those who go on in another version ------------------------------------------------------------------------------

TAKEN_ALONG_AT_ONCE = 1_000  # as of those who are cancelled: a million in one statement took 20 s

_TAKE_ALONG = text("""
    WITH next AS MATERIALIZED (
        SELECT id FROM enrollments
        WHERE source_id = :source_id AND state = 'pending' AND id > :after ORDER BY id LIMIT :limit
    ), taken AS (
        UPDATE enrollments SET version = :version WHERE id = ANY (ARRAY(SELECT id FROM next)) AND version < :version
    )
    SELECT id FROM next ORDER BY id DESC LIMIT 1
""")


async def take_along(
    tx: Connection, source_id: UUID, version: int, *, after: UUID = UUID(int=0), limit: int = TAKEN_ALONG_AT_ONCE
) -> UUID | None:
    """Those who have not begun begin with this version: the next of them, and behind whom the others are; None if there
    are none. Whoever puts them into a cohort waits meanwhile: it would pass over those, and find nobody."""
    await tx.execute(_LOCK, {"source_id": str(source_id)})
    given = {"source_id": source_id, "version": version, "after": after, "limit": limit}
    last: UUID | None = (await tx.execute(_TAKE_ALONG, given)).scalar_one_or_none()
    return last


# -- those that were lost --------------------------------------------------------------------------------------------

_WAITING_TO_BEGIN = text("""
    SELECT min(member) AS first, min(version) AS version FROM enrollments
    WHERE source_id = :source_id AND cohort = :number AND left_at IS NULL
""")
_INSIDE = text("""
    SELECT id, version, member, contact_id FROM enrollments
    WHERE source_id = :source_id AND cohort = :number AND left_at IS NULL ORDER BY version, member
""")


async def not_begun(tx: Connection, source_id: UUID, kind: Kind, number: int) -> Cohort | None:
    """A cohort from the first on who is inside; None if nobody is."""
    found = (await tx.execute(_WAITING_TO_BEGIN, {"source_id": source_id, "number": number})).one()
    if found.first is None:
        return None
    return await read(tx, source_id, kind, number, found.version, first=found.first)


async def give_up(
    tx: Connection, account_id: UUID, source_id: UUID, kind: Kind, number: int, problem: str, *, now: datetime
) -> int:
    """End a cohort, its steps, and the passes of those who are inside: they leave because of what nobody could tell
    their code any more, or else they fail, and the people of the account are told; or they are cancelled if it is. How
    many they are."""
    is_over = await standings.going(tx, kind, source_id, number) == "over"
    source = None if is_over else (await sources.read(tx, [source_id])).get(source_id)
    reasons = await unheard(tx, source, number, now=now) if source else {}
    inside: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    rows = (await tx.execute(_INSIDE, {"source_id": source_id, "number": number})).all()
    for row in rows:
        inside[row.version][reasons.get(row.id, "")].append(row.member)
    rest = ("cancelled", now, "cancelled", "") if is_over else ("failed", now, "", problem)
    for version, those in inside.items():
        left = [
            Over(members, *(("exited", now, reason, "") if reason else rest), converted=reason == GOAL)
            for reason, members in those.items()
        ]
        await note(tx, account_id, source_id, number, version=version, left=left, now=now)
    await note(tx, account_id, source_id, number, version=1, ended=True, now=now)
    if failed := [] if is_over else [row.contact_id for row in rows if row.id not in reasons]:
        told = Notification(
            id=keyed_id(now, "lost", source_id, number),
            kind=NotificationKind.FAILED,
            source_id=source_id,
            text=how_many(problem, failed),
            created_at=now,
            emailed_at=None,
        )
        await notifications.add(tx, account_id, [told])
    return len(rows)
