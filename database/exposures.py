"""Who came by which split of a journey, and which way it led each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, plan_anew


@dataclass(frozen=True)
class Split:
    """Members of a cohort whom a split has led the same way at the same moment."""

    members: Sequence[int]
    step: str
    variant: str
    at: datetime


# The first time counts: whoever passes again goes the same way.
_RECORD = text("""
    INSERT INTO exposures (account_id, source_id, step, contact_id, variant, exposed_at)
    SELECT DISTINCT ON (contact_id, step) enrolled.account_id, :source_id, step, contact_id, variant, at
    FROM unnest(CAST(:members AS smallint[]), CAST(:numbers AS int[])) AS told (member, number)
    JOIN unnest(CAST(:steps AS text[]), CAST(:variants AS text[]), CAST(:moments AS timestamptz[]))
        WITH ORDINALITY AS ways (step, variant, at, number) USING (number)
    CROSS JOIN LATERAL (
        SELECT account_id, contact_id FROM enrollments
        WHERE source_id = :source_id AND cohort = :cohort AND enrollments.member = told.member LIMIT 1
    ) AS enrolled  -- a look each, as in notes
    ORDER BY contact_id, step, at
    ON CONFLICT (source_id, step, contact_id) DO NOTHING
""")


async def record(tx: Connection, source_id: UUID, cohort: int, splits: Sequence[Split]) -> None:
    """Keep where splits have led. Told again, it changes nothing."""
    if not splits:
        return
    await plan_anew(tx)
    await tx.execute(
        _RECORD,
        {
            "source_id": source_id,
            "cohort": cohort,
            "steps": [each.step for each in splits],
            "variants": [each.variant for each in splits],
            "moments": [each.at for each in splits],
            "members": [member for each in splits for member in each.members],
            "numbers": [number for number, each in enumerate(splits, 1) for _ in each.members],
        },
    )
