"""`/rehearse`: who would get what, when, and why or why not, without anybody getting anything."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator
from temporalio.service import RPCError

from api import automations, campaigns
from api.auth import Editor
from api.errors import Conflict, Malformed, NotFound, NotPossibleHere, Unavailable, documented
from database import audiences, contacts, rehearsals, segments
from database.engine import Connection
from database.rehearsals import Player
from marketing.assignment import HOLDOUT, REST, cells_of_test
from marketing.automations import Terms
from marketing.campaigns import Audience, CampaignDefinition
from marketing.deliveries import SkipReason
from marketing.drip_journeys import as_automation
from marketing.drips import is_over
from marketing.events import ContactReference
from marketing.experiments import Experiment, experiment_key
from marketing.moments import Moment
from marketing.rehearsal_scripts import MOST_ACTS, ScriptedAct, Who, id_or_email
from marketing.rehearsals import MOST_CONTACTS, WHY_SKIPPED, Timeline
from marketing.schedules import Schedule
from marketing.segment_nodes import kept_by
from marketing.segment_operands import whole
from marketing.steps import CONTACT
from rehearsals.rehearse import CannotSkipTime, InTheWay, Play, Stage, StandsStill, TooLong, rehearse
from workflows.code import Loaded

router = APIRouter(prefix="/api", tags=["rehearsals"])

PATIENCE_SECONDS = 10.0  # for the rehearsal before to end
_A_MOMENT_AGO = timedelta(minutes=1)
_LAST_ZONE = "Etc/GMT+12"  # UTC-12: POSIX counts westwards
_ERRORS = documented(NotPossibleHere)
_SAMPLE = whole(1, MOST_CONTACTS)


def _as_reference(given: object) -> object:
    if not isinstance(given, str):
        return given
    name = id_or_email(given)
    return {"email" if "@" in name else "id": name}


_Named = Annotated[ContactReference, BeforeValidator(_as_reference, json_schema_input_type=Who | ContactReference)]


class RehearsalRequest(BaseModel):
    """Who takes part, when they enter, and what they do."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"contacts": ["zoe@example.com"], "script": ["clicks welcome on day 2"], "texts": True},
            "anyOf": [{"properties": {name: {"type": "null"}}} for name in ("contacts", "sample")],
        },
    )

    contacts: list[_Named] | None = Field(
        None,
        min_length=1,
        max_length=MOST_CONTACTS,
        description="By id or e-mail address, or as `/execute` takes them.",
    )
    sample: Annotated[int, kept_by(_SAMPLE), WithJsonSchema(_SAMPLE.schema)] | None = Field(
        None,
        description="So many of those who may enter, the same ones each time. Without contacts: 10.",
    )
    starts_at: Moment | None = Field(None, description="When they enter. Left out: now.")
    script: list[ScriptedAct] = Field([], max_length=MOST_ACTS)
    event: dict[str, JsonValue] = Field({}, description="The properties of what lets them in: `{{ event.… }}`.")
    texts: bool = Field(False, strict=True, description="Show the text of each message too.")

    @model_validator(mode="after")
    def _says_who_once(self) -> Self:
        if self.contacts is not None and self.sample is not None:
            raise ValueError("give contacts or sample, not both")
        return self


@router.post("/automations/{automation_id}/rehearse", responses=_ERRORS)
async def rehearse_automation(
    automation_id: UUID, request: Request, caller: Editor, wanted: RehearsalRequest | None = None
) -> Timeline:
    """Take contacts through an automation, draft or active, on a clock that skips. Nobody gets anything, and nothing is
    counted or kept."""
    asked = wanted or RehearsalRequest()
    code: Loaded = request.app.state.code

    async def prepare(tx: Connection, now: datetime) -> Play:
        automation = await automations.find(tx, automation_id)
        name = automation.definition.code
        if name and (name, automation.version) not in code.automations:
            raise Conflict(f"No file that the API has read at its start has {name!r} in version {automation.version}.")
        entry = automation.definition.entry
        belongs = segments.condition(entry, now=now, prefix="entry_") if entry else ("true", {})
        return await _play(
            tx,
            asked,
            now,
            belongs,
            name=automation.name,
            version=automation.version,
            code=name,
            definition=automation.definition.model_dump(mode="json"),
        )

    return await _rehearse(request, caller.account_id, prepare)


