"""Sees everything that is asked and answered in a rehearsal, and has events concern those who wait for them."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.journey_inputs import Answer, Caller, CohortRef, Happened, Leave, Left, Note, NoteInput, StepCall
from database import rehearsals
from database.engine import Connection, Database
from database.rehearsals import Place
from database.routing import route
from telemetry import metrics

Key = tuple[int, int]  # member and call
Provide = Callable[[Connection, str, Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A step for which an activity was asked, by one contact."""

    kind: str
    step: str
    args: Mapping[str, Any]
    answer: Answer


@dataclass
class Witness(Interceptor):
    """
    Args:
        workflow_id: that of the rehearsal, which is told.
        latest_touch: what had happened before is not news.
        templates: their names by id.
        provide: makes what a step needs.
    """

    database: Database
    client: Client
    workflow_id: str
    places: Sequence[Place]
    latest_touch: int
    templates: Mapping[str, str]
    provide: Provide | None = None
    asked: dict[Key, Asked] = field(default_factory=dict)
    names: dict[tuple[UUID, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    notes: dict[Key, Note] = field(default_factory=dict)
    left: dict[int, Left] = field(default_factory=dict)
    latest: datetime | None = None

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Watched(next, self)

    async def prepare(self, kind: str, asked: CohortRef) -> None:
        if self.provide and isinstance(asked, StepCall):
            async with self.database.transaction(asked.account_id) as tx:
                await self.provide(tx, kind, asked.args)

    async def see(self, kind: str, asked: CohortRef, answers: Any) -> None:
        match asked:
            case StepCall():
                for caller, answer in zip(asked.callers, answers, strict=True):
                    self._note_asked(kind, asked, caller, answer)
            case NoteInput():
                self._note(asked)
        await self._route(asked)

    def _note_asked(self, kind: str, asked: StepCall, caller: Caller, answer: Answer) -> None:
        self.asked[caller.member, caller.call] = Asked(kind, asked.step, asked.args, answer)
        if kind == "send":
            names = {asked.step, self.message_name(asked.step, asked.args)}
            self.names[self.places[caller.member].enrollment_id, caller.call] |= names

    def message_name(self, step: str, args: Mapping[str, Any]) -> str:
        """What people call it: its template, or the step."""
        template = args.get("template")
        return self.templates.get(template, template) if template else step

    def _note(self, told: NoteInput) -> None:
        for note in told.notes:
            for caller in note.callers:
                self.notes[caller.member, caller.call] = note
        for left in told.left:
            self.left |= dict.fromkeys(left.members, left)
        self.latest = told.now

    async def _route(self, asked: CohortRef) -> None:
        """What has happened meanwhile, to whom it concerns."""
        now: datetime = asked.now  # type: ignore[attr-defined]  # all that is asked here says when
        async with self.database.transaction(asked.account_id) as tx:
            touches = await rehearsals.touches(tx, self.latest_touch, [each.contact_id for each in self.places])
            if not touches:
                return
            routed = await route(tx, asked.account_id, touches, now, rehearsed=asked.source_id)
        self.latest_touch = touches[-1].id
        told = routed.cohorts.get((asked.source_id, asked.cohort))
        if told is None:
            return
        handle = self.client.get_workflow_handle(self.workflow_id)
        if told.awaited:
            await handle.signal("happened", [Happened(**vars(each)) for each in told.awaited])
        if told.leaving:
            await handle.signal("leave", [Leave(**vars(each)) for each in told.leaving])


class _Watched(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, witness: Witness) -> None:
        super().__init__(next)
        self.witness = witness

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        kind, asked = activity.info().activity_type, input.args[0]
        with metrics.unheard():
            await self.witness.prepare(kind, asked)
            answers = await super().execute_activity(input)
            await self.witness.see(kind, asked, answers)
        return answers
