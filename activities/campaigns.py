"""What a campaign's workflow does besides sending: freeze the audience, keep the state, close the books."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeats import beating
from activities.inputs import (
    CampaignRef,
    FreezeInput,
    Frozen,
    OpenShards,
    OpenShardsInput,
    RestSkipped,
    ShardDue,
    SkipRestInput,
    StateAnswer,
    StateChange,
    Totals,
    WaveOfShards,
)
from database import accounts, campaigns, counters, deliveries, leases, planning, stored_segments
from database.eligibility import Rules
from database.engine import Connection, Database
from database.planning import Wave
from marketing.campaigns import ENDED, Audience, CampaignState
from marketing.deliveries import SkipReason
from marketing.stored_segments import SegmentState

SKIPPED_AT_ONCE = 5000
LOOK_AGAIN = timedelta(seconds=1)


@dataclass
class Campaigns:
    database: Database

    @activity.defn
    async def freeze_audience(self, input: FreezeInput) -> Frozen:
        """Plan one delivery per contact of the audience, in one transaction.

        A second call finds it done and tells of no waves: some shards may have been begun, and `open_shards` knows
        which are left.
        """
        waves: list[Wave] = []
        # One statement, which no heartbeat can come between: ten million contacts on a busy machine take minutes.
        async with beating(), self.database.transaction(input.account_id) as tx:
            plan = await campaigns.load_plan(tx, input.campaign_id)
            account = await accounts.read(tx, input.account_id)
            await wait_for_segments(tx, input.campaign_id, plan.audience)
            if await campaigns.mark_started(tx, input.campaign_id):
                planned = await planning.freeze_audience(
                    tx,
                    input.campaign_id,
                    plan,
                    now=input.now,
                    default_timezone=account.default_timezone,
                    shard_size=input.shard_size,
                )
                figures = {(variant, "planned"): n for variant, n in planned.items()}
                await counters.add_to_variants(
                    tx, input.account_id, input.campaign_id, figures, now=input.now, channel="email"
                )
                told = {"planned": str(planned.total())}
                await campaigns.log(tx, input.account_id, input.campaign_id, "campaign.audience_frozen", **told)
                waves = await planning.waves(tx, input.campaign_id)
            totals = await read_totals(tx, input.campaign_id)
        async with beating(), self.database.transaction(input.account_id) as tx:
            await planning.mend_estimates(tx)
        return Frozen(
            planned=totals.planned,
            waves=[WaveOfShards(due=wave.due, first=wave.first, last=wave.last) for wave in waves],
        )

    @activity.defn
    async def change_state(self, input: StateChange) -> StateAnswer:
        """Give the campaign a state if it may have it; answer what it has now."""
        wanted = CampaignState(input.state)
        async with self.database.transaction(input.account_id) as tx:
            if wanted is not CampaignState.COMPLETED or await self._nothing_is_open(tx, input.campaign_id):
                await campaigns.change_state(tx, input.account_id, input.campaign_id, wanted, input.reason)
            state, reason = await campaigns.state_of(tx, input.campaign_id)
            if input.final and state in ENDED:
                await campaigns.mark_finished(tx, input.campaign_id)
        return StateAnswer(state=state, reason=reason)

    async def _nothing_is_open(self, tx: Connection, campaign_id: UUID) -> bool:
        """Somebody may have put messages back at the last moment; with the lock nobody does until we have ended."""
        await campaigns.read(tx, campaign_id, lock=True)
        return not await deliveries.open_shards(tx, campaign_id, limit=1)

    @activity.defn
    async def open_shards(self, input: OpenShardsInput) -> OpenShards:
        """Where the ledger still has something to do."""
        async with self.database.transaction(input.account_id) as tx:
            found = await deliveries.open_shards(tx, input.campaign_id, limit=1000, below=input.below)
            totals = await read_totals(tx, input.campaign_id)
        return OpenShards(shards=[ShardDue(shard=shard, due=due) for shard, due in found], totals=totals)

    @activity.defn
    async def read_state(self, input: CampaignRef) -> StateAnswer:
        async with self.database.transaction(input.account_id) as tx:
            state, reason = await campaigns.state_of(tx, input.campaign_id)
        return StateAnswer(state=state, reason=reason)

    @activity.defn
    async def skip_rest(self, input: SkipRestInput) -> RestSkipped:
        """Skip everything that an ended campaign has not sent, a few thousand at a time.

        What a lost worker had in hand is settled when its lease has ended; until then there is something to wait for.
        """
        skipped = SKIPPED_AT_ONCE
        while skipped:
            async with self.database.transaction(input.account_id) as tx:
                rules = await email_rules(tx, input.account_id, None, input.now)
                skipped = await deliveries.skip_rest(
                    tx, input.campaign_id, SkipReason(input.reason), limit=SKIPPED_AT_ONCE, rules=rules
                )
            activity.heartbeat(skipped)
        async with self.database.transaction(input.account_id) as tx:
            await deliveries.settle_lost(tx, input.campaign_id, None, resend=False, rules=rules)
            ends_in = await leases.last_lease_ends_in(tx, input.campaign_id)
            totals = await read_totals(tx, input.campaign_id)
        return RestSkipped(totals=totals, wait_seconds=None if ends_in is None else max(ends_in, 0.0) + 0.1)


async def wait_for_segments(tx: Connection, campaign_id: UUID, audience: Audience) -> None:
    """Have this attempt fail while nobody knows yet who belongs: a segment was changed since the launch."""
    named = [segment_id for _, segment_id in audience.looks_at()]
    if not named or (await campaigns.state_of(tx, campaign_id))[0] in ENDED:
        return
    for standing in (await stored_segments.standings(tx, named)).values():
        if standing.state is SegmentState.BUILDING:
            raise ApplicationError(
                "The members of a segment are still being found.",
                next_retry_delay=LOOK_AGAIN,
                type="SegmentBuilding",
            )


async def email_rules(tx: Connection, account_id: UUID, topic: str | None, now: datetime) -> Rules:
    """The rules that hold for a campaign's e-mails at this moment, with the account as it is now."""
    return Rules(channel="email", topic=topic, account=await accounts.read(tx, account_id), now=now)


async def read_totals(tx: Connection, campaign_id: UUID) -> Totals:
    """The campaign's figures, from its counters."""
    totals = Totals()
    for counted in await counters.read(tx, campaign_id):
        name = counted.name.partition(":")[0]
        if name in Totals.model_fields:
            setattr(totals, name, getattr(totals, name) + counted.n)
    return totals
