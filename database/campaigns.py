"""Campaigns: drafted, launched, moved through their life, and looked up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Select, func, insert, select, text, update

from database.engine import Connection, Database
from database.schema import campaign_meters, campaigns, events, links
from database.schema_experiments import experiments
from marketing.campaigns import CampaignDefinition, CampaignPlan, CampaignState
from marketing.resolutions import RESENDING


@dataclass(frozen=True)
class Campaign:
    """A campaign with what has become of it."""

    id: UUID
    name: str
    kind: str
    channels: list[str]
    state: CampaignState
    state_reason: str
    definition: CampaignDefinition
    created_at: datetime
    updated_at: datetime
    launched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


_READABLE = (
    campaigns.c.id,
    campaigns.c.name,
    campaigns.c.kind,
    campaigns.c.channels,
    campaigns.c.state,
    campaigns.c.state_reason,
    campaigns.c.definition,
    campaigns.c.created_at,
    campaigns.c.updated_at,
    campaigns.c.launched_at,
    campaigns.c.started_at,
    campaigns.c.finished_at,
)


def _campaign(row: Any) -> Campaign:
    values = dict(row)
    values["state"] = CampaignState(values["state"])
    values["definition"] = CampaignDefinition.model_validate(values["definition"])
    return Campaign(**values)


# -- drafts ----------------------------------------------------------------------------------------------------------


def _columns(definition: CampaignDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "kind": definition.kind,
        "channels": list(definition.channels),
        "definition": definition.model_dump(mode="json", exclude_none=True),
    }


async def create(
    tx: Connection, account_id: UUID, definition: CampaignDefinition, *, id: UUID | None = None
) -> Campaign:
    """A draft, under an id of its own or the one given."""
    given = {"id": id} if id else {}
    statement = insert(campaigns).values(account_id=account_id, **given, **_columns(definition)).returning(*_READABLE)
    return _campaign((await tx.execute(statement)).mappings().one())


async def replace_draft(tx: Connection, campaign_id: UUID, definition: CampaignDefinition) -> Campaign | None:
    """None if it is no draft (any more)."""
    statement = (
        update(campaigns)
        .where(
            campaigns.c.id == campaign_id, campaigns.c.state == CampaignState.DRAFT, campaigns.c.deleted_at.is_(None)
        )
        .values(**_columns(definition), updated_at=func.now())
        .returning(*_READABLE)
    )
    row = (await tx.execute(statement)).mappings().one_or_none()
    return _campaign(row) if row else None


async def delete(tx: Connection, campaign_id: UUID, states: Sequence[CampaignState]) -> bool:
    """Hide a campaign that is in one of these states; its ledger stays."""
    statement = update(campaigns).where(
        campaigns.c.id == campaign_id, campaigns.c.state.in_(states), campaigns.c.deleted_at.is_(None)
    )
    return (await tx.execute(statement.values(deleted_at=func.now()))).rowcount == 1


# -- looking ---------------------------------------------------------------------------------------------------------


def _living() -> Select[Any]:
    return select(*_READABLE).where(campaigns.c.deleted_at.is_(None))


async def read(tx: Connection, campaign_id: UUID, *, lock: bool = False, deleted: bool = False) -> Campaign | None:
    """The campaign, even a deleted one if asked so; with `lock` nobody else changes it until this transaction ends."""
    query = (select(*_READABLE) if deleted else _living()).where(campaigns.c.id == campaign_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    return _campaign(row) if row else None


@dataclass(frozen=True)
class CampaignFilter:
    """Which campaigns a list shows; what is None does not filter."""

    state: CampaignState | None = None
    kind: str | None = None
    channel: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    search: str | None = None


async def page(tx: Connection, wanted: CampaignFilter, *, after: UUID | None, limit: int) -> list[Campaign]:
    """Newest first."""
    query = _living().order_by(campaigns.c.id.desc()).limit(limit)
    if after:
        query = query.where(campaigns.c.id < after)
    if wanted.state:
        query = query.where(campaigns.c.state == wanted.state)
    if wanted.kind:
        query = query.where(campaigns.c.kind == wanted.kind)
    if wanted.channel:
        query = query.where(campaigns.c.channels.contains([wanted.channel]))
    if wanted.created_from:
        query = query.where(campaigns.c.created_at >= wanted.created_from)
    if wanted.created_to:
        query = query.where(campaigns.c.created_at < wanted.created_to)
    if wanted.search:
        query = query.where(campaigns.c.name.icontains(wanted.search, autoescape=True))
    return [_campaign(row) for row in (await tx.execute(query)).mappings()]


# -- life ------------------------------------------------------------------------------------------------------------


async def launch(tx: Connection, account_id: UUID, campaign_id: UUID, plan: CampaignPlan, state: CampaignState) -> None:
    """Freeze the plan and its links, and leave the draft behind; the caller holds its lock."""
    statement = update(campaigns).where(campaigns.c.id == campaign_id, campaigns.c.state == CampaignState.DRAFT)
    frozen = plan.model_dump(mode="json")
    await tx.execute(statement.values(plan=frozen, state=state, launched_at=func.now(), updated_at=func.now()))
    await tx.execute(insert(campaign_meters).values(account_id=account_id, campaign_id=campaign_id))
    numbered = [
        {"account_id": account_id, "campaign_id": campaign_id, "number": number, "url": url}
        for number, url in enumerate(plan.links)
    ]
    if numbered and not plan.messages:  # the links of a drip are numbered as its messages are first sent
        await tx.execute(insert(links), numbered)
    if plan.experiment:
        await tx.execute(insert(experiments).values(account_id=account_id, campaign_id=campaign_id))
    await log(tx, account_id, campaign_id, "campaign.launched", state=state)


async def load_plan(tx: Connection, campaign_id: UUID) -> CampaignPlan:
    """What was frozen at launch."""
    query = select(campaigns.c.plan).where(campaigns.c.id == campaign_id)
    return CampaignPlan.model_validate((await tx.execute(query)).scalar_one())


async def state_of(tx: Connection, campaign_id: UUID) -> tuple[CampaignState, str]:
    """The state and the reason for it."""
    query = select(campaigns.c.state, campaigns.c.state_reason).where(campaigns.c.id == campaign_id)
    row = (await tx.execute(query)).one()
    return CampaignState(row.state), row.state_reason


_MAY_BECOME: dict[CampaignState, tuple[CampaignState, ...]] = {
    CampaignState.RUNNING: (CampaignState.SCHEDULED, CampaignState.PAUSED),
    CampaignState.PAUSED: (CampaignState.RUNNING,),
    CampaignState.CANCELLED: (CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED),
    # Nothing was left when the pause came.
    CampaignState.COMPLETED: (CampaignState.RUNNING, CampaignState.PAUSED),
    CampaignState.FAILED: (CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED),
}


async def change_state(
    tx: Connection, account_id: UUID, campaign_id: UUID, state: CampaignState, reason: str = ""
) -> tuple[CampaignState, bool]:
    """Move a campaign if its state allows it.

    Returns:
        the state that it now has, and whether this call changed it. Asked twice, the second time changes nothing.
    """
    statement = (
        update(campaigns)
        .where(campaigns.c.id == campaign_id, campaigns.c.state.in_(_MAY_BECOME[state]))
        .values(state=state, state_reason=reason, updated_at=func.now())
    )
    changed = (await tx.execute(statement)).rowcount == 1
    if changed:
        await log(tx, account_id, campaign_id, f"campaign.{state}", reason=reason)
    return (await state_of(tx, campaign_id))[0], changed


async def give_whole_reason(tx: Connection, campaign_id: UUID, state: CampaignState, told: str, whole: str) -> None:
    """Keep what a person said of their last move in their own words, which not everybody was told."""
    await tx.execute(
        update(campaigns)
        .where(campaigns.c.id == campaign_id, campaigns.c.state == state, campaigns.c.state_reason == told)
        .values(state_reason=whole)
    )
    moves = select(events.c.id).where(events.c.campaign_id == campaign_id, events.c.name == f"campaign.{state}")
    last = moves.order_by(events.c.id.desc()).limit(1).scalar_subquery()
    await tx.execute(
        update(events)
        .where(events.c.id == last, events.c.properties["reason"].astext == told)
        .values(properties={"reason": whole})
    )


async def reopen(tx: Connection, account_id: UUID, campaign_id: UUID) -> bool:
    """Let a campaign send again into which messages were put back; False if it has ended for good.

    Until this transaction ends, nobody completes it.
    """
    campaign = await read(tx, campaign_id, lock=True)
    if campaign is None or campaign.state not in RESENDING:
        return False
    if campaign.state is CampaignState.COMPLETED:
        reason = "Messages of which nobody knew whether they arrived are sent again."
        opened = update(campaigns).where(campaigns.c.id == campaign_id)
        await tx.execute(
            opened.values(state=CampaignState.RUNNING, state_reason=reason, finished_at=None, updated_at=func.now())
        )
        await log(tx, account_id, campaign_id, "campaign.reopened", reason=reason)
    return True


async def hold(tx: Connection, account_id: UUID, campaign_id: UUID, reason: str) -> None:
    """Pause a campaign of which nobody knows how far it has come, whether it has begun or not."""
    held = update(campaigns).where(campaigns.c.id == campaign_id)
    await tx.execute(held.values(state=CampaignState.PAUSED, state_reason=reason, updated_at=func.now()))
    await log(tx, account_id, campaign_id, "campaign.paused", reason=reason)


async def mark_started(tx: Connection, campaign_id: UUID) -> bool:
    """False if the audience was frozen before."""
    statement = update(campaigns).where(campaigns.c.id == campaign_id, campaigns.c.started_at.is_(None))
    return (await tx.execute(statement.values(started_at=func.now()))).rowcount == 1


async def has_started(tx: Connection, campaign_id: UUID) -> bool:
    """Is the audience frozen?"""
    query = select(campaigns.c.started_at.is_not(None)).where(campaigns.c.id == campaign_id)
    return bool((await tx.execute(query)).scalar_one())


async def mark_finished(tx: Connection, campaign_id: UUID) -> None:
    statement = update(campaigns).where(campaigns.c.id == campaign_id, campaigns.c.finished_at.is_(None))
    await tx.execute(statement.values(finished_at=func.now()))


@dataclass(frozen=True)
class OpenCampaign:
    """A campaign whose workflow must be alive."""

    account_id: UUID
    campaign_id: UUID
    state: CampaignState
    kind: Literal["broadcast", "experiment"]  # each has a workflow of its own


async def open_campaigns(database: Database) -> list[OpenCampaign]:
    """All campaigns of all accounts that are not finished; their workflows are looked after by the sweep."""
    async with database.transaction(None) as tx:
        rows = await tx.execute(text("SELECT account_id, campaign_id, state, kind FROM open_campaigns()"))
        return [OpenCampaign(row.account_id, row.campaign_id, CampaignState(row.state), row.kind) for row in rows]


# -- history ---------------------------------------------------------------------------------------------------------


async def log(tx: Connection, account_id: UUID, campaign_id: UUID, name: str, **properties: str) -> None:
    """Write an event into the campaign's history."""
    told = {key: value for key, value in properties.items() if value}
    await tx.execute(insert(events).values(account_id=account_id, campaign_id=campaign_id, name=name, properties=told))
