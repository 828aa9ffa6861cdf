"""`/api/campaigns/{id}/validate`, `/reach`: may this be launched, and whom would it reach?"""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from activities.messages import email_content, email_plan
from api.auth import Viewer
from api.campaigns import find
from api.errors import Conflict
from database import accounts, reach, stored_segments
from database.campaigns import Campaign
from database.eligibility import Rules
from database.engine import Connection
from marketing.accounts import Account
from marketing.campaigns import Audience, CampaignDefinition, CampaignPlan
from marketing.content import EmailContent, merged, parsed
from marketing.problems import Problem, Severity, problems
from marketing.stored_segments import SegmentState
from marketing.variables import Variable, variables

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])


class Validation(BaseModel):
    """Everything that is wrong, at once; `launchable` if nothing of it is an error."""

    launchable: bool
    problems: list[Problem]


class Reach(BaseModel):
    """The audience as it stands now: `total = sendable + the sum of skipped`."""

    total: int
    sendable: int
    skipped: dict[str, int]


@router.post("/{campaign_id}/validate")
async def validate_campaign(campaign_id: UUID, caller: Viewer) -> Validation:
    """List every problem of the campaign, at once."""
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id)
        account = await accounts.read(tx, caller.account_id)
        found = await find_problems(tx, campaign.definition, account)
    return Validation(launchable=not any(each.severity is Severity.ERROR for each in found), problems=found)


@router.post("/{campaign_id}/reach")
async def reach_of_campaign(campaign_id: UUID, caller: Viewer) -> Reach:
    """Count whom the campaign would reach if it were launched now, and what takes the others away, by reason."""
    async with caller.transaction() as tx:
        definition = (await find(tx, campaign_id)).definition
        if definition.audience is None:
            return Reach(total=0, sendable=0, skipped={})
        if wrong := await _segment_problems(tx, definition.audience):
            raise _conflict("It can't be told whom this campaign would reach", wrong)
        account = await accounts.read(tx, caller.account_id)
        rules = Rules("email", definition.topic, account, datetime.now(UTC))
        counts = await reach.count(tx, definition.audience, rules)
    skipped = {why: n for why, n in counts.items() if why is not None}
    if definition.budget and counts.get(None, 0) > definition.budget.max_messages:
        skipped["budget"] = counts[None] - definition.budget.max_messages
        counts[None] = definition.budget.max_messages
    sendable = counts.get(None, 0)
    return Reach(total=sendable + sum(skipped.values()), sendable=sendable, skipped=skipped)


# -- what is checked -------------------------------------------------------------------------------------------------


async def find_problems(tx: Connection, definition: CampaignDefinition, account: Account) -> list[Problem]:
    """What an author must, or should, mend before the launch."""
    found: list[Problem] = []
    content = await email_content(tx, definition.content.email)
    if content is None:
        found.append(_error("no_content", "content.email", "There is no e-mail to send. Give its subject and html."))
    else:
        attributes = await reach.known_attributes(tx)
        found += await asyncio.to_thread(problems, content, attributes=attributes)  # up to a second for the largest
        found += _sender_problems(content, account)
    if definition.audience is None:
        found.append(_error("no_audience", "audience", "This campaign has no audience yet. Say whom it is for."))
    else:
        found += await _segment_problems(tx, definition.audience)
        found += await _audience_problems(tx, definition.audience, content)
    if definition.topic and definition.topic not in {topic.key for topic in account.topics}:
        found.append(_error("unknown_topic", "topic", f"The account has no topic {definition.topic!r}."))
    return found + await _schedule_problems(tx, definition, account)


async def _schedule_problems(tx: Connection, definition: CampaignDefinition, account: Account) -> list[Problem]:
    schedule, now = definition.schedule, datetime.now(UTC)
    if schedule is None:
        return []
    if schedule.has_passed(now):
        return [_error("schedule_passed", "schedule", "The scheduled moment has passed. Give one to come.")]
    if not schedule.per_recipient or definition.audience is None:
        return []
    zones = await reach.zones(tx, definition.audience, account.default_timezone, now=now)
    gone = [zone for zone in zones if schedule.moment_in(zone) <= now]
    if not gone:
        return []
    where = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more zones" if len(gone) > 3 else "")
    message = f"This local time has passed already where some of the audience live: {where}. Give a later one."
    return [_error("schedule_passed", "schedule", message)]


