"""Which campaigns were launched, but nobody is at work on them?"""

from dataclasses import dataclass

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.inputs import Unattended, UnattendedCampaign
from database import campaigns
from database.engine import Database
from marketing.campaigns import CampaignState


@dataclass
class Sweeps:
    database: Database
    temporal: Client

    @activity.defn
    async def find_unattended(self) -> Unattended:
        """Campaigns whose launch was written down but whose workflow was never started, because something crashed
        between the two; and those whose workflow has not heard yet that they were cancelled."""
        found = Unattended()
        for campaign in await campaigns.open_campaigns(self.database):
            activity.heartbeat()
            handle = self.temporal.get_workflow_handle(f"campaign-{campaign.campaign_id}")
            try:
                alive = (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                found.never_started.append(await self._start_of(campaign))
                continue
            if alive and campaign.state == CampaignState.CANCELLED:
                found.not_told.append(campaign.campaign_id)
        return found

    async def _start_of(self, campaign: campaigns.OpenCampaign) -> UnattendedCampaign:
        async with self.database.transaction(campaign.account_id) as tx:
            plan = await campaigns.load_plan(tx, campaign.campaign_id)
        return UnattendedCampaign(
            account_id=campaign.account_id,
            campaign_id=campaign.campaign_id,
            name=plan.campaign_name,
            starts_at=plan.schedule.starts_at() if plan.schedule else None,
        )
