"""Who is on the way through a source, at which step, and what became of each pass: what people read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database import journals, step_counters
from database.deliveries import skip_of_left
from database.engine import Connection, after_commit, plan_anew
from database.step_counters import Amount
from telemetry import metrics


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One of a cohort."""

    member: int
    id: UUID
    contact_id: UUID
    version: int
    state: str
    reason: str | None  # why it has left
    event_id: UUID | None  # that it began with
    has_left: bool


async def members(tx: Connection, source_id: UUID, cohort: int, numbers: Sequence[int]) -> dict[int, Enrolled]:
    """By their numbers in the cohort."""
    await plan_anew(tx)
    rows = await tx.execute(_MEMBERS, {"source_id": source_id, "cohort": cohort, "members": list(set(numbers))})
    return {row[0]: Enrolled(*row) for row in rows}


_MEMBERS = text("""
    SELECT member, id, contact_id, version, state, reason, event_id, left_at IS NOT NULL FROM enrollments
    WHERE source_id = :source_id AND cohort = :cohort AND member = ANY (CAST(:members AS smallint[]))
""")


# -- what is noted ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noted:
    """A step that several are in, or have ended, at the same moments."""

    members: Sequence[int]
    calls: Sequence[int]  # of each of them
    step: str
    kind: str
    entered_at: datetime
    left_at: datetime | None
    due_at: datetime | None
    outcome: str
    error: str
    broken_off: bool = False  # it did not end by itself


@dataclass(frozen=True)
class Over:
    """Passes that are over in the same way."""

    members: Sequence[int]
    state: str
    at: datetime
    reason: str
    problem: str
    converted: bool


# Each row says whether this is its first or its last note, so that figures count either once however often it is told.
_STEPS = text("""
    WITH kinds AS (
        SELECT * FROM unnest(
            CAST(:steps AS text[]), CAST(:kinds AS text[]), CAST(:entered AS timestamptz[]),
            CAST(:left AS timestamptz[]), CAST(:due AS timestamptz[]), CAST(:outcomes AS text[]),
            CAST(:errors AS text[]), CAST(:broken_off AS boolean[])
        ) WITH ORDINALITY AS kinds (step, kind, entered_at, left_at, due_at, outcome, error, broken_off, number)
    ), told AS MATERIALIZED (
        SELECT enrollments.id AS enrollment_id, enrollments.account_id, told.call, kinds.* FROM unnest(
            CAST(:members AS smallint[]), CAST(:calls AS int[]), CAST(:numbers AS int[])
        ) AS told (member, call, number)
        JOIN kinds USING (number)
        CROSS JOIN LATERAL (
            SELECT id, account_id FROM enrollments
            WHERE source_id = :source_id AND cohort = :cohort AND enrollments.member = told.member LIMIT 1
        ) AS enrollments  -- a look each: what is planned for a cohort without statistics compares all with all
    ), kept AS (
        INSERT INTO enrollment_steps AS known
            (account_id, enrollment_id, call, step, kind, entered_at, left_at, outcome, error)
        SELECT account_id, enrollment_id, call, step, kind, entered_at, left_at, outcome, nullif(error, '') FROM told
        ORDER BY enrollment_id, call
        ON CONFLICT (enrollment_id, call) DO UPDATE
            SET left_at = EXCLUDED.left_at, outcome = EXCLUDED.outcome, error = EXCLUDED.error
            WHERE known.left_at IS NULL
        RETURNING old.call IS NULL AS is_new, new.enrollment_id, new.call,
                  extract(epoch FROM new.left_at - new.entered_at)::float8 AS seconds
    ), counted AS (
        SELECT step, is_new, seconds,
               CASE WHEN broken_off THEN 'broken_off' WHEN error = '' THEN 'done' ELSE 'failed' END AS became
        FROM kept JOIN told USING (enrollment_id, call)
    ), standing AS (
        SELECT DISTINCT ON (enrollment_id) enrollment_id, step, entered_at, CASE WHEN left_at IS NULL THEN due_at END
            AS due_at FROM told ORDER BY enrollment_id, left_at IS NULL DESC, call DESC
    ), moved AS (
        UPDATE enrollments SET version = :version, step = standing.step, step_at = standing.entered_at,
            due_at = standing.due_at
        FROM standing WHERE enrollments.id = standing.enrollment_id
        -- In one condition: statistics of a minute ago know of few inside, and the planner would begin with those.
        AND CASE WHEN enrollments.left_at IS NULL THEN coalesce(enrollments.step_at, '-infinity') ELSE 'infinity' END
            <= standing.entered_at
    ), met AS (
        DELETE FROM enrollment_waits USING told
        WHERE told.kind = 'wait_for' AND told.left_at IS NOT NULL
        AND enrollment_waits.enrollment_id = told.enrollment_id AND enrollment_waits.call = told.call
    )
    SELECT step, count(*) FILTER (WHERE is_new) AS entered,
           count(seconds) FILTER (WHERE became = 'done') AS done,
           count(seconds) FILTER (WHERE became = 'failed') AS failed,
           count(seconds) FILTER (WHERE became = 'broken_off') AS broken_off,
           coalesce(sum(seconds) FILTER (WHERE became = 'done'), 0) AS done_seconds,
           coalesce(sum(seconds) FILTER (WHERE became = 'failed'), 0) AS failed_seconds,
           coalesce(sum(seconds) FILTER (WHERE became = 'broken_off'), 0) AS broken_off_seconds
    FROM counted GROUP BY step ORDER BY step
""")

