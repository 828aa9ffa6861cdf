"""Segments over the API, for tests."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
from temporalio.client import Client


async def segment(api: httpx.AsyncClient, name: str = "Some", **definition: Any) -> str:
    """The id of a new segment; static, unless it has criteria."""
    kind = {} if "criteria" in definition else {"kind": "static"}
    answer = await api.post("/api/segments", json={"name": name, **kind, **definition})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def of_contacts(api: httpx.AsyncClient, contacts: Sequence[UUID], name: str = "Some") -> str:
    """The id of a new static segment with these members."""
    made = await segment(api, name)
    for first in range(0, len(contacts), 1000):
        named = {"contacts": [{"id": str(each)} for each in contacts[first : first + 1000]]}
        answer = await api.post(f"/api/segments/{made}/members", json=named)
        assert answer.status_code == 200, answer.text
    return made


async def settled(api: httpx.AsyncClient, temporal: Client, segment_id: str) -> dict[str, Any]:
    """The segment, once its members are found."""
    await temporal.get_workflow_handle(f"segment-{segment_id}-refresh").result()
    read: dict[str, Any] = (await api.get(f"/api/segments/{segment_id}")).json()
    assert read["state"] == "ready", read
    return read


async def members(api: httpx.AsyncClient, segment_id: str) -> list[str]:
    """The ids of its members."""
    found: list[str] = []
    asked: dict[str, Any] = {"limit": 500}
    while True:
        page = (await api.get(f"/api/segments/{segment_id}/members", params=asked)).json()
        found += [member["contact"]["id"] for member in page["items"]]
        if page["next_cursor"] is None:
            return found
        asked["cursor"] = page["next_cursor"]
