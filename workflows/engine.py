"""Takes up to a thousand contacts through an automation, as if each were alone.

The author's code runs once per contact, as a coroutine. What the coroutines call for is looked at when none of them can
go on: the same step for many becomes one activity, and the same moment one timer. What comes back is told to each
coroutine one thing at a time, in an order that is kept (`Pass.log`). So a later run of the workflow, with an empty
history, brings every coroutine to where it stood by telling it the same again.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import Priority

from activities.journey_inputs import Answer, CohortRef, Happened, Join, Leave
from marketing.spans import ahead
from workflows import journals
from workflows.alarms import Alarms
from workflows.interpreter import interpret, types
from workflows.journey import Way
from workflows.journey_inputs import CohortInput, CohortProgress, Migration
from workflows.long_journals import LongJournals
from workflows.options import PRIORITY_AUTOMATION
from workflows.passes import Call, Desk, Ending, Entry, Heard, Pass, Start, to_minute
from workflows.questions import Questions
from workflows.reports import Counts, Reports

# Temporal takes a workflow task of two seconds for a deadlock. So much is told in one: a twentieth of a second, and
# forty times that on a machine that has forty other things to do. To have a newcomer's code begin costs four words.
IN_ONE_TASK, BREATH = 1_000, timedelta(milliseconds=1)
NEWCOMER, NEWCOMERS = 4, 250
# A step that failed is tried again after ten seconds, then one minute, six, …
FIRST_RETRY, SLOWER = timedelta(seconds=10), 6
# The word of a pause, or of its end, may come later than the answer that there is one: look again.
HELD = timedelta(minutes=1)
SOON = timedelta(seconds=1)
LARGEST_HISTORY = 4 << 20  # bytes, besides what was read at the beginning


class Cohort:
    """One run of a workflow has one; its methods that are no coroutines may be called by signals at any time."""

    def __init__(self, input: CohortInput, way: Way) -> None:
        self.input = input
        self.way = way
        self.now = _now()
        ids = {name: getattr(input, name) for name in CohortRef.model_fields}
        priority = Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(input.account_id))
        self.desk = Desk(input.code or input.name)
        self.passes: dict[int, Pass] = {}  # of those inside, by member
        self.newcomers: list[Pass] = []  # whose code does not run yet
        self.numbers = input.first  # whoever has a lower one is known
        self.early: dict[int, Leave] = {}  # who must leave, and is not known yet
        self.untold: dict[int, Pass] = {}  # those for whom something has come
        self.alarms = Alarms()
        self.questions = Questions(ids, priority, self._take)
        self.reports = Reports(ids, priority)
        self.long = LongJournals(ids, priority, input.parts)
        self.counts = Counts()
        self.definitions: dict[int, dict[str, Any]] = {}  # of other versions
        self.migrating: dict[int, int] = {}  # members, and to which version
        self.paused = False
        self.resumed_at: datetime | None = None
        self.full = False  # the history has no room for more: only what is at work may still end
        self.news = True
        self.catching_up = bool(input.handed_over)
        self.full_at = input.most_events  # events of the history
        self.read = 0  # bytes of it, if it is long from the beginning
        self.task = self.words = 0  # the workflow task, and how much was told in it
        if input.handed_over:
            self._take_over(input.handed_over)
        else:
            self.join(Join(first=input.first, members=input.members))

    @property
    def state(self) -> str:
        return "paused" if self.paused else "running"

    def progress(self) -> CohortProgress:
        return self.counts.progress(self.state, len(self.passes))

    # -- round by round ----------------------------------------------------------------------------------------------

    async def run(self) -> bool:
        """Until everybody has left: True; or until it is time for a run with an empty history to take over: False."""
        if self.long.parts:
            await self.long.read(self.passes)
            self.untold = {member: one for member, one in self.passes.items() if one.log}
            events, self.read = _history()
            self.full_at += events
        while self.passes or self.reports.waiting or not self.reports.closed:
            await self._quiet()
            self.now = _now()
            self._wake()
            self._place()
            self._part()
            self._migrate()
            if self._is_out_of_breath():
                await self._undisturbed(workflow.sleep(BREATH, summary="so that nobody takes this for a deadlock"))
                continue
            if self._welcome() or self._tell():
                continue
            if self.catching_up:
                self.catching_up = False  # there must be room for what is new, or it would hand over for ever
                self.full_at = max(self.full_at, _history()[0] + self.input.most_events // 2)
            self.full = self.full or self._has_filled_up()
            if not (self.paused or self.full):
                self.questions.ask(self.now)
            self._report()
            if self.full and not (self.questions.asking or self.reports.reporting):
                if not await self.long.keep(self.passes.values()):
                    return False
                self.news = True  # perhaps something has come meanwhile
                continue
            self.alarms.wind(self.now)
            workflow.set_current_details(self.counts.page(self.state, len(self.passes)))
        return True

    def _welcome(self) -> bool:
        """Have the code of newcomers run, as far as it can before the next round; True if there are any."""
        newcomers, self.newcomers = self.newcomers[:NEWCOMERS], self.newcomers[NEWCOMERS:]
        self.words += NEWCOMER * len(newcomers)
        for one in newcomers:
            if not one.ending:
                self.alarms.set(to_minute(ahead(one.who.entered_at, self.input.time_limit), self.now), one, None)
                definition = self.definitions.get(one.began.version)
                one.start(partial(interpret, definition, start_at=one.began.step) if definition else self.way)
                self.news = True
        return bool(newcomers)

    async def _quiet(self) -> None:
        """Until there is news, and no coroutine can go on: Temporal looks at conditions only then."""
        await self._undisturbed(workflow.wait_condition(self._has_news))
        self.news = self.alarms.rang = self.questions.answered = self.reports.reported = False

    async def _undisturbed(self, waiting: Awaitable[None]) -> None:
        """Wait, unless the workflow is cancelled: then everybody has to leave."""
        try:
            await waiting
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # it is the worker that gives this run up
            self.cancel("cancelled in Temporal")

    def _has_news(self) -> bool:
        if self.news or self.newcomers or self.alarms.rang or self.questions.answered or self.reports.reported:
            return True
        untold = self.untold and not (self.paused or self.full)
        # Events fill the history also if they change nothing.
        return bool(untold or self.desk.calls or self.desk.endings) or (not self.full and self._has_filled_up())

    def _tell(self) -> bool:
        """Tell each contact's code the next thing that has come for it; True if there was any."""
        if not self.untold or self.paused or self.full:
            return False
        untold, self.untold = self.untold, {}
        for member, one in untold.items():
            one.tell(self.now)
            if one.told < len(one.log) and not one.ending:
                self.untold[member] = one
        self.words += len(untold)
        self.news = True
        return True

    def _is_out_of_breath(self) -> bool:
        """Whether enough was told in this workflow task, and more is to come."""
        if self.task != (task := workflow.info().get_current_history_length()):
            self.task, self.words = task, 0
        untold = self.untold and not (self.paused or self.full)
        return self.words >= IN_ONE_TASK and bool(self.newcomers or untold)

    def _has_filled_up(self) -> bool:
        if self.catching_up:
            return False
        events, size = _history()
        if events >= self.full_at:
            return True
        if self.read:
            return size - self.read > LARGEST_HISTORY
        return workflow.info().is_continue_as_new_suggested()

    # -- what the code calls for, and what comes of it ---------------------------------------------------------------

    def _place(self) -> None:
        """Begin the steps that were called for."""
        calls = self.desk.calls.copy()
        self.desk.calls.clear()
        for one, call in calls:
            if one.ending or not call.is_open:
                continue
            if call.stage == "new":
                self.counts.entered(call.step)
            if call.stage in ("again", "held"):
                self.alarms.set(call.wakes_at or self.now, one, call)
            elif call.asks and call.stage != "waiting":
                self._ask(one, call)
            else:
                self._wait(one, call)

    def _ask(self, one: Pass, call: Call) -> None:
        call.last = call.until is not None and call.until <= self.now
        self.questions.put(one, call)

    def _wait(self, one: Pass, call: Call) -> None:
        """For the moment until which the step lasts, if it does.

        Where something may happen until then, it is asked once more when that moment has come: the word of it may be
        on its way still, after an hour without a worker even.
        """
        if call.until is None or call.last or (call.until <= self.now and not call.asks):
            self._answer(one, call, call.value)
            return
        if call.until <= self.now:
            self._ask(one, call)
            return
        if call.stage != "waiting":
            call.stage = "waiting"
            self.reports.begun(one, call, call.until)
        self.alarms.set(call.until, one, call)

    def _wake(self) -> None:
        for one, call in self.alarms.due(self.now):
            if call is None:
                one.leave(Ending("timed_out", f"inside for {self.input.time_limit}"))
            elif call.stage == "waiting":
                self._wait(one, call)
            else:
                self._ask(one, call)

    def _take(self, one: Pass, call: Call, answer: Answer, asked_at: datetime) -> None:
        """What an activity answered for one contact."""
        self.now = _now()
        if one.ending or not call.is_open:  # it has left meanwhile, or an event was quicker
            if call.stage == "asked":
                self.reports.ended(one, call, self.now, _outcome(call, answer.value), answer.error)
        elif answer.leave is not None:
            one.leave(Ending(answer.left_as, answer.leave))
        elif answer.held and self.resumed_at and asked_at < self.resumed_at:
            self._ask(one, call)  # the word of the end of the pause was quicker
        elif answer.held:
            call.stage = "held"
            self.alarms.set(self.now + HELD, one, call)
        elif answer.later:
            self._put_off(one, call, answer.later, "later")
        elif answer.error and not answer.final and call.attempt < self.input.attempts:
            self._put_off(one, call, self.now + FIRST_RETRY * SLOWER ** (call.attempt - 1), "again", answer.error)
            call.attempt += 1
        elif answer.error:
            self._answer(one, call, None, problem=answer.error, outcome="failed")
        elif answer.value is None or not _in_time(call, answer.value):
            self._wait(one, call)
        else:
            self._answer(one, call, answer.value)

    def _put_off(self, one: Pass, call: Call, moment: datetime, outcome: str, error: str = "") -> None:
        call.stage = "again"
        moment = to_minute(max(moment, self.now + SOON), self.now)
        self.reports.begun(one, call, moment, outcome, error)
        self.alarms.set(moment, one, call)

    def _answer(self, one: Pass, call: Call, value: Any, *, problem: str = "", outcome: str = "") -> None:
        """The step has ended; the code is told when its turn comes."""
        self.counts.ended(call.step, failed=bool(problem))
        self.reports.ended(one, call, self.now, outcome or _outcome(call, value), problem)
        one.put(Entry(call.caller.call, call.step, _over(call, value, self.now), value, problem))
        self.untold[one.member] = one

    # -- those who leave, and what is told of them -------------------------------------------------------------------

    def _part(self) -> None:
        """Take leave of those whose passes have ended."""
        gone = self.desk.endings.copy()
        self.desk.endings.clear()
        for one in gone:
            assert one.ending
            del self.passes[one.member]
            self.untold.pop(one.member, None)
            self._break_off(one, one.ending.reason or one.ending.state)
            self.counts.has_left(one.ending.state)
            self.reports.left(one, one.ending, self.now)

    def _break_off(self, one: Pass, outcome: str) -> None:
        for call in one.open.values():
            if call.stage not in ("new", "answered"):
                self.counts.broken_off(call.step)
            if call.stage in ("again", "held", "waiting"):
                self.reports.ended(one, call, self.now, outcome, broken_off=True)

    def _report(self) -> None:
        reports, at_work = self.reports, self.questions.asking > 0
        if not reports.reporting:
            # Somebody may have joined at the last moment, and left already.
            reports.closed = reports.closed and not (self.passes or reports.waiting)
            over = not (self.passes or at_work or self.full or reports.closed)
            before_the_next_run = self.full and not at_work and reports.waiting
            if over or before_the_next_run or (reports.pressing and not self.full):
                reports.send(self.now, over=over)

    # -- what others tell --------------------------------------------------------------------------------------------

    def happened(self, events: Iterable[Happened]) -> None:
        """Those who wait for them go on."""
        self.now = _now()
        for event in events:
            one = self.passes.get(event.member)
            call = one and one.open.get(event.call)
            if one and call and call.is_open and not one.ending:
                value = {"id": str(event.event_id), "name": event.name, "occurred_at": event.occurred_at.isoformat()}
                if _in_time(call, value) and one.is_new(Heard(event.occurred_at, event.event_id)):
                    self._answer(one, call, value)

    def join(self, join: Join) -> None:
        """Newcomers; those who are known already, perhaps from an earlier telling, change nothing."""
        self.news, now = True, _now()
        for member, who in enumerate(join.members, join.first):
            if member < self.numbers:
                continue
            start = Start(self.input.version, now, since=who.since or who.entered_at)
            one = self.passes[member] = Pass(member, who, start, self.desk)
            self.newcomers.append(one)
            self.numbers = member + 1
            if leave := self.early.pop(member, None):
                self.leave([leave])

    def leave(self, those: Iterable[Leave]) -> None:
        """Who is not known yet is told so as soon as it comes."""
        for each in those:
            if one := self.passes.get(each.member):
                one.leave(Ending(each.state, each.reason, converted=each.converted))
            elif each.member >= self.numbers:
                self.early[each.member] = each

    def pause(self) -> None:
        """Nobody takes another step. Time goes on: waits end, which is told when the pause does."""
        self.paused = self.news = True

    def resume(self) -> None:
        self.paused, self.news, self.resumed_at = False, True, _now()
        for one in self.passes.values():
            for call in one.open.values():
                if call.stage == "held" and call.future:
                    self._ask(one, call)

    def cancel(self, reason: str) -> None:
        self.news = True
        for one in self.passes.values():
            one.leave(Ending("cancelled", reason))

    def migrate(self, to: Migration) -> None:
        """Those whose step is in this version too go on in it, from the beginning of that step, once nothing is at work
        for them any more."""
        self.news = True
        self.definitions[to.version] = to.definition
        self.migrating = dict.fromkeys(self.passes, to.version)

    def _migrate(self) -> None:
        for member, version in list(self.migrating.items()):
            one = self.passes.get(member)
            call = one and one.at_rest
            if one is None or one.ending:
                del self.migrating[member]
            elif call:
                del self.migrating[member]
                there = types(self.definitions[version])
                before = self.definitions.get(one.began.version, self.input.definition)
                if before and call.step in there and there[call.step] == types(before).get(call.step):
                    self._begin_again(one, call, version)

    def _begin_again(self, one: Pass, call: Call, version: int) -> None:
        one.stop(Ending("exited", "migrated"))
        self._break_off(one, "migrated")
        start = Start(version, call.entered_at, one.since, one.taken, call.step, one.heard)
        again = self.passes[one.member] = Pass(one.member, one.who, start, self.desk)
        self.newcomers.append(again)

    # -- from one run to the next ------------------------------------------------------------------------------------

    def hand_over(self) -> CohortInput:
        """For a run with an empty history; nothing may be at work, or happen between this and the end of the run."""
        state = {
            **journals.write(self.passes.values()),
            "paused": self.paused,
            "steps": self.counts.steps,
            "left": self.counts.left,
            "definitions": self.definitions,
            "migrating": self.migrating,
            "numbers": self.numbers,
            "early": [each.model_dump(mode="json") for each in self.early.values()],
        }
        return self.input.model_copy(
            update={"members": [], "handed_over": journals.pack(state), "parts": self.long.parts}
        )

    def _take_over(self, handed_over: str) -> None:
        state = journals.unpack(handed_over)
        self.passes = journals.read(state, self.desk)
        self.newcomers = list(self.passes.values())
        self.untold = {member: one for member, one in self.passes.items() if one.log}
        self.paused = state["paused"]
        self.counts.steps, self.counts.left = state["steps"], state["left"]
        self.definitions = {int(version): definition for version, definition in state["definitions"].items()}
        self.migrating = {int(member): version for member, version in state["migrating"].items()}
        self.numbers = state["numbers"]
        self.early = {each["member"]: Leave(**each) for each in state["early"]}


def _history() -> tuple[int, int]:
    """How many events it has, and bytes."""
    info = workflow.info()
    return info.get_current_history_length(), info.get_current_history_size()


def _now() -> datetime:
    """To the millisecond, as journals keep it."""
    return _to_millisecond(workflow.now())


def _to_millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _over(call: Call, value: Any, now: datetime) -> datetime:
    """When a step was over, as if no worker had ever been late: what happens later has happened since."""
    match value:
        case {"occurred_at": str(occurred_at)} if call.until:
            return min(_to_millisecond(datetime.fromisoformat(occurred_at)), now)
    return min(_to_millisecond(call.until), now) if call.until else now


def _in_time(call: Call, value: Any) -> bool:
    """Whether an event has happened before the wait for it was over."""
    return call.until is None or datetime.fromisoformat(value["occurred_at"]) <= call.until


def _outcome(call: Call, value: Any) -> str:
    """In a word, for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case {"occurred_at": _}:
            return "happened"
        case {"state": str(state), "reason": str(reason)} if reason:
            return f"{state}: {reason}"
        case {"state": str(state)}:
            return state
        case None if call.asks and call.until:
            return "did not happen"
    return ""
