"""A workflow has one turn at a time, also where Temporal has given up one that takes too long.

The worker takes a workflow task of two seconds for a deadlock, fails it and evicts the run. In temporalio 1.35 it means
to wait for the thread first, and does not: `asyncio.wait_for` has cancelled the future that it waits for. So two
threads would turn the run's event loop at once and lose what was ready in it. The eviction would fail for ever (“tasks
remain”), and the run would stand still until the worker is started anew.
"""

from threading import Lock
from typing import Any

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info


class OneTurnAtATime(SandboxedWorkflowRunner):
    """The sandbox that every workflow of ours runs in."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See `temporalio.worker.WorkflowRunner`."""
        return _Instance(super().create_instance(det))


class _Instance(WorkflowInstance):
    """As the one inside."""

    def __init__(self, inside: WorkflowInstance) -> None:
        self.inside = inside
        self.turn = Lock()

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        with self.turn:
            return self.inside.activate(act)

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        return self.inside.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self.inside.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self.inside.get_info()

    def get_thread_id(self) -> int | None:
        return self.inside.get_thread_id()
