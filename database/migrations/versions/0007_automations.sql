-- Automations and drips: what enrolls, who is inside, and how far they are. Their messages go through the one ledger.

CREATE TABLE automations (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    name TEXT NOT NULL,
    state TEXT DEFAULT 'draft' NOT NULL CONSTRAINT automations_state_check CHECK (state IN ('draft', 'active', 'paused')),
    state_reason TEXT DEFAULT '' NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    code TEXT,
    topic TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    activated_at TIMESTAMP WITH TIME ZONE,
    deleted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT automations_pkey PRIMARY KEY (id),
    CONSTRAINT automations_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX automations_name_key ON automations (account_id, name) WHERE deleted_at IS NULL;
CREATE INDEX automations_account_id_id_idx ON automations (account_id, id);

CREATE TABLE automation_versions (
    account_id UUID NOT NULL,
    automation_id UUID NOT NULL,
    version INTEGER NOT NULL,
    definition JSONB DEFAULT '{}'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT automation_versions_pkey PRIMARY KEY (automation_id, version),
    CONSTRAINT automation_versions_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT automation_versions_automation_id_fkey
        FOREIGN KEY(automation_id) REFERENCES automations (id) ON DELETE CASCADE
);

CREATE TABLE automation_subjects (
    account_id UUID NOT NULL,
    subject TEXT NOT NULL,
    source_id UUID NOT NULL,
    role TEXT NOT NULL CONSTRAINT automation_subjects_role_check CHECK (role IN ('trigger', 'goal', 'exit', 'wait')),
    CONSTRAINT automation_subjects_pkey PRIMARY KEY (account_id, subject, source_id, role),
    CONSTRAINT automation_subjects_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX automation_subjects_source_id_idx ON automation_subjects (source_id);

CREATE TABLE enrollments (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    source_id UUID NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    contact_id UUID NOT NULL,
    pass INTEGER DEFAULT 1 NOT NULL,
    state TEXT DEFAULT 'pending' NOT NULL CONSTRAINT enrollments_state_check
        CHECK (state IN ('pending', 'active', 'completed', 'exited', 'failed', 'timed_out', 'cancelled')),
    cohort INTEGER,
    member SMALLINT,
    step TEXT DEFAULT '' NOT NULL,
    step_at TIMESTAMP WITH TIME ZONE,
    due_at TIMESTAMP WITH TIME ZONE,
    cause TEXT NOT NULL,
    event_id UUID,
    trigger JSONB DEFAULT '{}'::jsonb NOT NULL,
    reason TEXT,
    problem TEXT,
    converted_at TIMESTAMP WITH TIME ZONE,
    entered_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    left_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT enrollments_pkey PRIMARY KEY (id)
)
 WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE UNIQUE INDEX enrollments_cause_key ON enrollments (source_id, contact_id, cause);
CREATE UNIQUE INDEX enrollments_inside_key ON enrollments (source_id, contact_id) WHERE left_at IS NULL;
CREATE UNIQUE INDEX enrollments_member_key ON enrollments (source_id, cohort, member) WHERE cohort IS NOT NULL;
CREATE INDEX enrollments_pending_idx ON enrollments (source_id, id) WHERE state = 'pending';
CREATE INDEX enrollments_source_id_id_idx ON enrollments (source_id, id);
CREATE INDEX enrollments_contact_id_entered_at_idx ON enrollments (contact_id, entered_at);

CREATE TABLE enrollment_steps (
    account_id UUID NOT NULL,
    enrollment_id UUID NOT NULL,
    call INTEGER NOT NULL,
    step TEXT NOT NULL,
    kind TEXT NOT NULL,
    entered_at TIMESTAMP WITH TIME ZONE NOT NULL,
    left_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT DEFAULT '' NOT NULL,
    error TEXT,
    CONSTRAINT enrollment_steps_pkey PRIMARY KEY (enrollment_id, call)
)
 WITH (fillfactor = 70);

CREATE TABLE enrollment_waits (
    account_id UUID NOT NULL,
    enrollment_id UUID NOT NULL,
    call INTEGER NOT NULL,
    source_id UUID NOT NULL,
    contact_id UUID NOT NULL,
    subject TEXT NOT NULL,
    "where" JSONB,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT enrollment_waits_pkey PRIMARY KEY (enrollment_id, call, subject)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX enrollment_waits_contact_id_subject_idx ON enrollment_waits (contact_id, subject);

CREATE TABLE cohorts (
    account_id UUID NOT NULL,
    source_id UUID NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    members INTEGER NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL CONSTRAINT cohorts_state_check CHECK (state IN ('open', 'ended')),
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT cohorts_pkey PRIMARY KEY (source_id, number),
    CONSTRAINT cohorts_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX cohorts_open_idx ON cohorts (source_id, number) WHERE state = 'open';

CREATE TABLE journals (
    account_id UUID NOT NULL,
    source_id UUID NOT NULL,
    cohort INTEGER NOT NULL,
    part INTEGER NOT NULL,
    content TEXT NOT NULL,
    CONSTRAINT journals_pkey PRIMARY KEY (source_id, cohort, part),
    CONSTRAINT journals_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE TABLE step_counters (
    account_id UUID NOT NULL,
    source_id UUID NOT NULL,
    version INTEGER NOT NULL,
    day DATE NOT NULL,
    step TEXT DEFAULT '' NOT NULL,
    name TEXT NOT NULL,
    n BIGINT NOT NULL,
    seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    CONSTRAINT step_counters_pkey PRIMARY KEY (source_id, version, day, step, name),
    CONSTRAINT step_counters_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50);

CREATE TABLE notifications (
    id UUID DEFAULT uuidv7() NOT NULL,
    account_id UUID NOT NULL,
    kind TEXT NOT NULL,
    source_id UUID,
    text TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    emailed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT notifications_pkey PRIMARY KEY (id),
    CONSTRAINT notifications_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX notifications_account_id_id_idx ON notifications (account_id, id);

ALTER TABLE accounts ADD COLUMN notification_emails TEXT[] DEFAULT '{}' NOT NULL;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'automations', 'automation_versions', 'automation_subjects', 'enrollments', 'enrollment_steps',
        'enrollment_waits', 'cohorts', 'journals', 'step_counters', 'notifications'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_account ON %I TO carillon_app USING (account_id = (SELECT current_account())) '
                       'WITH CHECK (account_id = (SELECT current_account()))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON %I TO carillon_app', name);
    END LOOP;
END $$;

-- One ledger for campaigns and automations: `campaign_id` holds the source of a message, whichever it is.

ALTER TABLE links DROP CONSTRAINT links_campaign_id_fkey;
ALTER TABLE counters DROP CONSTRAINT counters_campaign_id_fkey;

-- A journey may pass the same step again, so its messages are told apart by the pass and the call. For broadcasts, which
-- have neither, nothing changes: nulls are the same here.
ALTER TABLE deliveries
    ADD COLUMN enrollment_id UUID,
    ADD COLUMN call INTEGER,
    DROP CONSTRAINT deliveries_campaign_id_contact_id_step_channel_key;
CREATE UNIQUE INDEX deliveries_source_key ON deliveries (campaign_id, contact_id, step, channel, enrollment_id, call)
    NULLS NOT DISTINCT;
CREATE UNIQUE INDEX deliveries_enrollment_key ON deliveries (enrollment_id, call, channel)
    WHERE enrollment_id IS NOT NULL;

-- Of journeys, what a worker had in hand that was lost a minute ago and more, and that nobody has asked for since.
CREATE FUNCTION lost_messages() RETURNS TABLE (account_id uuid, source_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT DISTINCT d.account_id, d.campaign_id FROM deliveries d
          WHERE d.state = 'sending' AND d.enrollment_id IS NOT NULL
          AND d.lease_until < clock_timestamp() - interval '1 minute' $$;
