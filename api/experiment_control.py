"""`/api/campaigns/ab-tests/{id}/apply-winner`, `/stop`, `/track`: what people decide, and what others have counted."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import events
from api.auth import Caller, Editor
from api.campaign_control import Why, tell
from api.errors import Conflict, malformed
from api.experiments import ExperimentAnswer, answer, find
from database import contacts, experiments, exposures
from database.engine import Connection
from database.experiments import Standing
from database.exposures import Exposure
from marketing.campaigns import ENDED
from marketing.events import MOST_EVENTS, Happening, NewEvent, checked_name, in_time
from marketing.experiments import Conversion, Experiment
from marketing.spans import ahead
from marketing.text import Printable
from workflows.inputs import ChooseWinner, Command

router = APIRouter(prefix="/api/campaigns/ab-tests", tags=["experiments"])


# -- deciding --------------------------------------------------------------------------------------------------------


class Choice(BaseModel):
    """What the rest is to get, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"variant": "question", "reason": "It fits the season"}}
    )

    variant: Printable | None = Field(None, max_length=60, description="Left out: the best so far.")
    reason: str = Field("", max_length=500)


@router.post("/{experiment_id}/apply-winner")
async def apply_winner(
    experiment_id: UUID, request: Request, caller: Editor, choice: Choice | None = None
) -> ExperimentAnswer:
    """Decide now, whatever the figures say: the rest gets this variant, or the best so far."""
    choice = choice or Choice()
    experiment, standing = await _under_way(caller, experiment_id)
    if standing.state == "decided":
        raise Conflict(
            f"This experiment has its winner already: “{standing.winner}”."
            if standing.winner is not None
            else "Nobody waits for a winner of this experiment, so there is nothing to choose."
        )
    if choice.variant is not None and choice.variant not in experiment.names:
        known = ", ".join(experiment.names)
        raise malformed([{"path": "body.variant", "message": f"there is no such variant. There are {known}"}])
    number = None if choice.variant is None else experiment.names.index(choice.variant)
    return await _told(
        request, caller, experiment_id, "choose_winner", ChooseWinner(variant=number, reason=choice.reason)
    )


@router.post("/{experiment_id}/stop")
async def stop_experiment(
    experiment_id: UUID, request: Request, caller: Editor, why: Why | None = None
) -> ExperimentAnswer:
    """End the experiment without a winner: what has not left is skipped, with the reason `stopped`. Results stay."""
    await _under_way(caller, experiment_id)
    return await _told(request, caller, experiment_id, "stop", Command(reason=(why or Why()).reason))


async def _under_way(caller: Caller, experiment_id: UUID) -> tuple[Experiment, Standing]:
    async with caller.transaction(effective=False) as tx:
        campaign = await find(tx, experiment_id)
        standing = await experiments.read(tx, experiment_id)
    if standing is None:
        raise Conflict("This experiment has not been started. POST …/start does that.")
    if standing.state == "stopped" or campaign.state in ENDED:
        how = "stopped" if standing.state == "stopped" else campaign.state
        raise Conflict(f"This experiment is over: it is {how}. Its results stay; POST …/duplicate makes another draft.")
    assert campaign.definition.experiment, "nothing else is launched"
    return campaign.definition.experiment, standing


async def _told(
    request: Request, caller: Caller, experiment_id: UUID, update: str, argument: ChooseWinner | Command
) -> ExperimentAnswer:
    await tell(
        request, experiment_id, update, argument, "It may still happen; look at the experiment before you ask again."
    )
    async with caller.transaction() as tx:
        return answer(await find(tx, experiment_id), await experiments.read(tx, experiment_id))


# -- what others have counted ----------------------------------------------------------------------------------------


class ToTrack(BaseModel):
    """Conversions that somebody else has counted."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "contact": {"email": "zoe@example.com"},
                        "value": "49.90",
                        "currency": "EUR",
                        "idempotency_key": "order-A-2001",
                    }
                ]
            }
        },
    )

    items: list[Happening] = Field(min_length=1, max_length=MOST_EVENTS)


class TrackedOne(events.Result):
    """What became of one of them."""

    variant: str | None = Field(
        None,
        description="Which the contact saw, or `holdout`; null: neither, or not at that time, so it does not count.",
    )


class Tracked(BaseModel):
    """One result per item, in their order. What is null or false is left out."""

    results: list[TrackedOne]


@router.post(
    "/{experiment_id}/track",
    status_code=201,
    response_model=Tracked,
    responses={207: {"model": Tracked, "description": "Some were refused, the others are stored."}},
)
async def track(experiment_id: UUID, given: ToTrack, request: Request, caller: Editor) -> Response:
    """Tell who has converted: each is stored as an event of the conversion's name, as `POST /api/events` does it."""
    async with caller.transaction(effective=False) as tx:
        conversion = await _tracked(tx, experiment_id)
        who = await contacts.referred(tx, [each.contact for each in given.items])
        seen = await exposures.of_contacts(tx, experiment_id, [each for each in who if each])
    now = datetime.now(UTC)
    told = [in_time(NewEvent.model_construct(name=conversion.event, **dict(each)), now) for each in given.items]
    outcomes = await events.stored(request, caller, told, lambda number: f"body.items.{number}")
    results: list[dict[str, Any]] = [
        {**events.result(outcome), **_counts_for(seen.get(each) if each else None, item.occurred_at or now, conversion)}
        for outcome, each, item in zip(outcomes, who, given.items, strict=True)
    ]
    return Response(orjson.dumps({"results": results}), events.status_of(outcomes), media_type="application/json")


def _counts_for(saw: Exposure | None, moment: datetime, conversion: Conversion) -> dict[str, str]:
    """Nothing that came before the message or too late after it."""
    if saw is None or not saw.exposed_at <= moment < ahead(saw.exposed_at, conversion.within):
        return {}
    return {"variant": saw.variant}


async def _tracked(tx: Connection, experiment_id: UUID) -> Conversion:
    campaign = await find(tx, experiment_id)
    if campaign.launched_at is None:
        raise Conflict("This experiment has not been started, so nobody can have converted. POST …/start does that.")
    conversion = campaign.definition.conversion
    if conversion is None:
        raise Conflict("This experiment counts no conversions: neither `conversion` nor a goal says what they are.")
    try:
        return conversion.model_copy(update={"event": checked_name(conversion.event)})
    except ValueError as error:
        raise Conflict(f"Nobody else can tell of {conversion.event!r}: {error}.") from error
