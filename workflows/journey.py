"""What the author of an automation writes with: a contact, and its journey.

    @automation("welcome", trigger=on_event("contact.subscribed"))
    async def welcome(contact: Contact, journey: Journey) -> None:
        await journey.wait(minutes=5)
        await journey.send("welcome")
        if not await journey.wait_for("message.clicked", within="3 days"):
            await journey.send("welcome-nudge")

It is written for one contact, and run for a thousand at once by `workflows/cohorts.py`.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from datetime import date as Date
from functools import lru_cache
from typing import Any, NoReturn, Protocol, TypeVar, get_type_hints, overload
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from temporalio import activity

from marketing.assignment import bucket, shared_out
from marketing.local_times import next_moment
from marketing.spans import DURATION, ago, ahead, said
from marketing.text import UNPRINTABLE
from workflows.awaited import Step, step_word

T = TypeVar("T")

LONGEST_ACTIVITY = timedelta(minutes=30)
# Nobody else's code goes on while this one looks at a clock that stands still: a thousand such take a second or two.
MOST_LOOKS = 5_000
LONGEST_NAME = 250  # of a step, and of the reason of an exit: indexes keep the one, people read both
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)

Duration = str | timedelta  # "3 days", timedelta(days=3)
Criteria = Mapping[str, Any]  # as those of segments
Way = Callable[["Contact", "Journey"], Coroutine[Any, Any, None]]  # through an automation, as its author writes it


@dataclass(frozen=True)
class Contact:
    """Whose journey it is. Who that is, only activities know."""

    id: UUID
    zone: str = "UTC"


@dataclass(frozen=True)
class Sent:
    """What became of a message; one that may not be sent to this contact is `skipped`, with the reason."""

    state: str  # sent, skipped, failed or uncertain
    reason: str = ""


@dataclass(frozen=True)
class Event:
    """What a contact did while it was waited for."""

    id: UUID
    name: str
    occurred_at: datetime


@dataclass(frozen=True)
class Engagement:
    """What a contact did with the messages it got; it is true if the contact opened or clicked any."""

    sent: int = 0
    opened: int = 0
    clicked: int = 0

    def __bool__(self) -> bool:
        return bool(self.opened or self.clicked)


class StepFailed(Exception):
    """A step did not succeed, however often it was tried. Whoever does not catch it fails with it."""

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(f"{step}: {problem}")
        self.step, self.problem = step, problem


class Exit(BaseException):  # so that `except Exception` does not hold anybody back
    """The contact leaves of its own accord."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = _named("the reason of an exit", reason)


class Pass(Protocol):
    """What a journey is taken on: one contact's pass through an automation."""

    now: datetime
    automation: str  # by which it is known in all its versions

    def take(
        self,
        kind: str,
        step: str,
        args: dict[str, Any] | None = None,
        *,
        asks: str = "",
        until: datetime | None = None,
        value: Any = None,
    ) -> Awaitable[Any]:
        """A step. It `asks` an activity of this name, if any; waits `until` a moment, unless that has had an answer;
        and gives the answer, or else the `value`."""


