"""Who may enter, and who may not? The one way into an automation or a drip, whatever leads there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from database import cohorts, notifications, step_counters
from database.engine import Connection, plan_anew
from database.segments import condition, plan_well
from database.sources import Source
from marketing.automations import After
from marketing.exits import ExitIf
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind
from marketing.segments import Criterion
from marketing.spans import ago

# A contact that passes through more than so many in an hour goes round in a circle.
MOST_IN_AN_HOUR = 50
MOST_REPORTED = 100  # contacts at a time: whoever reads of so many knows what to do
MOST_NAMED = 5  # automations


@dataclass(frozen=True)
class Candidate:
    """Somebody whom something leads to a source. The same `cause` enrolls once, however often it is told."""

    contact_id: UUID
    cause: str
    event_id: UUID | None = None
    trigger: Mapping[str, Any] = field(default_factory=dict)  # the properties of that event
    old: bool = False  # it happened so long ago that nobody would know why
    at: datetime | None = None  # when we were told of it, if not now


# Told before is who has this cause already: nothing happens. Of several causes of one contact the first that lets it in
# counts, for it is inside then.
_ENROLL = """
    WITH asked AS MATERIALIZED (
        SELECT asked.*, before.* FROM unnest(
            CAST(:contacts AS uuid[]), CAST(:causes AS text[]), CAST(:events AS uuid[]), CAST(:triggers AS jsonb[]),
            CAST(:olds AS boolean[]), CAST(:moments AS timestamptz[])
        ) WITH ORDINALITY AS asked (contact_id, cause, event_id, trigger, old, at, n)
        JOIN contacts ON contacts.id = asked.contact_id AND contacts.deleted_at IS NULL
        -- A look each. As a join it is planned by statistics that do not know of the last minute, and compares all with
        -- all: 200 ms for a thousand among three thousand.
        CROSS JOIN LATERAL (
            SELECT count(*) AS passes, max(entered_at) AS last_entered_at, bool_or(left_at IS NULL) AS inside,
                   bool_or(enrollments.cause = asked.cause) AS told
            FROM enrollments WHERE source_id = :source_id AND enrollments.contact_id = asked.contact_id
        ) AS before WHERE told IS NOT true
    ), lately AS MATERIALIZED (
        SELECT contact_id FROM enrollments
        WHERE contact_id = ANY (CAST(:contacts AS uuid[]))
        AND entered_at > CAST(:now AS timestamptz) - interval '1 hour' GROUP BY contact_id HAVING count(*) >= :most
    ), judged AS MATERIALIZED (
        SELECT asked.*, passes + 1 AS pass, CASE
            WHEN asked.old THEN 'old'
            WHEN NOT :active THEN 'paused'
            WHEN inside THEN 'inside'
            WHEN last_entered_at > CAST(:again_since AS timestamptz) THEN 'once'
            WHEN ({fits}) IS NOT TRUE THEN 'entry'
            WHEN {leaves} THEN 'exit'
            WHEN asked.contact_id IN (SELECT contact_id FROM lately) THEN 'runaway'
        END AS refused
        FROM asked
    ), enrolled AS (
        INSERT INTO enrollments
            (account_id, source_id, version, contact_id, pass, cause, event_id, trigger, entered_at)
        SELECT DISTINCT ON (contact_id) CAST(:account_id AS uuid), CAST(:source_id AS uuid), CAST(:version AS int),
            contact_id, pass, cause, event_id, trigger, coalesce(at, CAST(:now AS timestamptz))
        FROM judged WHERE refused IS NULL ORDER BY contact_id, n
        ON CONFLICT DO NOTHING RETURNING contact_id, cause
    )
    SELECT CASE WHEN enrolled.cause IS NOT NULL THEN 'enrolled' ELSE coalesce(refused, 'inside') END AS outcome,
        count(*) AS n, array_agg(contact_id) AS contacts
    FROM judged LEFT JOIN enrolled USING (contact_id, cause) GROUP BY 1
