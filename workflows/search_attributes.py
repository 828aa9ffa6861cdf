"""What runs are found by in Temporal: every server must know these names."""

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

SEARCH_ATTRIBUTES = ("AccountId", "AutomationId", "CampaignId", "Kind", "State")


def keywords(**values: str) -> TypedSearchAttributes:
    """Such as `Kind="broadcast"`: what kind of work a run does."""
    pairs = [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
    return TypedSearchAttributes(pairs)


async def register(client: Client) -> None:
    """Teach the server those that it does not know; twice is the same as once."""
    if names := await unknown(client):
        attributes = dict.fromkeys(names, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD)
        request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=attributes)
        await client.operator_service.add_search_attributes(request)


async def unknown(client: Client) -> list[str]:
    """The names that the server does not know yet."""
    request = ListSearchAttributesRequest(namespace=client.namespace)
    known = await client.operator_service.list_search_attributes(request)
    return [name for name in SEARCH_ATTRIBUTES if name not in known.custom_attributes]