class Journey:
    """The steps that a contact can take, one after the other or, with `asyncio.gather`, several at once.

    Each has a name, in figures and timelines: `step=`, or else one made of what it does, such as `send:welcome`; where
    a name comes again, it is numbered. What has happened in a pass is remembered by the order of its steps. So between
    them there must be no clock but `now`, no chance but `split`, and no waiting but `wait`.
    """

    def __init__(self, contact: Contact, entered_at: datetime, trigger: Mapping[str, Any], on: Pass) -> None:
        self.contact = contact
        self.entered_at = entered_at
        self.trigger = trigger  # what the pass began with
        self._pass = on
        self._names: Counter[str] = Counter()
        self._looks = 0  # at the clock, since the last step
        self.untaken: dict[Step[Any], None] = {}

    @property
    def now(self) -> datetime:
        """The journey's clock, in UTC: when the contact's last step ended."""
        self._looks += 1
        if self._looks > MOST_LOOKS:
            told = f"`journey.now` was looked at {MOST_LOOKS:,} times between two steps, and only they have it go on"
            raise RuntimeError(f"{told}: wait with `await journey.wait_until(…)`")
        return self._pass.now

    # -- time --------------------------------------------------------------------------------------------------------

    @step_word
    async def wait(
        self,
        duration: Duration | None = None,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        step: str = "",
    ) -> None:
        """So long: `wait(days=3)`, `wait("3 days")`."""
        if duration is None:
            duration = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self._pass.take("wait", self._name(step, f"wait:{_said(duration)}"), until=_after(self.now, duration))

    @step_word
    async def wait_until(
        self,
        at: str | time | None = None,
        *,
        weekday: str | None = None,
        date: str | Date | None = None,
        zone: str | None = None,
        step: str = "",
    ) -> None:
        """Until it is so late for the contact: `wait_until("09:00")`, `wait_until("09:00", weekday="monday")`.

        Without a day, the next time that it is so late; without a time, the beginning of the day. A date that has
        passed is not waited for. The zone is the contact's own, unless another is named.
        """
        at = time.fromisoformat(at) if isinstance(at, str) else at
        day = Date.fromisoformat(date) if isinstance(date, str) else date
        until = next_moment(
            self.now,
            ZoneInfo(self.contact.zone if zone in (None, "contact") else zone),
            at=at,
            weekday=weekday,
            day=day,
        )
        when = " ".join(str(each) for each in (weekday, day, at and at.isoformat("minutes")) if each)
        await self._pass.take("wait_until", self._name(step, f"wait_until:{when}"), until=until)

    @step_word
    async def wait_for(
        self, event: str, *, where: Mapping[str, Any] | None = None, within: Duration, step: str = ""
    ) -> Event | None:
        """Until the contact does something, or None if it does not; what it has done since its last wait counts."""
        name = self._name(step, f"wait_for:{event}")
        args = {"event": event, "where": where} if where else {"event": event}
        found = await self._pass.take("wait_for", name, args, asks="watch", until=_after(self.now, within))
        return found and Event(UUID(found["id"]), found["name"], datetime.fromisoformat(found["occurred_at"]))

    # -- messages ----------------------------------------------------------------------------------------------------

    @step_word
    async def send(
        self,
        template: str | UUID | None = None,
        *,
        content: Mapping[str, Any] | None = None,
        channel: str = "email",
        fallback: str | None = None,
        step: str = "",
    ) -> Sent:
        """A message: a stored template (its name or id), or `content` as campaigns have it."""
        what = {"content": content} if template is None else {"template": str(template)}
        name = self._name(step, f"send:{template}" if template else "send")
        return Sent(**await self._ask("send", name, {"channel": channel, "fallback": fallback, **what}))

    # -- questions ---------------------------------------------------------------------------------------------------

    @step_word
    async def matches(self, criteria: Criteria, *, step: str = "") -> bool:
        """Whether criteria, as those of segments, hold of the contact."""
        return bool(await self._ask("matches", self._name(step, "matches"), {"criteria": criteria}))

    @step_word
    async def engagement(self, since: Duration | datetime | None = None, *, step: str = "") -> Engagement:
        """What the contact did with its messages: since it entered, since a moment, or for so long until now."""
        match since:
            case timedelta():
                since = self.now - since
            case str():
                since = ago(self.now, since)
        answer = await self._ask("engagement", self._name(step, "engagement"), {"since": since} if since else {})
        return Engagement(**answer)

    @step_word
    async def split(self, shares: Mapping[str, float], *, step: str = "", by: str = "") -> str:
        """One of several ways, by chance, such as `split({"a": 50, "b": 50})`; the same for a contact every time.

        `by` is what the place between 0 and 1 comes from that leads it, for rehearsals: each split has one of its own.
        """
        name = self._name(step, "split")
        place = bucket(by or f"{self._pass.automation}/{name}", self.contact.id)
        way = _named("a way of a split", str(shared_out(shares).of(place)))
        return str(await self._pass.take("split", name, value=way))

    # -- what is known of the contact --------------------------------------------------------------------------------

    @step_word
    async def add_to(self, segment: str | UUID, *, step: str = "") -> None:
        """A static segment."""
        await self._ask("add_to", self._name(step, "add_to"), {"segment": str(segment)})

    @step_word
    async def remove_from(self, segment: str | UUID, *, step: str = "") -> None:
        """A static segment."""
        await self._ask("remove_from", self._name(step, "remove_from"), {"segment": str(segment)})

    @step_word
    async def update_contact(self, changes: Mapping[str, Any], *, step: str = "") -> None:
        """Such as `{"country": "FR", "attributes": {"plan": "gold"}}`: attributes are merged name by name."""
        await self._ask("update_contact", self._name(step, "update_contact"), {"changes": changes})

    @step_word
    async def tag(self, *add: str, remove: Sequence[str] = (), step: str = "") -> None:
        name = self._name(step, f"tag:{(*add, *remove)[0]}")
        await self._ask("tag", name, {"add": add, "remove": remove})

    # -- the world ---------------------------------------------------------------------------------------------------

    @step_word
    async def webhook(self, url: str, data: Any = None, *, step: str = "") -> None:
        """Tell another program of the contact, and whatever is in `data`."""
        await self._ask("webhook", self._name(step, "webhook"), {"url": url, "data": data})

    @step_word
    async def create_campaign(self, campaign: Mapping[str, Any], *, launch: bool = True, step: str = "") -> UUID:
        """A campaign as the API takes it; without an audience it is for this contact."""
        args = {"campaign": campaign, "launch": launch}
        return UUID(await self._ask("create_campaign", self._name(step, "create_campaign"), args))

    @step_word
    async def notify(self, text: str, *, step: str = "") -> None:
        """Tell the people of the account."""
        await self._ask("notify", self._name(step, "notify"), {"text": text})

    @overload
    async def activity(self, function: str, *arguments: Any, within: Duration = ..., step: str = "") -> Any: ...

    @overload
    async def activity(
        self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, within: Duration = ..., step: str = ""
    ) -> T: ...

    @overload
    async def activity(
        self, function: Callable[..., T], *arguments: Any, within: Duration = ..., step: str = ""
    ) -> T: ...

    @step_word
    async def activity(
        self, function: Callable[..., Any] | str, *arguments: Any, within: Duration | None = None, step: str = ""
    ) -> Any:
        """Any function under `@activity.defn`, or its name, with what it takes; both must fit into JSON.

        Args:
            within: how long one call may take, 30 minutes at the most; a minute if nothing is said. One that has not
                answered by then has failed, and is tried again like others.
        """
        name = function if isinstance(function, str) else activity._Definition.must_from_callable(function).name
        args: dict[str, Any] = {"name": name, "arguments": arguments}
        if within is not None:
            args["seconds"] = time_for_activity(within).total_seconds()
        answer = await self._pass.take("activity", self._name(step, f"activity:{name}"), args, asks="perform")
        return _result(function).validate_python(answer)

    def exit(self, reason: str = "exit") -> NoReturn:
        """Leave the automation."""
        raise Exit(reason)

    # -- how a step is taken -----------------------------------------------------------------------------------------

    def _name(self, given: str, derived: str) -> str:
        name = _named("the name of a step", given or derived)
        self._looks = 0
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}-{self._names[name]}"

    def _ask(self, kind: str, name: str, args: dict[str, Any]) -> Awaitable[Any]:
        return self._pass.take(kind, name, args, asks=kind)


