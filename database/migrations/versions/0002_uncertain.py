"""Uncertain deliveries are found at once, and imports go on that Temporal has forgotten."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        CREATE INDEX deliveries_uncertain_idx ON deliveries (account_id, campaign_id, id) WHERE state = 'uncertain'
    """)
    # Those at work too, not only those that wait: after a restore there may be no workflow of theirs any more.
    op.execute("""
        CREATE OR REPLACE FUNCTION open_imports() RETURNS TABLE (account_id uuid, import_id uuid, state text)
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
            AS $$ SELECT imports.account_id, id, imports.state FROM imports
                  WHERE imports.state IN ('waiting', 'reading', 'merging')
                     OR imports.state = 'receiving' AND grown_at < now() - interval '10 minutes' $$
    """)
