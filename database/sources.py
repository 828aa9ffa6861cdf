"""What enrolls? Automations, and campaigns of kind `drip`, by their newest version."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text

from database.engine import Connection, Database
from marketing.automations import GoalEvent, Reentry
from marketing.exits import Exit
from marketing.segments import Criteria
from marketing.triggers import Trigger

Kind = Literal["automation", "drip"]
StandingState = Literal["active", "paused", "over"]

# A drip keeps what it comes to as an automation in its plan, and has one version.
_READ = text("""
    SELECT automations.id, 'automation' AS kind, name, state, automations.version, topic, code, definition
    FROM automations JOIN automation_versions ON automation_id = automations.id
        AND automation_versions.version = automations.version
    WHERE automations.id = ANY (:ids) AND deleted_at IS NULL
    UNION ALL
    SELECT id, 'drip', name, CASE WHEN state = 'running' THEN 'active' ELSE state END, 1, plan ->> 'topic', NULL,
        plan -> 'automation'
    FROM campaigns WHERE id = ANY (:ids) AND kind = 'drip' AND launched_at IS NOT NULL AND finished_at IS NULL
""")


class Terms(BaseModel):
    """Who enters, how often, and when somebody leaves. What lets contacts into a drip, only its subjects say."""

    trigger: Trigger | None = None
    entry: Criteria | None = None
    reentry: Reentry = "once"
    goal: GoalEvent | None = None
    goals: tuple[GoalEvent, ...] = ()  # of a drip
    exit_on: tuple[Exit, ...] = ()


@dataclass(frozen=True)
class Source:
    """An automation or a drip, as far as it matters to whom it enrolls and who leaves."""

    id: UUID
    kind: Kind
    name: str
    state: str  # of a drip that runs: active too
    version: int
    topic: str | None
    code: str | None
    definition: dict[str, Any]

    @cached_property
    def terms(self) -> Terms:
        return Terms.model_validate({key: self.definition[key] for key in Terms.model_fields if key in self.definition})

    @cached_property
    def goals(self) -> tuple[GoalEvent, ...]:
        """Whoever does one of these has reached the goal."""
        return (*self.terms.goals, *([self.terms.goal] if self.terms.goal else []))

    @cached_property
    def channels(self) -> frozenset[str]:
        """On which it sends; of what is written in Python nobody knows, so it is e-mail."""
        return frozenset({"email"} if self.code else _channels(self.definition.get("steps", [])))


def _channels(part: Any) -> set[str]:
    """Of all messages in there, however deep."""
    if isinstance(part, list):
        return set().union(*map(_channels, part))
    if not isinstance(part, dict):
        return set()
    if part.get("type") == "send":
        return {part.get("channel", "email")}
    return set().union(*map(_channels, part.values()))


async def read(tx: Connection, ids: Collection[UUID]) -> dict[UUID, Source]:
    """Those of them that there are; drips only while they run."""
    return {row.id: Source(*row) for row in await tx.execute(_READ, {"ids": list(ids)})}


_STANDING: Mapping[Kind, Any] = {
    "automation": text("""
        SELECT name, state_reason AS reason, CASE WHEN deleted_at IS NULL THEN state END AS state, EXISTS (
            SELECT FROM cohorts WHERE source_id = :id AND state = 'open' AND ended_at IS NOT NULL
        ) AS cancelled
        FROM automations WHERE id = :id
    """),
    "drip": text("SELECT name, state_reason AS reason, state, false AS cancelled FROM campaigns WHERE id = :id"),
}
_STATES: Mapping[str | None, StandingState] = {"active": "active", "running": "active", "paused": "paused"}


@dataclass(frozen=True)
class Standing:
    """How a source stands, why, and what people call it; `over`: it lets nobody in, and nobody goes on."""

    state: StandingState
    reason: str
    name: str
    cancelled: bool = False  # cohorts are that, and have not ended yet


async def standing(tx: Connection, kind: Kind, source_id: UUID) -> Standing:
    """One that is not there (any more) is over."""
    row = (await tx.execute(_STANDING[kind], {"id": source_id})).one_or_none()
    if row is None:
        return Standing("over", "", "")
    return Standing(_STATES.get(row.state, "over"), row.reason, row.name, row.cancelled)


@dataclass(frozen=True)
class OpenSource:
    """One whose workflow must be alive."""

    account_id: UUID
    source_id: UUID
    kind: Kind
    state: str
    pending: bool  # somebody waits to be taken into a cohort


async def open_sources(database: Database) -> list[OpenSource]:
    """Those of all accounts."""
    async with database.transaction(None) as tx:
        rows = await tx.execute(text("SELECT account_id, source_id, kind, state, pending FROM open_sources()"))
        return [OpenSource(*row) for row in rows]


@dataclass(frozen=True)
class OpenCohort:
    """A cohort with somebody inside; `begun`: any of them has taken a step."""

    account_id: UUID
    source_id: UUID
    kind: Kind
    cohort: int
    begun: bool


async def open_cohorts(database: Database, before: datetime) -> list[OpenCohort]:
    """Those of all accounts that were formed before this moment."""
    async with database.transaction(None) as tx:
        query = text("SELECT account_id, source_id, kind, cohort, begun FROM open_cohorts(:before)")
        return [OpenCohort(*row) for row in await tx.execute(query, {"before": before})]
