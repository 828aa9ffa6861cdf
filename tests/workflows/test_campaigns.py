"""Does a campaign carry out its plan, whatever comes between?"""

from uuid import UUID

from sqlalchemy import text
from temporalio.client import Client, WorkflowHandle

from activities.inputs import Totals
from channels.sink import Sink
from database import campaigns, counters
from marketing.campaigns import (
    Audience,
    CampaignDefinition,
    CampaignPlan,
    CampaignState,
    Content,
    EmailPlan,
)
from marketing.content import EmailContent, prepare
from marketing.reports import campaign_stats
from tests.audience import EMAIL, people
from tests.conftest import TestAccount
from workflows.campaigns import CampaignWorkflow, campaign_workflow_id, search_attributes
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION

Campaign = WorkflowHandle[CampaignWorkflow, Totals]


async def launch(temporal: Client, account: TestAccount, *, shard_size: int = 2000, **changes: object) -> Campaign:
    """A broadcast to everyone, launched without the API."""
    content = EmailContent.model_validate(EMAIL)
    definition = CampaignDefinition(name="Test", content=Content(email=content), audience=Audience(everyone=True))
    plan = CampaignPlan.model_validate(
        {
            "campaign_name": "Test",
            "topic": None,
            "on_uncertain": "hold",
            "rate_limit_per_second": None,
            "max_messages": None,
            "audience": Audience(everyone=True),
            "schedule": None,
            "email": EmailPlan(
                prepared=prepare(content),
                from_name=content.from_name,
                from_email=content.from_email,
                reply_to=None,
                account={},
                campaign={},
            ),
            **changes,
        }
    )
    async with account.transaction() as tx:
        campaign = await campaigns.create(tx, account.id, definition)
        await campaigns.launch(tx, account.id, campaign.id, plan, plan.email.prepared.links, CampaignState.RUNNING)
    input = CampaignInput(account_id=account.id, campaign_id=campaign.id, shard_size=shard_size)
    return await temporal.start_workflow(
        CampaignWorkflow.run,
        input,
        id=campaign_workflow_id(campaign.id),
        task_queue=ORCHESTRATION,
        search_attributes=search_attributes(input, "running"),
    )


def id_of(campaign: Campaign) -> UUID:
    return UUID(campaign.id.removeprefix("campaign-"))


async def states(account: TestAccount, campaign: Campaign) -> dict[str, int]:
    """Rows of the ledger per state and reason."""
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT concat_ws(':', state, reason) AS what, count(*) AS n FROM deliveries
                WHERE campaign_id = :campaign_id GROUP BY 1
            """),
            {"campaign_id": id_of(campaign)},
        )
        return {row.what: row.n for row in rows}


def arrived(sink: Sink, account: TestAccount) -> list[str]:
    """Who got a message at the sink, once for each."""
    ending = f"-{str(account.id)[-12:]}@example.org"
    return sorted(each.recipient for each in sink.received if each.recipient.endswith(ending))


async def test_everybody_gets_one_message_and_the_figures_add_up(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 300)
    campaign = await launch(temporal, account, shard_size=100)
    totals = await campaign.result()
    assert totals == Totals(planned=300, sent=300)
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 300
    assert await states(account, campaign) == {"sent": 300}
    async with account.transaction() as tx:
        stats = campaign_stats(await counters.read(tx, id_of(campaign)))
        assert (await campaigns.state_of(tx, id_of(campaign)))[0] is CampaignState.COMPLETED
    assert (stats.planned, stats.sent, stats.pending) == (300, 300, 0)
    assert stats.reconciles
