"""May this campaign be launched, and what is frozen then?"""

import asyncio
from collections.abc import Iterator
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
from marketing.experiment_problems import experiment_problems
from marketing.problems import Problem, Severity, problems
from marketing.schedules import Schedule
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
    plan = await plan_of(tx, account_id, campaign, now)
    await campaigns.launch(tx, account_id, campaign.id, plan, state)
    if campaign.definition.is_drip:
        await drips.look_at(tx, account_id, campaign.id, subjects(campaign.definition))
    return state


async def plan_of(tx: Connection, account_id: UUID, campaign: Campaign, now: datetime) -> CampaignPlan:
    """What a launch freezes.

    Raises:
        NotLaunchable: with every problem that stands in the way.
    """
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
    experiment, variants = definition.experiment, {}
    if experiment:
        experiment = experiment.model_copy(update={"conversion": definition.conversion})
        variants = dict(zip(experiment.names, emails, strict=True))
    return CampaignPlan(
        campaign_name=definition.name,
        topic=definition.topic,
        on_uncertain=definition.on_uncertain,
        rate_limit_per_second=definition.rate_limit_per_second,
        max_messages=definition.budget.max_messages if definition.budget else None,
        audience=definition.audience,
        schedule=definition.schedule,
        email=variants[experiment.control_name] if experiment else emails[0],
        messages={message_id(number): email for number, email in enumerate(emails, 1)} if definition.is_drip else {},
        automation=as_automation(definition) if definition.is_drip else None,
        variants=variants,
        experiment=experiment,
    )


# -- what is checked -------------------------------------------------------------------------------------------------


async def find_problems(
    tx: Connection, definition: CampaignDefinition, account: Account, now: datetime
) -> list[Problem]:
    """What an author must, or should, mend before the launch."""
    found = [*drip_problems(definition, now), *experiment_problems(definition)]
    attributes = await reach.known_attributes(tx)
    contents = [await email_content(tx, each) for each in definition.contents]
    for number, content in enumerate(contents):
        if content is None:
            message = "There is no e-mail to send. Give its subject and html."
            found.append(_error("no_content", _place(definition, number), message))
            continue
        about = await asyncio.to_thread(problems, content, attributes=attributes)  # up to a second for the largest
        about += sender_problems(content, account)
        found += [_placed(definition, number, each) for each in about]
    if definition.audience is None:
        found.append(_error("no_audience", "audience", "This campaign has no audience yet. Say whom it is for."))
    else:
        found += await segment_problems(tx, definition.audience)
        found += await _audience_problems(tx, definition.audience, contents, now)
        found += await _size_problems(tx, definition, definition.audience, now)
    found += await _exit_problems(tx, definition)
    if definition.topic and definition.topic not in {topic.key for topic in account.topics}:
        found.append(_error("unknown_topic", "topic", f"The account has no topic {definition.topic!r}."))
    for place, schedule in _schedules(definition):
        found += [each.within(place) for each in await _schedule_problems(tx, schedule, definition, account, now)]
    return list(dict.fromkeys(found))  # what the variants of an experiment have in common is told once


def _place(definition: CampaignDefinition, number: int) -> str:
    """Where a content stands."""
    if definition.is_drip:
        return f"messages.{number}"
    return f"experiment.variants.{number}.content.email" if definition.is_experiment else "content.email"


def _placed(definition: CampaignDefinition, number: int, problem: Problem) -> Problem:
    """The problem of a content in its place; what a variant has from the campaign is in that one's."""
    if definition.experiment and definition.is_experiment:
        its_own = problem.part in definition.experiment.variants[number].named
        return problem.within(_place(definition, number)) if its_own else problem
    return problem.within(_place(definition, number)) if definition.is_drip else problem


def _schedules(definition: CampaignDefinition) -> Iterator[tuple[str, Schedule]]:
    if definition.schedule:
        yield "schedule", definition.schedule
    for number, variant in enumerate(definition.experiment.variants if definition.experiment else ()):
        if variant.schedule:
            yield f"experiment.variants.{number}.schedule", variant.schedule


async def _schedule_problems(
    tx: Connection, schedule: Schedule, definition: CampaignDefinition, account: Account, now: datetime
) -> list[Problem]:
    if schedule.has_passed(now):
        return [_error("schedule_passed", "", "The scheduled moment has passed. Give one to come.")]
    if not schedule.per_recipient or definition.audience is None:
        return []
    zones = await reach.zones(tx, definition.audience, account.default_timezone, now=now)
    gone = [zone for zone in zones if schedule.moment_in(zone) <= now]
    if not gone:
        return []
    where = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more zones" if len(gone) > 3 else "")
    message = f"This local time has passed already where some of the audience live: {where}. Give a later one."
    return [_error("schedule_passed", "", message)]


async def _size_problems(
    tx: Connection, definition: CampaignDefinition, audience: Audience, now: datetime
) -> list[Problem]:
    """Whether so few contacts take part in an experiment that it will hardly show anything."""
    experiment = definition.experiment
    if experiment is None or not definition.is_experiment:
        return []
    taking_part = await reach.size(tx, audience, now=now) * (1 - experiment.holdout) * experiment.tested
    name, weight = min(experiment.weights.items(), key=lambda each: each[1])
    fewest = int(taking_part * weight / sum(experiment.weights.values()))
    wanted = experiment.minimum_sample.recipients
    if fewest >= wanted:
        return []
    message = f"About {fewest:,} contacts get {name!r}. With fewer than {wanted:,} there will be little to believe."
    return [_warning("small_test", "experiment", message, fewest)]


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


def _warning(code: str, part: str, message: str, count: int) -> Problem:
    return Problem(code=code, part=part, severity=Severity.WARNING, message=message, count=count)


def _error(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, part=part, severity=Severity.ERROR, message=message)
