"""The people of an import: staged by COPY, then merged into the contacts, each set in one transaction."""

from typing import Any, cast
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from database.engine import Connection
from database.schema import import_people
from marketing.import_columns import CHANNELS, SINGLE_FIELDS, Claim
from marketing.import_rows import OTHER_KEYS, claimed
from marketing.imports import ImportCounts

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
# The columns of a staged person that come from the file, and their types.
_TYPES = {
    column.name: column.type.compile(_DIALECT)
    for column in import_people.columns
    if column.name not in ("account_id", "import_id")
}
_COLUMNS = ", ".join(_TYPES)
_CLAIMS = [f"{channel}_claim" for channel in CHANNELS]

# -- staging ---------------------------------------------------------------------------------------------------------

# COPY refuses tables with row-level security, so it fills a table of this transaction alone. One JSON document per
# line, quoted by characters that JSON never contains: the text goes through as it is.
_INCOMING = "CREATE TEMPORARY TABLE incoming (document jsonb) ON COMMIT DROP"
_COPY = "COPY incoming FROM STDIN (FORMAT csv, DELIMITER E'\\x1f', QUOTE E'\\x1e')"

_CLASHES = " UNION ALL ".join(
    f"""
        SELECT line, raw, '{claimed(kind)}' AS reason FROM arrived WHERE {kind} IS NOT NULL AND (
            SELECT true FROM import_people AS known WHERE known.import_id = :import_id
            AND known.{kind} = arrived.{kind} AND known.key <> arrived.key LIMIT 1)"""
    for kind in OTHER_KEYS
)

_STAGE = text(f"""
    WITH arrived AS MATERIALIZED (
        SELECT person.* FROM incoming, jsonb_to_record(document)
            AS person ({", ".join(f"{name} {kind}" for name, kind in _TYPES.items())})
    ), clashes AS ({_CLASHES}
    ), rejected AS (
        INSERT INTO import_rejects (account_id, import_id, line, raw, reason)
        SELECT DISTINCT ON (line) :account_id, :import_id, line, raw, reason FROM clashes
        RETURNING line
    ), staged AS (
        INSERT INTO import_people AS known (account_id, import_id, {_COLUMNS})
        SELECT :account_id, :import_id, {_COLUMNS} FROM arrived
        WHERE line NOT IN (SELECT line FROM rejected) ORDER BY line
        ON CONFLICT (import_id, key) DO UPDATE SET
            {
    ", ".join(f"{n} = coalesce(excluded.{n}, known.{n})" for n in (*SINGLE_FIELDS, "consent_at", "consent_where"))
},
            {", ".join(f"{name} = greatest(excluded.{name}, known.{name})" for name in _CLAIMS)},
            attributes = known.attributes || excluded.attributes,
            tags = known.tags || array(SELECT t FROM unnest(excluded.tags) AS t WHERE t <> ALL (known.tags))
        RETURNING old.line IS NOT NULL AS again
    )
    SELECT (SELECT count(*) FROM rejected) AS rejected, (SELECT count(*) FROM staged WHERE again) AS duplicates
""")


async def stage(tx: Connection, account_id: UUID, import_id: UUID, documents: bytes) -> ImportCounts:
    """Lay these people (`Batch.documents`) beside, or over, those of earlier rows.

    Returns:
        how many were duplicates, and how many were rejected for a phone number or id that is another person's.
    """
    await tx.execute(text(_INCOMING))
    connection = cast(AsyncConnection[Any], (await tx.get_raw_connection()).driver_connection)
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        await copy.write(documents)
    row = (await tx.execute(_STAGE, {"account_id": account_id, "import_id": import_id})).one()
    return ImportCounts(rejected=row.rejected, duplicates=row.duplicates)


# -- merging ---------------------------------------------------------------------------------------------------------

_MERGING = """
    CREATE TEMPORARY TABLE merging (LIKE import_people, known boolean, contact_id uuid, reason text) ON COMMIT DROP
"""

# Who of the contacts is it? The external id knows best, then the e-mail address, then the phone number; but the phone
# number of a contact with another e-mail address is that contact's.
# Sub-selects, not joins: each person is looked up in an index, of which ANALYZE (below) makes it the right one.
_FOUND_BY = ", ".join(
    f"""
            (SELECT id FROM contacts AS c WHERE c.account_id = :account_id AND c.{column} = coming.{name}
             AND c.deleted_at IS NULL) AS by_{name}"""
    for name, column in (("external_id", "external_id"), ("email", "email_key"), ("phone", "phone"))
)

_MATCH = text(f"""
    WITH coming AS MATERIALIZED (
        SELECT * FROM import_people WHERE import_id = :import_id AND line > :after ORDER BY line LIMIT :most
    ), matched AS MATERIALIZED (
        SELECT *, {_FOUND_BY}
        FROM coming
    ), found AS (
        SELECT *, coalesce(by_external_id, by_email, by_phone) AS found FROM matched
    )
    INSERT INTO merging (account_id, import_id, {_COLUMNS}, known, contact_id, reason)
    SELECT account_id, import_id, {_COLUMNS}, found IS NOT NULL, coalesce(found, uuidv7()), CASE
        WHEN by_email <> by_external_id THEN 'Its email is that of another contact than its external id'
        WHEN by_phone <> coalesce(by_external_id, by_email)
            OR (coalesce(by_external_id, by_email) IS NULL
                AND (SELECT c.email FROM contacts AS c WHERE c.id = by_phone) <> email)
            THEN 'Its phone is that of another contact'
        WHEN found IS NOT NULL AND line > first_value(line) OVER (PARTITION BY found ORDER BY line)
            THEN 'It is about the same contact as an earlier row with another address'
    END FROM found ORDER BY line
""")

