"""One contact's pass: the steps that it takes, in order, and what has come of each."""

import asyncio
from collections.abc import Coroutine, Generator, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from traceback import extract_tb
from types import coroutine
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from activities.journey_inputs import Caller, LeftAs, Member
from marketing.text import legible
from workflows.asked import written
from workflows.journey import Contact, Exit, Journey, StepFailed, Way

MOST_STEPS = 1000
# Code that goes on in spite of so many refusals would go on for ever, and the whole cohort would stand still.
MOST_REFUSALS = 100
LONGEST_PROBLEM = 300
# All that is remembered of a thousand contacts is read when a run takes over, into a history that may have 50 MiB.
MOST_REMEMBERED = 20_000  # bytes of answers to one contact's code
# Moments that are so far away are put off to the full minute, where many can share them.
FAR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

# new: just made · queued: for an activity · asked: the activity is at it · again: it will be asked once more, later ·
# held: the same, when the pause ends · waiting: for its moment, or an event · answered: what came of it is known
Stage = Literal["new", "queued", "asked", "again", "held", "waiting", "answered"]


@dataclass(slots=True)
class Call:
    """A step that has not ended, as the author's code has called for it."""

    caller: Caller
    step: str
    entered_at: datetime
    kind: str = ""
    args: bytes = b"{}"  # JSON
    asks: str = ""  # the activity
    until: datetime | None = None
    value: Any = None  # what it gives if nobody answers
    future: asyncio.Future[Any] | None = None  # None until the code has called for it in this run
    stage: Stage = "new"
    attempt: int = 1
    wakes_at: datetime | None = None
    last: bool = False  # its moment had come when it was asked

    @property
    def is_open(self) -> bool:
        return self.stage != "answered" and not (self.future and self.future.done())


@dataclass(slots=True)
class Entry:
    """What came of a step. All that the code has been told, in order, is the pass: told the same again, it comes to
    where it stood."""

    call: int
    step: str
    came_at: datetime
    value: Any = None
    problem: str = ""
    told_at: datetime | None = None

    @property
    def size(self) -> int:
        return len(to_json(self.value)) + len(self.problem)


class Ending(NamedTuple):
    """How a pass ended, and why."""

    state: LeftAs
    reason: str = ""
    problem: str = ""
    converted: bool = False


class Heard(NamedTuple):
    """An event that a contact waited for."""

    occurred_at: datetime
    id: UUID


class Start(NamedTuple):
    """Where a pass begins."""

    version: int
    now: datetime  # the journey's clock
    since: datetime  # when the contact woke last: what happens from then on counts
    first: int = 0  # the number of its first step
    step: str | None = None  # one that it begins at, instead of the first
    heard: Heard | None = None  # what it waited for last


@dataclass(slots=True)
class Desk:
    """Where passes leave word for their cohort."""

    automation: str = ""  # whose passes they are, as it is known in all its versions
    calls: list[tuple["Pass", Call]] = field(default_factory=list)
    endings: list["Pass"] = field(default_factory=list)
    interrupted: bool = False  # Temporal has given up what takes so long: no more code shall run


