-- Segments, who belongs to them, and the queue of what changed for whom.

CREATE TABLE segments (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CONSTRAINT segments_kind_check CHECK (kind IN ('static', 'dynamic')),
    description TEXT DEFAULT '' NOT NULL,
    criteria JSONB,
    depends_on_time BOOLEAN DEFAULT false NOT NULL,
    state TEXT DEFAULT 'building' NOT NULL CONSTRAINT segments_state_check CHECK (state IN ('building', 'ready')),
    problem TEXT DEFAULT '' NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    retry_at TIMESTAMP WITH TIME ZONE,
    size BIGINT DEFAULT 0 NOT NULL,
    settled_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT segments_pkey PRIMARY KEY (id),
    CONSTRAINT segments_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50);
CREATE INDEX segments_account_id_id_idx ON segments (account_id, id);

CREATE TABLE segment_subjects (
    account_id UUID NOT NULL,
    subject TEXT NOT NULL,
    segment_id UUID NOT NULL,
    CONSTRAINT segment_subjects_pkey PRIMARY KEY (account_id, subject, segment_id),
    CONSTRAINT segment_subjects_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT segment_subjects_segment_id_fkey FOREIGN KEY(segment_id) REFERENCES segments (id) ON DELETE CASCADE
);
CREATE INDEX segment_subjects_segment_id_idx ON segment_subjects (segment_id);

CREATE TABLE segment_members (
    account_id UUID NOT NULL,
    segment_id UUID NOT NULL,
    contact_id UUID NOT NULL,
    entered_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT segment_members_pkey PRIMARY KEY (segment_id, contact_id)
);
CREATE INDEX segment_members_contact_id_idx ON segment_members (contact_id);

CREATE TABLE contact_touches (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    account_id UUID NOT NULL,
    contact_id UUID NOT NULL,
    subjects TEXT[] NOT NULL,
    bulk BOOLEAN DEFAULT false NOT NULL,
    touched_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT contact_touches_pkey PRIMARY KEY (id)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_insert_threshold = -1,
       autovacuum_vacuum_cost_delay = 0);
CREATE INDEX contact_touches_account_id_bulk_id_idx ON contact_touches (account_id, bulk, id);

CREATE TABLE segment_hours (
    account_id UUID NOT NULL,
    segment_id UUID NOT NULL,
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    entered BIGINT DEFAULT 0 NOT NULL,
    left_out BIGINT DEFAULT 0 NOT NULL,
    size BIGINT DEFAULT 0 NOT NULL,
    drift BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT segment_hours_pkey PRIMARY KEY (segment_id, hour),
    CONSTRAINT segment_hours_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT segment_hours_segment_id_fkey FOREIGN KEY(segment_id) REFERENCES segments (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['segments', 'segment_subjects', 'segment_members', 'contact_touches', 'segment_hours'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_account ON %I TO carillon_app USING (account_id = (SELECT current_account())) '
                       'WITH CHECK (account_id = (SELECT current_account()))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON %I TO carillon_app', name);
    END LOOP;
END $$;

-- What changes, for whom: put into the queue in the same transaction, whoever writes, and only if a segment looks at it.
-- Each function asks that first. They run with the rights of whoever writes, so they see the segments of one account
-- (the owner of the tables sees all, and touches a few too many).

-- Whether these touches wait behind the rest: an import must not hold up what people do meanwhile. Whoever writes may
-- say so for the transaction, for people who come at the same moment are not yet a list, and what an import causes is
-- still an import's. Else it is what changes by more than 20 rows at a time.
CREATE FUNCTION comes_in_bulk(rows bigint) RETURNS boolean LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('carillon.bulk', true), '')::boolean, rows > 20) $$;

CREATE FUNCTION touch_existence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    looked text[] := array(
        SELECT DISTINCT subject FROM segment_subjects
        WHERE subject = 'contact' OR (subject = 'contact.deleted_at' AND TG_OP = 'DELETE'));
BEGIN
    IF looked <> '{}' THEN
        INSERT INTO contact_touches (account_id, contact_id, subjects, bulk)
        SELECT account_id, id, looked, (SELECT comes_in_bulk(count(*)) FROM changed) FROM changed;
    END IF;
    RETURN NULL;
END $$;

