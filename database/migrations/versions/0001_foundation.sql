-- The first revision, as it was: later ones change it, and this file stays. database/schema.py shows today's tables.

-- The application's role, once per server: roles are shared by all its databases. It owns nothing.
DO $$ BEGIN
    CREATE ROLE carillon_app NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
GRANT carillon_app TO CURRENT_USER;
GRANT USAGE ON SCHEMA public TO carillon_app;

CREATE TABLE accounts (
    id UUID DEFAULT uuidv7() NOT NULL,
    name TEXT NOT NULL,
    sender_domains TEXT[] DEFAULT '{}' NOT NULL,
    default_timezone TEXT DEFAULT 'UTC' NOT NULL,
    default_locale TEXT DEFAULT 'en' NOT NULL,
    postal_address TEXT DEFAULT '' NOT NULL,
    error_threshold FLOAT DEFAULT 0.05 NOT NULL,
    frequency_caps JSONB DEFAULT '{}'::jsonb NOT NULL,
    quiet_hours JSONB,
    topics JSONB DEFAULT '[]'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (id)
);

CREATE TABLE api_keys (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL CONSTRAINT api_keys_role_check CHECK (role IN ('owner', 'editor', 'viewer')),
    prefix TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT api_keys_secret_hash_key UNIQUE (secret_hash)
);
CREATE INDEX api_keys_account_id_id_idx ON api_keys (account_id, id);

CREATE TABLE idempotency_keys (
    account_id UUID NOT NULL,
    api_key_id UUID NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    body_hash BYTEA,
    status SMALLINT,
    headers JSONB,
    body BYTEA,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account_id, api_key_id, key),
    CONSTRAINT idempotency_keys_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT idempotency_keys_api_key_id_fkey FOREIGN KEY(api_key_id) REFERENCES api_keys (id) ON DELETE CASCADE
);

