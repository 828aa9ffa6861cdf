"""Who agreed to what, and how do we know? Rows of `subscriptions`, each with the proof of its status."""

from dataclasses import dataclass, replace
from datetime import datetime

import orjson
from sqlalchemy import text

from database import counters
from database.engine import Connection
from marketing.accounts import Topic
from marketing.contacts import SubscriptionStatus
from marketing.subscriptions import EVERYTHING, Standing, Statuses
from marketing.tracking import Leaving

# A token outlives its delivery: without one, it stands for the e-mail of the account as a whole.
_READ = text("""
    SELECT accounts.name AS sender, accounts.postal_address, accounts.topics,
           coalesce(deliveries.channel, 'email') AS channel,
           CASE WHEN deliveries.channel <> 'email' THEN contacts.phone ELSE contacts.email END AS address,
           coalesce(coalesce(campaigns.plan, campaigns.definition) ->> 'topic', automations.topic, '') AS topic
    FROM contacts
    JOIN accounts ON accounts.id = contacts.account_id
    LEFT JOIN deliveries ON deliveries.id = :delivery_id AND deliveries.contact_id = contacts.id
    LEFT JOIN campaigns ON campaigns.id = deliveries.campaign_id
    LEFT JOIN automations ON automations.id = deliveries.campaign_id
    WHERE contacts.id = :contact_id
""")

_STATUSES = text("""
    SELECT topic, status, proof #>> '{before,status}' AS before FROM subscriptions
    WHERE contact_id = :contact_id AND channel = :channel
""")

_CHANGE = text("""
    INSERT INTO subscriptions
        (account_id, contact_id, channel, topic, status, consent_at, consent_how, consent_where, proof, updated_at)
    VALUES (:account_id, :contact_id, :channel, :topic, :status, :at, :how, :where, CAST(:proof AS jsonb), :at)
    ON CONFLICT (contact_id, channel, topic) DO UPDATE
    SET status = EXCLUDED.status, consent_at = EXCLUDED.consent_at, consent_how = EXCLUDED.consent_how,
        consent_where = EXCLUDED.consent_where, updated_at = EXCLUDED.updated_at,
        proof = EXCLUDED.proof || jsonb_build_object('before', jsonb_build_object(
            'status', subscriptions.status, 'at', subscriptions.consent_at,
            'how', subscriptions.consent_how, 'where', subscriptions.consent_where))
    WHERE subscriptions.status <> EXCLUDED.status
    RETURNING topic
""")

_EVENT = text("""
    INSERT INTO events (account_id, name, contact_id, campaign_id, delivery_id, occurred_at, properties)
    VALUES (:account_id, :name, :contact_id,
            (SELECT campaign_id FROM deliveries WHERE id = :delivery_id), :delivery_id, :at, CAST(:properties AS jsonb))
""")

_MARK_DELIVERY = text("""
    WITH before AS (SELECT id, unsubscribed_at FROM deliveries WHERE id = :delivery_id FOR NO KEY UPDATE)
    UPDATE deliveries SET unsubscribed_at = CASE WHEN :left THEN coalesce(before.unsubscribed_at, :at) END
    FROM before WHERE deliveries.id = before.id
    RETURNING campaign_id, channel, step, variant, before.unsubscribed_at AS before
""")


@dataclass(frozen=True)
class Recipient:
    """Whom a page is for, what it may show of them, and what they receive."""

    sender: str
    postal_address: str
    address: str | None
    standing: Standing


@dataclass(frozen=True)
class Proof:
    """When, how (`one-click`, `unsubscribe page`, `preference page`) and from where somebody told us."""

    at: datetime
    how: str
    where: str
    user_agent: str


async def read(tx: Connection, bearer: Leaving) -> Recipient | None:
    """The recipient whom a token speaks for; None if there is no such contact (any more)."""
    found = await tx.execute(_READ, {"contact_id": bearer.contact_id, "delivery_id": bearer.delivery_id})
    if (row := found.one_or_none()) is None:
        return None
    statuses = (await tx.execute(_STATUSES, {"contact_id": bearer.contact_id, "channel": row.channel})).all()
    standing = Standing(
        channel=row.channel,
        topic=row.topic,
        topics=[Topic.model_validate(topic) for topic in row.topics],
        statuses={each.topic: each.status for each in statuses},
        before={each.topic: each.before for each in statuses if each.before},
    )
    return Recipient(row.sender, row.postal_address, row.address, standing)


async def change(tx: Connection, bearer: Leaving, standing: Standing, wanted: Statuses, proof: Proof) -> None:
    """Put subscriptions into the wanted statuses; the proof of a status is kept together with the one before.

    Doing it again changes nothing. Leaving what a message was about counts for its campaign; coming back, the
    person no longer counts in `unsubscribed_unique`.
    """
    changed: dict[str, SubscriptionStatus] = {}
    for topic, status in sorted(wanted.items()):
        if await _set(tx, bearer, proof, channel=standing.channel, topic=topic, status=status):
            changed[topic] = status
            name = "contact.unsubscribed" if status == "unsubscribed" else "contact.subscribed"
            await _tell(tx, bearer, proof, name, channel=standing.channel, topic=topic)
    about_the_message = [changed[topic] for topic in {EVERYTHING, standing.topic} & changed.keys()]
    if "unsubscribed" in about_the_message:
        await _tell(tx, bearer, proof, "message.unsubscribed", channel=standing.channel, topic=standing.topic)
        await _count(tx, bearer, proof.at, left=True)
    elif about_the_message and not replace(standing, statuses={**standing.statuses, **changed}).has_left:
        await _count(tx, bearer, proof.at, left=False)


async def _set(
    tx: Connection, bearer: Leaving, proof: Proof, *, channel: str, topic: str, status: SubscriptionStatus
) -> bool:
    details = {"delivery_id": bearer.delivery_id, "user_agent": proof.user_agent}
    values = {
        "account_id": bearer.account_id,
        "contact_id": bearer.contact_id,
        "channel": channel,
        "topic": topic,
        "status": status,
        "at": proof.at,
        "how": proof.how,
        "where": proof.where,
        "proof": orjson.dumps(details).decode(),
    }
    return (await tx.execute(_CHANGE, values)).one_or_none() is not None


async def _tell(tx: Connection, bearer: Leaving, proof: Proof, name: str, *, channel: str, topic: str) -> None:
    values = {
        "account_id": bearer.account_id,
        "name": name,
        "contact_id": bearer.contact_id,
        "delivery_id": bearer.delivery_id,
        "at": proof.at,
        "properties": orjson.dumps({"channel": channel, "topic": topic, "how": proof.how}).decode(),
    }
    await tx.execute(_EVENT, values)


async def _count(tx: Connection, bearer: Leaving, at: datetime, *, left: bool) -> None:
    """`unsubscribed` counts how often people left; `unsubscribed_unique` the people who did and did not come back."""
    marked = await tx.execute(_MARK_DELIVERY, {"delivery_id": bearer.delivery_id, "left": left, "at": at})
    if (row := marked.one_or_none()) is None:
        return
    if left:
        amounts = {"unsubscribed": 1, "unsubscribed_unique": int(row.before is None)}
    else:
        amounts = {"unsubscribed_unique": -int(row.before is not None)}
    await counters.add(
        tx,
        bearer.account_id,
        row.campaign_id,
        amounts,
        now=at if left else row.before or at,
        channel=row.channel,
        step=row.step,
        variant=row.variant,
    )
