"""Who is inside automations that are written in Python, and in which version?"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from database.engine import Database

_ACCOUNTS = text("SELECT DISTINCT account_id FROM open_sources() ORDER BY account_id")
_INSIDE = text("""
    SELECT account_id, automations.id, automations.code, enrollments.version, count(*) AS contacts
    FROM automations JOIN enrollments USING (account_id)
    WHERE source_id = automations.id AND code IS NOT NULL AND left_at IS NULL AND cohort IS NOT NULL
    GROUP BY account_id, automations.id, automations.code, enrollments.version
    ORDER BY automations.code, enrollments.version, automations.id
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
