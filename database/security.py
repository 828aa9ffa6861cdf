"""What the application's role may see and do, below every query."""

from sqlalchemy import Table

APPLICATION_ROLE = "carillon_app"

# These answer the few questions that come before an account is known. They run with the rights of the tables' owner.
FUNCTIONS = """
CREATE FUNCTION current_account() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('carillon.account_id', true), '')::uuid $$;

CREATE FUNCTION first_account() RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT id FROM accounts ORDER BY id LIMIT 1 $$;

CREATE FUNCTION find_api_key(hash bytea) RETURNS TABLE (key_id uuid, account_id uuid, role text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT id, k.account_id, k.role FROM api_keys k WHERE secret_hash = hash AND revoked_at IS NULL $$;

CREATE FUNCTION open_campaigns() RETURNS TABLE (account_id uuid, campaign_id uuid, state text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
    AS $$ SELECT campaigns.account_id, id, campaigns.state FROM campaigns
          WHERE finished_at IS NULL AND launched_at IS NOT NULL $$;
"""


def create_role() -> str:
    """SQL that makes the application's role, once per server (roles are shared by all its databases)."""
    return f"""
        DO $$ BEGIN
            CREATE ROLE {APPLICATION_ROLE} NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$;
        GRANT {APPLICATION_ROLE} TO CURRENT_USER;
        GRANT USAGE ON SCHEMA public TO {APPLICATION_ROLE};
    """


def row_security(table: Table) -> str:
    """SQL that shows the application only the rows of the account that its transaction named."""
    owner = "id" if table.name == "accounts" else "account_id"
    # The sub-select makes PostgreSQL ask once per statement, not once per row.
    mine = f"{owner} = (SELECT current_account())"
    return f"""
        ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_account ON {table.name} TO {APPLICATION_ROLE} USING ({mine}) WITH CHECK ({mine});
        -- MAINTAIN, so that who brings in many rows can ANALYZE them: the planner must not take a full table for empty.
        GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON {table.name} TO {APPLICATION_ROLE};
    """
