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


# A cohort that was cancelled stays so, whatever state its automation has now.
_STATE = """CASE WHEN EXISTS (
    SELECT FROM cohorts
    WHERE source_id = :source_id AND number = :cohort AND cohorts.state = 'open' AND ended_at IS NOT NULL
) THEN 'cancelled' ELSE automations.state END"""
# The criteria are those of the newest version, whichever the contacts are on; a drip has one, in its plan.
_READ = {
    "automation": text(f"""
        SELECT name, {_STATE} AS state, topic, NULL::float8 AS rate_limit_per_second, NULL::bigint AS max_messages,
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


async def read(tx: Connection, kind: str, source_id: UUID, cohort: int) -> Standing:
    """For a cohort. A source that is not there (any more) is over."""
    row = (await tx.execute(_READ[kind], _given(kind, source_id, cohort))).one_or_none()
    if row is None:
        return Standing("", "over", None, None, None, [])
    bounds = (row.topic, row.rate_limit_per_second, row.max_messages)
    return Standing(row.name, _GOING.get(row.state, "over"), *bounds, row.exits or [])


_GOES_ON = {
    "automation": text(f"SELECT {_STATE} FROM automations WHERE id = :source_id AND deleted_at IS NULL"),
    "drip": text("SELECT state FROM campaigns WHERE id = :source_id AND deleted_at IS NULL"),
}


async def going(tx: Connection, kind: str, source_id: UUID, cohort: int) -> Going:
    """For a cohort, by the record, now."""
    state = (await tx.execute(_GOES_ON[kind], _given(kind, source_id, cohort))).scalar_one_or_none()
    return _GOING.get(state, "over")


def _given(kind: str, source_id: UUID, cohort: int) -> dict[str, Any]:
    return {"source_id": source_id} | ({"cohort": cohort} if kind == "automation" else {})
