"""`/api/automations/{id}/execute`, `/executions`, `/enrollments`, `/stats`: who passes through, and how does it go?"""

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from activities.journey_inputs import SourceRef
from api import automation_signals
from api.auth import Editor, Viewer
from api.automations import find
from api.errors import Conflict, NotFound
from api.paging import Cursor, Limit, Page, page_of
from database import automations, contacts, counters, executions, sources, timelines
from database.enrolling import Candidate, enroll_each
from database.executions import EnrollmentFilter
from marketing.automations import AutomationState
from marketing.contacts import CheckedAttributes
from marketing.events import ContactReference
from marketing.executions import AutomationStats, Enrollment, EnrollmentState, Execution, automation_stats
from marketing.reports import campaign_stats
from marketing.text import Printable

router = APIRouter(prefix="/api", tags=["automations"])

MOST_NAMED = 1_000

Step = Annotated[Printable | None, Query(max_length=200, description="In which they are, or were last.")]


# -- by the API ------------------------------------------------------------------------------------------------------


class ToEnter(BaseModel):
    """Who is to enter, and what messages are told as `{{ event.* }}`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "contacts": [{"email": "zoe@example.com"}, {"external_id": "crm-1001"}],
                "properties": {"order": "A-1001", "items": 2},
            }
        },
    )

    contacts: list[ContactReference] = Field(min_length=1, max_length=MOST_NAMED)
    properties: CheckedAttributes = {}


Outcome = Literal["enrolled", "unknown", "inside", "once", "entry", "exit", "runaway"]


class Entered(BaseModel):
    """What became of one that was named."""

    contact: ContactReference
    contact_id: UUID | None = Field(description="null: there is no such contact.")
    result: Outcome = Field(
        description="`enrolled`; or why not: `unknown`, `inside` already, it was there and may not enter again (yet) "
        "(`once`), does not meet the criteria of `entry`, meets some of `exit_on` already (`exit`), or "
        "enters too often (`runaway`)."
    )
    enrollment_id: UUID | None


class Executed(BaseModel):
    """What became of all of them."""

    enrolled: int = Field(description="Contacts; one that is named twice is one, and has the same result twice.")
    results: list[Entered] = Field(description="In the order in which they were named.")


@router.post("/automations/{automation_id}/execute", status_code=202)
async def execute_automation(automation_id: UUID, asked: ToEnter, request: Request, caller: Editor) -> Executed:
    """Let contacts into an active automation, whatever its trigger is. They begin within a second."""
    cause = f"api:{uuid4()}"
    async with caller.transaction() as tx:
        automation = await find(tx, automation_id)
        if automation.state is not AutomationState.ACTIVE:
            raise Conflict(f"It is {automation.state}: nobody enters. POST …/activate lets contacts in.")
        meant = await contacts.referred(tx, asked.contacts)
        once = list(dict.fromkeys(each for each in meant if each is not None))
        candidates = [Candidate(each, cause, trigger=asked.properties) for each in once]
        source = (await sources.read(tx, [automation_id]))[automation_id]
        outcomes = await enroll_each(tx, caller.account_id, source, candidates, now=datetime.now(UTC))
        passes = await executions.begun_by(tx, automation_id, cause, once)
    became = {each: outcome for outcome, several in outcomes.items() for each in several}
    if passes:
        await automation_signals.newcomers(request, SourceRef(account_id=caller.account_id, source_id=automation_id))
    results = [
        Entered(
            contact=reference,
            contact_id=each,
            result=became[each] if each else "unknown",
            enrollment_id=passes.get(each) if each else None,
        )
        for reference, each in zip(asked.contacts, meant, strict=True)
    ]
    return Executed(enrolled=len(passes), results=results)


# -- what became of them ---------------------------------------------------------------------------------------------


def _wanted(
    automation_id: UUID, state: EnrollmentState | None = None, step: Step = None, contact_id: UUID | None = None
) -> EnrollmentFilter:
    return EnrollmentFilter(automation_id, contact_id, state, step)


Wanted = Annotated[EnrollmentFilter, Depends(_wanted)]


@router.get("/automations/{automation_id}/executions")
async def executions_of_automation(
    automation_id: UUID, wanted: Wanted, caller: Viewer, cursor: Cursor = None, limit: Limit = 50
) -> Page[Execution]:
    """Passes with what they began with, each step, how long it took and what failed, the newest first."""
    async with caller.transaction() as tx:
        await find(tx, automation_id)
        found = await executions.page_with_steps(tx, wanted, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)


@router.get("/automations/{automation_id}/enrollments")
async def enrollments_of_automation(
    automation_id: UUID, wanted: Wanted, caller: Viewer, cursor: Cursor = None, limit: Limit = 50
) -> Page[Enrollment]:
    """Who is inside, or was: at which step, since when and until when, and why they left; the newest first."""
    async with caller.transaction() as tx:
        await find(tx, automation_id)
        found = await executions.page(tx, wanted, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)


@router.get("/contacts/{contact_id:uuid}/enrollments", tags=["contacts"])
async def enrollments_of_contact(
    contact_id: UUID,
    caller: Viewer,
    state: EnrollmentState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Enrollment]:
    """The automations and drips that a contact is in, or was in, the newest first."""
    async with caller.transaction() as tx:
        if not await timelines.is_there(tx, contact_id):
            raise NotFound("There is no such contact.")
        wanted = EnrollmentFilter(contact_id=contact_id, state=state)
        found = await executions.page(tx, wanted, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)


@router.get("/automations/{automation_id}/stats")
async def stats_of_automation(automation_id: UUID, caller: Viewer) -> AutomationStats:
    """How many entered, left and why, reached the goal, and how it went with each step and its messages."""
    async with caller.transaction() as tx:
        automation = await find(tx, automation_id)
        versions = await automations.versions(tx, automation_id)
        pending, active = await executions.standing(tx, automation_id)
        return automation_stats(
            await executions.counted(tx, automation_id),
            campaign_stats(await counters.read(tx, automation_id)),
            [automation.definition, *(versions[each] for each in sorted(versions, reverse=True))],
            pending=pending,
            active=active,
        )
