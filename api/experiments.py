"""`/api/campaigns/ab-tests`: campaigns become experiments, which are started, listed and read."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError

from api.auth import Editor, Viewer
from api.campaign_control import launch
from api.campaigns import allow
from api.campaigns import find as find_campaign
from api.errors import Conflict, NotFound, malformed, message_of
from api.paging import Cursor, Limit, Page, page_of
from database import campaigns, experiments
from database.campaigns import Campaign, CampaignFilter
from database.engine import Connection
from database.experiments import Standing
from marketing.campaigns import CampaignDefinition, CampaignState, Move
from marketing.experiments import Experiment

router = APIRouter(prefix="/api/campaigns", tags=["experiments"])


class ExperimentAnswer(BaseModel):
    """An experiment, and how far it has come."""

    id: UUID = Field(description="The campaign's: a campaign has one experiment.")
    campaign_id: UUID
    name: str
    status: CampaignState = Field(description="Of the campaign.")
    status_reason: str
    state: str | None = Field(
        description="`testing`, `asking` (a person has to decide), `decided` or `stopped`; null before the launch."
    )
    winner: str | None = Field(
        description="What the rest gets. null of one that is `decided`: nobody waits for a winner, and it has none."
    )
    decided_by: str | None = Field(description="`significance`, `time`, `fallback`, `person` or `bandit`.")
    reason: str = Field(description="Why it is decided, asked or stopped, in a sentence.")
    experiment: Experiment | None = Field(description="null: it is not written yet.")
    launched_at: datetime | None
    test_began_at: datetime | None
    test_sent_at: datetime | None = Field(description="When nothing of the test was left to send.")
    decided_at: datetime | None


def answer(campaign: Campaign, standing: Standing | None) -> ExperimentAnswer:
    return ExperimentAnswer(
        id=campaign.id,
        campaign_id=campaign.id,
        name=campaign.name,
        status=campaign.state,
        status_reason=campaign.state_reason,
        state=standing and standing.state,
        winner=standing and standing.winner,
        decided_by=standing and standing.decided_by,
        reason=standing.reason if standing else "",
        experiment=campaign.definition.experiment,
        launched_at=campaign.launched_at,
        test_began_at=standing and standing.test_began_at,
        test_sent_at=standing and standing.test_sent_at,
        decided_at=standing and standing.decided_at,
    )


async def find(tx: Connection, experiment_id: UUID) -> Campaign:
    """The campaign that is one, or a 404."""
    campaign = await campaigns.read(tx, experiment_id)
    if campaign is None or not campaign.definition.is_experiment:
        raise NotFound("There is no such experiment. GET /api/campaigns/ab-tests lists yours.")
    return campaign


@router.post("/{campaign_id}/ab-tests", status_code=201)
async def create_experiment(campaign_id: UUID, experiment: Experiment, caller: Editor) -> ExperimentAnswer:
    """Make a draft an experiment. What its variants do not name comes from the campaign."""
    async with caller.transaction() as tx:
        campaign = await find_campaign(tx, campaign_id, lock=True)
        allow(Move.EDIT, campaign.state)
        if campaign.definition.experiment is not None:
            raise Conflict("This campaign is an experiment already. PUT /api/campaigns/{id} changes it.")
        if campaign.definition.is_drip:
            raise Conflict("A drip has no experiment. Make it an automation with a `split`, or a campaign of its own.")
        changed = await campaigns.replace_draft(tx, campaign_id, _become(campaign.definition, experiment))
        assert changed, "it is a draft, and locked"
        return answer(changed, None)


def _become(definition: CampaignDefinition, experiment: Experiment) -> CampaignDefinition:
    written = definition.model_dump(exclude_unset=True) | {"kind": "experiment", "experiment": experiment}
    try:
        return CampaignDefinition.model_validate(written)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        raise malformed(
            [{"path": ".".join(map(str, ("body", *each["loc"]))), "message": message_of(each)} for each in wrong]
        ) from error


@router.get("/ab-tests")
async def list_experiments(
    caller: Viewer, status: CampaignState | None = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[ExperimentAnswer]:
    """Experiments, newest first."""
    async with caller.transaction() as tx:
        wanted = CampaignFilter(state=status, kind="experiment")
        found = await campaigns.page(tx, wanted, after=cursor, limit=limit + 1)
        standings = await experiments.several(tx, [each.id for each in found])
    return page_of([answer(each, standings.get(each.id)) for each in found], limit, lambda each: each.id)


@router.get("/ab-tests/{experiment_id}")
async def read_experiment(experiment_id: UUID, caller: Viewer) -> ExperimentAnswer:
    """An experiment as its author wrote it, and how far it has come."""
    async with caller.transaction() as tx:
        return answer(await find(tx, experiment_id), await experiments.read(tx, experiment_id))


@router.post("/ab-tests/{experiment_id}/start", status_code=202)
async def start_experiment(experiment_id: UUID, request: Request, caller: Editor) -> ExperimentAnswer:
    """Launch the campaign, now or at its scheduled time: those who take part get their variants."""
    async with caller.transaction(effective=False) as tx:
        await find(tx, experiment_id)
    await launch(request, caller, experiment_id)
    async with caller.transaction() as tx:
        return answer(await find(tx, experiment_id), await experiments.read(tx, experiment_id))
