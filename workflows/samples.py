"""A test message goes out ahead of everything else."""

from uuid import UUID

from temporalio import workflow
from temporalio.common import Priority

with workflow.unsafe.imports_passed_through():
    from activities.inputs import SampleSent, SendSample
    from activities.samples import Samples
    from workflows.options import PRIORITY_TEST, SENDING_ONCE


def sample_workflow_id(campaign_id: UUID, number: UUID) -> str:
    return f"test-{campaign_id}/{number}"


@workflow.defn
class SampleWorkflow:
    """Sends a campaign's message to colleagues."""

    @workflow.run
    async def run(self, input: SendSample) -> SampleSent:
        return await workflow.execute_activity_method(
            Samples.send_sample,
            input,
            summary=f"send a test to {len(input.addresses)} addresses",
            priority=Priority(priority_key=PRIORITY_TEST, fairness_key=str(input.account_id)),
            **SENDING_ONCE,
        )
