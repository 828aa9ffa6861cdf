"""While there is something to know: who wants it by e-mail gets it at once, and then once in an hour."""

from contextlib import suppress
from uuid import UUID

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

with workflow.unsafe.imports_passed_through():
    from activities.notifications import DigestInput, Notifications
    from workflows.options import ORCHESTRATION, SENDING, STARTING
    from workflows.search_attributes import keywords


@workflow.defn
class NotificationsWorkflow:
    """One account's, for as long as something waits to be told."""

    @workflow.init
    def __init__(self, account_id: UUID) -> None:
        self.account_id = account_id
        self.news = True

    @workflow.run
    async def run(self, account_id: UUID) -> None:
        while self.news:
            self.news = False
            done = await workflow.execute_activity_method(
                Notifications.email_digests,
                DigestInput(account_id=account_id, now=workflow.now()),
                summary="e-mail what there is to know",
                **SENDING,
            )
            if done.due:
                wait = done.due - workflow.now()
                with suppress(TimeoutError):
                    await workflow.wait_condition(
                        lambda: self.news, timeout=wait, timeout_summary="wait for an hour after the last e-mail"
                    )
                self.news = True
            if self.news and workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(account_id)

    @workflow.signal
    def look(self) -> None:
        """There is something new."""
        self.news = True


async def tell(client: Client, account_id: UUID) -> None:
    """Have what there is to know sent. If Temporal does not answer, it goes out with what comes next."""
    with suppress(RPCError):
        await client.start_workflow(
            NotificationsWorkflow.run,
            account_id,
            id=f"notifications-{account_id}",
            task_queue=ORCHESTRATION,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="look",
            search_attributes=keywords(AccountId=str(account_id), Kind="notifications"),
            static_summary="e-mails of what there is to know",
            rpc_timeout=STARTING,
        )
