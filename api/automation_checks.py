"""May this automation be activated? Everything that stands in the way, each with its place."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from pydantic import BaseModel

from activities.launches import find_problems as problems_of_campaign
from activities.launches import sender_problems
from api.errors import Conflict
from channels.base import CHANNELS
from database import accounts, automations, journeys, reach, stored_segments, templates
from database.automations import Automation
from database.engine import Connection
from marketing.accounts import Account
from marketing.automations import AutomationDefinition
from marketing.campaigns import Audience
from marketing.circles import circle
from marketing.content import ContentError, EmailContent, read
from marketing.exits import ExitIf
from marketing.problems import Problem, Severity, problems
from marketing.segments import path, segments_in
from marketing.steps import Activity, AddTo, Branch, CreateCampaign, Notify, RemoveFrom, Send, walk
from marketing.stored_segments import SegmentState
from marketing.triggers import OnSchedule, OnSegmentEntered, OnSegmentLeft
from workflows.code import Loaded

Steps = Sequence[tuple[str, BaseModel]]  # each with its place


async def check_activatable(tx: Connection, account_id: UUID, automation: Automation, code: Loaded) -> list[Problem]:
    """What its author should know; the caller is alone with the automations of the account.

    Raises:
        Conflict: with every problem that stands in the way.
    """
    definition = automation.definition
    steps = _steps(definition, code)
    await stored_segments.keep(tx, [segment_id for _, segment_id in _segments(definition, steps)])
    account = await accounts.read(tx, account_id)
    found = [each async for each in _Checks(tx, account, code).problems(definition, steps)]
    wrong = [each for each in found if each.severity is Severity.ERROR]
    if wrong:
        more = f" And {len(wrong) - 1} more, see `problems`." if len(wrong) > 1 else ""
        told = f"This automation can't be active yet: {wrong[0].part}: {wrong[0].message}{more}"
        raise Conflict(told, problems=[each.model_dump() for each in wrong])
    await _check_for_circles(tx, automation)
    return found


async def _check_for_circles(tx: Connection, automation: Automation) -> None:
    others = {each.id: each for each in await automations.active(tx)} | {automation.id: automation}
    steps = [step for each in others.values() for _, step in walk(each.definition.steps)]
    called = {step.segment for step in steps if isinstance(step, AddTo | RemoveFrom)}
    segments = {name: found[0] for name in called if (found := await journeys.static_segments(tx, name))}
    if way := circle(automation.id, {each.id: each.definition for each in others.values()}, segments):
        told = " → ".join(f"“{others[each].name}”" for each in way)
        raise Conflict(
            f"These automations would set each other off for ever: {told}. Change a trigger or a step of one of them.",
            circle=[{"id": str(each), "name": others[each].name} for each in way],
        )


def _steps(definition: AutomationDefinition, code: Loaded) -> Steps:
    """Those of the newest code, as far as its text says them, or else those of the definition; each with its place."""
    written = code.newest(definition.code or "")
    return written.steps if written else [(path(place), step) for place, step in walk(definition.steps)]


def _segments(definition: AutomationDefinition, steps: Steps) -> Iterator[tuple[str, UUID]]:
    """Each segment that is looked at, with its place."""
    trigger = definition.trigger
    if isinstance(trigger, OnSegmentEntered | OnSegmentLeft | OnSchedule):
        yield "trigger.segment", trigger.segment
    for asked in segments_in(definition.entry) if definition.entry else ():
        yield "entry", asked
    for number, each in enumerate(definition.exit_on):
        for asked in segments_in(each.if_) if isinstance(each, ExitIf) else ():
            yield f"exit_on.{number}.if", asked
    for place, step in steps:
        for asked in segments_in(step.if_) if isinstance(step, Branch) else ():
            yield f"{place}.if", asked


def _error(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, part=part, message=message)


class _Checks:
    """Of one automation, against what its account and the workers have."""

    def __init__(self, tx: Connection, account: Account, code: Loaded) -> None:
        self._tx = tx
        self._account = account
        self._code = code

    async def problems(self, definition: AutomationDefinition, steps: Steps) -> AsyncIterator[Problem]:
        if definition.code and self._code.newest(definition.code) is None:
            yield _error("unknown_code", "code", f"No file of automations has {definition.code!r} any more.")
        if definition.topic and definition.topic not in {topic.key for topic in self._account.topics}:
            yield _error("unknown_topic", "topic", f"The account has no topic {definition.topic!r}.")
        for each in await self._of_segments(definition, steps):
            yield each
        for place, step in steps:
            for each in await self._of_step(step, place):
                yield each

    async def _of_segments(self, definition: AutomationDefinition, steps: Steps) -> list[Problem]:
        named = list(_segments(definition, steps))
        known = await stored_segments.standings(self._tx, [segment_id for _, segment_id in named])
        found = []
        for place, segment_id in named:
            standing = known.get(segment_id)
            if standing is None:
                message = f"There is no segment {segment_id} (any more). GET /api/segments lists yours."
                found.append(_error("unknown_segment", place, message))
            elif standing.state is SegmentState.BUILDING:
                message = f"The members of the segment “{standing.name}” are still being found. Try again in a moment."
                found.append(_error("segment_building", place, message))
        return found

    async def _of_step(self, step: BaseModel, place: str) -> list[Problem]:
        match step:
            case Send():
                return [*self._of_channels(step, place), *await self._of_message(step, place)]
            case AddTo() | RemoveFrom():
                if len(same := await journeys.static_segments(self._tx, step.segment)) != 1:
                    message = f"There is {'more than one' if same else 'no'} static segment “{step.segment}”."
                    return [_error("unknown_segment", f"{place}.segment", message)]
            case Activity() if step.name not in self._code.activities:
                known = ", ".join(sorted(self._code.activities)) or "none"
                message = f"The workers have no activity {step.name!r}. They have {known}."
                return [_error("unknown_activity", f"{place}.name", message)]
            case Notify():
                try:
                    read("text", step.text)
                except ContentError as error:
                    return [_error("unusable_content", f"{place}.text", f"{error}.")]
            case CreateCampaign(launch=True):
                return await self._of_campaign(step, place)
        return []

    @staticmethod
    def _of_channels(step: Send, place: str) -> Iterator[Problem]:
        for part, channel in (("channel", step.channel), ("fallback", step.fallback)):
            if channel is not None and channel not in CHANNELS:
                message = f"Nothing sends by {channel} here, only by {', '.join(CHANNELS)}."
                yield _error("no_channel", f"{place}.{part}", message)

    async def _of_message(self, step: Send, place: str) -> list[Problem]:
        if step.content is not None:
            part, content = f"{place}.content", await templates.filled_in(self._tx, step.content)
        else:
            assert step.template is not None, "a step has one of the two"
            part = f"{place}.template"
            same = await templates.called(self._tx, step.template)
            if len(same) != 1:
                few = f"There is no template {step.template!r}. Make it: POST /api/templates."
                many = f"There are {len(same)} templates {step.template!r}. Give its id: GET /api/templates."
                return [_error("no_template", part, many if same else few)]
            definition = same[0].definition
            content = EmailContent(**{name: getattr(definition, name) for name in _WRITTEN})
        return [each.within(part) for each in await self._of_content(content)]

    async def _of_content(self, content: EmailContent) -> list[Problem]:
        attributes = await reach.known_attributes(self._tx)
        found = await asyncio.to_thread(problems, content, attributes=attributes)  # up to a second for the largest
        return [*map(_of_newcomers, filter(_is_no_event, found)), *sender_problems(content, self._account)]

    async def _of_campaign(self, step: CreateCampaign, place: str) -> list[Problem]:
        campaign = step.campaign
        if campaign.audience is None:  # the contact itself, of whom nobody knows yet who that is
            campaign = campaign.model_copy(update={"audience": Audience(contact_ids=[UUID(int=0)])})
        found = await problems_of_campaign(self._tx, campaign, self._account, datetime.now(UTC))
        return [each.within(f"{place}.campaign") for each in found]


_WRITTEN = [name for name in EmailContent.model_fields if name != "template_id"]


def _is_no_event(problem: Problem) -> bool:
    """`{{ event.* }}` is what the pass began with: that depends on the event."""
    root = (problem.variable or "").partition(".")[0]
    return not (problem.code == "unknown_variable" and root == "event")


def _of_newcomers(problem: Problem) -> Problem:
    """Those who will enter may have attributes that nobody has yet."""
    if problem.code == "unknown_variable" and (problem.variable or "").startswith("contact.attributes."):
        return problem.model_copy(update={"severity": Severity.WARNING})
    return problem