_LEFT = text("""
    WITH gone AS (
        UPDATE enrollments SET version = :version, state = :state, reason = nullif(:reason, ''),
            problem = nullif(:problem, ''),
            left_at = :at, due_at = NULL, converted_at = CASE WHEN :converted THEN coalesce(converted_at, :at)
                ELSE converted_at END
        WHERE source_id = :source_id AND cohort = :cohort AND member = ANY (CAST(:members AS smallint[]))
        AND left_at IS NULL
        RETURNING new.id, old.converted_at IS NULL AND new.converted_at IS NOT NULL AS converted,
                  extract(epoch FROM new.left_at - new.entered_at)::float8 AS seconds
    ), forgotten AS (
        DELETE FROM enrollment_waits USING gone WHERE enrollment_id = gone.id
    ), broken_off AS (  -- what was under way; what comes of it from now on counts no more
        UPDATE enrollment_steps SET left_at = :at, outcome = coalesce(nullif(:reason, ''), :state), error = NULL
        FROM gone WHERE enrollment_id = gone.id AND enrollment_steps.left_at IS NULL
        RETURNING new.step, extract(epoch FROM new.left_at - new.entered_at)::float8 AS seconds
    )
    SELECT '' AS step, :figure AS name, count(*) AS n, sum(seconds) AS seconds, array_agg(id) AS ids FROM gone
    UNION ALL
    SELECT '', 'converted', count(*), 0, '{}' FROM gone WHERE converted
    UNION ALL
    SELECT step, 'broken_off', count(*), sum(seconds), '{}' FROM broken_off GROUP BY step
""")

_ENDED = text("""
    UPDATE cohorts SET state = 'ended', ended_at = :now
    WHERE source_id = :source_id AND number = :cohort AND state = 'open'
    -- Somebody may have joined it at this very moment.
    AND NOT EXISTS (SELECT FROM enrollments WHERE source_id = :source_id AND cohort = :cohort AND left_at IS NULL)
""")


async def note(
    tx: Connection,
    account_id: UUID,
    source_id: UUID,
    cohort: int,
    *,
    version: int,
    steps: Sequence[Noted] = (),
    left: Sequence[Over] = (),
    ended: bool = False,
    now: datetime,
) -> None:
    """Write down where the members of a cohort are; of no call twice at once. Told again, it changes nothing.

    What was planned for somebody who has left, and nobody has taken yet, is skipped.
    """
    which = {"source_id": source_id, "cohort": cohort}
    figures: dict[tuple[str, str], Amount] = {}

    def count(step: str, name: str, n: int, seconds: float = 0.0) -> None:
        if n:
            before = figures.get((step, name), Amount(0))
            figures[step, name] = Amount(before.n + n, before.seconds + seconds)

    await plan_anew(tx)
    if steps:
        kinds = {each.step: each.kind for each in steps}
        rows = (await tx.execute(_STEPS, {**which, "version": version, **_columns(steps)})).all()
        after_commit(tx, partial(_tell, [(kinds[row.step], row.done, row.failed) for row in rows]))
        for row in rows:
            count(row.step, "entered", row.entered)
            count(row.step, "done", row.done, row.done_seconds)
            count(row.step, "failed", row.failed, row.failed_seconds)
            count(row.step, "broken_off", row.broken_off, row.broken_off_seconds)
    gone: list[UUID] = []
    for each in left:
        figure = f"{each.state}:{each.reason}" if each.state == "exited" and each.reason else each.state
        of = {**which, "version": version, "figure": figure, **vars(each), "members": list(each.members)}
        for row in await tx.execute(_LEFT, of):
            count(row.step, row.name, row.n, row.seconds)
            gone += row.ids or ()
    # Last of all, and once each, for all cohorts of a source change the same few rows.
    if gone:
        await skip_of_left(tx, account_id, source_id, gone, now=now)
    await step_counters.add(tx, account_id, source_id, version, figures, now=now)
    if ended:
        await tx.execute(_ENDED, {**which, "now": now})
        await journals.forget(tx, source_id, cohort)


def _tell(taken: Iterable[tuple[str, int, int]]) -> None:
    for kind, done, failed in taken:
        metrics.steps.labels(kind, "done").inc(done)
        metrics.steps.labels(kind, "failed").inc(failed)


def _columns(steps: Sequence[Noted]) -> dict[str, Any]:
    return {
        "steps": [each.step for each in steps],
        "kinds": [each.kind for each in steps],
        "entered": [each.entered_at for each in steps],
        "left": [each.left_at for each in steps],
        "due": [each.due_at for each in steps],
        "outcomes": [each.outcome.replace("\0", "") for each in steps],
        "errors": [each.error.replace("\0", "") for each in steps],
        "broken_off": [each.broken_off for each in steps],
        "members": [member for each in steps for member in each.members],
        "calls": [call for each in steps for call in each.calls],
        "numbers": [number for number, each in enumerate(steps, 1) for _ in each.members],
    }
