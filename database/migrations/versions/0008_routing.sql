-- The queue of what happened to whom that some automation or drip looks at. Like `contact_touches` it is filled by
-- triggers, in the transaction that changes something; unlike there, each event has a row of its own.

CREATE TABLE journey_touches (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    account_id UUID NOT NULL,
    contact_id UUID NOT NULL,
    subject TEXT NOT NULL,
    event_id UUID,
    bulk BOOLEAN DEFAULT false NOT NULL,
    touched_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT journey_touches_pkey PRIMARY KEY (id)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_insert_threshold = -1,
       autovacuum_vacuum_cost_delay = 0);
CREATE INDEX journey_touches_account_id_bulk_id_idx ON journey_touches (account_id, bulk, id);

ALTER TABLE journey_touches ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_account ON journey_touches TO carillon_app USING (account_id = (SELECT current_account()))
    WITH CHECK (account_id = (SELECT current_account()));
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON journey_touches TO carillon_app;

-- What machines did is nobody's doing. Who enters or leaves a segment has an event of it, by which it is known once.
CREATE FUNCTION tell_journeys_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    looked text[];
BEGIN
    IF NOT EXISTS (SELECT FROM automation_subjects) THEN
        RETURN NULL;
    END IF;
    looked := array(
        SELECT subject FROM (
            SELECT DISTINCT 'event:' || name FROM changed UNION ALL
            SELECT DISTINCT name || ':' || (properties ->> 'segment_id') FROM changed
            WHERE name IN ('segment.entered', 'segment.left')
        ) AS happened (subject)
        WHERE EXISTS (SELECT FROM automation_subjects WHERE automation_subjects.subject = happened.subject));
    IF looked <> '{}' THEN
        INSERT INTO journey_touches (account_id, contact_id, subject, event_id, bulk)
        SELECT account_id, contact_id, subject, id, (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed CROSS JOIN LATERAL (VALUES ('event:' || name), (
            CASE WHEN name IN ('segment.entered', 'segment.left') THEN name || ':' || (properties ->> 'segment_id') END
        )) AS happened (subject)
        WHERE contact_id IS NOT NULL AND NOT machine AND subject = ANY (looked);
    END IF;
    RETURN NULL;
END $$;

-- For each contact only what somebody looks at is compared. Without nested loops, as in touch_fields.
CREATE FUNCTION tell_journeys_of_changes() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
    looked text[];
BEGIN
    IF NOT EXISTS (SELECT FROM automation_subjects) OR NOT EXISTS (SELECT FROM changed) THEN
        RETURN NULL;
    END IF;
    looked := array(
        SELECT DISTINCT subject FROM automation_subjects WHERE subject LIKE 'contact.%' OR subject LIKE 'tag:%');
    IF looked <> '{}' THEN
        INSERT INTO journey_touches (account_id, contact_id, subject, bulk)
        SELECT changed.account_id, id, subject, (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed JOIN before USING (id) CROSS JOIN unnest(looked) AS subject
        WHERE CASE subject
            WHEN 'contact.deleted' THEN changed.deleted_at IS NOT NULL AND before.deleted_at IS NULL
            WHEN 'contact.email' THEN changed.email IS DISTINCT FROM before.email
            WHEN 'contact.phone' THEN changed.phone IS DISTINCT FROM before.phone
            WHEN 'contact.external_id' THEN changed.external_id IS DISTINCT FROM before.external_id
            WHEN 'contact.first_name' THEN changed.first_name IS DISTINCT FROM before.first_name
            WHEN 'contact.last_name' THEN changed.last_name IS DISTINCT FROM before.last_name
            WHEN 'contact.country' THEN changed.country IS DISTINCT FROM before.country
            WHEN 'contact.locale' THEN changed.locale IS DISTINCT FROM before.locale
            WHEN 'contact.timezone' THEN changed.timezone IS DISTINCT FROM before.timezone
            WHEN 'contact.tags' THEN changed.tags IS DISTINCT FROM before.tags
            ELSE CASE
                WHEN subject LIKE 'tag:%' THEN
                    substr(subject, 5) = ANY (changed.tags) AND substr(subject, 5) <> ALL (before.tags)
                WHEN subject LIKE 'contact.attributes.%' THEN
                    changed.attributes -> substr(subject, 20) IS DISTINCT FROM before.attributes -> substr(subject, 20)
            END
        END;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION tell_journeys_of_newcomers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    looked text[] := array(SELECT DISTINCT substr(subject, 5) FROM automation_subjects WHERE subject LIKE 'tag:%');
BEGIN
    IF looked <> '{}' THEN
        INSERT INTO journey_touches (account_id, contact_id, subject, bulk)
        SELECT account_id, id, 'tag:' || tag, (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed CROSS JOIN unnest(tags) AS tag WHERE tags && looked AND tag = ANY (looked);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION tell_journeys_of_deletions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM automation_subjects WHERE subject = 'contact.deleted') THEN
        INSERT INTO journey_touches (account_id, contact_id, subject, bulk)
        SELECT account_id, id, 'contact.deleted', (SELECT comes_in_bulk(count(*)) FROM changed) FROM changed;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION tell_journeys_of_refusals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM automation_subjects WHERE subject = 'unsubscribed') THEN
        INSERT INTO journey_touches (account_id, contact_id, subject, bulk)
        SELECT DISTINCT account_id, contact_id, 'unsubscribed', (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed WHERE status = 'unsubscribed';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER tell_journeys_inserted AFTER INSERT ON events
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_journeys_of_events();
CREATE TRIGGER tell_journeys_inserted AFTER INSERT ON contacts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_journeys_of_newcomers();
CREATE TRIGGER tell_journeys_updated AFTER UPDATE ON contacts
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_journeys_of_changes();
CREATE TRIGGER tell_journeys_deleted AFTER DELETE ON contacts
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_journeys_of_deletions();
CREATE TRIGGER tell_journeys_inserted AFTER INSERT ON subscriptions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_journeys_of_refusals();
CREATE TRIGGER tell_journeys_updated AFTER UPDATE ON subscriptions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_journeys_of_refusals();

-- Pages of one state read no others, and whoever takes in those who are pending finds them here too.
DROP INDEX enrollments_pending_idx;
CREATE INDEX enrollments_source_id_state_id_idx ON enrollments (source_id, state, id);

-- What is asked over all accounts.

-- The accounts of one of so many lanes for which something waits, as touched_accounts.
CREATE FUNCTION journey_touched_accounts(lane int, lanes int) RETURNS TABLE (account_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ WITH RECURSIVE waiting AS (
              (SELECT t.account_id FROM journey_touches t ORDER BY t.account_id LIMIT 1)
              UNION ALL
              SELECT next.account_id FROM waiting CROSS JOIN LATERAL (
                  SELECT t.account_id FROM journey_touches t WHERE t.account_id > waiting.account_id
                  ORDER BY t.account_id LIMIT 1
              ) AS next
          )
          SELECT waiting.account_id FROM waiting WHERE abs(uuid_hash(waiting.account_id)::bigint) % lanes = lane $$;

CREATE FUNCTION journey_touches_waiting() RETURNS TABLE (touches bigint, seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT (SELECT count(*) FROM journey_touches),
                 coalesce((SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8 FROM journey_touches
                           ORDER BY id LIMIT 1), 0) $$;

-- The automations and drips that enroll, or have somebody inside, and whether anybody is pending. If somebody is after a
-- cancel, they are still being let go, some at a time.
CREATE FUNCTION open_sources() RETURNS TABLE (account_id uuid, source_id uuid, kind text, state text, pending boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT source.account_id, source.id, source.kind, source.state, waiting.pending
          FROM (SELECT a.account_id, a.id, 'automation', a.state, a.deleted_at IS NULL AND a.state <> 'draft'
                FROM automations a
                UNION ALL
                SELECT c.account_id, c.id, 'drip', c.state, true FROM campaigns c
                WHERE c.kind = 'drip' AND c.finished_at IS NULL AND c.launched_at IS NOT NULL
               ) AS source (account_id, id, kind, state, goes_on) CROSS JOIN LATERAL (
                SELECT EXISTS (SELECT FROM enrollments e WHERE e.source_id = source.id AND e.state = 'pending')
               ) AS waiting (pending)
          WHERE goes_on OR pending $$;

-- The cohorts that were formed before a moment and are not over, and whether any of those inside has taken a step.
CREATE FUNCTION open_cohorts(before timestamptz) RETURNS TABLE (account_id uuid, source_id uuid, kind text, cohort int,
                                                                begun boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT c.account_id, c.source_id,
                 CASE WHEN EXISTS (SELECT FROM campaigns WHERE id = c.source_id) THEN 'drip' ELSE 'automation' END,
                 c.number, EXISTS (
              SELECT FROM enrollments e JOIN enrollment_steps s ON s.enrollment_id = e.id
              WHERE e.source_id = c.source_id AND e.cohort = c.number AND e.left_at IS NULL)
          FROM cohorts c WHERE c.state = 'open' AND c.started_at < before $$;

-- Drips are no broadcasts: open_sources tells of them.
CREATE OR REPLACE FUNCTION open_campaigns() RETURNS TABLE (account_id uuid, campaign_id uuid, state text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT campaigns.account_id, id, campaigns.state FROM campaigns
          WHERE finished_at IS NULL AND launched_at IS NOT NULL AND kind <> 'drip' $$;

-- For /metrics: for how long the enrollment that waits longest, of what is under way, has waited for a cohort, and how
-- many cohorts are open.
CREATE FUNCTION journeys_under_way() RETURNS TABLE (oldest float8, cohorts bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT coalesce((SELECT max(extract(epoch FROM clock_timestamp() - waiting.entered_at))::float8
                           FROM open_sources() AS source CROSS JOIN LATERAL (
                               SELECT e.entered_at FROM enrollments e
                               WHERE e.source_id = source.source_id AND e.state = 'pending' ORDER BY e.id LIMIT 1
                           ) AS waiting WHERE source.state IN ('active', 'running')), 0),
                 (SELECT count(*) FROM cohorts c WHERE c.state = 'open') $$;
