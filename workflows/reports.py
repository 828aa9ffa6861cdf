"""What is told of a cohort: to the database, for people to read, and to Temporal's UI."""

import asyncio
from datetime import datetime
from typing import Any, NamedTuple

from temporalio import workflow
from temporalio.common import Priority

from activities.journey_inputs import Caller, Failures, Left, Note, NoteInput
from marketing.text import legible
from workflows.journey_inputs import CohortProgress, StepProgress
from workflows.options import NOTING
from workflows.passes import Call, Ending, Pass

# So many different ones at a time, and of so many callers: a payload shall stay below 256 KiB.
AT_A_TIME, CALLERS = 500, 5_000
MOST_ROWS = 100


class _Step(NamedTuple):
    step: str
    kind: str
    entered_at: datetime
    left_at: datetime | None
    due_at: datetime | None
    outcome: str
    error: str
    broken_off: bool = False


class Reports:
    """What the database is not told yet, and telling it: one report at a time. So they come in order, and what gathers
    meanwhile becomes one. Of a step that has begun and ended meanwhile it is told that it has ended; and what concerns
    many in the same way is told once."""

    def __init__(self, ids: dict[str, Any], priority: Priority) -> None:
        self.reporting = False
        self.reported = False  # one has come through
        self.closed = False  # the database knows that nobody is inside any more
        self.pressing = False  # there is something that should not wait for what comes next
        self._ids = ids
        self._priority = priority
        self._steps: dict[tuple[int, int], tuple[int, Caller, _Step]] = {}
        self._left: dict[tuple[int, Ending, datetime], list[int]] = {}

    @property
    def waiting(self) -> bool:
        return bool(self._steps or self._left)

    # -- what there is to tell ---------------------------------------------------------------------------------------

    def begun(self, one: Pass, call: Call, due: datetime, outcome: str = "", error: str = "") -> None:
        """A step that takes its time."""
        step = _Step(call.step, call.kind, call.entered_at, None, due, legible(outcome), legible(error))
        self._steps[one.member, call.caller.call] = one.began.version, call.caller, step
        self.pressing = True

    def ended(
        self, one: Pass, call: Call, now: datetime, outcome: str = "", error: str = "", *, broken_off: bool = False
    ) -> None:
        told = legible(outcome), legible(error)  # an author's activity may have answered it
        step = _Step(call.step, call.kind, call.entered_at, now, call.until, *told, broken_off)
        self._steps[one.member, call.caller.call] = one.began.version, call.caller, step
        # The end of a wait says little: what the contact does next is told soon enough.
        self.pressing = self.pressing or call.until is None

    def left(self, one: Pass, ending: Ending, now: datetime) -> None:
        self._left.setdefault((one.began.version, ending, now), []).append(one.member)
        self.pressing = True

    # -- telling it --------------------------------------------------------------------------------------------------

    def send(self, now: datetime, *, over: bool) -> None:
        """Tell what there is, and if it is over, that it is."""
        self.reporting = True
        asyncio.create_task(self._send(now, over))  # noqa: RUF006  # the loop of a workflow keeps its tasks

    async def _send(self, now: datetime, over: bool) -> None:
        version, notes, left = self._take()
        closes = over and not self.waiting
        whose = {**self._ids, "version": version, "now": now}
        note = NoteInput(**whose, notes=notes, left=left, ended=closes)
        await workflow.execute_activity(
            "note", note, summary="note how far they are", priority=self._priority, **NOTING
        )
        if failed := [each for each in left if each.state == "failed"]:
            await workflow.execute_activity(
                "report_failures",
                Failures(**whose, left=failed),
                summary="tell of failures",
                priority=self._priority,
                **NOTING,
            )
        self.reporting, self.reported, self.closed = False, True, closes

    def _take(self) -> tuple[int, list[Note], list[Left]]:
        """What is told next, all of one version; the rest stays."""
        version = next((of for of, *_ in [*self._steps.values(), *self._left]), 1)
        same: dict[_Step, list[Caller]] = {}
        told = []
        for key, (of, caller, step) in self._steps.items():
            if of == version and (step in same or len(same) < AT_A_TIME):
                same.setdefault(step, []).append(caller)
                told.append(key)
                if len(told) == CALLERS:
                    break
        for key in told:
            del self._steps[key]
        gone = [] if self._steps else [key for key in self._left if key[0] == version][:AT_A_TIME]
        left = [Left(members=self._left.pop(key), at=key[2], **key[1]._asdict()) for key in gone]
        self.pressing = self.waiting
        return version, [Note(callers=callers, **step._asdict()) for step, callers in same.items()], left


class Counts:
    """How many are at each step, have done it, or failed; and how many have left."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}
        self.left: dict[str, int] = {}

    def entered(self, step: str) -> None:
        counts = self.steps.get(step)
        if counts is None:
            counts = self.steps[step] = [0, 0, 0]
        counts[0] += 1

    def ended(self, step: str, *, failed: bool) -> None:
        counts = self.steps[step]
        counts[0] -= 1
        counts[2 if failed else 1] += 1

    def broken_off(self, step: str) -> None:
        self.steps[step][0] -= 1

    def has_left(self, state: str) -> None:
        self.left[state] = self.left.get(state, 0) + 1

    def progress(self, state: str, inside: int) -> CohortProgress:
        steps = [
            StepProgress(step=step, inside=inside, done=done, failed=failed)
            for step, (inside, done, failed) in self.steps.items()
        ]
        return CohortProgress(state=state, inside=inside, left=dict(self.left), steps=steps)

    def page(self, state: str, inside: int) -> str:
        """For the operators, in Markdown."""
        left = "".join(f", {state.replace('_', ' ')} **{count:,}**" for state, count in self.left.items())
        rows = [
            f"| {step.replace('|', '/')} | {inside:,} | {done:,} | {failed:,} |"
            for step, (inside, done, failed) in list(self.steps.items())[:MOST_ROWS]
        ]
        head = ["| step | inside | done | failed |", "|:--|--:|--:|--:|"]
        return "\n".join([f"**{state}**: inside **{inside:,}**{left}", "", *head, *rows])
