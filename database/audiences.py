"""Which contacts does an audience name?"""

from typing import Any

from marketing.campaigns import Audience

Parameters = dict[str, Any]


def condition(audience: Audience) -> tuple[str, Parameters]:
    """SQL that is true for a row of `contacts` in the audience, and its parameters.

    Deleted contacts are never in it. Whether we may write to the others is the lease's question, not this one.
    """
    living = "contacts.deleted_at IS NULL"
    if audience.contact_ids is not None:
        return f"{living} AND contacts.id = ANY(CAST(:contact_ids AS uuid[]))", {"contact_ids": audience.contact_ids}
    if audience.tags is None:
        return living, {}
    conditions, parameters = [living], {}
    for name, operator in (("any", "&&"), ("all", "@>"), ("none", "&&")):
        if tags := getattr(audience.tags, name):
            holds = f"contacts.tags {operator} CAST(:tags_{name} AS text[])"
            conditions.append(f"NOT ({holds})" if name == "none" else holds)
            parameters[f"tags_{name}"] = tags
    return " AND ".join(conditions), parameters
