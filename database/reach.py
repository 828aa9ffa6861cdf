"""Whom would a campaign reach right now, and what takes the others away?"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database import audiences
from database.eligibility import CONTACT_COLUMNS, Rules
from database.engine import Connection
from marketing.campaigns import Audience


async def count(tx: Connection, audience: Audience, rules: Rules) -> dict[str | None, int]:
    """Contacts of the audience per reason why they would be skipped; under None those who would get the message."""
    condition, parameters = await audiences.condition(tx, audience, rules.now)
    rows = await tx.execute(
        text(f"""
            SELECT why, count(*) AS contacts
            FROM (SELECT {rules.reason()} AS why FROM contacts {rules.joins()} WHERE {condition}) AS judged
            GROUP BY why ORDER BY contacts DESC
        """),
        {**rules.parameters, **parameters},
    )
    return {row.why: row.contacts for row in rows}


async def size(tx: Connection, audience: Audience, *, now: datetime) -> int:
    """How many contacts the audience has, whether they may be written to or not."""
    condition, parameters = await audiences.condition(tx, audience, now)
    found: int = (await tx.execute(text(f"SELECT count(*) FROM contacts WHERE {condition}"), parameters)).scalar_one()
    return found


async def verdict(tx: Connection, contact_id: UUID, rules: Rules) -> str | None:
    """Why this contact would be skipped right now; None if it would get the message."""
    row = await tx.execute(
        text(f"SELECT {rules.reason()} AS why FROM contacts {rules.joins()} WHERE contacts.id = :contact_id"),
        {**rules.parameters, "contact_id": contact_id},
    )
    why: str | None = row.scalar_one_or_none()
    return why


async def contact(tx: Connection, contact_id: UUID) -> dict[str, Any] | None:
    """A living contact as the lease would hand it over; None if there is none."""
    query = text(f"SELECT {', '.join(CONTACT_COLUMNS)} FROM contacts WHERE id = :id AND deleted_at IS NULL")
    row = (await tx.execute(query, {"id": contact_id})).mappings().one_or_none()
    return dict(row) if row else None


async def sample(tx: Connection, audience: Audience, limit: int, *, now: datetime) -> list[UUID]:
    """A few contacts of the audience, the newest."""
    condition, parameters = await audiences.condition(tx, audience, now)
    rows = await tx.execute(
        text(f"SELECT id FROM contacts WHERE {condition} ORDER BY id DESC LIMIT :limit"), {**parameters, "limit": limit}
    )
    return [row.id for row in rows]


async def zones(tx: Connection, audience: Audience, default: str, *, now: datetime) -> list[str]:
    """The time zones that the audience lives in; `default` stands for contacts that name none."""
    condition, parameters = await audiences.condition(tx, audience, now)
    query = text(f"SELECT DISTINCT coalesce(timezone, :default) AS zone FROM contacts WHERE {condition} ORDER BY zone")
    return list((await tx.execute(query, {"default": default, **parameters})).scalars())


async def lacking(
    tx: Connection, audience: Audience, fields: list[str], attributes: list[str], *, now: datetime
) -> dict[str, int]:
    """How many contacts of the audience have nothing in each of these fields and attributes.

    Returns:
        `{"first_name": 12, "attributes.plan": 300}`; fields and attributes that everybody has are left out.
    """
    if not fields and not attributes:
        return {}
    condition, parameters = await audiences.condition(tx, audience, now)
    # Names of fields are ours (marketing.variables.CONTACT_FIELDS); names of attributes are parameters.
    counts = [f"count(*) FILTER (WHERE contacts.{name} IS NULL) AS n{index}" for index, name in enumerate(fields)]
    for index, name in enumerate(attributes):
        counts.append(
            f"count(*) FILTER (WHERE coalesce(contacts.attributes ->> :attribute_{index}, '') = '')"
            f" AS n{len(fields) + index}"
        )
        parameters[f"attribute_{index}"] = name
    row = (await tx.execute(text(f"SELECT {', '.join(counts)} FROM contacts WHERE {condition}"), parameters)).one()
    names = [*fields, *(f"attributes.{name}" for name in attributes)]
    return {name: missing for name, missing in zip(names, row, strict=True) if missing}


async def known_attributes(tx: Connection, limit: int = 10_000) -> set[str]:
    """Names of the attributes that the newest contacts have."""
    rows = await tx.execute(
        text("""
            SELECT DISTINCT jsonb_object_keys(attributes) AS name
            FROM (SELECT attributes FROM contacts WHERE deleted_at IS NULL ORDER BY id DESC LIMIT :limit) AS newest
        """),
        {"limit": limit},
    )
    return {row.name for row in rows}
