"""Ten questions about contacts, from simple to nested: as criteria, and as the SQL that we'd write for each by hand."""

from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

_LIVING = "account_id = %(account)s AND deleted_at IS NULL"
_EVENTS = "SELECT contact_id FROM events WHERE account_id = %(account)s AND NOT machine AND contact_id IS NOT NULL"


@dataclass(frozen=True)
class Question:
    """What is asked; and SQL that gives the same number: the fastest of what is tried counts.

    Args:
        of_attributes: it asks for nothing but what is kept of the contact itself.
    """

    what: str
    criteria: dict[str, Any]
    by_hand: tuple[LiteralString, ...]
    of_attributes: bool = False


_EXAMPLE: LiteralString = f"""
    SELECT count(*) FROM contacts
    JOIN (SELECT contact_id AS id FROM segment_members WHERE segment_id = %(segment)s) AS members USING (id)
    JOIN ({_EVENTS} AND name = 'purchase' AND value >= 50 AND occurred_at >= %(now)s - interval '30 days'
          GROUP BY contact_id HAVING count(*) >= 2) AS buyers ON buyers.contact_id = id
    JOIN ({_EVENTS} AND name = 'purchase' GROUP BY contact_id HAVING sum(value) >= 100) AS good ON good.contact_id = id
    WHERE {_LIVING} AND attributes ->> 'plan' = 'pro' AND (country IN ('FR', 'DE') OR 'vip' = ANY (tags))
    AND NOT EXISTS ({_EVENTS} AND name = 'message.clicked' AND occurred_at >= %(now)s - interval '14 days'
                    AND contact_id = contacts.id)
"""


def questions(segment: UUID) -> tuple[Question, ...]:
    """The ten; the last one asks for members of this segment too."""
    return (
        Question(
            "plan is pro",
            {"field": "attributes.plan", "is": "pro"},
            (f"SELECT count(*) FROM contacts WHERE {_LIVING} AND attributes ->> 'plan' = 'pro'",),
            of_attributes=True,
        ),
        Question(
            "plan is pro and score at least 50",
            {"all": [{"field": "attributes.plan", "is": "pro"}, {"field": "attributes.score", "at_least": 50}]},
            # Some scores are texts, and a cast must not meet them.
            (
                f"""SELECT count(*) FROM contacts WHERE {_LIVING} AND attributes ->> 'plan' = 'pro'
                AND CASE WHEN jsonb_typeof(attributes -> 'score') = 'number'
                    THEN CAST(attributes -> 'score' AS numeric) >= 50 END""",
            ),
            of_attributes=True,
        ),
        Question(
            "in France or Germany, or tagged vip",
            {"any": [{"field": "country", "in": ["FR", "DE"]}, {"field": "tags", "contains": "vip"}]},
            (f"SELECT count(*) FROM contacts WHERE {_LIVING} AND (country IN ('FR', 'DE') OR 'vip' = ANY (tags))",),
            of_attributes=True,
        ),
        Question(
            "birthday within 7 days",
            {"field": "attributes.birthday", "anniversary_within": "7 days"},
            (
                f"""SELECT count(*) FROM contacts WHERE {_LIVING} AND substr(attributes ->> 'birthday', 6, 5) = ANY (
                    SELECT to_char(day, 'MM-DD')
                    FROM generate_series(%(now)s, %(now)s + interval '7 days', interval '1 day') AS day)
                    AND pg_input_is_valid(attributes ->> 'birthday', 'date')""",
                f"""SELECT count(*) FROM contacts WHERE {_LIVING} AND substr(attributes ->> 'birthday', 6, 5) = ANY (
                    ARRAY(SELECT to_char(day, 'MM-DD')
                    FROM generate_series(%(now)s, %(now)s + interval '7 days', interval '1 day') AS day))
                    AND pg_input_is_valid(attributes ->> 'birthday', 'date')""",
            ),
            of_attributes=True,
        ),
        Question(
            "2 purchases of 50 or more in 30 days",
            {
                "event": "purchase",
                "count": {"at_least": 2},
                "within": "30 days",
                "where": {"field": "value", "at_least": 50},
            },
            (
                f"""SELECT count(*) FROM contacts JOIN (
                    {_EVENTS} AND name = 'purchase' AND value >= 50 AND occurred_at >= %(now)s - interval '30 days'
                    GROUP BY contact_id HAVING count(*) >= 2
                ) AS buyers ON contact_id = contacts.id WHERE {_LIVING}""",
            ),
        ),
        Question(
            "never opened a message",
            {"event": "message.opened", "never": True},
            (
                f"""SELECT count(*) FROM contacts WHERE {_LIVING}
                AND NOT EXISTS ({_EVENTS} AND name = 'message.opened' AND contact_id = contacts.id)""",
                f"""SELECT count(*) FROM contacts LEFT JOIN (
                    {_EVENTS} AND name = 'message.opened' GROUP BY contact_id
                ) AS readers ON contact_id = contacts.id WHERE {_LIVING} AND contact_id IS NULL""",
            ),
        ),
        Question(
            "purchases of 100 in all",
            {"total": "purchase.value", "at_least": 100},
            (
                f"""SELECT count(*) FROM contacts JOIN (
                    {_EVENTS} AND name = 'purchase' GROUP BY contact_id HAVING sum(value) >= 100
                ) AS buyers ON contact_id = contacts.id WHERE {_LIVING}""",
            ),
        ),
        Question(
            "plan is pro, or ever opened a message",
            {"any": [{"field": "attributes.plan", "is": "pro"}, {"event": "message.opened"}]},
            (
                f"""SELECT count(*) FROM contacts WHERE {_LIVING} AND (attributes ->> 'plan' = 'pro'
                OR EXISTS ({_EVENTS} AND name = 'message.opened' AND contact_id = contacts.id))""",
                f"""SELECT count(*) FROM contacts LEFT JOIN (
                    {_EVENTS} AND name = 'message.opened' GROUP BY contact_id
                ) AS readers ON contact_id = contacts.id
                WHERE {_LIVING} AND (attributes ->> 'plan' = 'pro' OR contact_id IS NOT NULL)""",
                f"""SELECT count(*) FROM contacts WHERE {_LIVING} AND id IN (
                    SELECT id FROM contacts WHERE {_LIVING} AND attributes ->> 'plan' = 'pro'
                    UNION {_EVENTS} AND name = 'message.opened')""",
            ),
        ),
        Question(
            "30 days without activity",
            {"named": "days_without_activity", "at_least": 30},
            (
                f"""SELECT count(*) FROM contacts WHERE {_LIVING} AND created_at < %(now)s - interval '30 days'
                AND NOT EXISTS ({_EVENTS} AND name IN ('message.opened', 'message.clicked', 'purchase')
                                AND occurred_at >= %(now)s - interval '30 days' AND contact_id = contacts.id)""",
            ),
        ),
        Question(
            "six criteria, nested, with a segment",
            {
                "all": [
                    {"field": "attributes.plan", "is": "pro"},
                    {"any": [{"field": "country", "in": ["FR", "DE"]}, {"field": "tags", "contains": "vip"}]},
                    {
                        "event": "purchase",
                        "count": {"at_least": 2},
                        "within": "30 days",
                        "where": {"field": "value", "at_least": 50},
                    },
                    {"not": {"event": "message.clicked", "within": "14 days"}},
                    {"total": "purchase.value", "at_least": 100},
                    {"segment": str(segment)},
                ]
            },
            (_EXAMPLE,),
        ),
    )
