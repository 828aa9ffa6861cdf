"""What a drip's workflow does besides what automations do: let the audience in, and see that it is over."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel
from temporalio import activity

from activities.campaigns import wait_for_segments
from activities.heartbeats import beating
from activities.journey_inputs import SourceRef
from database import campaigns, deliveries, drips
from database.engine import Connection, Database
from marketing.campaigns import ENDED, CampaignDefinition, CampaignState
from marketing.drips import is_over


class DripInput(SourceRef):
    kind: Literal["drip"] = "drip"
    now: datetime


class DripStanding(BaseModel):
    state: str
    over: bool = False  # it has ended, and is closed on record


@dataclass
class Drips:
    database: Database

    @activity.defn
    async def enroll_audience(self, input: DripInput) -> int:
        """Have the audience enter, in one transaction; how many that were. A second call finds it done."""
        async with beating(), self.database.transaction(input.account_id) as tx:
            plan = await campaigns.load_plan(tx, input.source_id)
            await wait_for_segments(tx, input.source_id, plan.audience)
            state, _ = await campaigns.state_of(tx, input.source_id)
            if state in ENDED or not await campaigns.mark_started(tx, input.source_id):
                return 0
            campaign = await campaigns.read(tx, input.source_id, deleted=True)
            joinable = campaign is None or campaign.definition.enroll == "continuous"
            of = (tx, input.account_id, input.source_id, plan.audience)
            enrolled = await drips.enroll_audience(*of, now=input.now, joinable=joinable)
            await campaigns.log(
                tx, input.account_id, input.source_id, "campaign.audience_frozen", enrolled=str(enrolled)
            )
        return enrolled

    @activity.defn
    async def close_drip(self, input: DripInput) -> DripStanding:
        """Close the books if nobody is inside any more, and nobody can join."""
        async with self.database.transaction(input.account_id) as tx:
            campaign = await campaigns.read(tx, input.source_id, lock=True, deleted=True)
            assert campaign, "nothing deletes campaigns for good"
            state = campaign.state
            if await drips.somebody_is_inside(tx, input.source_id) or await _is_open(tx, campaign, input.now):
                return DripStanding(state=state)
            if state not in ENDED:
                state, _ = await campaigns.change_state(tx, input.account_id, input.source_id, CampaignState.COMPLETED)
            await campaigns.mark_finished(tx, input.source_id)
            await drips.look_away(tx, input.source_id)
        return DripStanding(state=state, over=True)


async def _is_open(tx: Connection, campaign: campaigns.Campaign, now: datetime) -> bool:
    """Whether somebody can join yet, or a message is on its way."""
    if campaign.state in ENDED:
        return bool(await deliveries.open_shards(tx, campaign.id, limit=1))
    return campaign.started_at is None or _can_be_joined(campaign.definition, now)


def _can_be_joined(definition: CampaignDefinition, now: datetime) -> bool:
    return definition.enroll == "continuous" and not is_over(definition.calendar, now)
