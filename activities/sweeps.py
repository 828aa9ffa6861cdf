"""Which campaigns and imports were begun, but nobody is at work on them?"""

from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.campaigns import email_rules
from activities.inputs import ImportRef, Unattended, UnattendedCampaign
from database import campaigns, deliveries, imports
from database.engine import Database
from marketing.campaigns import CampaignState
from marketing.imports import ImportState


@dataclass
class Sweeps:
    database: Database
    temporal: Client

    @activity.defn
    async def find_unattended(self) -> Unattended:
        """What the record calls open and nobody is at work on.

        Campaigns and imports without a workflow: because something crashed before it was started, because Temporal was
        lost, or because messages were put back while it ended. Campaigns whose workflow has not heard yet that they
        were cancelled. Uploads that broke off.
        """
        found = Unattended()
        for campaign in await campaigns.open_campaigns(self.database):
            activity.heartbeat()
            status = await self._status(f"campaign-{campaign.campaign_id}")
            if status is not WorkflowExecutionStatus.RUNNING:
                found.never_started.append(await self._start_of(campaign))
            elif campaign.state == CampaignState.CANCELLED:
                found.not_told.append(campaign.campaign_id)
        for each in await imports.open_imports(self.database):
            activity.heartbeat()
            ref = ImportRef(account_id=each.account_id, import_id=each.import_id)
            if each.state is ImportState.RECEIVING:
                found.broken_off.append(ref)
            elif await self._status(f"import-{each.import_id}") is not WorkflowExecutionStatus.RUNNING:
                found.waiting.append(ref)
        await self._settle_lost()
        return found

    async def _settle_lost(self) -> None:
        """Messages of journeys whose worker was lost, and for which nobody has asked again, as the contact has left."""
        for account_id, source_id in await deliveries.lost_of_journeys(self.database):
            async with self.database.transaction(account_id) as tx:
                rules = await email_rules(tx, account_id, None, datetime.now(UTC))
                await deliveries.settle_lost(tx, source_id, None, resend=False, rules=rules)

    async def _status(self, workflow_id: str) -> WorkflowExecutionStatus | None:
        """How the workflow stands; None if there never was one."""
        try:
            return (await self.temporal.get_workflow_handle(workflow_id).describe()).status
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _start_of(self, campaign: campaigns.OpenCampaign) -> UnattendedCampaign:
        async with self.database.transaction(campaign.account_id) as tx:
            plan = await campaigns.load_plan(tx, campaign.campaign_id)
            begun = await campaigns.has_started(tx, campaign.campaign_id)
            state, reason = await campaigns.state_of(tx, campaign.campaign_id)
        return UnattendedCampaign(
            account_id=campaign.account_id,
            campaign_id=campaign.campaign_id,
            name=plan.campaign_name,
            kind=campaign.kind,
            starts_at=plan.schedule.starts_at() if plan.schedule else None,
            state=state,
            reason=reason,
            begun=begun,
        )
