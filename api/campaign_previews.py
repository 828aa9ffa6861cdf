"""`/api/campaigns/{id}/preview`: what will people see, and what do colleagues say to it?"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import Priority
from temporalio.service import RPCError

from activities.inputs import SendSample
from activities.messages import NOBODY, Composer, composer
from api.auth import Caller, Editor
from api.campaigns import find
from api.errors import Conflict, NotFound, Unavailable
from channels.base import Rejected
from channels.mime import write
from database import accounts, reach
from database.eligibility import Rules
from database.engine import Connection
from marketing.campaigns import CampaignDefinition
from marketing.contacts import normal_email
from marketing.content import ContentError
from marketing.drips import MOST_MESSAGES
from marketing.rendering import RenderError
from marketing.text import Printable
from marketing.tracking import RecipientLinks
from workflows.options import ORCHESTRATION, PRIORITY_TEST
from workflows.samples import SampleWorkflow, sample_workflow_id
from workflows.search_attributes import keywords

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])

_PATIENCE_SECONDS = 60.0


class PreviewRequest(BaseModel):
    """Whom to render for: the named contacts, else a sample of the audience."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"sample": 2, "send_to": ["colleague@example.com"]}}
    )

    message: int = Field(1, ge=1, le=MOST_MESSAGES, description="Which one, of a drip.")
    variant: Printable | None = Field(None, description="Whose, of an experiment; left out: the control's.")
    contact_ids: list[UUID] = Field([], max_length=20)
    sample: int = Field(1, ge=1, le=20, description="How many of the audience, if no contacts are named.")
    send_to: list[Annotated[str, AfterValidator(normal_email), Field(json_schema_extra={"format": "email"})]] = Field(
        [], max_length=20, description="Send a test message, as the first of these contacts would get it, to each."
    )


class Preview(BaseModel):
    """The message as one contact would get it, and whether it would."""

    contact_id: UUID | None = Field(description="null: somebody made up, while there are no contacts.")
    email: str | None
    skipped: str | None = Field(description="Why this contact would be skipped right now; null if it would not.")
    subject: str = ""
    html: str = ""
    text: str = ""
    headers: dict[str, str] = {}
    error: str | None = Field(None, description="Why the message can't be made for this contact.")


class PreviewAnswer(BaseModel):
    previews: list[Preview]
    tests: dict[str, str] = Field({}, description="Per address: `sent`, or why not.")


@router.post("/{campaign_id}/preview")
async def preview_campaign(
    campaign_id: UUID, wanted: PreviewRequest, request: Request, caller: Editor
) -> PreviewAnswer:
    """Render the message for a few contacts, and send tests; neither is in the figures."""
    links: RecipientLinks = request.app.state.links
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id)
        wanted.message = _number(campaign.definition, wanted)
        try:
            written = await composer(tx, caller.account_id, campaign, links, wanted.message)
        except ContentError as error:
            raise Conflict(f"This can't be rendered: {error}. POST …/validate lists every problem.") from error
        shown = await _contacts(tx, campaign.definition, wanted)
        account = await accounts.read(tx, caller.account_id)
        rules = Rules("email", campaign.definition.topic, account, datetime.now(UTC))
        previews = [
            _preview(written, contact, await reach.verdict(tx, contact["id"], rules) if contact is not NOBODY else None)
            for contact in shown
        ]
    tests: dict[str, str] = {}
    if wanted.send_to:
        tests = await _send(request.app.state.temporal, caller, campaign_id, previews[0].contact_id, wanted)
    return PreviewAnswer(previews=previews, tests=tests)


def _number(definition: CampaignDefinition, wanted: PreviewRequest) -> int:
    """Which of the campaign's messages is meant."""
    experiment = definition.experiment if definition.is_experiment else None
    if experiment is None and wanted.variant is not None:
        raise NotFound("This campaign has no variants: it is no experiment.")
    if experiment is None:
        return wanted.message
    name = wanted.variant or experiment.control_name
    if name not in experiment.names:
        raise NotFound(f"There is no variant {name!r}. There are {', '.join(map(repr, experiment.names))}.")
    return experiment.names.index(name) + 1


async def _contacts(tx: Connection, definition: CampaignDefinition, wanted: PreviewRequest) -> list[Mapping[str, Any]]:
    ids = wanted.contact_ids
    if not ids and definition.audience:
        ids = await reach.sample(tx, definition.audience, wanted.sample, now=datetime.now(UTC))
    found = [await reach.contact(tx, contact_id) for contact_id in ids]
    if missing := [str(contact_id) for contact_id, contact in zip(ids, found, strict=True) if contact is None]:
        raise NotFound(f"There is no such contact: {', '.join(missing)}.")
    return [contact for contact in found if contact is not None] or [NOBODY]


def _preview(written: Composer, contact: Mapping[str, Any], skipped: str | None) -> Preview:
    known = contact is not NOBODY
    preview = Preview(contact_id=contact["id"] if known else None, email=contact["email"], skipped=skipped)
    try:
        now = datetime.now(UTC)
        message = written.preview(contact, now)
        head = write(message, int(now.timestamp())).content.partition(b"\r\n\r\n")[0]
    except (RenderError, Rejected) as error:
        return preview.model_copy(update={"error": str(error)})
    headers = {name: str(value) for name, value in message_from_bytes(head, policy=default).items()}
    rendered = {"subject": message.subject, "html": message.html or "", "text": message.text, "headers": headers}
    return preview.model_copy(update=rendered)


async def _send(
    temporal: Client, caller: Caller, campaign_id: UUID, contact_id: UUID | None, wanted: PreviewRequest
) -> dict[str, str]:
    input = SendSample(
        account_id=caller.account_id,
        campaign_id=campaign_id,
        contact_id=contact_id,
        addresses=wanted.send_to,
        message=wanted.message,
        now=datetime.now(UTC),
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            sent = await temporal.execute_workflow(
                SampleWorkflow.run,
                input,
                id=sample_workflow_id(campaign_id, uuid4()),
                task_queue=ORCHESTRATION,
                priority=Priority(priority_key=PRIORITY_TEST, fairness_key=str(caller.account_id)),
                search_attributes=keywords(AccountId=str(caller.account_id), Kind="test"),
                static_summary=f"test to {len(wanted.send_to)} addresses",
            )
    except (TimeoutError, RPCError) as error:
        raise Unavailable("No worker has sent the test messages in time. They may still arrive.") from error
    except WorkflowFailureError as error:
        raise Conflict(f"The test messages were not sent: {error.cause}") from error
    return sent.results
