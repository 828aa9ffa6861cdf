"""`/api/campaigns/{id}/validate`, `/reach`: may this be launched, and whom would it reach?"""

from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from activities.launches import NotLaunchable, find_problems, segment_problems
from api.auth import Viewer
from api.campaigns import find
from api.errors import Conflict
from database import accounts, reach
from database.eligibility import Rules
from marketing.problems import Problem, Severity

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])


class Validation(BaseModel):
    """Everything that is wrong, at once; `launchable` if nothing of it is an error."""

    launchable: bool
    problems: list[Problem]


class Reach(BaseModel):
    """The audience as it stands now: `total = sendable + the sum of skipped`."""

    total: int
    sendable: int
    skipped: dict[str, int]


@router.post("/{campaign_id}/validate")
async def validate_campaign(campaign_id: UUID, caller: Viewer) -> Validation:
    """List every problem of the campaign, at once."""
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id)
        account = await accounts.read(tx, caller.account_id)
        found = await find_problems(tx, campaign.definition, account, datetime.now(UTC))
    return Validation(launchable=not any(each.severity is Severity.ERROR for each in found), problems=found)


@router.post("/{campaign_id}/reach")
async def reach_of_campaign(campaign_id: UUID, caller: Viewer) -> Reach:
    """Count whom the campaign would reach if it were launched now, and what takes the others away, by reason."""
    async with caller.transaction() as tx:
        definition = (await find(tx, campaign_id)).definition
        if definition.audience is None:
            return Reach(total=0, sendable=0, skipped={})
        if wrong := await segment_problems(tx, definition.audience):
            raise refused("It can't be told whom this campaign would reach", NotLaunchable(wrong))
        account = await accounts.read(tx, caller.account_id)
        rules = Rules("email", definition.topic, account, datetime.now(UTC))
        counts = await reach.count(tx, definition.audience, rules)
    skipped = {why: n for why, n in counts.items() if why is not None}
    if definition.is_experiment and definition.experiment and definition.experiment.holdout:
        skipped["holdout"] = round(counts.get(None, 0) * definition.experiment.holdout)  # give or take chance
        counts[None] = counts.get(None, 0) - skipped["holdout"]
    if definition.budget and counts.get(None, 0) > definition.budget.max_messages:
        skipped["budget"] = counts[None] - definition.budget.max_messages
        counts[None] = definition.budget.max_messages
    sendable = counts.get(None, 0)
    return Reach(total=sendable + sum(skipped.values()), sendable=sendable, skipped=skipped)


def refused(what: str, error: NotLaunchable) -> Conflict:
    """A 409 with every problem."""
    return Conflict(f"{what}: {error}", problems=[each.model_dump() for each in error.problems])
