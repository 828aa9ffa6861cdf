"""What the code of a cohort's members was told, in parts, where it is too much for what one run hands to the next."""

from uuid import UUID

from sqlalchemy import text

from database.engine import Connection

_KEEP = text("""
    INSERT INTO journals (account_id, source_id, cohort, part, content)
    VALUES (:account_id, :source_id, :cohort, :part, :content)
    ON CONFLICT (source_id, cohort, part) DO UPDATE SET content = EXCLUDED.content
""")
_READ = text("SELECT content FROM journals WHERE source_id = :source_id AND cohort = :cohort AND part = :part")
_FORGET = text("DELETE FROM journals WHERE source_id = :source_id AND cohort = :cohort")


async def keep(tx: Connection, account_id: UUID, source_id: UUID, cohort: int, part: int, content: str) -> None:
    """Instead of what was kept under this number by a run that nobody knows of any more."""
    of = {"account_id": account_id, "source_id": source_id, "cohort": cohort}
    await tx.execute(_KEEP, {**of, "part": part, "content": content})


async def read(tx: Connection, source_id: UUID, cohort: int, part: int) -> str:
    of = {"source_id": source_id, "cohort": cohort, "part": part}
    content: str = (await tx.execute(_READ, of)).scalar_one()
    return content


async def forget(tx: Connection, source_id: UUID, cohort: int) -> None:
    """The cohort is over."""
    await tx.execute(_FORGET, {"source_id": source_id, "cohort": cohort})
