"""How do openings and clicks get on record? A whole group of them in one transaction."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import orjson
from sqlalchemy import text

from database import counters
from database.engine import Connection
from marketing.hits import Delivery, Earlier, Findings, Firsts, Hit, changes, judge
from marketing.machines import BURST, Action

# Locked in the order of ids, so that two groups never wait for each other. A message leaves after it was leased and
# before its outcome is recorded; until then the lease is the best word we have on when.
_DELIVERIES = text("""
    SELECT id, campaign_id, contact_id, channel, step, variant, coalesce(finished_at, leased_at) AS sent_at,
           opened_at, clicked_at
    FROM deliveries WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")

_LINKS = text("""
    SELECT campaign_id, number, url FROM links
    WHERE campaign_id = ANY(CAST(:campaigns AS uuid[])) AND number = ANY(CAST(:numbers AS int[]))
""")

_EARLIER = text("""
    SELECT id, name, delivery_id, occurred_at, machine, CAST(properties->>'link' AS int) AS link FROM events
    WHERE delivery_id = ANY(CAST(:ids AS uuid[])) AND occurred_at >= :since
    AND (name = 'message.clicked' OR properties ? 'implied')
""")

_RECORD = text("""
    INSERT INTO events (account_id, name, contact_id, campaign_id, delivery_id, occurred_at, machine, properties)
    SELECT :account_id, hit.* FROM unnest(
        CAST(:names AS text[]), CAST(:contacts AS uuid[]), CAST(:campaigns AS uuid[]), CAST(:deliveries AS uuid[]),
        CAST(:moments AS timestamptz[]), CAST(:machines AS bool[]), CAST(:properties AS jsonb[])
    ) AS hit
""")

_CORRECT = text("""
    UPDATE events SET machine = true, properties = properties || '{"sign": "burst"}'
    WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_SETTLE = text("""
    UPDATE deliveries SET opened_at = first.opened_at, clicked_at = first.clicked_at
    FROM unnest(CAST(:ids AS uuid[])) AS unsettled (id)
    CROSS JOIN LATERAL (
        SELECT min(occurred_at) FILTER (WHERE name = 'message.opened') AS opened_at,
               min(occurred_at) FILTER (WHERE name = 'message.clicked') AS clicked_at
        FROM events WHERE delivery_id = unsettled.id AND NOT machine
    ) AS first
    WHERE deliveries.id = unsettled.id
    RETURNING deliveries.id, first.opened_at, first.clicked_at
""")


async def store(tx: Connection, account_id: UUID, hits: Sequence[Hit]) -> list[str | None]:
    """Put a group of one account's hits on record, and correct what they show to have been a machine's.

    Returns:
        for each hit where it leads: the address for a click, '' for an opening, None if there is no such delivery
        or link, in which case nothing was stored for it.
    """
    deliveries = await _lock(tx, hits)
    hits = await _with_urls(tx, hits, deliveries)
    known = [hit for hit in hits if hit.url is not None]
    if known:
        findings = judge(known, deliveries, await _earlier(tx, known))
        await _record(tx, account_id, findings)
        firsts = await _settle(tx, findings.unsettled(deliveries))
        for where, amounts in changes(findings, deliveries, firsts).items():
            await counters.add(
                tx,
                account_id,
                where.campaign_id,
                amounts,
                now=where.hour,
                channel=where.channel,
                step=where.step,
                variant=where.variant,
            )
    return [hit.url for hit in hits]


async def _lock(tx: Connection, hits: Iterable[Hit]) -> dict[UUID, Delivery]:
    rows = await tx.execute(_DELIVERIES, {"ids": list({hit.delivery_id for hit in hits})})
    return {row.id: Delivery(*row) for row in rows}


async def _with_urls(tx: Connection, hits: Sequence[Hit], deliveries: Mapping[UUID, Delivery]) -> list[Hit]:
    """The same hits, each with the address that it leads to; an opening leads nowhere: ''."""
    wanted = {
        (deliveries[hit.delivery_id].campaign_id, hit.link)
        for hit in hits
        if hit.action is Action.CLICK and hit.url is None and hit.delivery_id in deliveries
    }
    links: dict[tuple[UUID, int], str] = {}
    if wanted:
        campaigns, numbers = zip(*wanted, strict=True)
        rows = await tx.execute(_LINKS, {"campaigns": list(set(campaigns)), "numbers": list(set(numbers))})
        links = {(row.campaign_id, row.number): row.url for row in rows}

    def leads_to(hit: Hit) -> str | None:
        if hit.delivery_id not in deliveries:
            return None
        if hit.action is Action.OPEN:
            return ""
        return hit.url or links.get((deliveries[hit.delivery_id].campaign_id, hit.link))

    return [hit._replace(url=leads_to(hit)) for hit in hits]


async def _earlier(tx: Connection, hits: Iterable[Hit]) -> list[Earlier]:
    clicks = [hit for hit in hits if hit.action is Action.CLICK]
    if not clicks:
        return []
    since = min(click.at for click in clicks) - BURST
    rows = await tx.execute(_EARLIER, {"ids": list({click.delivery_id for click in clicks}), "since": since})
    return [Earlier(*row) for row in rows]


async def _record(tx: Connection, account_id: UUID, findings: Findings) -> None:
    events = findings.events
    await tx.execute(
        _RECORD,
        {
            "account_id": account_id,
            "names": [event.name for event in events],
            "contacts": [event.delivery.contact_id for event in events],
            "campaigns": [event.delivery.campaign_id for event in events],
            "deliveries": [event.delivery.id for event in events],
            "moments": [event.at for event in events],
            "machines": [event.machine for event in events],
            "properties": [orjson.dumps(event.properties).decode() for event in events],
        },
    )
    if findings.machines_after_all:
        await tx.execute(_CORRECT, {"ids": [each.event_id for each in findings.machines_after_all]})


async def _settle(tx: Connection, unsettled: Sequence[UUID]) -> dict[UUID, Firsts]:
    if not unsettled:
        return {}
    rows = await tx.execute(_SETTLE, {"ids": unsettled})
    return {row.id: Firsts(row.opened_at, row.clicked_at) for row in rows}