@router.post("/campaigns/{campaign_id}/rehearse", responses=_ERRORS)
async def rehearse_campaign(
    campaign_id: UUID, request: Request, caller: Editor, wanted: RehearsalRequest | None = None
) -> Timeline:
    """The same for a campaign as it is written now: a drip with all its messages, a broadcast with its one, an
    experiment with the place that each contact will have in it."""
    asked = wanted or RehearsalRequest()

    async def prepare(tx: Connection, now: datetime) -> Play:
        definition = (await campaigns.find(tx, campaign_id)).definition
        if not definition.contents or None in definition.contents:
            raise Conflict("There is nothing to send yet. POST …/validate lists every problem.")
        if definition.audience is None and asked.contacts is None:
            raise Conflict("This campaign has no audience yet. Add one, or name contacts.")
        if is_over(definition.calendar, asked.starts_at or now):
            raise Conflict("The last day of its calendar has passed: nobody would get anything. Give one to come.")
        belongs = await audiences.condition(tx, definition.audience or Audience(everyone=True), now)
        return await _play(tx, asked, now, belongs, name=definition.name, definition=_as_steps(campaign_id, definition))

    return await _rehearse(request, caller.account_id, prepare)


Email = dict[str, Any]


def _as_steps(campaign_id: UUID, definition: CampaignDefinition) -> dict[str, Any]:
    """What is said stands in the steps themselves: nothing is frozen yet."""
    contents = [each.model_dump(mode="json") for each in definition.contents if each]
    if definition.is_drip:
        journey = as_automation(definition)
        left = iter(contents)
        steps = [_with(step, next(left)) if step["type"] == "send" else step for step in journey["steps"]]
        return {**journey, "entry": None, "trigger": None, "steps": steps}
    if definition.experiment and definition.is_experiment:
        steps = [_places(definition, definition.experiment, contents, experiment_key(campaign_id))]
    else:
        steps = _sent("message", contents[0], definition.schedule)
    return {**Terms(topic=definition.topic).model_dump(mode="json"), "steps": steps}


def _places(definition: CampaignDefinition, experiment: Experiment, contents: list[Email], by: str) -> dict[str, Any]:
    """Each goes where its place leads it, as it will when the campaign is launched. Of a bandit, those who take part
    get variants in even shares: nobody knows yet which ones they will have."""
    cells = cells_of_test(experiment.weights, holdout=experiment.holdout, test_fraction=experiment.tested)
    sizes = [high - low for low, high in pairwise([0, *cells.cuts, 1])]
    says = dict(zip(experiment.names, contents, strict=True))
    schedules = {each.name: each.schedule or definition.schedule for each in experiment.variants}
    ways: dict[str, dict[str, Any]] = {
        **{name: {"steps": _sent(name, says[name], schedules[name])} for name in experiment.names},
        HOLDOUT: {"steps": [], "why": WHY_SKIPPED[SkipReason.HOLDOUT]},
        REST: _rest(experiment, says[experiment.control_name], list(schedules.values())),
    }
    shown = {
        name or "rest": {**ways[name], "weight": size} for name, size in zip(cells.names, sizes, strict=True) if size
    }
    return {"id": "experiment", "type": "split", "by": by, "variants": shown}


def _rest(experiment: Experiment, says: Email, schedules: Sequence[Schedule | None]) -> dict[str, Any]:
    """Waits until all of the test has left, and then for the decision."""
    if not experiment.window:
        return {"steps": [], "why": "waits for the winner, which a person chooses: nobody knows when"}
    last = [_scheduled(each, f"test-{n}", of_all=True) for n, each in enumerate(dict.fromkeys(schedules), 1) if each]
    decided = {"id": "decision", "type": "wait", "duration": experiment.window}
    control = next(each for each in experiment.variants if each.name == experiment.control_name)
    # At the local time that was tried, when it comes next.
    then = [{**_scheduled(control.schedule), "date": None}] if control.schedule else []
    return {
        "steps": [*last, decided, *then, *_sent("rest", says, None)],
        "why": f"waits for the winner; what is shown is the control, “{control.name}”, at the latest moment",
    }


def _sent(name: str, content: Email, schedule: Schedule | None) -> list[dict[str, Any]]:
    return [*_waits(schedule), _with({"id": name, "type": "send", "channel": "email"}, content)]


