"""What became of contacts in an automation, one by one and all together?"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, Field

from marketing.automations import AutomationDefinition
from marketing.reports import CampaignStats, Figures
from marketing.steps import walk

EnrollmentState = Literal["pending", "active", "completed", "exited", "failed", "timed_out", "cancelled"]
SUCCESSFUL = ("completed", "exited")
ENDS = (*SUCCESSFUL, "failed", "timed_out", "cancelled")


class Cause(BaseModel):
    """What a pass began with."""

    cause: str = Field(description="Such as `event:0198…`, `api:0198…` or `date:2026-11-21`.")
    event_id: UUID | None
    properties: dict[str, Any] = Field(description="Of that event, or given with the request.")


class Enrollment(BaseModel):
    """One contact's pass through an automation or a drip."""

    id: UUID
    source_id: UUID = Field(description="The automation, or the campaign of kind `drip`.")
    contact_id: UUID
    version: int
    number: int = Field(description="1 the first time that the contact passes through, 2 the second, …")
    state: EnrollmentState
    step: str = Field(description="In which it is, or was last; empty before the first.")
    step_at: datetime | None = Field(description="Since when.")
    due_at: datetime | None = Field(description="Until when, if it waits.")
    entered_at: datetime
    left_at: datetime | None
    reason: str | None = Field(description="Why it left.")
    problem: str | None = Field(description="What failed.")
    converted_at: datetime | None = Field(description="When it reached the goal.")
    trigger: Cause


class StepTaken(BaseModel):
    """A step that a contact is in, or has ended."""

    step: str
    type: str
    entered_at: datetime
    left_at: datetime | None
    seconds: float | None = Field(description="How long it took, waiting included.")
    outcome: str
    error: str | None


class Execution(Enrollment):
    """A pass with all that happened in it."""

    seconds: float | None = Field(description="From entering to leaving.")
    steps: list[StepTaken]


# -- figures ---------------------------------------------------------------------------------------------------------


class Counted(Protocol):
    """One figure of one step, or where the step is empty of passes."""

    @property
    def step(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class StepStats(BaseModel):
    """How it went with a step; who entered it, and nothing else is said of, is in it still."""

    step: str
    type: str | None = Field(description="null: it is in no version of the definition, but in code.")
    entered: int = 0
    done: int = 0
    failed: int = 0
    broken_off: int = Field(0, description="Who left, or went on in another version, in the midst of it.")
    mean_seconds: float | None = Field(None, description="Of those who are done with it.")
    messages: Figures | None = Field(None, description="Of steps that send.")


_STEP_FIGURES = ("entered", "done", "failed", "broken_off")


class AutomationStats(BaseModel):
    """`enrolled = pending + active + completed + exited + failed + timed_out + cancelled` at every moment."""

    enrolled: int = 0
    pending: int = 0
    active: int = 0
    completed: int = 0
    exited: int = 0
    exited_by_reason: dict[str, int] = {}
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    refused_by_reason: dict[str, int] = Field({}, description="Who was not let in, and why.")
    converted: int = Field(0, description="Who reached the goal.")
    success_rate: float | None = Field(None, description="completed and exited, of all who have left.")
    conversion_rate: float | None = Field(None, description="converted, of all who were enrolled.")
    messages: Figures = Figures()
    steps: list[StepStats] = []


def automation_stats(
    counted: Iterable[Counted],
    messages: CampaignStats,
    definitions: Iterable[AutomationDefinition],
    *,
    pending: int,
    active: int,
) -> AutomationStats:
    """The whole report, from counters; steps in the order of the newest definition, which comes first.

    Who is pending or active is counted at this moment.
    """
    n: dict[str, Counter[str]] = {}
    seconds: dict[str, float] = {}
    for row in counted:
        n.setdefault(row.step, Counter())[row.name] += row.n
        if row.name == "done":
            seconds[row.step] = seconds.get(row.step, 0.0) + row.seconds
    passes = n.pop("", Counter())
    types: dict[str, str] = {}
    for definition in definitions:
        for _, step in walk(definition.steps):
            types.setdefault(step.id, step.type)
    order = [*types, *sorted({*n, *messages.per_message} - {*types})]
    exited = _by_reason(passes, "exited")
    ended = {state: passes[state] for state in ENDS}
    ended["exited"] += sum(exited.values())
    left, enrolled = sum(ended.values()), sum(ended.values()) + pending + active
    return AutomationStats(
        enrolled=enrolled,
        pending=pending,
        active=active,
        **ended,
        exited_by_reason=exited,
        refused_by_reason=_by_reason(passes, "refused"),
        converted=passes["converted"],
        success_rate=sum(ended[state] for state in SUCCESSFUL) / left if left else None,
        conversion_rate=passes["converted"] / enrolled if enrolled else None,
        messages=Figures(**{name: getattr(messages, name) for name in Figures.model_fields}),
        steps=[
            StepStats(
                step=step,
                type=types.get(step),
                **{name: n.get(step, Counter())[name] for name in _STEP_FIGURES},
                mean_seconds=seconds[step] / n[step]["done"] if step in seconds else None,
                messages=messages.per_message.get(step),
            )
            for step in order
        ],
    )


def _by_reason(sums: Mapping[str, int], state: str) -> dict[str, int]:
    return {name.partition(":")[2]: n for name, n in sorted(sums.items()) if name.startswith(f"{state}:") and n}