def _sender_problems(content: EmailContent, account: Account) -> list[Problem]:
    domain = content.from_email.rpartition("@")[2].lower()
    if not domain:
        return [_error("no_sender", "from_email", "The e-mail has no sender. Give from_email and from_name.")]
    if domain not in account.sender_domains:
        theirs = ", ".join(account.sender_domains) or "none so far"
        message = f"{domain} is no sender domain of the account ({theirs}). An owner can add it: PUT /api/account."
        return [_error("foreign_sender", "from_email", message)]
    return []


async def _segment_problems(tx: Connection, audience: Audience) -> list[Problem]:
    """Whoever is in a segment of which that is not known yet would be left out, or written to though excluded."""
    named = audience.looks_at()
    known = await stored_segments.standings(tx, [segment_id for _, segment_id in named])
    found = []
    for field, segment_id in named:
        standing = known.get(segment_id)
        if standing is None:
            message = f"There is no segment {segment_id} (any more). GET /api/segments lists yours."
            found.append(_error("unknown_segment", f"audience.{field}", message))
        elif standing.state is SegmentState.BUILDING:
            message = f"The members of the segment “{standing.name}” are still being found. Try again in a moment."
            found.append(_error("segment_building", f"audience.{field}", message))
    return found


async def _audience_problems(tx: Connection, audience: Audience, content: EmailContent | None) -> list[Problem]:
    bare = [each for each in await asyncio.to_thread(_variables, content) if not each.has_fallback]
    fields = sorted({each.field for each in bare if each.field} - {"id", "tags"})
    attributes = sorted({each.attribute for each in bare if each.attribute})
    missing = await reach.lacking(tx, audience, fields, attributes, now=datetime.now(UTC))
    return [
        Problem(
            code="missing_fallback",
            part="content",
            severity=Severity.WARNING,
            message=f'{n:,} contacts of the audience have no {name}. Write {{{{ contact.{name} | default: "…" }}}}.',
            variable=f"contact.{name}",
            count=n,
        )
        for name, n in missing.items()
    ]


def _variables(content: EmailContent | None) -> list[Variable]:
    templates = parsed(content)[0] if content else {}
    return merged(variables(template) for template in templates.values())


def _error(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, part=part, severity=Severity.ERROR, message=message)


def _conflict(what: str, wrong: list[Problem]) -> Conflict:
    more = f" And {len(wrong) - 1} more, see `problems`." if len(wrong) > 1 else ""
    return Conflict(f"{what}: {wrong[0].message}{more}", problems=[each.model_dump() for each in wrong])


async def check_launchable(tx: Connection, account_id: UUID, campaign: Campaign) -> CampaignPlan:
    """The plan to be frozen.

    Raises:
        Conflict: with every problem that stands in the way.
    """
    definition = campaign.definition
    account = await accounts.read(tx, account_id)
    if definition.audience:  # what is checked is there until the launch is on record, and can't be deleted after that
        await stored_segments.keep(tx, [segment_id for _, segment_id in definition.audience.looks_at()])
    wrong = [each for each in await find_problems(tx, definition, account) if each.severity is Severity.ERROR]
    if wrong:
        raise _conflict("This campaign can't be launched yet", wrong)
    assert definition.audience is not None, "find_problems has told"
    return CampaignPlan(
        campaign_name=definition.name,
        topic=definition.topic,
        on_uncertain=definition.on_uncertain,
        rate_limit_per_second=definition.rate_limit_per_second,
        max_messages=definition.budget.max_messages if definition.budget else None,
        audience=definition.audience,
        schedule=definition.schedule,
        email=await email_plan(tx, account, campaign),
    )
