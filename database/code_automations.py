"""Who is inside automations that are written in Python, and in which version?"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, Database
from database.stored_segments import VERSIONS_AT_WORK, User

_ACCOUNTS = text("SELECT DISTINCT account_id FROM open_sources() ORDER BY account_id")
_INSIDE = text("""
    SELECT account_id, automations.id, automations.code, enrollments.version, count(*) AS contacts
    FROM automations JOIN enrollments USING (account_id)
    WHERE source_id = automations.id AND code IS NOT NULL AND left_at IS NULL AND cohort IS NOT NULL
    GROUP BY account_id, automations.id, automations.code, enrollments.version
    ORDER BY automations.code, enrollments.version, automations.id
""")
_AT_WORK = text(f"""
    SELECT DISTINCT automations.id, name FROM {VERSIONS_AT_WORK}
    AND (code, automation_versions.version) IN (SELECT * FROM unnest(CAST(:names AS text[]), CAST(:versions AS int[])))
    ORDER BY id LIMIT 20
""")


@dataclass(frozen=True)
class InsideCode:
    """The contacts of an account who are in one version."""

    account_id: UUID
    id: UUID
    code: str
    version: int
    contacts: int


async def inside(database: Database) -> list[InsideCode]:
    """Over all accounts."""
    found: list[InsideCode] = []
    async with database.transaction(None) as tx:
        accounts = list((await tx.execute(_ACCOUNTS)).scalars())
    for account_id in accounts:
        async with database.transaction(account_id) as tx:
            found += [InsideCode(**row) for row in (await tx.execute(_INSIDE)).mappings()]
    return found


async def at_work(tx: Connection, code: Sequence[tuple[str, int]]) -> list[User]:
    """The automations of the account that were active and are one of these, by name and version; also one in which
    somebody is still inside."""
    if not code:
        return []
    names, versions = zip(*code, strict=True)
    rows = await tx.execute(_AT_WORK, {"names": list(names), "versions": list(versions)})
    return [User("automation", row.id, row.name) for row in rows]