"""


async def enroll(
    tx: Connection,
    account_id: UUID,
    source: Source,
    candidates: Sequence[Candidate],
    *,
    now: datetime,
    prune: bool = True,
) -> Counter[str]:
    """Have those enter who may, and count them and the others.

    Args:
        prune: whether the ids of events tell when they happened: not where `now` is ahead of the database's clock.

    Returns:
        how many were `enrolled`, and how many not: `old`, `paused`, `inside`, `once`, `runaway`, `entry`, `exit`.
    """
    found = await enroll_each(tx, account_id, source, candidates, now=now, prune=prune)
    return Counter({outcome: len(contacts) for outcome, contacts in found.items()})


async def enroll_each(
    tx: Connection,
    account_id: UUID,
    source: Source,
    candidates: Sequence[Candidate],
    *,
    now: datetime,
    prune: bool = True,
) -> dict[str, list[UUID]]:
    """The same, and who they are."""
    if not candidates:
        return {}
    await plan_anew(tx)
    await cohorts.let_go(tx, account_id, source.id, {each.contact_id for each in candidates}, now=now)
    terms = source.terms
    parameters: dict[str, Any] = {}

    async def holds(criteria: Criterion, prefix: str) -> str:
        await plan_well(tx, criteria)
        belongs, given = condition(criteria, now=now, prefix=prefix, among="contacts", prune=prune)
        parameters.update(given)
        return f"asked.contact_id IN (SELECT contacts.id FROM contacts WHERE {belongs})"

    fits = await holds(terms.entry, "entry_") if terms.entry else "true"
    exits = [each.if_ for each in terms.exit_on if isinstance(each, ExitIf)]
    leaves = " OR ".join([await holds(each, f"exit_{number}_") for number, each in enumerate(exits)]) or "false"
    given = {
        **parameters,
        "account_id": account_id,
        "source_id": source.id,
        "version": source.version,
        "contacts": [each.contact_id for each in candidates],
        "causes": [each.cause for each in candidates],
        "events": [each.event_id for each in candidates],
        "triggers": [orjson.dumps(each.trigger).decode() for each in candidates],
        "olds": [each.old for each in candidates],
        "moments": [each.at for each in candidates],
        "active": source.state == "active",
        "again_since": _again_since(terms.reentry, now),
        "most": MOST_IN_AN_HOUR,
        "now": now,
    }
    rows = (await tx.execute(text(_ENROLL.format(fits=fits, leaves=leaves)), given)).all()
    outcomes = Counter({row.outcome: row.n for row in rows})
    found: dict[str, list[UUID]] = {row.outcome: row.contacts for row in rows}
    if runaways := found.get("runaway"):
        await _report(tx, account_id, source, runaways, now)
    names = {name if name == "enrolled" else f"refused:{name}": n for name, n in outcomes.items()}
    amounts = {(step_counters.PASS, name): step_counters.Amount(n) for name, n in names.items()}
    await step_counters.add(tx, account_id, source.id, source.version, amounts, now=now)
    return found


def _again_since(reentry: object, now: datetime) -> datetime | str:
    """Whoever has entered after this may not enter again."""
    if isinstance(reentry, After):
        return ago(now, reentry.after)
    return "-infinity" if reentry == "once" else "infinity"


_LED_ROUND = text("""
    SELECT contact_id, array_agg(DISTINCT coalesce(automations.name, campaigns.name)) AS names FROM enrollments
    LEFT JOIN automations ON automations.id = source_id LEFT JOIN campaigns ON campaigns.id = source_id
    WHERE contact_id = ANY (CAST(:contacts AS uuid[]))
    AND entered_at > CAST(:now AS timestamptz) - interval '1 hour' GROUP BY contact_id
""")


async def _report(tx: Connection, account_id: UUID, source: Source, contacts: Sequence[UUID], now: datetime) -> None:
    """Tell the people of the account of each contact, once an hour."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    rows = await tx.execute(_LED_ROUND, {"contacts": sorted(set(contacts))[:MOST_REPORTED], "now": now})
    told = [
        Notification(
            id=keyed_id(hour, account_id, NotificationKind.STOPPED, row.contact_id),
            kind=NotificationKind.STOPPED,
            source_id=source.id,
            text=f"“{source.name}” did not take in contact {row.contact_id}, who was enrolled {MOST_IN_AN_HOUR} times"
            f" in an hour, in {_listed(row.names)}: do automations set each other off?",
            created_at=now,
            emailed_at=None,
        )
        for row in rows
    ]
    await notifications.add(tx, account_id, told)


def _listed(names: Sequence[str]) -> str:
    few, more = names[:MOST_NAMED], len(names) - MOST_NAMED
    return ", ".join(f"“{each}”" for each in few) + (f" and {more} more" if more > 0 else "")
