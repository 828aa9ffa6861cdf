"""`/api/automations/{id}/splits`: who was led which way, and what did it bring?"""

from asyncio import to_thread
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.auth import Viewer
from api.automations import find
from database import automations, exposures, step_counters
from marketing.segment_names import Duration
from marketing.spans import ahead
from marketing.splits import SplitReports, split_reports

router = APIRouter(prefix="/api", tags=["experiments"])

_Within = Annotated[Duration, Query(description="So soon after the split the goal counts.")]


@router.get("/automations/{automation_id}/splits", tags=["automations"])
async def splits_of_automation(automation_id: UUID, caller: Viewer, within: _Within = "7 days") -> SplitReports:
    """How many went each way of each split, and how many of them did what the goal says, inside or after they left.

    Each counts once, from the first time they came by.
    """
    now = datetime.now(UTC)
    async with caller.transaction() as tx:
        automation = await find(tx, automation_id)
        walked = await automations.versions(tx, automation_id, await step_counters.walked(tx, automation_id))
        goal = automation.definition.goal
        led = await exposures.led(tx, caller.account_id, automation_id, goal, within=ahead(now, within) - now, now=now)
    newest_first = [walked[each] for each in sorted(walked, reverse=True)]
    return await to_thread(split_reports, automation.definition, newest_first, led, within)
