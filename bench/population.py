"""A made-up population and its year: contacts as varied as real ones, and what they did, the same ones every time."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import psycopg

PIECE = 250_000  # rows per statement, so that a bar can move
SEED = 0.42


@dataclass(frozen=True)
class Loaded:
    """Where they are."""

    account_id: UUID
    segment_id: UUID  # with a third of the contacts


# A third of the people do most of what is done, and everything happens in the order of its time, as it is received.
_CONTACTS = """
    WITH made AS (
        INSERT INTO contacts
            (id, account_id, email, external_id, first_name, last_name, country, locale, timezone, attributes, tags,
             created_at, updated_at)
        SELECT uuidv7(joined - now()), %(account)s, 'person-' || n || '@example.org', 'customer-' || n,
               (ARRAY['Ada', 'Ben', 'Chloé', 'Dana', 'Emil', 'Fatou', 'Gus', 'Hana', 'Iris', 'João'])[1 + n %% 10],
               'Person ' || n,
               (ARRAY['US', 'US', 'US', 'FR', 'FR', 'DE', 'DE', 'GB', 'GB', 'ES', 'IT', 'BR', 'IN', 'JP', 'SE', NULL])
                   [1 + floor(16 * random())::int],
               (ARRAY['en', 'en', 'fr', 'de', 'pt-BR'])[1 + n %% 5], (ARRAY['Europe/Paris', 'UTC'])[1 + n %% 2],
               jsonb_strip_nulls(jsonb_build_object(
                   'plan', CASE WHEN kind < 0.7 THEN 'free' WHEN kind < 0.95 THEN 'pro' ELSE 'business' END,
                   'city', 'Town ' || floor(2000 * random() ^ 2)::int,
                   -- one in fifty is written as text: what sources send is not always what it should be
                   'score', CASE WHEN n %% 50 = 0 THEN to_jsonb('about ' || n %% 100) ELSE to_jsonb(n * 7 %% 101) END,
                   'spent', round((500 * random() ^ 4)::numeric, 2),
                   'newsletter', CASE WHEN n %% 10 > 0 THEN random() < 0.6 END,
                   'birthday', CASE WHEN n %% 3 > 0 THEN date '1945-01-01' + floor(22000 * random())::int END,
                   'renews_at', CASE WHEN kind > 0.7 THEN now() + interval '1 day' * floor(365 * random()) END,
                   'interests', (ARRAY['["art"]', '["music", "art"]', '["sport"]', '["food", "travel", "music"]', '[]'])
                       [1 + floor(5 * random())::int]::jsonb)),
               array_remove(ARRAY[CASE WHEN random() < 0.03 THEN 'vip' END, CASE WHEN random() < 0.3 THEN 'shop' END,
                                  'list-' || n %% 20], NULL),
               joined, joined
        FROM (SELECT n, random() AS kind, now() - interval '1 second' * (94608000 * (1 - n / %(size)s::float)) AS joined
              FROM generate_series(%(first)s::int, %(last)s::int) AS n) AS people
        RETURNING account_id, id, created_at
    )
    INSERT INTO subscriptions (account_id, contact_id, channel, status, consent_at, consent_how)
    SELECT account_id, id, 'email', CASE WHEN random() < 0.9 THEN 'subscribed' ELSE 'unsubscribed' END, created_at,
           'bench'
    FROM made
"""

_EVENTS = """
    INSERT INTO events (id, account_id, name, contact_id, occurred_at, machine, properties, value, currency)
    SELECT uuidv7(done_at - now()), %(account)s, name, numbered.id, done_at, name = 'message.opened' AND random() < 0.2,
           CASE name WHEN 'purchase' THEN jsonb_build_object('sku', 'item-' || floor(300 * random())::int,
                                                             'quantity', 1 + floor(3 * random())::int)
                     WHEN 'page.viewed' THEN jsonb_build_object('path', '/page-' || floor(100 * random())::int)
                     ELSE '{}' END,
           CASE name WHEN 'purchase' THEN round((5 + 300 * random() ^ 3)::numeric, 2) END,
           CASE name WHEN 'purchase' THEN 'EUR' END
    FROM (SELECT CASE WHEN kind < 0.40 THEN 'message.sent' WHEN kind < 0.56 THEN 'message.opened'
                      WHEN kind < 0.61 THEN 'message.clicked' WHEN kind < 0.86 THEN 'page.viewed'
                      WHEN kind < 0.96 THEN 'purchase' WHEN kind < 0.98 THEN 'trial.started' ELSE 'support.asked'
                 END AS name, done_at, who
          FROM (SELECT random() AS kind, 1 + floor(%(people)s * random() ^ 2)::int AS who,
                       now() - interval '1 second' * (31536000 * (1 - n / %(size)s::float)) AS done_at
                FROM generate_series(%(first)s::int, %(last)s::int) AS n) AS drawn) AS done
    JOIN numbered ON numbered.n = done.who
"""


_SEGMENT = """
    WITH made AS (
        INSERT INTO segments (account_id, name, kind, state) VALUES (%(account)s, 'Shoppers', 'static', 'ready')
        RETURNING account_id, id
    ), joined AS (
        INSERT INTO segment_members (account_id, segment_id, contact_id)
        SELECT account_id, made.id, contacts.id FROM made JOIN contacts USING (account_id) WHERE tags @> '{shop}'
    )
    SELECT id FROM made
"""


async def load(database_url: str, people: int, events: int, show: Callable[[int], None]) -> Loaded:
    """An account of its own with so many contacts and events, written straight into the tables.

    Args:
        database_url: of the role that owns the tables.
        show: told how many rows there are so far.
    """
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        made = await connection.execute("INSERT INTO accounts (name) VALUES ('Population') RETURNING id")
        (account,) = await made.fetchone() or (None,)
        await connection.execute(
            "SELECT make_event_partition(now() - make_interval(months => ago)) FROM generate_series(0, 12) AS ago"
        )
        await connection.execute("SET work_mem = '256MB'")
        await connection.execute("SELECT setseed(%s)", [SEED])
        loaded = 0
        for statement, size in ((_CONTACTS, people), (_EVENTS, events)):
            for first in range(1, size + 1, PIECE):
                last = min(size, first + PIECE - 1)
                values = {"account": account, "people": people, "size": size, "first": first, "last": last}
                await connection.execute(statement, values)
                loaded += last + 1 - first
                show(loaded)
            if statement is _CONTACTS:
                await connection.execute("CREATE TEMPORARY TABLE numbered (n int PRIMARY KEY, id uuid)")
                await connection.execute(
                    "INSERT INTO numbered SELECT row_number() OVER (ORDER BY random()), id FROM contacts"
                    " WHERE account_id = %s",
                    [account],
                )
                await connection.execute("ANALYZE numbered")
        (segment,) = await (await connection.execute(_SEGMENT, {"account": account})).fetchone() or (None,)
        await connection.execute("VACUUM ANALYZE contacts, subscriptions, events, segment_members")
    assert account and segment
    return Loaded(account, segment)