def _waits(schedule: Schedule | None) -> list[dict[str, Any]]:
    return [_scheduled(schedule)] if schedule else []


def _with(step: dict[str, Any], content: Email) -> dict[str, Any]:
    return {**{name: value for name, value in step.items() if name != "template"}, "content": content}


def _scheduled(schedule: Schedule, id: str = "schedule", *, of_all: bool = False) -> dict[str, Any]:
    """A wait for the contact's moment, or for the last one that there may be."""
    day, at = schedule.send_at.date().isoformat(), schedule.send_at.time().isoformat()
    zone = schedule.zone_of(_LAST_ZONE if of_all else CONTACT)
    return {"id": id, "type": "wait_until", "date": day, "at": at, "zone": zone}


async def _play(
    tx: Connection,
    asked: RehearsalRequest,
    now: datetime,
    belongs: tuple[str, dict[str, Any]],
    **what: Any,
) -> Play:
    starts_at = asked.starts_at or now
    if starts_at < now - _A_MOMENT_AGO:
        raise _malformed("starts_at", "has passed: a clock skips ahead, not back")
    chosen = await _chosen(tx, asked.contacts or ())
    named = [*chosen, *(act.contact for act in asked.script if act.contact)]
    found = _by_name(await rehearsals.named(tx, *_told_apart(named)))
    if missing := [each for each in named if each not in found]:
        raise NotFound(f"There is no such contact: {', '.join(missing[:5])}.")
    if asked.contacts is not None:
        players = list({found[each].id: found[each] for each in chosen}.values())
    else:
        players = await rehearsals.some(tx, asked.sample or 10, *belongs)
        if not players:
            raise Conflict("Nobody may enter now. Name contacts to see why they may not.")
    script = [(act, found[act.contact].id if act.contact else None) for act in asked.script]
    if strangers := [act.contact for act, who in script if who and who not in {each.id for each in players}]:
        raise _malformed("script", f"{strangers[0]} does something, but does not take part")
    return Play(
        players=players,
        starts_at=max(starts_at, now),
        script=script,
        event=asked.event,
        texts=asked.texts,
        **what,
    )


async def _chosen(tx: Connection, named: Sequence[ContactReference]) -> list[str]:
    """Their ids."""
    meant = await contacts.referred(tx, named)
    if missing := [each for each, id in zip(named, meant, strict=True) if id is None]:
        names = [str(each.id or each.email or each.external_id) for each in missing[:5]]
        raise NotFound(f"There is no such contact: {', '.join(names)}.")
    return list(map(str, meant))


def _told_apart(named: Iterable[str]) -> tuple[list[UUID], list[str]]:
    """Ids and addresses."""
    addresses = [each for each in named if "@" in each]
    return [UUID(each) for each in named if "@" not in each], [each.lower() for each in addresses]


def _by_name(players: Sequence[Player]) -> dict[str, Player]:
    return {name: each for each in players for name in (str(each.id), each.email) if name}


def _malformed(field: str, message: str) -> Malformed:
    return Malformed(f"body.{field}: {message}.", errors=[{"path": f"body.{field}", "message": message}])


# -- one at a time ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _turn(request: Request) -> AsyncIterator[None]:
    """A rehearsal takes this process's time, which recipients want too."""
    lock: asyncio.Lock = request.app.state.rehearsing
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await lock.acquire()
    except TimeoutError as error:
        later = {"Retry-After": "10"}
        raise Unavailable("Another rehearsal is under way. Try again in a moment.", headers=later) from error
    try:
        yield
    finally:
        lock.release()


async def _rehearse(request: Request, account_id: UUID, prepare: Any) -> Timeline:
    state = request.app.state
    stage = Stage(state.database, state.temporal, state.links, most_seconds=state.rehearsal_seconds)
    async with _turn(request):
        try:
            return await rehearse(stage, account_id, prepare)
        except CannotSkipTime as error:
            raise NotPossibleHere(str(error)) from error
        except (TooLong, StandsStill) as error:
            raise Conflict(str(error)) from error
        except InTheWay as error:
            raise Unavailable(f"{error} Try again in a moment.", headers={"Retry-After": "5"}) from error
        except RPCError as error:
            raise Unavailable("Temporal does not answer right now. Try again in a moment.") from error
