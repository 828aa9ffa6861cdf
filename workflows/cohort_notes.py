"""What is told of a cohort: to the database, for people to read, and to Temporal's UI."""

from datetime import datetime
from typing import Any, NamedTuple

from activities.journey_inputs import Caller, Left, Note
from workflows.journey_inputs import CohortProgress, StepProgress
from workflows.passes import Call, Ending

# So many different ones at a time: each has at most some hundred bytes, and a payload shall stay below 256 KiB.
AT_A_TIME = 500
MOST_ROWS = 100


class _Told(NamedTuple):
    step: str
    kind: str
    entered_at: datetime
    left_at: datetime | None
    due_at: datetime | None
    outcome: str
    error: str


class Notes:
    """What the database is not told yet. Of a step that has begun and ended meanwhile, it is told that it has ended;
    and what concerns many in the same way is told once."""

    def __init__(self) -> None:
        self.pressing = False  # there is something that should not wait for what comes next
        self._steps: dict[tuple[int, int], tuple[Caller, _Told]] = {}
        self._left: dict[tuple[Any, ...], list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._steps or self._left)

    def begun(self, call: Call, due: datetime | None, outcome: str = "", error: str = "") -> None:
        """A step that takes its time."""
        self._keep(call, _Told(call.step, call.kind, call.entered_at, None, due, outcome, error))
        self.pressing = True

    def ended(self, call: Call, now: datetime, outcome: str = "", error: str = "") -> None:
        self._keep(call, _Told(call.step, call.kind, call.entered_at, now, call.until, outcome, error))
        # The end of a wait says little: what the contact does next is told soon enough.
        self.pressing = self.pressing or call.until is None

    def left(self, member: int, ending: Ending, now: datetime) -> None:
        fields = (ending.state, now, ending.reason, ending.problem, ending.converted)
        self._left.setdefault(fields, []).append(member)
        self.pressing = True

    def _keep(self, call: Call, told: _Told) -> None:
        caller = call.caller
        self._steps[caller.member, caller.call] = caller, told

    def take(self) -> tuple[list[Note], list[Left]]:
        """What is to be told next; the rest stays."""
        same: dict[_Told, list[Caller]] = {}
        for key, (caller, told) in list(self._steps.items()):
            if told not in same and len(same) == AT_A_TIME:
                continue
            same.setdefault(told, []).append(caller)
            del self._steps[key]
        left = list(self._left.items())[:AT_A_TIME] if not self._steps else []
        for fields, _ in left:
            del self._left[fields]
        self.pressing = bool(self)
        return (
            [Note(callers=callers, **told._asdict()) for told, callers in same.items()],
            [
                Left(members=members, state=state, at=at, reason=reason, problem=problem, converted=converted)
                for (state, at, reason, problem, converted), members in left
            ],
        )


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

    def ended(self, step: str, failed: bool) -> None:
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
