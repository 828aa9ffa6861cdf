"""May the source of a journey go on, and what bounds its messages?"""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection

Going = Literal["on", "paused", "over"]
_GOING: dict[str | None, Going] = {"active": "on", "running": "on", "paused": "paused"}


@dataclass(frozen=True)
class Standing:
    """An automation or a drip at this moment; `exits` are the criteria of whom it lets go."""

    name: str
    going: Going
    topic: str | None
    rate_limit_per_second: float | None
    max_messages: int | None
    exits: list[dict[str, Any]]


# The criteria are those of the newest version, whichever the contacts are on; a drip has one, in its plan.
_READ = {
    "automation": text("""
        SELECT name, state, topic, NULL::float8 AS rate_limit_per_second, NULL::bigint AS max_messages,
               jsonb_path_query_array(definition, '$.exit_on[*]."if"') AS exits
        FROM automations LEFT JOIN automation_versions
            ON automation_id = id AND automation_versions.version = automations.version
        WHERE id = :source_id AND deleted_at IS NULL
    """),
    "drip": text("""
        SELECT name, state, plan ->> 'topic' AS topic,
               CAST(plan ->> 'rate_limit_per_second' AS float8) AS rate_limit_per_second,
               CAST(plan ->> 'max_messages' AS bigint) AS max_messages,
               jsonb_path_query_array(plan, '$.automation.exit_on[*]."if"') AS exits
        FROM campaigns WHERE id = :source_id AND deleted_at IS NULL
    """),
}


async def read(tx: Connection, kind: str, source_id: UUID) -> Standing:
    """One that is not there (any more) is over."""
    row = (await tx.execute(_READ[kind], {"source_id": source_id})).one_or_none()
    if row is None:
        return Standing("", "over", None, None, None, [])
    bounds = (row.topic, row.rate_limit_per_second, row.max_messages)
    return Standing(row.name, _GOING.get(row.state, "over"), *bounds, row.exits or [])


_STATE = {
    "automation": text("SELECT state FROM automations WHERE id = :source_id AND deleted_at IS NULL"),
    "drip": text("SELECT state FROM campaigns WHERE id = :source_id AND deleted_at IS NULL"),
}


async def going(tx: Connection, kind: str, source_id: UUID) -> Going:
    """By its record, now."""
    return _GOING.get((await tx.execute(_STATE[kind], {"source_id": source_id})).scalar_one_or_none(), "over")
