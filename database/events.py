"""What happened to whom: written with what it tells of, and read again."""


def facts(changed: str) -> str:
    """A statement that makes an event of each message of `changed` that was sent, has failed or is uncertain.

    For the same statement that changed them, so that neither is ever on record without the other.

    Args:
        changed: the name of a CTE with such rows of `deliveries`, whole.
    """
    return f"""
        INSERT INTO events (account_id, name, contact_id, campaign_id, delivery_id, occurred_at, properties)
        SELECT account_id, 'message.' || state, contact_id, campaign_id, id, finished_at,
               jsonb_strip_nulls(jsonb_build_object('channel', channel, 'reason', reason))
        FROM {changed} WHERE state IN ('sent', 'failed', 'uncertain')
    """