def _named(what: str, name: str) -> str:
    """As it is, if it can be kept; whoever gives another fails alone, where it is given."""
    if not isinstance(name, str):
        raise TypeError(f"{what} is a text, not {name!r}")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"{what} has {LONGEST_NAME} characters at the most, not {len(name):,}")
    if not name.isprintable() and UNPRINTABLE.search(name):
        raise ValueError(f"{what} has no control characters in it, as {name!r} has")
    return name


def _after(moment: datetime, duration: Duration) -> datetime:
    if isinstance(duration, timedelta):
        return moment + duration
    if not re.fullmatch(DURATION, duration):
        raise ValueError(f"{duration!r} is no duration: write it such as '24 hours' or '3 days'")
    return ahead(moment, duration)


def time_for_activity(within: Duration) -> timedelta:
    """How long one call may take.

    Raises:
        ValueError: nobody may take so long.
    """
    time = _after(_SOME_DAY, within) - _SOME_DAY
    if not timedelta() < time <= LONGEST_ACTIVITY:
        raise ValueError(f"An activity may take 30 minutes at the most, not {_said(within)}.")
    return time


def _said(duration: Duration) -> str:
    """In words, if a unit fits: `3 days`."""
    if isinstance(duration, str):
        return said(duration)
    for unit, one in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if duration and duration % one == timedelta():
            return said(f"{duration // one} {unit}")
    seconds = duration.total_seconds()
    return f"{seconds:g} second{'' if seconds == 1 else 's'}"


