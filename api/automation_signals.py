"""How do the workflows of automations hear of what is on record? What nobody hears now, the sweep tells them later."""

from collections.abc import Sequence

from fastapi import Request
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.journey_inputs import SourceRef
from api.campaign_control import AWAY
from database.automations import Automation
from marketing.automations import Becomes
from workflows.automations import AutomationWorkflow, start_options
from workflows.journey_inputs import AutomationInput, Migration
from workflows.options import AUTOMATIONS, STARTING


async def newcomers(request: Request, source: SourceRef) -> None:
    """Somebody is pending."""
    await _tell(request, source, "enrolled")


async def changed(request: Request, source: SourceRef) -> None:
    """It has another state, or other terms: it looks, keeps its times, and tells all cohorts."""
    await _tell(request, source, "follow")


async def new_version(request: Request, source: SourceRef, automation: Automation, becomes: Sequence[Becomes]) -> None:
    """Whoever goes on in it is told."""
    if any(each.goes_on_in != each.version for each in becomes):
        definition = automation.definition.model_dump(mode="json")
        await _tell(request, source, "migrate", Migration(version=automation.version, definition=definition))


async def _tell(request: Request, source: SourceRef, signal: str, *arguments: object) -> None:
    temporal: Client = request.app.state.temporal
    input = AutomationInput(**source.model_dump())
    try:
        await temporal.start_workflow(
            AutomationWorkflow.run,
            input,
            task_queue=AUTOMATIONS,
            start_signal=signal,
            start_signal_args=arguments,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            rpc_timeout=STARTING,
            **start_options(input),
        )
    except RPCError as error:
        if error.status not in AWAY:
            raise
