"""Contacts that the clock lets into an automation: Temporal's schedules start these."""

from typing import Any

from temporalio import workflow
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
)
from temporalio.common import Priority, SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

with workflow.unsafe.imports_passed_through():
    from activities.due import CATCH_UP, EVERY, DueContacts
    from activities.journey_inputs import SourceRef
    from activities.routing_inputs import Due, DueInput
    from workflows import schedules
    from workflows.journey_inputs import workflow_id
    from workflows.options import AUTOMATIONS, COMPUTING, PRIORITY_AUTOMATION
    from workflows.search_attributes import keywords

_SCHEDULED = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


def schedule_id(source: SourceRef) -> str:
    return f"{workflow_id(source)}/times"


@workflow.defn
class EnrollWorkflow:
    """Lets in those whose time has come since the run before."""

    @workflow.run
    async def run(self, source: SourceRef) -> Due:
        before = workflow.get_last_completion_result(Due) if workflow.has_last_completion_result() else None
        moment = workflow.info().typed_search_attributes.get(_SCHEDULED) or workflow.now()
        return await workflow.execute_activity_method(
            DueContacts.enroll_due,
            DueInput(**dict(source), since=before and before.until, moment=moment),
            summary="let in those whose time has come",
            priority=Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(source.account_id)),
            **COMPUTING | {"task_queue": AUTOMATIONS},
        )


async def keep_times(client: Client, source: SourceRef, trigger: dict[str, Any] | None) -> None:
    """Have Temporal let contacts in at the times of a trigger, or not any more if it has none."""
    spec = _times(trigger or {})
    if spec is None:
        try:
            await client.get_schedule_handle(schedule_id(source)).delete()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return
    action = ScheduleActionStartWorkflow(
        EnrollWorkflow.run,
        SourceRef(**dict(source)),
        id=schedule_id(source),
        task_queue=AUTOMATIONS,
        typed_search_attributes=keywords(
            AccountId=str(source.account_id), AutomationId=str(source.source_id), Kind="enrolling"
        ),
    )
    await schedules.ensure(client, schedule_id(source), action, spec, catchup=CATCH_UP)


def _times(trigger: dict[str, Any]) -> ScheduleSpec | None:
    match trigger.get("type"):
        case "schedule":
            return ScheduleSpec(cron_expressions=[trigger["cron"]], time_zone_name=trigger.get("timezone", "UTC"))
        case "date" | "inactivity":
            return ScheduleSpec(intervals=[ScheduleIntervalSpec(every=EVERY)])
    return None
