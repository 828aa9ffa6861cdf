-- Experiments: how each stands, who saw which variant, and who did what it is about. What became of each variant's
-- messages is in the ledger and in the counters, which have had a column for it from the start.

CREATE TABLE experiments (
    campaign_id UUID NOT NULL,
    account_id UUID NOT NULL,
    state TEXT DEFAULT 'testing' NOT NULL
        CONSTRAINT experiments_state_check CHECK (state IN ('testing', 'asking', 'decided', 'stopped')),
    rest_shard INTEGER,
    winner TEXT,
    decided_by TEXT CONSTRAINT experiments_decided_by_check
        CHECK (decided_by IN ('significance', 'time', 'fallback', 'person', 'bandit')),
    reason TEXT DEFAULT '' NOT NULL,
    decision JSONB,
    test_began_at TIMESTAMP WITH TIME ZONE,
    test_sent_at TIMESTAMP WITH TIME ZONE,
    decided_at TIMESTAMP WITH TIME ZONE,
    folded_until TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT experiments_pkey PRIMARY KEY (campaign_id),
    CONSTRAINT experiments_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaigns (id) ON DELETE CASCADE,
    CONSTRAINT experiments_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE TABLE allocations (
    account_id UUID NOT NULL,
    campaign_id UUID NOT NULL,
    shard INTEGER NOT NULL,
    weights JSONB DEFAULT '{}'::jsonb NOT NULL,
    seen JSONB DEFAULT '{}'::jsonb NOT NULL,
    seed BIGINT NOT NULL,
    allocated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT allocations_pkey PRIMARY KEY (campaign_id, shard),
    CONSTRAINT allocations_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaigns (id) ON DELETE CASCADE,
    CONSTRAINT allocations_account_id_fkey FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE TABLE exposures (
    account_id UUID NOT NULL,
    source_id UUID NOT NULL,
    step TEXT DEFAULT '' NOT NULL,
    contact_id UUID NOT NULL,
    variant TEXT NOT NULL,
    exposed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT exposures_pkey PRIMARY KEY (source_id, step, contact_id)
);

CREATE TABLE conversions (
    account_id UUID NOT NULL,
    source_id UUID NOT NULL,
    step TEXT DEFAULT '' NOT NULL,
    contact_id UUID NOT NULL,
    variant TEXT NOT NULL,
    n INTEGER NOT NULL,
    revenue NUMERIC DEFAULT 0 NOT NULL,
    currencies TEXT[] DEFAULT '{}' NOT NULL,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT conversions_pkey PRIMARY KEY (source_id, step, contact_id)
)
 WITH (fillfactor = 70);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['experiments', 'allocations', 'exposures', 'conversions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_account ON %I TO carillon_app USING (account_id = (SELECT current_account())) '
                       'WITH CHECK (account_id = (SELECT current_account()))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON %I TO carillon_app', name);
    END LOOP;
END $$;

-- Each kind has a workflow of its own.
DROP FUNCTION open_campaigns();
CREATE FUNCTION open_campaigns() RETURNS TABLE (account_id uuid, campaign_id uuid, state text, kind text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT campaigns.account_id, id, campaigns.state, campaigns.kind FROM campaigns
          WHERE finished_at IS NULL AND launched_at IS NOT NULL AND campaigns.kind <> 'drip' $$;