-- Without nested loops: the plan is made for the first statement of a session and kept, and where that changed one
-- contact, the next, of 8,000, would compare each with each.
CREATE FUNCTION touch_fields() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
    looked text[];
BEGIN
    IF NOT EXISTS (SELECT FROM segment_subjects) OR NOT EXISTS (SELECT FROM changed) THEN
        RETURN NULL;
    END IF;
    looked := array(
        SELECT subject FROM unnest('{contact, contact.deleted_at, contact.email, contact.phone, contact.external_id,
            contact.first_name, contact.last_name, contact.country, contact.locale, contact.timezone,
            contact.attributes, contact.tags, contact.created_at, contact.updated_at}'::text[]) AS field (subject)
        WHERE EXISTS (SELECT FROM segment_subjects WHERE segment_subjects.subject = field.subject));
    IF looked <> '{}' THEN
        INSERT INTO contact_touches (account_id, contact_id, subjects, bulk)
        SELECT account_id, contact_id, subjects, (SELECT comes_in_bulk(count(*)) FROM changed) FROM (
            SELECT changed.account_id, id AS contact_id, array_remove(ARRAY[
                CASE WHEN changed.deleted_at IS DISTINCT FROM before.deleted_at THEN 'contact' END,
                CASE WHEN changed.deleted_at IS DISTINCT FROM before.deleted_at THEN 'contact.deleted_at' END,
                CASE WHEN changed.email IS DISTINCT FROM before.email THEN 'contact.email' END,
                CASE WHEN changed.phone IS DISTINCT FROM before.phone THEN 'contact.phone' END,
                CASE WHEN changed.external_id IS DISTINCT FROM before.external_id THEN 'contact.external_id' END,
                CASE WHEN changed.first_name IS DISTINCT FROM before.first_name THEN 'contact.first_name' END,
                CASE WHEN changed.last_name IS DISTINCT FROM before.last_name THEN 'contact.last_name' END,
                CASE WHEN changed.country IS DISTINCT FROM before.country THEN 'contact.country' END,
                CASE WHEN changed.locale IS DISTINCT FROM before.locale THEN 'contact.locale' END,
                CASE WHEN changed.timezone IS DISTINCT FROM before.timezone THEN 'contact.timezone' END,
                CASE WHEN changed.attributes IS DISTINCT FROM before.attributes THEN 'contact.attributes' END,
                CASE WHEN changed.tags IS DISTINCT FROM before.tags THEN 'contact.tags' END,
                CASE WHEN changed.created_at IS DISTINCT FROM before.created_at THEN 'contact.created_at' END,
                CASE WHEN changed.updated_at IS DISTINCT FROM before.updated_at THEN 'contact.updated_at' END
            ], NULL) AS subjects
            FROM changed JOIN before USING (id)
        ) AS touched
        WHERE subjects && looked;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION touch_subscribers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM segment_subjects WHERE subject = 'subscriptions') THEN
        INSERT INTO contact_touches (account_id, contact_id, subjects, bulk)
        SELECT DISTINCT account_id, contact_id, '{subscriptions}'::text[], (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed;
    END IF;
    RETURN NULL;
END $$;

-- E-mail addresses and phone numbers cannot be taken for each other.
CREATE FUNCTION touch_suppressed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bulk boolean := (SELECT comes_in_bulk(count(*)) FROM changed);
BEGIN
    IF EXISTS (SELECT FROM segment_subjects WHERE subject = 'suppressions') THEN
        INSERT INTO contact_touches (account_id, contact_id, subjects, bulk)
        SELECT contacts.account_id, contacts.id, '{suppressions}'::text[], bulk FROM contacts JOIN changed
            ON contacts.account_id = changed.account_id AND contacts.email_key = changed.address
            WHERE contacts.deleted_at IS NULL
        UNION
        SELECT contacts.account_id, contacts.id, '{suppressions}'::text[], bulk FROM contacts JOIN changed
            ON contacts.account_id = changed.account_id AND contacts.phone = changed.address
            WHERE contacts.deleted_at IS NULL;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION touch_actors() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    looked text[];
BEGIN
    IF NOT EXISTS (SELECT FROM segment_subjects) THEN
        RETURN NULL;
    END IF;
    looked := array(
        SELECT subject FROM (SELECT DISTINCT 'event:' || name FROM changed) AS happened (subject)
        WHERE EXISTS (SELECT FROM segment_subjects WHERE segment_subjects.subject = happened.subject));
    IF looked <> '{}' THEN
        INSERT INTO contact_touches (account_id, contact_id, subjects, bulk)
        SELECT account_id, contact_id, array_agg(DISTINCT 'event:' || name), (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed
        WHERE contact_id IS NOT NULL AND 'event:' || name = ANY (looked) GROUP BY account_id, contact_id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION touch_members() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    looked text[];
BEGIN
    IF NOT EXISTS (SELECT FROM segment_subjects) THEN
        RETURN NULL;
    END IF;
    looked := array(
        SELECT subject FROM (SELECT DISTINCT 'segment:' || segment_id FROM changed) AS joined (subject)
        WHERE EXISTS (SELECT FROM segment_subjects WHERE segment_subjects.subject = joined.subject));
    IF looked <> '{}' THEN
        INSERT INTO contact_touches (account_id, contact_id, subjects, bulk)
        SELECT account_id, contact_id, array_agg('segment:' || segment_id), (SELECT comes_in_bulk(count(*)) FROM changed)
        FROM changed
        WHERE 'segment:' || segment_id = ANY (looked) GROUP BY account_id, contact_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER touch_inserted AFTER INSERT ON contacts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_existence();
CREATE TRIGGER touch_updated AFTER UPDATE ON contacts
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_fields();
CREATE TRIGGER touch_deleted AFTER DELETE ON contacts
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_existence();

CREATE TRIGGER touch_inserted AFTER INSERT ON subscriptions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_subscribers();
CREATE TRIGGER touch_updated AFTER UPDATE ON subscriptions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_subscribers();
CREATE TRIGGER touch_deleted AFTER DELETE ON subscriptions
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_subscribers();

CREATE TRIGGER touch_inserted AFTER INSERT ON suppressions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_suppressed();
CREATE TRIGGER touch_updated AFTER UPDATE ON suppressions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_suppressed();
CREATE TRIGGER touch_deleted AFTER DELETE ON suppressions
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_suppressed();

-- A click may turn out to have been a machine's, and what an account no longer keeps is deleted.
CREATE TRIGGER touch_inserted AFTER INSERT ON events
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_actors();
CREATE TRIGGER touch_updated AFTER UPDATE ON events
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_actors();
CREATE TRIGGER touch_deleted AFTER DELETE ON events
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_actors();

CREATE TRIGGER touch_inserted AFTER INSERT ON segment_members
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_members();
CREATE TRIGGER touch_deleted AFTER DELETE ON segment_members
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_members();

-- What is asked over all accounts.

-- The accounts of one of so many lanes for which something waits. Hops from account to account: however many rows one
-- of them has waiting, it costs one look into the index.
CREATE FUNCTION touched_accounts(lane int, lanes int) RETURNS TABLE (account_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ WITH RECURSIVE waiting AS (
              (SELECT t.account_id FROM contact_touches t ORDER BY t.account_id LIMIT 1)
              UNION ALL
              SELECT next.account_id FROM waiting CROSS JOIN LATERAL (
                  SELECT t.account_id FROM contact_touches t WHERE t.account_id > waiting.account_id
                  ORDER BY t.account_id LIMIT 1
              ) AS next
          )
          SELECT waiting.account_id FROM waiting WHERE abs(uuid_hash(waiting.account_id)::bigint) % lanes = lane $$;

CREATE FUNCTION touches_waiting() RETURNS TABLE (touches bigint, seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT (SELECT count(*) FROM contact_touches),
                 coalesce((SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8 FROM contact_touches
                           ORDER BY id LIMIT 1), 0) $$;

-- The dynamic segments, those first whose members were computed longest ago.
CREATE FUNCTION kept_segments() RETURNS TABLE (account_id uuid, segment_id uuid, depends_on_time boolean, state text,
                                               settled_at timestamptz, retry_at timestamptz, asks_events boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT s.account_id, s.id, s.depends_on_time, s.state, s.settled_at, s.retry_at,
                 EXISTS (SELECT FROM segment_subjects x WHERE x.segment_id = s.id AND x.subject LIKE 'event:%')
          FROM segments s
          WHERE kind = 'dynamic' AND deleted_at IS NULL ORDER BY s.settled_at NULLS FIRST, s.id $$;
