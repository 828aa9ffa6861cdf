"""Which contacts does an audience name?"""

from datetime import datetime
from typing import Any

from database import segments
from database.engine import Connection
from marketing.campaigns import Audience

Parameters = dict[str, Any]


async def condition(tx: Connection, audience: Audience, now: datetime) -> tuple[str, Parameters]:
    """SQL that is true for a row of `contacts` in the audience, and its parameters.

    Deleted contacts are never in it. Whether we may write to the others is the lease's question, not this one. With
    criteria, the rest of the transaction is planned as these want it.

    Args:
        now: what times such as "within 30 days" are counted from.
    """
    living = "contacts.deleted_at IS NULL"
    if audience.contact_ids is not None:
        return f"{living} AND contacts.id = ANY(CAST(:contact_ids AS uuid[]))", {"contact_ids": audience.contact_ids}
    conditions, parameters = [living], Parameters()
    if audience.tags is not None:
        for name, operator in (("any", "&&"), ("all", "@>"), ("none", "&&")):
            if tags := getattr(audience.tags, name):
                holds = f"contacts.tags {operator} CAST(:tags_{name} AS text[])"
                conditions.append(f"NOT ({holds})" if name == "none" else holds)
                parameters[f"tags_{name}"] = tags
    for name in ("segments", "exclude_segments"):
        if chosen := getattr(audience, name):
            belongs = f"""EXISTS (SELECT FROM segment_members WHERE segment_members.contact_id = contacts.id
                          AND segment_members.segment_id = ANY(CAST(:{name} AS uuid[])))"""
            conditions.append(belongs if name == "segments" else f"NOT {belongs}")
            parameters[name] = chosen
    if audience.filter is not None:
        await segments.plan_well(tx, audience.filter)
        holds, asked = segments.condition(audience.filter, now=now, prefix="filter_")
        conditions.append(f"({holds})")
        parameters |= asked
    return " AND ".join(conditions), parameters
