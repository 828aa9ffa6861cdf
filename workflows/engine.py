"""Takes up to a thousand contacts through an automation, as if each were alone.

The author's code runs once per contact, as a coroutine. What the coroutines call for is looked at when none of them can
go on: the same step for many becomes one activity, and the same moment one timer. What comes back is told to each
coroutine one thing at a time, in an order that is kept (`Pass.log`). So a later run of the workflow, with an empty
history, brings every coroutine to where it stood by telling it the same again.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_json
from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError

from activities.journey_inputs import Answer, Caller, CohortRef, Failures, Happened, Leave, NoteInput, StepCall
from marketing.spans import ahead
from workflows import journals
from workflows.alarms import Alarms
from workflows.cohort_notes import Counts, Notes
from workflows.journey import Way
from workflows.journey_inputs import CohortInput, CohortProgress
from workflows.options import NOTING, PRIORITY_AUTOMATION, STEPPING
from workflows.passes import Call, Desk, Ending, Entry, Pass, Start, to_minute

# So many activities at a time: what comes of them still fits into a history that is full (10,000 events).
AT_ONCE = 100
# After so much was told to coroutines, the worker gets a breath: Temporal takes two seconds without one for a deadlock.
IN_ONE_BREATH, BREATH = 20_000, timedelta(milliseconds=1)
# A step that failed is tried again after ten seconds, then one minute, six, …
FIRST_RETRY, SLOWER = timedelta(seconds=10), 6
# The word that a pause has begun may come after the answer that it has, or that it has ended, before: look again.
HELD = timedelta(minutes=1)
SOON = timedelta(seconds=1)

Group = list[tuple[Pass, Call]]


class Cohort:
    """One run of a workflow has one; its methods that are no coroutines may be called by signals at any time."""

    def __init__(self, input: CohortInput, way: Way) -> None:
        self.input = input
        self.way = way
        self.ids = {name: getattr(input, name) for name in CohortRef.model_fields}
        self.priority = Priority(priority_key=PRIORITY_AUTOMATION, fairness_key=str(input.account_id))
        self.now = _now()
        self.desk = Desk()
        self.passes = {
            member: Pass(member, who, Start(self.now, since=who.entered_at), self.desk)
            for member, who in enumerate(input.members)
        }
        self.paused = False
        self.counts = Counts()
        self.notes = Notes()
        self.alarms = Alarms()
        self.groups: dict[tuple[Any, ...], Group] = {}  # questions that are the same, not asked yet
        self.untold: dict[int, Pass] = {}  # those for whom something has come
        self.asking = 0  # activities that do steps
        self.reporting = False
        self.full = False  # the history has no room for more: only what is at work may still end
        self.closed = False  # the database knows that nobody is inside any more
        self.news = True
        self.words = 0
        if input.handed_over:
            self._take_over(input.handed_over)

    @property
    def state(self) -> str:
        return "paused" if self.paused else "running"

    # -- round by round ----------------------------------------------------------------------------------------------

    async def run(self) -> bool:
        """Until everybody has left: True; or until it is time for a run with an empty history to take over: False."""
        for one in self.passes.values():
            one.start(self.way)
            self.alarms.set(to_minute(ahead(one.who.entered_at, self.input.time_limit), self.now), one, None)
        while not self.closed:
            await self._quiet()
            self.now = _now()
            self._wake()
            self._place()
            self._part()
            if self._tell():
                await self._breathe()
                continue
            self._look_at_history()
            self._ask()
            self._report()
            if self.full and not (self.asking or self.reporting):
                return False
            self.alarms.wind(self.now)
            workflow.set_current_details(self.counts.page(self.state, len(self.passes)))
        return True

    async def _quiet(self) -> None:
        """Until there is news, and no coroutine can go on: Temporal looks at conditions only then."""
        try:
            await workflow.wait_condition(self._has_news)
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # it is the worker that gives this run up
            self.cancel("cancelled in Temporal")
        self.news = self.alarms.rang = False

    def _has_news(self) -> bool:
        if self.news or self.alarms.rang or self.desk.calls or self.desk.endings:
            return True
        return bool(self.untold) and not (self.paused or self.full)

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

    async def _breathe(self) -> None:
        if self.words >= IN_ONE_BREATH:
            self.words = 0
            await workflow.sleep(BREATH, summary="so that nobody takes this for a deadlock")

    def _look_at_history(self) -> None:
        info = workflow.info()
        events = info.get_current_history_length()
        self.full = self.full or events >= self.input.most_events or info.is_continue_as_new_suggested()

    # -- what the code calls for -------------------------------------------------------------------------------------

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
                self._queue(one, call)
            else:
                self._wait(one, call)

    def _queue(self, one: Pass, call: Call) -> None:
        call.stage = "queued"
        self.groups.setdefault((call.asks, call.step, call.attempt, to_json(call.args)), []).append((one, call))

    def _wait(self, one: Pass, call: Call) -> None:
        """For the moment until which the step lasts, if it does."""
        if call.until is None or call.until <= self.now:
            self._answer(one, call, call.value)
            return
        if call.stage != "waiting":
            call.stage = "waiting"
            self.notes.begun(call, call.until)
        self.alarms.set(call.until, one, call)

    def _wake(self) -> None:
        for one, call in self.alarms.due(self.now):
            if call is None:
                one.leave(Ending("timed_out", f"inside for {self.input.time_limit}"))
            elif call.stage == "waiting":
                self._answer(one, call, call.value)
            else:
                self._queue(one, call)

    def _answer(
        self,
        one: Pass,
        call: Call,
        value: Any,
        *,
        problem: str = "",
        outcome: str = "",
        came_at: datetime | None = None,
    ) -> None:
        """The step has ended."""
        self.counts.ended(call.step, failed=bool(problem))
        self.notes.ended(call, self.now, outcome or _outcome(call, value), problem)
        one.put(Entry(call.caller.call, call.step, came_at or self.now, value, problem))
        self.untold[one.member] = one

    # -- what activities do ------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """The same step for many is one activity."""
        if self.paused or self.full:
            return
        for key in list(self.groups)[: AT_ONCE - self.asking]:  # others may join those that must wait
            group = [(one, call) for one, call in self.groups.pop(key) if call.is_open and not one.ending]
            if group:
                self.asking += 1
                asyncio.create_task(self._have_done(group))  # noqa: RUF006  # the loop of a workflow keeps its tasks

    async def _have_done(self, group: Group) -> None:
        first = group[0][1]
        for _, call in group:
            call.stage = "asked"
        step = StepCall.model_construct(
            **self.ids, step=first.step, args=first.args or {}, attempt=first.attempt, now=self.now, **_whose(group)
        )
        try:
            answers = await workflow.execute_activity(
                first.asks,
                step,
                result_type=list[Answer],
                summary=f"{first.step} for {len(group):,}",
                priority=self.priority,
                **STEPPING,
            )
        except ActivityError as error:  # one that no retry can help
            answers = [Answer(error=str(error.cause), final=True)] * len(group)
        if len(answers) != len(group):
            problem = f"{first.asks} gave {len(answers):,} answers for {len(group):,} contacts"
            answers = [Answer(error=problem, final=True)] * len(group)
        self.now = _now()
        for (one, call), answer in zip(group, answers, strict=True):
            self._take(one, call, answer)
        self.asking -= 1
        self.news = True

    def _take(self, one: Pass, call: Call, answer: Answer) -> None:
        """What came back for one contact."""
        if one.ending or not call.is_open:  # it has left meanwhile, or an event was quicker
            if call.stage == "asked":
                self.notes.ended(call, self.now, _outcome(call, answer.value), answer.error)
        elif answer.leave is not None:
            one.leave(Ending("exited", answer.leave))
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
        elif answer.value is None:
            self._wait(one, call)
        else:
            self._answer(one, call, answer.value, came_at=_occurred(call, answer.value))

    def _put_off(self, one: Pass, call: Call, moment: datetime, outcome: str, error: str = "") -> None:
        call.stage = "again"
        moment = to_minute(max(moment, self.now + SOON), self.now)
        self.notes.begun(call, moment, outcome, error)
        self.alarms.set(moment, one, call)

    # -- those who leave, and what is told of them -------------------------------------------------------------------

    def _part(self) -> None:
        """Take leave of those whose passes have ended."""
        gone = self.desk.endings.copy()
        self.desk.endings.clear()
        for one in gone:
            assert one.ending
            del self.passes[one.member]
            self.untold.pop(one.member, None)
            for call in one.open.values():
                if call.stage in ("queued", "asked", "again", "held", "waiting"):
                    self.counts.broken_off(call.step)
                if call.stage in ("again", "held", "waiting"):
                    self.notes.ended(call, self.now, one.ending.reason or one.ending.state)
            self.counts.has_left(one.ending.state)
            self.notes.left(one.member, one.ending, self.now)

    def _report(self) -> None:
        """One report at a time: so they come in order, and what gathers meanwhile becomes one."""
        over = not (self.passes or self.asking or self.full or self.closed)
        last_of_this_run = self.full and not self.asking and bool(self.notes)
        if not self.reporting and (over or last_of_this_run or (self.notes.pressing and not self.full)):
            self.reporting = True
            asyncio.create_task(self._tell_people(over))  # noqa: RUF006  # the loop of a workflow keeps its tasks

    async def _tell_people(self, over: bool) -> None:
        notes, left = self.notes.take()
        ended = over and not self.notes
        about = {**self.ids, "version": self.input.version, "left": left, "now": self.now}
        note = NoteInput(**about, notes=notes, ended=ended)
        await workflow.execute_activity("note", note, summary="note how far they are", priority=self.priority, **NOTING)
        if failed := [each for each in left if each.state == "failed"]:
            failures = Failures(**about | {"left": failed})
            await workflow.execute_activity(
                "report_failures", failures, summary="tell of failures", priority=self.priority, **NOTING
            )
        self.reporting, self.closed, self.news = False, ended, True

    # -- from one run to the next ------------------------------------------------------------------------------------

    def hand_over(self) -> CohortInput:
        """For a run with an empty history; nothing may be at work, or happen between this and the end of the run."""
        whole = {
            **journals.write(self.passes.values()),
            "paused": self.paused,
            "steps": self.counts.steps,
            "left": self.counts.left,
        }
        return self.input.model_copy(update={"members": [], "handed_over": journals.pack(whole)})

    def _take_over(self, handed_over: str) -> None:
        whole = journals.unpack(handed_over)
        self.passes = journals.read(whole, self.desk)
        self.untold = {member: one for member, one in self.passes.items() if one.log}
        self.paused = whole["paused"]
        self.counts.steps, self.counts.left = whole["steps"], whole["left"]

    def progress(self) -> CohortProgress:
        return self.counts.progress(self.state, len(self.passes))

    # -- what others tell --------------------------------------------------------------------------------------------

    def happened(self, events: Iterable[Happened]) -> None:
        """Those who wait for them go on."""
        self.now = _now()
        for event in events:
            one = self.passes.get(event.member)
            call = one and one.open.get(event.call)
            if one and call and call.is_open and not one.ending:
                value = {"id": str(event.event_id), "name": event.name, "occurred_at": event.occurred_at.isoformat()}
                self._answer(one, call, value, came_at=_occurred(call, value))

    def leave(self, those: Iterable[Leave]) -> None:
        for each in those:
            if one := self.passes.get(each.member):
                one.leave(Ending(each.state, each.reason, converted=each.converted))

    def pause(self) -> None:
        """Nobody takes another step. Time goes on: waits end, and are told when it goes on."""
        self.paused = self.news = True

    def resume(self) -> None:
        self.paused, self.news = False, True
        for one in self.passes.values():
            for call in one.open.values():
                if call.stage == "held" and call.future:
                    self._queue(one, call)

    def cancel(self, reason: str) -> None:
        self.news = True
        for one in self.passes.values():
            one.leave(Ending("cancelled", reason))


def _now() -> datetime:
    """To the millisecond, as journals keep it."""
    now = workflow.now()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _whose(group: Group) -> dict[str, Any]:
    """The callers; and if they wait for something to happen, since when it counts for each."""
    if group[0][1].until is None:
        return {"callers": [call.caller for _, call in group], "since": None}
    first = min(one.since for one, _ in group)
    callers = [
        Caller(member=one.member, call=call.caller.call, since=one.since if one.since > first else None)
        for one, call in group
    ]
    return {"callers": callers, "since": first}


def _occurred(call: Call, value: Any) -> datetime | None:
    """When an event that was waited for occurred: what comes after it, in the same second even, is news."""
    if call.until is None or not isinstance(value, dict):
        return None
    return datetime.fromisoformat(value["occurred_at"])


def _outcome(call: Call, value: Any) -> str:
    """In a word, for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case {"occurred_at": _}:
            return "happened"
        case {"state": state, "reason": str(reason)} if reason:
            return f"{state}: {reason}"
        case {"state": str(state)}:
            return state
        case None if call.asks and call.until:
            return "did not happen"
    return ""
