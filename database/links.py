"""Which number has an address among the links of a source?"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection

# Whoever numbers links of the same source waits, so that none gets two numbers or takes another's.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('links of ' || CAST(:source_id AS text), 0))")

_ADD = text("""
    INSERT INTO links (account_id, campaign_id, number, url)
    SELECT :account_id, :source_id, (SELECT coalesce(max(number) + 1, 0) FROM links WHERE campaign_id = :source_id)
        + place - 1, url
    FROM unnest(CAST(:urls AS text[])) WITH ORDINALITY AS new (url, place)
""")

_READ = text("SELECT url, min(number) AS number FROM links WHERE campaign_id = :source_id GROUP BY url")


async def numbered(tx: Connection, account_id: UUID, source_id: UUID, urls: Sequence[str]) -> list[int]:
    """The number of each of these addresses; those that have none yet get one."""
    await tx.execute(_LOCK, {"source_id": str(source_id)})
    known = {row.url: row.number for row in await tx.execute(_READ, {"source_id": source_id})}
    if new := [url for url in dict.fromkeys(urls) if url not in known]:
        await tx.execute(_ADD, {"account_id": account_id, "source_id": source_id, "urls": new})
        known = {row.url: row.number for row in await tx.execute(_READ, {"source_id": source_id})}
    return [known[url] for url in urls]
