"""Contacts that go through an automation or a drip together, up to a thousand."""

from contextlib import suppress
from functools import partial

from temporalio import workflow
from temporalio.common import Priority, SearchAttributeKey
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.journey_inputs import Happened, Join, Leave
    from workflows.code import automation_function
    from workflows.engine import Cohort
    from workflows.interpreter import interpret
    from workflows.journey import Way
    from workflows.journey_inputs import CohortInput, CohortProgress, Migration, Reason, cohort_workflow_id, workflow_id
    from workflows.options import PRIORITY_AUTOMATION, StartOptions
    from workflows.search_attributes import keywords

STATE = SearchAttributeKey.for_keyword("State")


def start_options(input: CohortInput) -> StartOptions:
    """How a cohort is started, by whoever formed it."""
    source = "CampaignId" if input.kind == "drip" else "AutomationId"
    ids = {"AccountId": str(input.account_id), source: str(input.source_id)}
    return {
        "id": cohort_workflow_id(input, input.cohort),
        "search_attributes": keywords(**ids, Kind="cohort", State="running"),
        "priority": Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(input.account_id)),
        "static_summary": f"{input.name or input.code or input.kind}, {len(input.members):,} contacts",
    }


def way(input: CohortInput) -> Way:
    """What the contacts go through. Code is loaded within the sandbox, which sees what it does."""
    if input.definition is not None:
        return partial(interpret, input.definition)
    assert input.code, "a cohort has a definition, or the name of its code"
    return automation_function(input.code, input.version)


@workflow.defn
class CohortWorkflow:
    """Takes them to the end, however long that is: months, in runs with histories of bounded length."""

    @workflow.init
    def __init__(self, input: CohortInput) -> None:
        self.cohort = Cohort(input, way(input))

    @workflow.run
    async def run(self, input: CohortInput) -> CohortProgress:
        closed = await self.cohort.run()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if not closed:
            workflow.continue_as_new(self.cohort.hand_over())
        if input.kind == "drip":
            with suppress(ApplicationError):  # it may be over already
                await workflow.get_external_workflow_handle(workflow_id(input)).signal("ended")
        return self.cohort.progress()

    # -- what it is told ---------------------------------------------------------------------------------------------

    @workflow.signal
    def join(self, join: Join, /) -> None:
        """Newcomers, as long as it is young."""
        self.cohort.join(join)

    @workflow.signal
    def happened(self, events: list[Happened], /) -> None:
        """Events that members wait for."""
        self.cohort.happened(events)

    @workflow.signal
    def leave(self, those: list[Leave], /) -> None:
        """They end here, wherever they are."""
        self.cohort.leave(those)

    @workflow.signal
    def pause(self) -> None:
        """Nobody takes another step. The database was told before: what is at work ends soon."""
        self.cohort.pause()
        workflow.upsert_search_attributes([STATE.value_set("paused")])

    @workflow.signal
    def resume(self) -> None:
        self.cohort.resume()
        workflow.upsert_search_attributes([STATE.value_set("running")])

    @workflow.signal
    def cancel(self, reason: Reason, /) -> None:
        """All end here."""
        self.cohort.cancel(reason.reason)

    @workflow.signal
    def migrate(self, to: Migration, /) -> None:
        """Those whose step is in another version of the definition too go on in that one."""
        self.cohort.migrate(to)

    @workflow.query
    def progress(self) -> CohortProgress:
        return self.cohort.progress()