class Pass:
    """Runs the author's code for one contact, and remembers what the code was told."""

    def __init__(self, member: int, who: Member, start: Start, desk: Desk) -> None:
        self.member = member
        self.who = who
        self.began = start
        self.now = start.now
        self.since = start.since
        self.heard = start.heard
        self.taken = start.first
        self.journey = Journey(Contact(who.contact_id, who.zone), who.entered_at, who.trigger, self)
        self.desk = desk
        self.automation = desk.automation
        self.log: list[Entry] = []
        self.told = 0  # entries of the log
        self.kept = 0  # the first of them, that are on record
        self.remembered = 0  # bytes
        self.known: set[int] = set()  # calls that an earlier run knows the end of
        self.open: dict[int, Call] = {}
        self.ending: Ending | None = None
        self.task: asyncio.Task[None] | None = None
        self.refusals = 0
        self.thrown_away = False
        self.loop: asyncio.AbstractEventLoop | None = None  # also for code that is thrown away, and clings to its end

    @property
    def at_rest(self) -> Call | None:
        """The one step that the contact is in, if it waits for time to pass or has not been asked of an activity."""
        calls = [call for call in self.open.values() if call.is_open]
        if self.told < len(self.log) or len(calls) != 1 or not calls[0].future:
            return None
        untouched = calls[0].stage == "queued" and calls[0].wakes_at is None
        return calls[0] if untouched or calls[0].stage == "waiting" else None

    def start(self, way: Way) -> None:
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.create_task(self._go(way))

    async def _go(self, way: Way) -> None:
        if self.desk.interrupted:
            return
        try:
            await self._taken(way(self.journey.contact, self.journey))
        except Exit as exit:
            self._come_to(Ending("exited", exit.reason))
        except BaseException as error:  # also one that would end the program, or that looks like our cancelling
            self.desk.interrupted = self.desk.interrupted or type(error).__module__.startswith("temporalio.worker")
            if isinstance(error, asyncio.CancelledError | GeneratorExit) and self._is_given_up:
                raise
            self.leave(Ending("failed", problem=_said(error)))
        else:
            self._come_to(self._unlike(self.log[self.told]) if self.told < len(self.log) else Ending("completed"))

    def _come_to(self, ending: Ending) -> None:
        """This end, if the code has taken all that it asked for."""
        forgotten = [step.forgotten for step in self.journey.untaken]
        self.leave(Ending("failed", problem=forgotten[0]) if forgotten else ending)

    @coroutine
    def _taken(self, code: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """As `await code`, but code that takes no refusal is left behind: nothing that can be raised in it would end
        it."""
        go_on, with_what = code.send, None
        while True:
            if self.desk.interrupted:
                raise asyncio.CancelledError
            try:
                awaited = go_on(with_what)
            except StopIteration:
                return
            if self.refusals > MOST_REFUSALS:
                raise asyncio.CancelledError
            try:
                go_on, with_what = code.send, (yield awaited)
            except BaseException as error:
                self.thrown_away = self.thrown_away or isinstance(error, GeneratorExit)
                go_on, with_what = code.throw, error

    @property
    def _is_given_up(self) -> bool:
        """Whether it is we who end the code: it has left, or the worker lets this run go."""
        return self.thrown_away or self.ending is not None or bool(self.task and self.task.cancelling())

    def take(
        self,
        kind: str,
        step: str,
        args: dict[str, Any] | None = None,
        *,
        asks: str = "",
        until: datetime | None = None,
        value: Any = None,
    ) -> asyncio.Future[Any]:
        """See `workflows.journey.Pass`."""
        assert self.loop
        current = asyncio.current_task(self.loop)
        if current and current.cancelling():  # it has left, or the worker has given this run up
            self.refusals += 1
            if self.refusals <= MOST_REFUSALS:
                raise asyncio.CancelledError
        if self.refusals > MOST_REFUSALS:  # code that takes no refusal goes no further: nobody answers this
            return self.loop.create_future()
        number = self.taken
        self.taken += 1  # also by what can't be asked: who takes no refusal shall come to an end, and to the same again
        asked = written(args) if args and number not in self.known else b"{}"
        call = self.open.get(number)
        if number >= MOST_STEPS:
            self._refuse(Ending("failed", problem=f"It has taken {MOST_STEPS:,} steps, and is to end with fewer."))
        if call is None:
            call = self.open[number] = Call(Caller(member=self.member, call=number), step, self.now)
        elif call.step != step:
            self._refuse(self._unlike(call, step))
        call.kind, call.args, call.asks, call.value = kind, asked, asks, value
        call.until = until and to_minute(until, self.now)
        call.future = self.loop.create_future()
        if number not in self.known:
            self.desk.calls.append((self, call))
        return call.future

    def put(self, entry: Entry) -> None:
        """Keep what came of a step, until the code can be told."""
        self.remember([entry])
        if call := self.open.get(entry.call):
            call.stage = "answered"
        if self.remembered > MOST_REMEMBERED:
            problem = f"Its steps have answered more than {MOST_REMEMBERED:,} bytes; let activities answer less: ids."
            self.leave(Ending("failed", problem=problem))

    def remember(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.log.append(entry)
            self.remembered += entry.size

    def tell(self, now: datetime) -> None:
        """Tell the code the next thing that came of its steps."""
        entry = self.log[self.told]
        self.told += 1
        call = self.open.pop(entry.call, None)
        if call is None or call.future is None or call.step != entry.step:
            self.leave(self._unlike(entry, call.step if call and call.future else ""))
            return
        self.now = entry.told_at = entry.told_at or now
        if call.until:
            self.since = max(self.since, entry.came_at)
            match entry.value:
                case {"occurred_at": str(occurred_at), "id": str(id)}:
                    heard = Heard(datetime.fromisoformat(occurred_at), UUID(id))
                    self.heard = max(self.heard or heard, heard)
        if call.future.done():  # the code has lost interest
            return
        if entry.problem:
            call.future.set_exception(StepFailed(entry.step, entry.problem))
        else:
            call.future.set_result(entry.value)

    def is_new(self, event: Heard) -> bool:
        """Whether it is another than the one that the contact waited for last, nor was before that. Of the same
        moment, as in one list, the one with the higher id is later."""
        return self.heard is None or event.occurred_at > self.heard.occurred_at or event.id > self.heard.id

    def leave(self, ending: Ending) -> None:
        """End the pass, wherever it is."""
        if not self.ending:
            self.desk.endings.append(self)
            problem = legible(ending.problem[:LONGEST_PROBLEM])
            self.stop(ending._replace(reason=legible(ending.reason), problem=problem))

    def stop(self, ending: Ending) -> None:
        """Let no more of the code run."""
        self.ending = ending
        for step in self.journey.untaken:
            step.close()  # else Python would tell that nobody has awaited it
        for call in self.open.values():
            if call.future:
                call.future.cancel()
        if self.task:
            self.task.cancel()

    def _refuse(self, ending: Ending) -> None:
        self.leave(ending)
        raise asyncio.CancelledError

    def _unlike(self, before: Entry | Call, now: str = "") -> Ending:
        """The code is not the one that this contact began with."""
        number = before.call if isinstance(before, Entry) else before.caller.call
        instead = f"takes “{now}” there" if now else "does not get there"
        problem = (
            f"Step {number + 1} of this pass was “{before.step}”, and the code {instead} now. "
            f"Give changed code a version of its own."
        )
        return Ending("failed", problem=problem)


def to_minute(moment: datetime, now: datetime) -> datetime:
    """Put off to the full minute, if it is far away."""
    beyond = timedelta(seconds=moment.second, microseconds=moment.microsecond)
    return moment + MINUTE - beyond if beyond and moment - now >= FAR else moment


def _said(error: BaseException) -> str:
    """What people read of an error in the code, which may be of any kind."""
    try:
        said = str(error)
    except BaseException:
        said = "an error that can't be told"
    return said if isinstance(error, StepFailed) else f"{type(error).__name__}: {said}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where in the author's file, such as ` (welcome.py:12)`."""
    frames = [(Path(frame.filename), frame.lineno) for frame in extract_tb(error.__traceback__)]
    theirs = [f" ({file.name}:{line})" for file, line in frames if file.parent != Path(__file__).parent]
    return theirs[0] if theirs else ""
