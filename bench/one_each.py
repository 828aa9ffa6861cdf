"""What automations are held against: a workflow of its own for each contact, written by hand."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from temporalio import workflow

TASK_QUEUE = "one-each"
_PATIENCE = timedelta(minutes=5)


@dataclass
class Turn:
    """The first or the second message of a contact."""

    contact_id: UUID
    step: str


@dataclass
class Pass:
    """How one contact passes: with a wait of some seconds, or until it is told that something has happened."""

    contact_id: UUID
    wait_seconds: float | None


@workflow.defn
class OneEachWorkflow:
    """Send, wait, branch, send: four steps."""

    def __init__(self) -> None:
        self.told = False

    @workflow.run
    async def run(self, contact: Pass) -> None:
        await self.send(contact, "first")
        if contact.wait_seconds is None:
            await workflow.wait_condition(lambda: self.told, timeout=timedelta(hours=1))
        else:
            await workflow.sleep(contact.wait_seconds)
        clicked = await workflow.execute_activity("clicked", contact.contact_id, start_to_close_timeout=_PATIENCE)
        if not clicked:
            await self.send(contact, "second")

    async def send(self, contact: Pass, step: str) -> None:
        await workflow.execute_activity("send", Turn(contact.contact_id, step), start_to_close_timeout=_PATIENCE)

    @workflow.signal
    def happened(self) -> None:
        self.told = True