_REACHED = text("SELECT max(line) AS line, count(*) AS people FROM merging")

_REJECT = text("""
    WITH refused AS (DELETE FROM merging WHERE reason IS NOT NULL RETURNING account_id, import_id, line, raw, reason)
    INSERT INTO import_rejects (account_id, import_id, line, raw, reason) SELECT * FROM refused
""")


def _merge() -> str:
    kept = {name: f"coalesce(excluded.{name}, c.{name})" for name in SINGLE_FIELDS}
    kept["attributes"] = "c.attributes || excluded.attributes"
    names = ", ".join((*kept, "tags"))
    return f"""
    WITH upserted AS (
        INSERT INTO contacts AS c (id, account_id, {names})
        SELECT contact_id, account_id, {names} FROM merging ORDER BY line
        ON CONFLICT (id) DO UPDATE SET
            {", ".join(f"{name} = {value}" for name, value in kept.items())},
            tags = c.tags || array(SELECT t FROM unnest(excluded.tags) AS t WHERE t <> ALL (c.tags)),
            updated_at = now()
        WHERE {" OR ".join(f"{value} IS DISTINCT FROM c.{name}" for name, value in kept.items())}
            OR NOT excluded.tags <@ c.tags
        RETURNING c.id, old.id IS NULL AS added
    ), claims AS (
        SELECT account_id, contact_id, known, line, channel, claim, address, consent_at, consent_where
        FROM merging CROSS JOIN LATERAL (VALUES
            ('email', email_claim, email), ('sms', sms_claim, phone), ('whatsapp', whatsapp_claim, phone)
        ) AS claimed (channel, claim, address)
        WHERE claim IS NOT NULL
    ), protected AS (
        SELECT DISTINCT contact_id FROM claims WHERE known AND claim IN ({Claim.SUBSCRIBED}, {Claim.PENDING}) AND (
            (SELECT s.status = 'unsubscribed' FROM subscriptions AS s
             WHERE s.contact_id = claims.contact_id AND s.channel = claims.channel AND s.topic = '')
            OR (SELECT true FROM suppressions AS s WHERE s.account_id = claims.account_id
                AND s.channel = claims.channel AND s.address = claims.address))
    ), subscribed AS (
        INSERT INTO subscriptions AS s
            (account_id, contact_id, channel, status, consent_at, consent_how, consent_where, proof)
        SELECT account_id, contact_id, channel,
            CASE claim WHEN {Claim.SUBSCRIBED} THEN 'subscribed' WHEN {Claim.PENDING} THEN 'pending'
                ELSE 'unsubscribed' END,
            coalesce(consent_at, now()), 'import', coalesce(consent_where, ''),
            jsonb_build_object('line', line) || CAST(:proof AS jsonb)
        FROM claims WHERE claim IN ({Claim.SUBSCRIBED}, {Claim.PENDING}, {Claim.UNSUBSCRIBED}) ORDER BY line
        ON CONFLICT (contact_id, channel, topic) DO UPDATE SET
            status = excluded.status, consent_at = excluded.consent_at, consent_how = excluded.consent_how,
            consent_where = excluded.consent_where, updated_at = now(),
            proof = excluded.proof || jsonb_build_object('before', jsonb_build_object(
                'status', s.status, 'at', s.consent_at, 'how', s.consent_how, 'where', s.consent_where))
        WHERE (s.status <> 'unsubscribed' AND excluded.status = 'unsubscribed')
            OR (s.status = 'pending' AND excluded.status = 'subscribed')
        RETURNING contact_id
    ), suppressed AS (
        INSERT INTO suppressions (account_id, channel, address, reason, detail)
        SELECT account_id, channel, address, 'bounced', 'import' FROM claims WHERE claim = {Claim.CLEANED}
        ON CONFLICT DO NOTHING RETURNING channel, address
    ), touched AS (
        SELECT id FROM upserted UNION SELECT contact_id FROM subscribed
        UNION SELECT contact_id FROM claims JOIN suppressed USING (channel, address)
    )
    SELECT (SELECT count(*) FROM merging) AS people, (SELECT count(*) FROM upserted WHERE added) AS added,
        (SELECT count(*) FROM touched) AS touched, (SELECT count(*) FROM protected) AS protected
    """


_MERGE = text(_merge())


async def merge(
    tx: Connection, account_id: UUID, import_id: UUID, *, after: int, most: int, proof: dict[str, str]
) -> tuple[ImportCounts, int | None]:
    """Lay the next staged people, at most `most`, over the contacts. What the file leaves empty stays as it is, and
    whoever unsubscribed stays unsubscribed.

    Args:
        after: the line up to which people are merged.
        proof: what is noted, beside the line, with each subscription.

    Returns:
        what became of them, and the line that is merged now; None if nobody was left.
    """
    await tx.execute(text(_MERGING))
    await tx.execute(_MATCH, {"account_id": account_id, "import_id": import_id, "after": after, "most": most})
    reached = (await tx.execute(_REACHED)).one()
    if not reached.people:
        return ImportCounts(), None
    await tx.execute(_REJECT)
    row = (await tx.execute(_MERGE, {"proof": orjson.dumps(proof).decode()})).one()
    counts = ImportCounts(
        added=row.added,
        updated=row.touched - row.added,
        unchanged=row.people - row.touched,
        rejected=reached.people - row.people,
        protected=row.protected,
    )
    return counts, reached.line


async def analyze(tx: Connection, *tables: str) -> None:
    """Tell the planner how many rows there are by now. In a first import it takes these tables for empty, and any of
    their indexes for as good as the right one: 70 s instead of 0.1 s for 8,000 people."""
    await tx.execute(text(f"ANALYZE {', '.join(tables)}"))
