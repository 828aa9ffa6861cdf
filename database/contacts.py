"""Contacts: found, written and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, Select, any_, func, literal, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from database import events
from database.engine import Connection
from database.schema import contacts, subscriptions
from marketing.contacts import (
    Consent,
    Contact,
    ContactChanges,
    NewContact,
    Subscription,
    merged_attributes,
    told_of_change,
)
from marketing.events import ContactReference

# What a contact is found by, the surest first, and the column that holds it.
_KEYS = {"external_id": contacts.c.external_id, "email": contacts.c.email_key, "phone": contacts.c.phone}
_LIVING = contacts.c.deleted_at.is_(None)


class Taken(Exception):
    """A phone number, address or external id is that of another contact."""

    def __init__(self, key: str, other: UUID | None) -> None:
        whose = f"contact {other}" if other else "another contact"
        super().__init__(f"This {key} is that of {whose}. Change or delete that contact first.")
        self.key = key
        self.other = other


class Nameless(Exception):
    """The contact would be left with nothing to find it by."""


@dataclass(frozen=True)
class Filters:
    """Which contacts a list shows; None does not restrict it."""

    tag: str | None = None
    search: str | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None


async def save(tx: Connection, account_id: UUID, new: NewContact) -> tuple[Contact, bool]:
    """Add a contact, or change the one that is known by the same external id, e-mail address or phone number.

    Returns:
        the contact, and whether it was added.

    Raises:
        Taken: what was given belongs to more than one contact.
    """
    said = new.said()
    known = await _known(tx, said)
    if known is None:
        values = {name: value for name, value in said.items() if value is not None}
        values["attributes"] = merged_attributes({}, said.get("attributes") or {})
        adding = postgresql.insert(contacts).values(account_id=account_id, **values).on_conflict_do_nothing()
        contact_id = (await tx.execute(adding.returning(contacts.c.id))).scalar_one_or_none()
        if contact_id:
            await events.tell(tx, account_id, "contact.created", contact_id=contact_id, how="api")
            await _subscribe(tx, account_id, contact_id, new.subscriptions)
            return await _read(tx, contact_id), True
        known = await _known(tx, said)  # somebody else was faster
        if known is None:
            raise Taken("contact", None)
    changed = await change(tx, account_id, known, new)
    assert changed is not None, "it is locked"
    return changed, False


async def change(tx: Connection, account_id: UUID, contact_id: UUID, changes: ContactChanges) -> Contact | None:
    """The contact with these changes; None if there is no such contact.

    Raises:
        Taken: an address or id is that of another contact.
        Nameless: nothing would be left to find the contact by.
    """
    said = changes.said()
    found = select(contacts).where(contacts.c.id == contact_id, _LIVING).with_for_update()
    row = (await tx.execute(found)).mappings().one_or_none()
    if row is None:
        return None
    if "attributes" in said:
        said["attributes"] = merged_attributes(row["attributes"], said["attributes"]) if said["attributes"] else {}
    if "tags" in said:
        said["tags"] = said["tags"] or []
    if not any({**row, **said}[key] for key in _KEYS):
        raise Nameless("A contact keeps at least one of email, phone and external_id.")
    if told := told_of_change(dict(row), said):
        changing = update(contacts).where(contacts.c.id == contact_id)
        try:
            async with tx.begin_nested():
                await tx.execute(changing.values(**said, updated_at=func.now()))
        except IntegrityError as error:
            raise await _taken(tx, contact_id, said) from error
        await events.tell(tx, account_id, "contact.changed", contact_id=contact_id, **told)
    await _subscribe(tx, account_id, contact_id, changes.subscriptions)
    return await _read(tx, contact_id)


async def find(tx: Connection, contact_id: UUID) -> Contact | None:
    row = (await tx.execute(_readable().where(contacts.c.id == contact_id))).mappings().one_or_none()
    return (await _with_subscriptions(tx, [row]))[0] if row else None


async def several(tx: Connection, ids: Sequence[UUID]) -> list[Contact]:
    """Those of them that there are, in this order."""
    rows = {row["id"]: row for row in (await tx.execute(_readable().where(contacts.c.id.in_(ids)))).mappings()}
    return await _with_subscriptions(tx, [rows[each] for each in ids if each in rows])


async def referred(tx: Connection, references: Sequence[ContactReference]) -> list[UUID | None]:
    """Whom each of them means; None where there is no such contact."""
    means = {"id": contacts.c.id, "email": contacts.c.email_key, "external_id": contacts.c.external_id}
    found: dict[tuple[str, object], UUID] = {}
    for name, column in means.items():
        if wanted := [given for each in references if (given := getattr(each, name)) is not None]:
            rows = await tx.execute(select(contacts.c.id, column.label("given")).where(column.in_(wanted), _LIVING))
            found |= {(name, row.given): row.id for row in rows}
    return [next((found.get((name, given)) for name, given in each if given is not None), None) for each in references]


async def tagged(tx: Connection, tag: str, *, after: UUID | None, limit: int) -> list[UUID]:
    """Contacts with this tag, in the order of their ids."""
    query = select(contacts.c.id).where(literal(tag) == any_(contacts.c.tags), _LIVING).order_by(contacts.c.id)
    query = query.where(contacts.c.id > after) if after else query
    return list((await tx.execute(query.limit(limit))).scalars())


async def page(tx: Connection, filters: Filters, *, after: UUID | None, limit: int) -> list[Contact]:
    """Contacts, newest first."""
    query = _readable().order_by(contacts.c.id.desc()).limit(limit)
    if after:
        query = query.where(contacts.c.id < after)
    if filters.tag is not None:
        query = query.where(literal(filters.tag) == any_(contacts.c.tags))
    if filters.search:
        prefix = filters.search.lower()
        named = (contacts.c.email_key, func.lower(contacts.c.first_name), func.lower(contacts.c.last_name))
        query = query.where(or_(*(func.starts_with(name, prefix) for name in named)))
    if filters.created_from:
        query = query.where(contacts.c.created_at >= filters.created_from)
    if filters.created_until:
        query = query.where(contacts.c.created_at < filters.created_until)
    return await _with_subscriptions(tx, (await tx.execute(query)).mappings().all())


async def remove(tx: Connection, contact_id: UUID) -> bool:
    """Nobody is written to any more who was removed; False if there is no such contact."""
    removing = update(contacts).where(contacts.c.id == contact_id, _LIVING).values(deleted_at=func.now())
    account_id = (await tx.execute(removing.returning(contacts.c.account_id))).scalar_one_or_none()
    if account_id is None:
        return False
    await events.tell(tx, account_id, "contact.deleted", contact_id=contact_id)
    return True


async def _known(tx: Connection, said: Mapping[str, Any]) -> UUID | None:
    """The contact that is meant, locked."""
    given = {key: said[key] for key in _KEYS if said.get(key)}
    named = or_(*(_KEYS[key] == value for key, value in given.items()))
    query = select(contacts.c.id, *_KEYS.values()).where(named, _LIVING).order_by(contacts.c.id)
    rows = (await tx.execute(query.with_for_update())).all()
    owners = {key: row for key, value in given.items() for row in rows if getattr(row, _KEYS[key].name) == value}
    meant = next((owners[key] for key in _KEYS if key in owners), None)
    if meant is None:
        return None
    for key, row in owners.items():
        if row.id != meant.id:
            raise Taken(key, row.id)
    # The phone number of a contact with another e-mail address is that contact's: people share telephones.
    if list(owners) == ["phone"] and given.get("email") and meant.email_key:
        raise Taken("phone", meant.id)
    found: UUID = meant.id
    return found


async def _taken(tx: Connection, contact_id: UUID, said: Mapping[str, Any]) -> Taken:
    """Whose is it?"""
    for key, column in _KEYS.items():
        if said.get(key):
            query = select(contacts.c.id).where(column == said[key], _LIVING, contacts.c.id != contact_id)
            if other := (await tx.execute(query)).scalar_one_or_none():
                return Taken(key, other)
    return Taken("contact", None)


_SUBSCRIBE = text("""
    WITH changed AS (
        INSERT INTO subscriptions AS s
            (account_id, contact_id, channel, topic, status, consent_at, consent_how, consent_where, proof)
        VALUES (:account_id, :contact_id, :channel, :topic, :status, coalesce(:at, now()), :how, :where,
                CAST(:proof AS jsonb))
        ON CONFLICT (contact_id, channel, topic) DO UPDATE SET
            status = excluded.status, consent_at = excluded.consent_at, consent_how = excluded.consent_how,
            consent_where = excluded.consent_where, updated_at = now(),
            proof = excluded.proof || jsonb_build_object('before', jsonb_build_object(
                'status', s.status, 'at', s.consent_at, 'how', s.consent_how, 'where', s.consent_where))
        WHERE s.status <> excluded.status
        RETURNING s.*
    )
    INSERT INTO events (account_id, name, contact_id, occurred_at, properties)
    SELECT account_id, 'contact.' || status, contact_id, least(consent_at, now()),
           jsonb_build_object('channel', channel, 'topic', topic, 'how', consent_how)
    FROM changed WHERE status <> 'pending'
