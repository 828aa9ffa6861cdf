"""Segments and what happens to their members, straight on the record."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from activities.segments import Segments
from database import memberships, stored_segments, touches
from database.schema import events
from marketing.stored_segments import SegmentDefinition
from tests.conftest import TestAccount

FRENCH = {"field": "country", "is": "FR"}


async def segment(account: TestAccount, criteria: dict[str, Any] | None = FRENCH, name: str = "Some") -> UUID:
    """A segment without members; ready, for who comes from now on is settled."""
    kind = "dynamic" if criteria else "static"
    definition = SegmentDefinition.model_validate({"name": name, "kind": kind, "criteria": criteria})
    async with account.transaction() as tx:
        made = await stored_segments.create(tx, account.id, definition)
        await tx.execute(
            text("UPDATE segments SET state = 'ready', settled_at = now() WHERE id = :id"), {"id": made.id}
        )
    return made.id


async def happened(account: TestAccount, name: str, *contacts: UUID, **values: Any) -> None:
    """An event of each of these contacts."""
    rows = [{"account_id": account.id, "name": name, "contact_id": each, **values} for each in contacts]
    async with account.transaction() as tx:
        await tx.execute(events.insert().values(rows))


async def change(account: TestAccount, contacts: Sequence[UUID], assignments: str) -> None:
    """Such as `country = 'FR'`."""
    async with account.transaction() as tx:
        statement = text(f"UPDATE contacts SET {assignments} WHERE id = ANY (:ids)")
        await tx.execute(statement, {"ids": list(contacts)})


async def follow(account: TestAccount) -> None:
    """Settle what waits for the account, and what follows from that."""
    segments = Segments(account.database)
    while account.id in await touches.accounts(account.database, 0, 1):
        await segments.take_turn(account.id)


async def members(account: TestAccount, segment_id: UUID) -> set[UUID]:
    async with account.transaction() as tx:
        return {each.contact_id for each in await memberships.page(tx, segment_id, after=None, limit=1_000_000)}


async def told(account: TestAccount, segment_id: UUID) -> Counter[tuple[UUID, str]]:
    """How often each contact entered and left, by the events."""
    query = text("""
        SELECT contact_id, name FROM events WHERE account_id = :account AND name IN ('segment.entered', 'segment.left')
        AND properties ->> 'segment_id' = :segment
    """)
    async with account.transaction() as tx:
        rows = await tx.execute(query, {"account": account.id, "segment": str(segment_id)})
        return Counter((row.contact_id, row.name.removeprefix("segment.")) for row in rows)


async def reconciled(account: TestAccount, segment_id: UUID) -> bool:
    """Do the members, the events, the size and the figures of the hours say the same?"""
    events_say = Counter({"entered": 0, "left": 0})
    standing: Counter[UUID] = Counter()
    for (contact, name), n in (await told(account, segment_id)).items():
        events_say[name] += n
        standing[contact] += n if name == "entered" else -n
    query = text("""
        SELECT size, (SELECT count(*) FROM segment_members WHERE segment_id = :id) AS members,
            coalesce((SELECT sum(entered) FROM segment_hours WHERE segment_id = :id), 0) AS entered,
            coalesce((SELECT sum(left_out) FROM segment_hours WHERE segment_id = :id), 0) AS left,
            (SELECT hours.size FROM segment_hours AS hours WHERE segment_id = :id ORDER BY hour DESC LIMIT 1) AS newest
        FROM segments WHERE id = :id
    """)
    async with account.transaction() as tx:
        row = (await tx.execute(query, {"id": segment_id})).one()
        inside = set(
            (
                await tx.execute(
                    text("SELECT contact_id FROM segment_members WHERE segment_id = :id"), {"id": segment_id}
                )
            ).scalars()
        )
    return (
        {contact for contact, n in standing.items() if n == 1} == inside
        and set(standing.values()) <= {0, 1}
        and (row.entered, row.left) == (events_say["entered"], events_say["left"])
        and row.size == row.members == row.entered - row.left == (row.newest or 0)
    )
