"""May this campaign be launched, and what is frozen then?"""

import asyncio
from datetime import datetime
from uuid import UUID

from activities.messages import email_content, email_plan
from database import accounts, campaigns, drips, reach, stored_segments
from database.campaigns import Campaign
from database.engine import Connection
from marketing.accounts import Account
from marketing.campaigns import Audience, CampaignDefinition, CampaignPlan, CampaignState
from marketing.content import EmailContent, merged, parsed
from marketing.drip_journeys import as_automation, drip_problems, subjects
from marketing.drips import message_id
from marketing.exits import ExitIf
from marketing.problems import Problem, Severity, problems
from marketing.segments import segments_in
from marketing.stored_segments import SegmentState
from marketing.variables import Variable, variables


class NotLaunchable(Exception):
    """What stands in the way."""

    def __init__(self, found: list[Problem]) -> None:
        more = f" And {len(found) - 1} more, see `problems`." if len(found) > 1 else ""
        super().__init__(f"{found[0].message}{more}")
        self.problems = found


async def launch(tx: Connection, account_id: UUID, campaign: Campaign, now: datetime) -> CampaignState:
    """Put the launch of a draft on record, whose lock the caller holds; the sweep starts what nobody else does.

    Raises:
        NotLaunchable: with every problem that stands in the way.
    """
    schedule = campaign.definition.schedule
    waits = schedule is not None and schedule.starts_at() > now
    state = CampaignState.SCHEDULED if waits else CampaignState.RUNNING
    plan = await _plan(tx, account_id, campaign, now)
    await campaigns.launch(tx, account_id, campaign.id, plan, state)
    if campaign.definition.is_drip:
        await drips.look_at(tx, account_id, campaign.id, subjects(campaign.definition))
    return state


async def _plan(tx: Connection, account_id: UUID, campaign: Campaign, now: datetime) -> CampaignPlan:
    definition = campaign.definition
    account = await accounts.read(tx, account_id)
    # What is checked is there until the launch is on record, and can't be deleted after that.
    audience = definition.audience.looks_at() if definition.audience else []
    await stored_segments.keep(tx, [*(segment_id for _, segment_id in audience), *_exit_segments(definition)])
    found = await find_problems(tx, definition, account, now)
    wrong = [each for each in found if each.severity is Severity.ERROR]
    if wrong:
        raise NotLaunchable(wrong)
    assert definition.audience is not None, "find_problems has told"
    emails = [await email_plan(tx, account, campaign, number) for number in range(1, len(definition.contents) + 1)]
    return CampaignPlan(
        campaign_name=definition.name,
        topic=definition.topic,
        on_uncertain=definition.on_uncertain,
        rate_limit_per_second=definition.rate_limit_per_second,
        max_messages=definition.budget.max_messages if definition.budget else None,
        audience=definition.audience,
        schedule=definition.schedule,
        email=emails[0],
        messages={message_id(number): email for number, email in enumerate(emails, 1)} if definition.is_drip else {},
        automation=as_automation(definition) if definition.is_drip else None,
    )


# -- what is checked -------------------------------------------------------------------------------------------------


async def find_problems(
    tx: Connection, definition: CampaignDefinition, account: Account, now: datetime
) -> list[Problem]:
    """What an author must, or should, mend before the launch."""
    found = drip_problems(definition, now)
    attributes = await reach.known_attributes(tx)
    contents = [await email_content(tx, each) for each in definition.contents]
    for number, content in enumerate(contents):
        where = f"messages.{number}" if definition.is_drip else "content.email"
        if content is None:
            found.append(_error("no_content", where, "There is no e-mail to send. Give its subject and html."))
            continue
        about = await asyncio.to_thread(problems, content, attributes=attributes)  # up to a second for the largest
        about += sender_problems(content, account)
        found += [each.within(where) for each in about] if definition.is_drip else about
    if definition.audience is None:
        found.append(_error("no_audience", "audience", "This campaign has no audience yet. Say whom it is for."))
    else:
        found += await segment_problems(tx, definition.audience)
        found += await _audience_problems(tx, definition.audience, contents, now)
    found += await _exit_problems(tx, definition)
    if definition.topic and definition.topic not in {topic.key for topic in account.topics}:
        found.append(_error("unknown_topic", "topic", f"The account has no topic {definition.topic!r}."))
    return found + await _schedule_problems(tx, definition, account, now)


async def _schedule_problems(
    tx: Connection, definition: CampaignDefinition, account: Account, now: datetime
) -> list[Problem]:
    schedule = definition.schedule
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


def sender_problems(content: EmailContent, account: Account) -> list[Problem]:
    """Whether the account may send from there."""
    domain = content.from_email.rpartition("@")[2].lower()
    if not domain:
        return [_error("no_sender", "from_email", "The e-mail has no sender. Give from_email and from_name.")]
    if domain not in account.sender_domains:
        theirs = ", ".join(account.sender_domains) or "none so far"
        message = f"{domain} is no sender domain of the account ({theirs}). An owner can add it: PUT /api/account."
        return [_error("foreign_sender", "from_email", message)]
    return []


async def segment_problems(tx: Connection, audience: Audience) -> list[Problem]:
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


async def _exit_problems(tx: Connection, definition: CampaignDefinition) -> list[Problem]:
    named = _exit_segments(definition)
    known = await stored_segments.named(tx, named)
    message = "There is no segment {} (any more). GET /api/segments lists yours."
    return [_error("unknown_segment", "exit_on", message.format(each)) for each in named if each not in known]


def _exit_segments(definition: CampaignDefinition) -> list[UUID]:
    """Those that decide who stops getting a drip."""
    criteria = [each.if_ for each in definition.exit_on if isinstance(each, ExitIf)]
    return sorted({segment for each in criteria for segment in segments_in(each)})


async def _audience_problems(
    tx: Connection, audience: Audience, contents: list[EmailContent | None], now: datetime
) -> list[Problem]:
    bare = [each for each in await asyncio.to_thread(_variables, contents) if not each.has_fallback]
    fields = sorted({each.field for each in bare if each.field} - {"id", "tags"})
    attributes = sorted({each.attribute for each in bare if each.attribute})
    missing = await reach.lacking(tx, audience, fields, attributes, now=now)
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


def _variables(contents: list[EmailContent | None]) -> list[Variable]:
    templates = [template for content in contents if content for template in parsed(content)[0].values()]
    return merged(map(variables, templates))


def _error(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, part=part, severity=Severity.ERROR, message=message)
