ALTER TABLE accounts
    ADD COLUMN create_unknown_contacts BOOLEAN DEFAULT true NOT NULL,
    ADD COLUMN event_retention_days INTEGER DEFAULT 730 NOT NULL,
    ADD CONSTRAINT accounts_event_retention_days_check CHECK (event_retention_days BETWEEN 30 AND 3650);

-- The least id that is drawn at a moment or after it: what is kept by id can be asked for by time.
CREATE FUNCTION uuidv7_floor(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT (lpad(to_hex(floor(least(greatest(
              extract(epoch FROM moment) * 1000, 0), 281474976710655))::bigint), 12, '0')
              || '70008000000000000000')::uuid $$;

-- -- the table ------------------------------------------------------------------------------------------------------

ALTER TABLE events RENAME TO events_in_one;
ALTER INDEX events_pkey RENAME TO events_in_one_pkey;
DROP INDEX events_campaign_idx, events_contact_idx, events_delivery_idx;

-- No foreign key to accounts: it would be checked row by row, and each new partition would lock that table.
CREATE TABLE events (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    contact_id UUID,
    campaign_id UUID,
    delivery_id UUID,
    occurred_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    machine BOOLEAN DEFAULT false NOT NULL,
    properties JSONB DEFAULT '{}'::jsonb NOT NULL,
    value NUMERIC,
    currency TEXT,
    CONSTRAINT events_pkey PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- Most events say that a message was sent. Of its campaign and of the message itself the ledger tells that better, so
-- these two indexes do without them: a third of what such an event costs.
CREATE INDEX events_campaign_idx ON events (campaign_id, id) WHERE campaign_id IS NOT NULL AND name <> 'message.sent';
CREATE INDEX events_delivery_idx ON events (delivery_id, occurred_at)
    WHERE delivery_id IS NOT NULL AND name <> 'message.sent';
CREATE INDEX events_contact_idx ON events (contact_id, name, occurred_at) WHERE contact_id IS NOT NULL;
-- With what most segments ask, so that they need not read the events themselves: totals take two thirds of the time,
-- an event 3 % more of the log.
CREATE INDEX events_name_idx ON events (account_id, name, occurred_at) INCLUDE (contact_id, machine, value);

-- What nobody has made a partition for is kept all the same.
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- Which event an idempotency key stands for, and what was told of it, as a hash: whoever tells something else with the
-- same key is refused. BRIN, for ids come in order: old keys are found at next to no cost.
CREATE TABLE event_keys (
    account_id UUID NOT NULL,
    key TEXT NOT NULL,
    event_id UUID NOT NULL,
    told BYTEA NOT NULL,
    CONSTRAINT event_keys_pkey PRIMARY KEY (account_id, key)
);
CREATE INDEX event_keys_event_idx ON event_keys USING brin (event_id);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['events', 'event_keys'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_account ON %I TO carillon_app USING (account_id = (SELECT current_account()))
                        WITH CHECK (account_id = (SELECT current_account()))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON %I TO carillon_app', name);
    END LOOP;
END $$;

-- -- its partitions -------------------------------------------------------------------------------------------------

-- One month of events, in UTC; whether there was none before. Attached, not created in place, so that the parent is
-- locked against other changes of its shape alone: reading and writing go on. But who writes into a month that has begun
-- waits: that row was on its way into the default partition, which may not have it any more.
CREATE FUNCTION make_event_partition(moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    month timestamptz := date_trunc('month', moment, 'UTC');
    name text := 'events_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
    first uuid := uuidv7_floor(month);
    beyond uuid := uuidv7_floor(date_add(month, interval '1 month', 'UTC'));
BEGIN
    LOCK TABLE ONLY public.events IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(format('public.%I', name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    IF month <= clock_timestamp() THEN
        LOCK TABLE ONLY public.events IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.events INCLUDING ALL)', name);
    LOCK TABLE public.events_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH moved AS (DELETE FROM public.events_default WHERE id >= %L AND id < %L RETURNING *)
                    INSERT INTO public.%I SELECT * FROM moved', first, beyond, name);
    EXECUTE format('ALTER TABLE public.events ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   name, first, beyond);
    RETURN true;
END $$;

-- This month, so many months ahead, and every month that the default partition holds rows of; how many are new.
CREATE FUNCTION make_event_partitions(months integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public SET lock_timeout = '1s' AS $$
DECLARE
    last timestamptz := date_add(date_trunc('month', now(), 'UTC'), make_interval(months => months), 'UTC');
    month timestamptz;
    made integer := 0;
BEGIN
    -- First of all: two that had both read the default partition would wait for each other to write there.
    LOCK TABLE ONLY public.events IN SHARE UPDATE EXCLUSIVE MODE;
    FOR month IN
        SELECT generate_series(date_trunc('month', now(), 'UTC'), last, interval '1 month', 'UTC')
        UNION
        SELECT date_trunc('month', uuid_extract_timestamp(id), 'UTC') FROM public.events_default
        WHERE uuid_extract_timestamp(id) < last
    LOOP
        made := made + public.make_event_partition(month)::integer;
    END LOOP;
    RETURN made;
END $$;

-- The partitions that are older than any account keeps its events; how many there were.
CREATE FUNCTION drop_event_partitions() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public SET lock_timeout = '1s' AS $$
DECLARE
    kept_from timestamptz;
    name text;
    dropped integer := 0;
BEGIN
    SELECT now() - make_interval(days => max(event_retention_days)) INTO kept_from FROM public.accounts;
    FOR name IN
        SELECT relname FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'public.events'::regclass AND relname ~ '^events_\d{4,}_\d\d$'
        AND date_add(to_date(substr(relname, 8), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC', interval '1 month', 'UTC')
            <= kept_from
    LOOP
        EXECUTE format('DROP TABLE public.%I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

-- How long which account keeps its events.
CREATE FUNCTION event_retentions() RETURNS TABLE (account_id uuid, days integer)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT id, event_retention_days FROM public.accounts $$;

-- Up to so many keys go whose events are older than their account keeps them; how many went.
CREATE FUNCTION forget_event_keys(most integer) RETURNS integer
    LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
    WITH gone AS (
        DELETE FROM public.event_keys WHERE ctid = ANY (ARRAY(
            SELECT event_keys.ctid FROM public.event_keys JOIN public.accounts ON accounts.id = event_keys.account_id
            WHERE event_id < (SELECT uuidv7_floor(now() - make_interval(days => min(event_retention_days)))
                              FROM public.accounts)
            AND event_id < uuidv7_floor(now() - make_interval(days => event_retention_days))
            LIMIT most
        )) RETURNING 1
    )
    SELECT count(*)::integer FROM gone $$;

REVOKE EXECUTE ON FUNCTION make_event_partition, make_event_partitions, drop_event_partitions, forget_event_keys
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_event_partitions, drop_event_partitions, forget_event_keys TO carillon_app;

-- -- what there is already ------------------------------------------------------------------------------------------

SELECT make_event_partitions(3);
SELECT make_event_partition(month) FROM (
    SELECT DISTINCT date_trunc('month', uuid_extract_timestamp(id), 'UTC') AS month FROM events_in_one
    UNION
    SELECT DISTINCT date_trunc('month', finished_at, 'UTC') FROM deliveries
    WHERE state IN ('sent', 'failed', 'uncertain') AND finished_at > now() - interval '730 days'
) AS months WHERE month < now();

INSERT INTO events (id, account_id, name, contact_id, campaign_id, delivery_id, occurred_at, machine, properties)
SELECT id, account_id, name, contact_id, campaign_id, delivery_id, occurred_at, machine, properties FROM events_in_one;
DROP TABLE events_in_one;

-- From here on they are written with each set of messages.
INSERT INTO events (id, account_id, name, contact_id, campaign_id, delivery_id, occurred_at, properties)
SELECT uuidv7(finished_at - clock_timestamp()), account_id, 'message.' || state, contact_id, campaign_id, id,
       finished_at, jsonb_strip_nulls(jsonb_build_object('channel', channel, 'reason', reason))
FROM deliveries
WHERE state IN ('sent', 'failed', 'uncertain') AND finished_at > now() - interval '730 days'
ORDER BY finished_at;
