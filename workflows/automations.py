"""An automation, or a drip, for as long as it lets contacts in: puts them together into cohorts, and controls these."""

import asyncio
from datetime import datetime, timedelta
from typing import Literal

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.drips import DripInput, Drips
    from activities.journey_inputs import Formed, FormInput, Join, SourceRef
    from activities.routing import Routing
    from activities.routing_inputs import SourceCommand, SourceStanding, TellInput
    from workflows import cohorts
    from workflows.cohorts import CohortWorkflow
    from workflows.inputs import Command
    from workflows.journey_inputs import (
        AutomationInput,
        AutomationProgress,
        AutomationState,
        CohortInput,
        Migration,
        cohort_workflow_id,
        workflow_id,
    )
    from workflows.options import AUTOMATIONS, CRUNCHING, PRIORITY_AUTOMATION, QUICK, STARTING, TELLING, StartOptions
    from workflows.search_attributes import keywords

STATE = SearchAttributeKey.for_keyword("State")
# While many come, so long is waited for more of them; whoever comes alone waits for nobody.
LINGER = timedelta(seconds=0.2)
# So long newcomers join a cohort, as long as there is room: at one a minute sixty share a workflow, not one each.
YOUNG = timedelta(hours=1)
# A drip looks from time to time whether it is over, for its last day may have passed.
LOOK_AGAIN = timedelta(hours=1)


def start_options(input: AutomationInput) -> StartOptions:
    """How the workflow of a source is started, whoever starts it."""
    source = "CampaignId" if input.kind == "drip" else "AutomationId"
    ids = {"AccountId": str(input.account_id), source: str(input.source_id)}
    return {
        "id": workflow_id(input),
        "search_attributes": keywords(**ids, Kind=input.kind, State="active"),
        "priority": Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(input.account_id)),
        "static_summary": input.name or input.kind,
    }


async def wake(client: Client, source: SourceRef, signal: Literal["enrolled", "follow"] = "enrolled") -> None:
    """Have the source's workflow know that somebody is pending, or look at the record; start it if there is none."""
    input = AutomationInput(**source.model_dump(include={*SourceRef.model_fields}))
    await client.start_workflow(
        AutomationWorkflow.run,
        input,
        task_queue=AUTOMATIONS,
        start_signal=signal,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        rpc_timeout=STARTING,
        **start_options(input),
    )


def cohort_input(source: SourceRef, formed: Formed) -> CohortInput:
    """What a cohort begins with."""
    of = {name: getattr(source, name) for name in SourceRef.model_fields}
    names = ("cohort", "first", "version", "code", "definition", "name", "topic", "members")
    limit = {"time_limit": formed.time_limit} if formed.time_limit else {}
    return CohortInput(**of, **{name: getattr(formed, name) for name in names}, **limit)


