"""What is waiting, over all accounts: numbers for `/metrics`, and nothing else."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # From the counters of the campaigns that have not finished, which are few rows however many messages there are.
    op.execute("""
        CREATE FUNCTION backlog() RETURNS TABLE (channel text, state text, messages bigint)
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
            AS $$ SELECT counters.channel, campaigns.state,
                         sum(CASE WHEN counters.name = 'planned' THEN n ELSE -n END)::bigint
                  FROM campaigns JOIN counters ON counters.campaign_id = campaigns.id
                  WHERE finished_at IS NULL AND launched_at IS NOT NULL
                    AND split_part(counters.name, ':', 1) IN ('planned', 'sent', 'skipped', 'failed', 'uncertain')
                  GROUP BY counters.channel, campaigns.state $$
    """)
    # From shard to shard of each running campaign, and of each shard its first message alone: two looks into an index.
    op.execute("""
        CREATE FUNCTION oldest_due() RETURNS TABLE (channel text, seconds float8)
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
            AS $$ WITH RECURSIVE firsts AS (
                      SELECT first.* FROM campaigns CROSS JOIN LATERAL (
                          SELECT deliveries.campaign_id, shard, not_before, deliveries.channel FROM deliveries
                          WHERE deliveries.campaign_id = campaigns.id AND deliveries.state = 'planned'
                          ORDER BY deliveries.campaign_id, shard, not_before LIMIT 1
                      ) AS first
                      WHERE campaigns.state = 'running' AND finished_at IS NULL AND launched_at IS NOT NULL
                      UNION ALL
                      SELECT next.* FROM firsts CROSS JOIN LATERAL (
                          SELECT deliveries.campaign_id, shard, not_before, deliveries.channel FROM deliveries
                          WHERE deliveries.campaign_id = firsts.campaign_id AND shard > firsts.shard
                            AND deliveries.state = 'planned'
                          ORDER BY deliveries.campaign_id, shard, not_before LIMIT 1
                      ) AS next
                  )
                  SELECT firsts.channel, extract(epoch FROM now() - min(not_before))::float8 FROM firsts
                  WHERE not_before <= now() GROUP BY firsts.channel $$
    """)
    op.execute("""
        CREATE FUNCTION imports_waiting() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
            AS $$ SELECT count(*) FROM imports WHERE state = 'waiting' $$
    """)