@lru_cache
def _result(function: Callable[..., Any] | str) -> TypeAdapter[Any]:
    """What an activity says that it returns."""
    return TypeAdapter(Any if isinstance(function, str) else get_type_hints(function).get("return", Any))


# -- an automation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AutomationCode:
    """What an automation in Python says of itself, in the words of the declarative form."""

    name: str
    version: int
    trigger: Mapping[str, Any]
    entry: Criteria | None
    reentry: str | Mapping[str, str]
    goal: Mapping[str, Any] | None
    exit_on: Sequence[Mapping[str, Any]]
    topic: str | None
    time_limit: str


def automation(
    name: str,
    version: int = 1,
    *,
    trigger: Mapping[str, Any],
    entry: Criteria | None = None,
    reentry: str | Mapping[str, str] = "once",
    goal: Mapping[str, Any] | None = None,
    exit_on: Sequence[Mapping[str, Any]] = (),
    topic: str | None = None,
    time_limit: str = "180 days",
) -> Callable[[Way], Way]:
    """Make a function `async def f(contact, journey)` an automation.

    Args:
        trigger: What lets contacts in, such as `on_event("contact.subscribed")`.
        entry: Criteria that must hold of whoever enters.
        reentry: `"once"`, `"always"` or `{"after": "30 days"}`.
        goal: An event, such as `{"event": "purchase"}`: whoever does it has reached the goal, and leaves.
        exit_on: Events (`{"event": …}`) or criteria (`{"if": …}`) that make a contact leave.
        topic: The topic that its messages are about.
        time_limit: Whoever is inside for longer leaves.
    """
    code = AutomationCode(name, version, trigger, entry, reentry, goal, tuple(exit_on), topic, time_limit)

    def described(function: Way) -> Way:
        function.automation = code  # type: ignore[attr-defined]  # functions take attributes
        return function

    return described


Trigger = dict[str, Any]  # as the declarative form has it


def on_event(event: str, where: Mapping[str, Any] | None = None) -> Trigger:
    """Something happened to the contact."""
    return {"type": "event", "event": event, **({"where": where} if where else {})}


def on_segment_entered(segment: str | UUID) -> Trigger:
    """The contact has entered a segment."""
    return {"type": "segment_entered", "segment": str(segment)}


def on_segment_left(segment: str | UUID) -> Trigger:
    """The contact has left a segment."""
    return {"type": "segment_left", "segment": str(segment)}


def on_tag(tag: str) -> Trigger:
    """The contact got a tag."""
    return {"type": "tag_added", "tag": tag}


def on_field(field: str) -> Trigger:
    """What is known of the contact has changed: `country`, `attributes.plan`."""
    return {"type": "field_changed", "field": field}


def on_date(field: str, *, offset: str = "0 days", at: str = "09:00", repeat: str = "yearly") -> Trigger:
    """A day of the contact's own comes, such as `attributes.birthday`; `offset` is so long after it, or `-3 days`."""
    return {"type": "date", "field": field, "offset": offset, "at": at, "repeat": repeat}


def on_inactivity(days: int, event: str | None = None) -> Trigger:
    """For so many days the contact has not done this, or anything."""
    return {"type": "inactivity", "days": days, **({"event": event} if event else {})}


def on_schedule(cron: str, *, segment: str | UUID, timezone: str = "UTC") -> Trigger:
    """The clock says so, for everybody in a segment: `on_schedule("0 9 * * 1", segment=…)`."""
    return {"type": "schedule", "cron": cron, "timezone": timezone, "segment": str(segment)}


def on_request() -> Trigger:
    """Only the API lets contacts in."""
    return {"type": "api"}