@workflow.defn
class AutomationWorkflow:
    """Lives as long as its source does: no contact passes through it, only the numbers of cohorts."""

    @workflow.init
    def __init__(self, input: AutomationInput) -> None:
        self.input = input
        self.source = {name: getattr(input, name) for name in SourceRef.model_fields}
        self.priority = Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(input.account_id))
        before = input.progress or AutomationState(state="active")
        self.state, self.reason, self.untold = before.state, before.reason, before.untold
        self.cohort, self.members, self.formed_at = before.cohort, before.members, before.formed_at
        self.cancelled, self.migrations = before.cancelled, before.migrations
        self.control = asyncio.Lock()  # one change of state at a time
        self.telling = False  # cohorts, at this moment
        self.pending = True  # somebody may wait to be taken in
        self.moved = input.progress is None  # the record may have another state than we
        self.look = True  # of a drip: somebody may have been the last one inside
        self.last_formed: datetime | None = None

    @workflow.run
    async def run(self, input: AutomationInput) -> AutomationProgress:
        if input.kind == "drip" and input.progress is None:
            await self.begin_drip()
        while True:
            if self.moved:
                self.moved = False
                await self.follow_database()
            self.tell_cohorts()
            if not self.telling and await self.is_over():
                return await self.finish()
            if self.pending and self.state == "active":
                await self.take_in()
            workflow.set_current_details(f"**{self.state}**, {self.cohort or 0:,} cohorts so far\n\n{self.reason}")
            if self.is_full() and not self.telling:
                await self.continue_as_new()
            await self.until_news()

    def has_news(self) -> bool:
        if self.moved or (self.pending and self.state == "active"):
            return True
        may_be_over = self.look if self.input.kind == "drip" else self.state == "over"
        return not self.telling and (self.has_to_tell or may_be_over)

    async def until_news(self) -> None:
        drip = self.input.kind == "drip"
        try:
            await workflow.wait_condition(self.has_news, timeout=LOOK_AGAIN if drip else None)
        except TimeoutError:
            self.look = True

    async def is_over(self) -> bool:
        if self.input.kind == "drip":
            return self.look and await self.close_drip()
        return self.state == "over" and not self.moved

    def is_full(self) -> bool:
        info = workflow.info()
        return info.get_current_history_length() > self.input.most_events or info.is_continue_as_new_suggested()

    # -- those who come ----------------------------------------------------------------------------------------------

    async def take_in(self) -> None:
        """Put those who wait into a cohort: a new one, or the newest if that is young."""
        if self.last_formed and (rest := self.last_formed + LINGER - workflow.now()) > timedelta(0):
            await workflow.sleep(rest, summary="wait for more of them")
            if self.state != "active":
                return
        self.pending = False
        self.last_formed = now = workflow.now()
        formed = await self.form(joins=self.formed_at is not None and now < self.formed_at + YOUNG)
        if formed.cohort is None:
            return
        self.pending = self.pending or formed.more
        if formed.first == 0:
            self.formed_at = now
        await self.hand_over(formed)
        self.cohort, self.members = formed.cohort, formed.first + len(formed.members)

    async def form(self, *, joins: bool) -> Formed:
        return await workflow.execute_activity_method(
            Routing.form_cohort,
            FormInput(**self.source, now=workflow.now(), cohort=self.cohort, members=self.members, joins=joins),
            summary="take in those who wait",
            priority=self.priority,
            **QUICK | {"task_queue": AUTOMATIONS},
        )

    async def hand_over(self, formed: Formed) -> None:
        """To a cohort that is at work, or else to one that begins."""
        input = cohort_input(SourceRef(**self.source), formed)
        while not (formed.first and await self.joined(input)):
            if formed.first:  # the same once more, with all that a cohort begins with
                input = cohort_input(SourceRef(**self.source), await self.form(joins=False))
            try:
                await workflow.start_child_workflow(
                    CohortWorkflow.run,
                    input,
                    task_queue=AUTOMATIONS,
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE
                    if formed.first
                    else WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    **cohorts.start_options(input),
                )
            except WorkflowAlreadyStartedError:
                if formed.first == 0:
                    return  # somebody has found it lost, and was faster
            else:
                return

    async def joined(self, input: CohortInput) -> bool:
        """False if the cohort was over at this very moment; then it is begun anew, with these alone."""
        cohort: workflow.ExternalWorkflowHandle[CohortWorkflow] = workflow.get_external_workflow_handle_for(
            CohortWorkflow.run, cohort_workflow_id(input, input.cohort)
        )
        try:
            await cohort.signal(CohortWorkflow.join, Join(first=input.first, members=input.members))
        except ApplicationError:
            return False
        return True

    # -- drips -------------------------------------------------------------------------------------------------------

    async def begin_drip(self) -> None:
        await workflow.execute_activity_method(
            Drips.enroll_audience,
            DripInput(**self.source, now=workflow.now()),
            summary="let the audience in",
            priority=self.priority,
            **CRUNCHING,
        )

    async def close_drip(self) -> bool:
        """Whether nobody is inside, nobody can join, and the books are closed."""
        self.look = False
        standing = await workflow.execute_activity_method(
            Drips.close_drip,
            DripInput(**self.source, now=workflow.now()),
            summary="look whether it is over",
            priority=self.priority,
            **QUICK,
        )
        return standing.over

    # -- what people ask of it, and what others tell -----------------------------------------------------------------

    @workflow.signal
    def enrolled(self) -> None:
        """Somebody is pending."""
        self.pending = True

    @workflow.signal
    def ended(self) -> None:
        """A cohort is over."""
        self.look = True

    @workflow.signal
    def follow(self) -> None:
        """Somebody changed its state, or its times, in the database: look, and tell the cohorts. It may have been
        another in between, and have held some, or kept some from being taken in."""
        self.moved = self.untold = self.look = self.pending = True

    @workflow.signal
    def migrate(self, migration: Migration, /) -> None:
        """Those inside are to go on in a new version."""
        self.migrations.append(migration)
        self.moved = True

    @workflow.update
    async def pause(self, command: Command, /) -> AutomationProgress:
        """Answers when the pause holds: at most what is in flight still leaves."""
        return await self.change("paused", command.reason)

    @workflow.update
    async def resume(self, command: Command, /) -> AutomationProgress:
        """Answers when it lets contacts in again; those inside go on as soon as they are told."""
        return await self.change("active", command.reason)

    @workflow.update
    async def cancel(self, command: Command, /) -> AutomationProgress:
        """Answers when nobody takes another step; those inside leave after that."""
        return await self.change("cancelled", command.reason)

    @pause.validator
    @resume.validator
    @cancel.validator
    def check_open(self, _: Command, /) -> None:
        if self.state == "over":
            raise ApplicationError("It is over already.", type="Ended")

    @workflow.query
    def progress(self) -> AutomationProgress:
        return AutomationProgress(state=self.state, reason=self.reason, cohorts=self.cohort or 0)

    # -- the state, which the database has the last word on ----------------------------------------------------------

    async def change(self, state: str, reason: str) -> AutomationProgress:
        async with self.control:
            standing = await workflow.execute_activity_method(
                Routing.change_source,
                SourceCommand(**self.source, state=state, reason=reason),
                summary=f"set state {state}",
                priority=self.priority,
                **QUICK | {"task_queue": AUTOMATIONS},
            )
            self.accept(standing)
        self.moved = True  # its times are kept only while it is active
        return self.progress()

    async def follow_database(self) -> None:
        async with self.control:
            standing = await workflow.execute_activity_method(
                Routing.read_source,
                SourceRef(**self.source),
                summary="read the state",
                priority=self.priority,
                **QUICK | {"task_queue": AUTOMATIONS},
            )
            self.accept(standing)

    def accept(self, standing: SourceStanding) -> None:
        if standing.state != self.state:
            workflow.upsert_search_attributes([STATE.value_set(standing.state)])
            # Also of a state that it had before: some were told of the one between, or held by it.
            self.untold = self.pending = self.look = True
        self.state, self.reason = standing.state, standing.reason
        self.cancelled = self.cancelled or standing.cancelled

    @property
    def has_to_tell(self) -> bool:
        return bool(self.untold or self.cancelled or self.migrations)

    def tell_cohorts(self) -> None:
        """Each of them. They may be many: whoever comes meanwhile is taken in.

        This begins only when all cohorts that were formed have been started, so that none of them misses it; what
        changes after that is told once more.
        """
        if self.telling or not self.has_to_tell:
            return
        migration = self.migrations.pop(0) if self.migrations else None
        if migration is None:
            self.untold = self.cancelled = False
        self.telling = True
        asyncio.create_task(self._tell_cohorts(migration))  # noqa: RUF006  # the loop of a workflow keeps its tasks

    async def _tell_cohorts(self, migration: Migration | None) -> None:
        await workflow.execute_activity_method(
            Routing.tell_cohorts,
            TellInput(**self.source, migration=migration and migration.model_dump(mode="json"), now=workflow.now()),
            summary="tell cohorts of a new version" if migration else f"tell cohorts: {self.state}",
            priority=self.priority,
            **TELLING,
        )
        self.telling = False

    # -- from one run to the next ------------------------------------------------------------------------------------

    async def finish(self) -> AutomationProgress:
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.progress()

    async def continue_as_new(self) -> None:
        """Hand over to a run with an empty history. Who enrolls meanwhile is found by the next: it looks first."""
        await workflow.wait_condition(workflow.all_handlers_finished)
        progress = AutomationState(
            state=self.state,
            reason=self.reason,
            cohort=self.cohort,
            members=self.members,
            formed_at=self.formed_at,
            untold=self.untold,
            cancelled=self.cancelled,
            migrations=self.migrations,
        )
        workflow.continue_as_new(self.input.model_copy(update={"progress": progress}))
