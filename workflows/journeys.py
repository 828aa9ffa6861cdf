"""What happens is told to automations and drips for as long as Carillon is at work."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleIntervalSpec, ScheduleSpec
from temporalio.common import Priority
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.inputs import FollowInput
    from activities.routing import Routing
    from workflows import automations, cohorts, schedules
    from workflows.automations import AutomationWorkflow, cohort_input
    from workflows.cohorts import CohortWorkflow
    from workflows.journey_inputs import AutomationInput, workflow_id
    from workflows.options import AUTOMATIONS, CRUNCHING, FOLLOWING, PRIORITY_AUTOMATION, RESTORING, StartOptions
    from workflows.search_attributes import keywords

FOLLOWING_ID = "journeys"
SWEEP_ID = "journeys-sweep"
LANES = 2
RUN = timedelta(hours=1)


FOLLOWING_OPTIONS: StartOptions = {
    "id": FOLLOWING_ID,
    "search_attributes": keywords(Kind="journeys"),
    "static_summary": "automations and drips are told what happens",
}


@workflow.defn
class JourneysWorkflow:
    """A long activity per lane, an hour at a time."""

    @workflow.run
    async def run(self) -> None:
        until = workflow.now() + RUN
        lanes = [
            workflow.execute_activity_method(
                Routing.follow_journeys,
                FollowInput(lane=lane, lanes=LANES, until=until),
                summary=f"tell what happens, lane {lane + 1} of {LANES}",
                priority=Priority(priority_key=PRIORITY_AUTOMATION),
                **FOLLOWING | {"task_queue": AUTOMATIONS},
            )
            for lane in range(LANES)
        ]
        await asyncio.gather(*lanes)
        workflow.continue_as_new()


@workflow.defn
class JourneySweepWorkflow:
    """Starts what nobody is at work on, and sees to it that somebody tells what happens."""

    @workflow.run
    async def run(self) -> None:
        abandon = workflow.ParentClosePolicy.ABANDON
        with suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                JourneysWorkflow.run, parent_close_policy=abandon, task_queue=AUTOMATIONS, **FOLLOWING_OPTIONS
            )
        lost = await workflow.execute_activity_method(
            Routing.find_lost, summary="find what is lost", **CRUNCHING | {"task_queue": AUTOMATIONS}
        )
        for source in lost.sources:
            input = AutomationInput(**dict(source))
            with suppress(WorkflowAlreadyStartedError):
                await workflow.start_child_workflow(
                    AutomationWorkflow.run,
                    input,
                    parent_close_policy=abandon,
                    task_queue=AUTOMATIONS,
                    **automations.start_options(input),
                )
        for source in lost.unheard:
            with suppress(ApplicationError):  # over at this very moment
                await workflow.get_external_workflow_handle(workflow_id(source)).signal("enrolled")
        for cohort in lost.cohorts:
            if workflow.info().is_continue_as_new_suggested():
                return  # the next sweep finds the others
            try:
                formed = await workflow.execute_activity_method(
                    Routing.read_lost, cohort, summary="read a lost cohort", **RESTORING
                )
            except ActivityError:  # it must not keep the others from being started
                continue
            if formed.cohort is None:
                continue
            again = cohort_input(cohort, formed)
            with suppress(WorkflowAlreadyStartedError):
                await workflow.start_child_workflow(
                    CohortWorkflow.run,
                    again,
                    parent_close_policy=abandon,
                    task_queue=AUTOMATIONS,
                    **cohorts.start_options(again),
                )


async def ensure_schedule(client: Client) -> None:
    """Have Temporal look now, and every minute, for what is lost."""
    action = ScheduleActionStartWorkflow(
        JourneySweepWorkflow.run, id=SWEEP_ID, task_queue=AUTOMATIONS, typed_search_attributes=keywords(Kind="journeys")
    )
    every = timedelta(minutes=1)
    spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)])
    await schedules.ensure(client, SWEEP_ID, action, spec, catchup=every, at_once=True)


async def ensure_following(client: Client) -> None:
    """Have what happens told; nothing happens if somebody is at it already."""
    with suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(JourneysWorkflow.run, task_queue=AUTOMATIONS, **FOLLOWING_OPTIONS)
