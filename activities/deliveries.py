"""Send what a campaign has planned: set after set, until a shard has no more due."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from temporalio import activity

from activities.campaigns import email_rules, read_totals
from activities.heartbeats import beating
from activities.inputs import Delivered, DeliverInput
from activities.messages import Composer
from activities.sendings import Sending
from channels.base import Channel, Message
from database import campaigns, deliveries, experiments, leases
from database.eligibility import Rules
from database.engine import Connection, Database
from database.leases import Leased, NextSet
from marketing.campaigns import CampaignPlan, CampaignState, EmailPlan
from marketing.deliveries import Terms
from marketing.tracking import RecipientLinks

log = structlog.get_logger()

_MOST_PLANS = 100  # kept compiled per process


@dataclass
class Mailing:
    """A campaign made ready for sending: what each variant says, or what all get, which is ''."""

    plan: CampaignPlan
    composers: Mapping[str, Composer]


@dataclass
class Deliveries:
    """Sends what a campaign has planned.

    Args:
        set_size: messages leased at once.
        lanes: sets under way at once in one `deliver`. One is enough: leasing and recording overlap with the sending of
            the other shards, and a second doubles what a killed worker leaves uncertain (docs/performance.md).
        turn_seconds: after so long a `deliver` lets others have its place and tells how the campaign stands.
        lease_seconds: how long a set is ours. The shorter, the sooner a killed worker's messages are settled.
        traced_share: how many of the messages that were sent get a span of their own, where there are traces.
    """

    database: Database
    channels: Mapping[str, Channel]
    links: RecipientLinks
    set_size: int = 50
    lanes: int = 1
    turn_seconds: float = 15.0
    lease_seconds: float = 60.0
    traced_share: float = 0.0
    mailings: OrderedDict[UUID, Mailing] = field(default_factory=OrderedDict)

    @activity.defn
    async def deliver(self, input: DeliverInput) -> Delivered:
        """Everything of one shard that is due.

        A worker that is asked to stop finishes its sets and leaves the rest to the next.
        """
        async with beating():
            mailing = await self.mailing(input.account_id, input.campaign_id)
            shard = _Shard(input, mailing, self.set_size, self.lease_seconds)
            sending = Sending(
                self.database,
                self.channels["email"],
                shard,
                now=input.now,
                lease_seconds=self.lease_seconds,
                turn_seconds=self.turn_seconds,
                traced_share=self.traced_share,
            )
            await self.settle_lost(shard, input.now)
            await sending.run(self.lanes)
            async with self.database.transaction(input.account_id) as tx:
                totals = await read_totals(tx, input.campaign_id)
                due, lease_ends_in = await leases.next_due(tx, input.campaign_id, input.shard)
        if lease_ends_in is not None:
            ends = sending.now() + timedelta(seconds=max(lease_ends_in, 0) + 0.1)
            due = min(due, ends) if due else ends
        return Delivered(totals=totals, next_due=due, stopped=sending.halted, unavailable=sending.unavailable)

    async def mailing(self, account_id: UUID, campaign_id: UUID) -> Mailing:
        """The campaign's plan, which never changes after the launch."""
        if campaign_id not in self.mailings:
            async with self.database.transaction(account_id) as tx:
                plan = await campaigns.load_plan(tx, campaign_id)
            self.mailings[campaign_id] = Mailing(plan, self._composers(account_id, campaign_id, plan))
            if len(self.mailings) > _MOST_PLANS:
                self.mailings.popitem(last=False)
        self.mailings.move_to_end(campaign_id)
        return self.mailings[campaign_id]

    def _composers(self, account_id: UUID, campaign_id: UUID, plan: CampaignPlan) -> dict[str, Composer]:
        if not plan.variants:
            return {"": Composer(account_id, campaign_id, plan.email, self.links)}
        number = {url: number for number, url in enumerate(plan.links)}  # whoever says it, a link has one

        def composer(email: EmailPlan) -> Composer:
            numbers = [number[url] for url in email.prepared.links]
            return Composer(account_id, campaign_id, email, self.links, "experiment", numbers)

        return {name: composer(email) for name, email in plan.variants.items()}

    async def settle_lost(self, shard: "_Shard", now: datetime) -> None:
        """Say what became of the messages that a lost worker had taken."""
        async with self.database.transaction(shard.account_id) as tx:
            rules = await shard.rules(tx, now)
            lost = await deliveries.settle_lost(
                tx, shard.source_id, shard.input.shard, resend=shard.terms.resend, rules=rules
            )
        if lost:
            log.warning("settled messages of a lost worker", campaign_id=str(shard.source_id), messages=lost)


class _Shard:
    """The messages of one shard of a campaign."""

    step = ""

    def __init__(self, input: DeliverInput, mailing: Mailing, set_size: int, lease_seconds: float) -> None:
        self.input = input
        self.account_id = input.account_id
        self.source_id = input.campaign_id
        self.mailing = mailing
        self.set_size = set_size
        self.lease_seconds = lease_seconds
        plan = mailing.plan
        self.terms = Terms(
            plan.topic, plan.rate_limit_per_second, plan.max_messages, resend=plan.on_uncertain == "resend"
        )
        self.winner = ""  # of an experiment, which the rest gets

    async def rules(self, tx: Connection, now: datetime) -> Rules:
        return await email_rules(tx, self.account_id, self.terms.topic, now)

    async def is_running(self, tx: Connection) -> bool:
        state, _ = await campaigns.state_of(tx, self.source_id)
        going, experiment = state is CampaignState.RUNNING, self.mailing.plan.experiment
        if going and experiment:
            going, self.winner = await experiments.may_send(
                tx, self.source_id, self.input.shard, is_bandit=experiment.is_bandit
            )
        return going

    def next_set(self, token: UUID) -> NextSet:
        return NextSet(self.input.shard, token, self.lease_seconds, self.set_size)

    def message(self, leased: Leased, now: datetime) -> Message:
        return self.mailing.composers[leased.variant or self.winner].message(leased.id, leased.contact, now)
