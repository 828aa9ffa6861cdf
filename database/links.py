"""Which number has an address among the links of a source?"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection

# Whoever numbers links of the same source waits, so that none gets two numbers or takes another's.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('links of ' || CAST(:source_id AS text), 0))")

# An automation that lives for years, with a template that is edited each week, may use them up.
LAST_NUMBER = 32_767

_ADD = text(f"""
    INSERT INTO links (account_id, campaign_id, number, url)
    SELECT :account_id, :source_id, first + place - 1, url
    FROM (SELECT coalesce(max(number) + 1, 0) AS first FROM links WHERE campaign_id = :source_id) AS next,
        unnest(CAST(:urls AS text[])) WITH ORDINALITY AS new (url, place)
    WHERE first + place - 1 <= {LAST_NUMBER}
""")

_READ = text("SELECT url, min(number) AS number FROM links WHERE campaign_id = :source_id GROUP BY url")


async def numbered(tx: Connection, account_id: UUID, source_id: UUID, urls: Sequence[str]) -> list[int | None]:
    """The number of each of these addresses; those that have none yet get one, as long as there are any."""
    await tx.execute(_LOCK, {"source_id": str(source_id)})
    known = {row.url: row.number for row in await tx.execute(_READ, {"source_id": source_id})}
    if new := [url for url in dict.fromkeys(urls) if url not in known]:
        await tx.execute(_ADD, {"account_id": account_id, "source_id": source_id, "urls": new})
        known = {row.url: row.number for row in await tx.execute(_READ, {"source_id": source_id})}
    return [known.get(url) for url in urls]