""")


async def _subscribe(tx: Connection, account_id: UUID, contact_id: UUID, asked: Sequence[Subscription]) -> None:
    """Put these subscriptions on record; the proof of a status is kept together with the one before."""
    for each in asked:
        values = {
            "account_id": account_id,
            "contact_id": contact_id,
            "channel": each.channel,
            "topic": each.topic,
            "status": each.status,
            "at": each.consent.at,
            "how": each.consent.how or "api",
            "where": each.consent.where,
            "proof": orjson.dumps(each.consent.proof).decode(),
        }
        await tx.execute(_SUBSCRIBE, values)


def _readable() -> Select[Any]:
    fields = [contacts.c[name] for name in Contact.model_fields if name != "subscriptions"]
    return select(*fields).where(_LIVING)


async def _read(tx: Connection, contact_id: UUID) -> Contact:
    contact = await find(tx, contact_id)
    assert contact is not None, "it was written just now"
    return contact


async def _with_subscriptions(tx: Connection, rows: Sequence[Mapping[Any, Any]]) -> list[Contact]:
    ids = [row["id"] for row in rows]
    query = select(subscriptions).where(subscriptions.c.contact_id.in_(ids))
    agreed: dict[UUID, list[Subscription]] = {each: [] for each in ids}
    for row in await tx.execute(query.order_by(subscriptions.c.channel, subscriptions.c.topic)):
        agreed[row.contact_id].append(_subscription(row))
    return [Contact(**row, subscriptions=agreed[row["id"]]) for row in rows]


def _subscription(row: Row[Any]) -> Subscription:
    # As it is on record: what was stored before a rule was made is shown all the same.
    consent = Consent.model_construct(
        at=row.consent_at, how=row.consent_how or "", where=row.consent_where or "", proof=row.proof
    )
    return Subscription.model_construct(channel=row.channel, topic=row.topic, status=row.status, consent=consent)