CREATE TABLE contacts (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    email TEXT,
    email_key TEXT GENERATED ALWAYS AS (lower(email)) STORED,
    phone TEXT,
    external_id TEXT,
    first_name TEXT,
    last_name TEXT,
    country TEXT,
    locale TEXT,
    timezone TEXT,
    attributes JSONB DEFAULT '{}'::jsonb NOT NULL,
    tags TEXT[] DEFAULT '{}' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT contacts_pkey PRIMARY KEY (id),
    CONSTRAINT contacts_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX contacts_account_id_id_idx ON contacts (account_id, id);
CREATE UNIQUE INDEX contacts_email_key ON contacts (account_id, email_key) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX contacts_external_id_key ON contacts (account_id, external_id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX contacts_phone_key ON contacts (account_id, phone) WHERE deleted_at IS NULL;

CREATE TABLE subscriptions (
    account_id UUID NOT NULL,
    contact_id UUID NOT NULL,
    channel TEXT NOT NULL,
    topic TEXT DEFAULT '' NOT NULL,
    status TEXT NOT NULL CONSTRAINT subscriptions_status_check CHECK (status IN ('subscribed', 'unsubscribed', 'pending')),
    consent_at TIMESTAMP WITH TIME ZONE,
    consent_how TEXT,
    consent_where TEXT,
    proof JSONB DEFAULT '{}'::jsonb NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT subscriptions_pkey PRIMARY KEY (contact_id, channel, topic),
    CONSTRAINT subscriptions_contact_id_fkey FOREIGN KEY(contact_id) REFERENCES contacts (id) ON DELETE CASCADE
);

CREATE TABLE suppressions (
    account_id UUID NOT NULL,
    channel TEXT NOT NULL,
    address TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT suppressions_pkey PRIMARY KEY (account_id, channel, address),
    CONSTRAINT suppressions_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE TABLE imports (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    options JSONB DEFAULT '{}'::jsonb NOT NULL,
    state TEXT DEFAULT 'receiving' NOT NULL,
    problem TEXT DEFAULT '' NOT NULL,
    size BIGINT DEFAULT 0 NOT NULL,
    plan JSONB,
    position JSONB DEFAULT '{}'::jsonb NOT NULL,
    merged_line BIGINT DEFAULT 0 NOT NULL,
    counts JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    grown_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT imports_pkey PRIMARY KEY (id),
    CONSTRAINT imports_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX imports_account_id_id_idx ON imports (account_id, id);

CREATE TABLE import_blocks (
    account_id UUID NOT NULL,
    import_id UUID NOT NULL,
    number INTEGER NOT NULL,
    data BYTEA NOT NULL,
    CONSTRAINT import_blocks_pkey PRIMARY KEY (import_id, number),
    CONSTRAINT import_blocks_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT import_blocks_import_id_fkey FOREIGN KEY(import_id) REFERENCES imports (id) ON DELETE CASCADE
);

CREATE TABLE import_people (
    account_id UUID NOT NULL,
    import_id UUID NOT NULL,
    line BIGINT NOT NULL,
    raw TEXT NOT NULL,
    key TEXT NOT NULL,
    email TEXT,
    phone TEXT,
    external_id TEXT,
    first_name TEXT,
    last_name TEXT,
    country TEXT,
    locale TEXT,
    timezone TEXT,
    attributes JSONB DEFAULT '{}'::jsonb NOT NULL,
    tags TEXT[] NOT NULL,
    email_claim SMALLINT,
    sms_claim SMALLINT,
    whatsapp_claim SMALLINT,
    consent_at TIMESTAMP WITH TIME ZONE,
    consent_where TEXT,
    CONSTRAINT import_people_pkey PRIMARY KEY (import_id, line),
    CONSTRAINT import_people_import_id_key_key UNIQUE (import_id, key)
);
CREATE INDEX import_people_external_id_idx ON import_people (import_id, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX import_people_phone_idx ON import_people (import_id, phone) WHERE phone IS NOT NULL;

CREATE TABLE import_rejects (
    account_id UUID NOT NULL,
    import_id UUID NOT NULL,
    line BIGINT NOT NULL,
    raw TEXT NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT import_rejects_pkey PRIMARY KEY (import_id, line),
    CONSTRAINT import_rejects_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT import_rejects_import_id_fkey FOREIGN KEY(import_id) REFERENCES imports (id) ON DELETE CASCADE
);

CREATE TABLE templates (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    channel TEXT NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT templates_pkey PRIMARY KEY (id),
    CONSTRAINT templates_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX templates_account_id_id_idx ON templates (account_id, id);

CREATE TABLE template_versions (
    account_id UUID NOT NULL,
    template_id UUID NOT NULL,
    version INTEGER NOT NULL,
    content JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT template_versions_pkey PRIMARY KEY (template_id, version),
    CONSTRAINT template_versions_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT template_versions_template_id_fkey FOREIGN KEY(template_id) REFERENCES templates (id) ON DELETE CASCADE
);

CREATE TABLE campaigns (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    channels TEXT[] NOT NULL,
    state TEXT DEFAULT 'draft' NOT NULL,
    state_reason TEXT DEFAULT '' NOT NULL,
    definition JSONB DEFAULT '{}'::jsonb NOT NULL,
    plan JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    launched_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT campaigns_pkey PRIMARY KEY (id),
    CONSTRAINT campaigns_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX campaigns_account_id_id_idx ON campaigns (account_id, id);
CREATE INDEX campaigns_open_idx ON campaigns (state) WHERE finished_at IS NULL AND launched_at IS NOT NULL;

CREATE TABLE links (
    account_id UUID NOT NULL,
    campaign_id UUID NOT NULL,
    number SMALLINT NOT NULL,
    url TEXT NOT NULL,
    CONSTRAINT links_pkey PRIMARY KEY (campaign_id, number),
    CONSTRAINT links_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT links_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaigns (id) ON DELETE CASCADE
);

CREATE TABLE deliveries (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    campaign_id UUID NOT NULL,
    step TEXT DEFAULT '' NOT NULL,
    contact_id UUID NOT NULL,
    channel TEXT NOT NULL,
    variant TEXT DEFAULT '' NOT NULL,
    shard INTEGER NOT NULL,
    state TEXT DEFAULT 'planned' NOT NULL,
    reason TEXT,
    reply TEXT,
    attempts SMALLINT DEFAULT 0 NOT NULL,
    not_before TIMESTAMP WITH TIME ZONE NOT NULL,
    lease UUID,
    lease_until TIMESTAMP WITH TIME ZONE,
    leased_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    opened_at TIMESTAMP WITH TIME ZONE,
    clicked_at TIMESTAMP WITH TIME ZONE,
    unsubscribed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT deliveries_pkey PRIMARY KEY (id),
    CONSTRAINT deliveries_campaign_id_contact_id_step_channel_key UNIQUE (campaign_id, contact_id, step, channel)
)
 WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX deliveries_contact_idx ON deliveries (contact_id, leased_at) WHERE leased_at IS NOT NULL;
CREATE INDEX deliveries_lease_idx ON deliveries (campaign_id, shard, not_before) WHERE state = 'planned';
CREATE INDEX deliveries_sending_idx ON deliveries (campaign_id, shard) WHERE state = 'sending';

CREATE TABLE counters (
    account_id UUID NOT NULL,
    campaign_id UUID NOT NULL,
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    channel TEXT NOT NULL,
    step TEXT DEFAULT '' NOT NULL,
    variant TEXT DEFAULT '' NOT NULL,
    name TEXT NOT NULL,
    n BIGINT NOT NULL,
    CONSTRAINT counters_pkey PRIMARY KEY (campaign_id, hour, channel, step, variant, name),
    CONSTRAINT counters_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT counters_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaigns (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50);

CREATE TABLE campaign_meters (
    account_id UUID NOT NULL,
    campaign_id UUID NOT NULL,
    next_slot_at TIMESTAMP WITH TIME ZONE DEFAULT '-infinity' NOT NULL,
    leased BIGINT DEFAULT 0 NOT NULL,
    recent JSONB DEFAULT '[]'::jsonb NOT NULL,
    CONSTRAINT campaign_meters_pkey PRIMARY KEY (campaign_id),
    CONSTRAINT campaign_meters_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT campaign_meters_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaigns (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50);

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
    CONSTRAINT events_pkey PRIMARY KEY (id),
    CONSTRAINT events_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX events_campaign_idx ON events (campaign_id, id) WHERE campaign_id IS NOT NULL;
CREATE INDEX events_contact_idx ON events (contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX events_delivery_idx ON events (delivery_id, occurred_at) WHERE delivery_id IS NOT NULL;

-- Below every query: the application sees only the rows of the account that its transaction named.

CREATE FUNCTION current_account() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('carillon.account_id', true), '')::uuid $$;

DO $$
DECLARE
    name text;
    mine text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'accounts', 'api_keys', 'idempotency_keys', 'contacts',
        'subscriptions', 'suppressions', 'imports', 'import_blocks',
        'import_people', 'import_rejects', 'templates', 'template_versions',
        'campaigns', 'links', 'deliveries', 'counters',
        'campaign_meters', 'events'
    ] LOOP
        -- The sub-select makes PostgreSQL ask once per statement, not once per row.
        mine := format('%I = (SELECT current_account())', CASE name WHEN 'accounts' THEN 'id' ELSE 'account_id' END);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_account ON %I TO carillon_app USING (%s) WITH CHECK (%s)', name, mine, mine);
        -- MAINTAIN, so that who brings in many rows can ANALYZE them: the planner must not take a full table for empty.
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON %I TO carillon_app', name);
    END LOOP;
END $$;

-- The few questions that come before an account is known, answered with the rights of the tables' owner.

CREATE FUNCTION first_account() RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT id FROM accounts ORDER BY id LIMIT 1 $$;

CREATE FUNCTION find_api_key(hash bytea) RETURNS TABLE (key_id uuid, account_id uuid, role text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT id, k.account_id, k.role FROM api_keys k WHERE secret_hash = hash AND revoked_at IS NULL $$;

CREATE FUNCTION open_campaigns() RETURNS TABLE (account_id uuid, campaign_id uuid, state text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT campaigns.account_id, id, campaigns.state FROM campaigns
          WHERE finished_at IS NULL AND launched_at IS NOT NULL $$;

-- Imports whose file is complete and not looked at yet, and those whose file has not grown for ten minutes.
CREATE FUNCTION open_imports() RETURNS TABLE (account_id uuid, import_id uuid, state text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT imports.account_id, id, imports.state FROM imports
          WHERE imports.state = 'waiting'
             OR imports.state = 'receiving' AND grown_at < now() - interval '10 minutes' $$;
