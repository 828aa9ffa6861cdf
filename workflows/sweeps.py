"""Once a minute: is every launched campaign and every import in somebody's hands?"""

from datetime import timedelta

from temporalio import workflow
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleIntervalSpec, ScheduleSpec
from temporalio.exceptions import WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.imports import Imports
    from activities.inputs import ImportFailure
    from activities.sweeps import Sweeps
    from workflows import campaigns, imports, schedules
    from workflows.campaigns import CampaignWorkflow, campaign_workflow_id
    from workflows.experiments import run_of
    from workflows.imports import ContactImportWorkflow
    from workflows.inputs import CampaignInput
    from workflows.options import CRUNCHING, ORCHESTRATION, QUICK
    from workflows.search_attributes import keywords

SCHEDULE_ID = "sweep"


@workflow.defn
class SweepWorkflow:
    """Starts the campaigns and imports that were interrupted between the database and Temporal, and closes the imports
    whose upload broke off."""

    @workflow.run
    async def run(self) -> int:
        found = await workflow.execute_activity_method(
            Sweeps.find_unattended, summary="find what is unattended", **CRUNCHING
        )
        for campaign in found.never_started:
            if campaign.begun:
                input = CampaignInput.to_go_on(campaign, campaign.name, campaign.kind, campaign.state, campaign.reason)
            else:
                input = CampaignInput(**campaign.model_dump())
            try:
                await workflow.start_child_workflow(
                    run_of(input.kind),
                    input,
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                    **campaigns.start_options(input, campaign.state),
                )
            except WorkflowAlreadyStartedError:
                continue  # the launch got there in the meantime
        for campaign_id in found.not_told:
            unaware: workflow.ExternalWorkflowHandle[CampaignWorkflow] = workflow.get_external_workflow_handle_for(
                CampaignWorkflow.run, campaign_workflow_id(campaign_id)
            )
            await unaware.signal(CampaignWorkflow.follow)
        for waiting in found.waiting:
            try:
                await workflow.start_child_workflow(
                    ContactImportWorkflow.run,
                    waiting,
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                    **imports.start_options(waiting),
                )
            except WorkflowAlreadyStartedError:
                continue  # the upload got there in the meantime
        for upload in found.broken_off:
            failure = ImportFailure(**upload.model_dump(), problem="The upload broke off. Send the file again.")
            await workflow.execute_activity_method(
                Imports.fail_import, failure, summary="close a broken upload", **QUICK
            )
        return len(found.never_started) + len(found.not_told) + len(found.waiting) + len(found.broken_off)


async def ensure_schedule(client: Client) -> None:
    """Have Temporal run the sweep every minute, and at once where it is new to a record that may have much to do."""
    action = ScheduleActionStartWorkflow(
        SweepWorkflow.run, id=SCHEDULE_ID, task_queue=ORCHESTRATION, typed_search_attributes=keywords(Kind="sweep")
    )
    every = timedelta(minutes=1)
    spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)])
    await schedules.ensure(client, SCHEDULE_ID, action, spec, catchup=every, at_once=True)
