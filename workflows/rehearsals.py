"""A journey with nobody at the other end: on a clock that skips to the next moment, and with a script."""

import asyncio
from datetime import datetime
from uuid import UUID

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.journey_inputs import CohortRef, Happened, Leave
    from activities.rehearsals import ActOut, Rehearsals
    from workflows.cohorts import way
    from workflows.engine import Cohort
    from workflows.options import REHEARSING
    from workflows.rehearsal_inputs import RehearsalInput


def rehearsal_workflow_id(source_id: UUID) -> str:
    return f"rehearsal-{source_id}"


@workflow.defn
class RehearsalWorkflow:
    """The engine of `CohortWorkflow`; beside it, the contacts do what the script says at its moments."""

    @workflow.init
    def __init__(self, input: RehearsalInput) -> None:
        self.input = input
        self.acted = input.acted
        self.acting = False
        self.cohort: Cohort | None = None  # until it begins

    @workflow.run
    async def run(self, input: RehearsalInput) -> RehearsalInput | None:
        """None if all have left; else with what the next run goes on. It is started by whoever waits for this one:
        where a run continues as new, Temporal counts the time twice that it has skipped."""
        await self._until(input.starts_at)
        self.cohort = Cohort(input.cohort, way(input.cohort))
        script = asyncio.create_task(self._act())
        closed = await self.cohort.run()
        await workflow.wait_condition(lambda: not self.acting)
        script.cancel()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if closed:
            return None
        rest = {"cohort": self.cohort.hand_over(), "acted": self.acted, "starts_at": workflow.now()}
        return input.model_copy(update=rest)

    async def _act(self) -> None:
        """From where the run before was, moment after moment."""
        ids = {name: getattr(self.input.cohort, name) for name in CohortRef.model_fields}
        for number, moment in list(enumerate(self.input.script))[self.acted :]:
            await self._until(moment)
            self.acting = True
            await workflow.execute_activity_method(
                Rehearsals.act_out,
                ActOut(**ids, number=number, now=workflow.now()),
                summary="do what the script says",
                **REHEARSING,
            )
            self.acting, self.acted = False, number + 1

    async def _until(self, moment: datetime) -> None:
        if moment > workflow.now():
            await workflow.sleep(moment - workflow.now(), summary="until the next moment of the script")

    @workflow.signal
    def happened(self, events: list[Happened], /) -> None:
        """Events that members wait for."""
        if self.cohort:
            self.cohort.happened(events)

    @workflow.signal
    def leave(self, those: list[Leave], /) -> None:
        """They end here, wherever they are."""
        if self.cohort:
            self.cohort.leave(those)
