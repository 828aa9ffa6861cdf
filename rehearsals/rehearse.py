"""Takes contacts through an automation at once: the real workflow on a skipping clock, the real steps in a transaction
that is rolled back, and nobody at the other end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import UUID

from temporalio.client import Client, WorkflowHandle
from temporalio.common import Priority
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import TimeSkipper, TimeSkippingConfig
from temporalio.worker import Worker

from activities.authors import Author
from activities.journals import Journals
from activities.journey_inputs import Member
from activities.journeys import Journeys
from activities.outward import Outward
from activities.rehearsals import Part, Rehearsals
from channels.outbox import CallBox, Outbox
from database import automations, cohorts, rehearsals, sources
from database.engine import Connection, Database
from database.enrolling import Candidate, enroll_each
from database.rehearsals import OneTransaction, Place, Player, is_waited_for, unrecorded
from marketing.automations import Subject, Terms
from marketing.exits import exit_subjects
from marketing.rehearsal_scripts import Act
from marketing.rehearsals import Timeline
from marketing.spans import ahead
from marketing.tracking import RecipientLinks
from marketing.webhooks import WebhookSecrets
from rehearsals.telling import Seen, timeline
from rehearsals.witness import Provide, Witness
from workflows.journey_inputs import CohortInput
from workflows.options import PRIORITY_TEST
from workflows.rehearsal_inputs import RehearsalInput
from workflows.rehearsals import RehearsalWorkflow, rehearsal_workflow_id
from workflows.search_attributes import keywords
from workflows.standstills import standstill
from workflows.turns import OneTurnAtATime

MOST_SECONDS = 60.0
LOOK_SECONDS = 0.2  # whether anybody waits for what it has locked
MOST_SKIPS = 1_000_000  # by default the server skips 200 times and goes on in real time
SWITCH = "frontend.WorkflowTimeSkippingEnabled"


class CannotSkipTime(Exception):
    """Temporal's server has no skipping clock."""

    def __init__(self) -> None:
        super().__init__(
            f"This Temporal server can't skip time. Set {SWITCH} to true in its dynamic configuration: "
            "see docs/deployment.md."
        )


class TooLong(Exception):
    """It did not come to its end in time."""


class StandsStill(Exception):
    """Its workflow can't go on, however often that is tried."""


class InTheWay(Exception):
    """Somebody real wanted to change what it had changed."""

    def __init__(self) -> None:
        super().__init__(
            "The rehearsal was given up: somebody wanted to change a contact or segment that it had changed."
        )


@dataclass(frozen=True)
class Play:
    """What is rehearsed, by whom.

    Args:
        definition: as it is stored; a code automation has no steps in there.
        refused: those who can't take part, each with the reason.
        script: what each who is named does; None: everybody.
        event: the properties of what lets them in.
    """

    name: str
    definition: Mapping[str, Any]
    players: Sequence[Player]
    starts_at: datetime
    version: int = 1
    code: str | None = None
    script: Sequence[tuple[Act, UUID | None]] = ()
    event: Mapping[str, Any] = field(default_factory=dict)
    texts: bool = False


@dataclass(frozen=True)
class Stage:
    """What every rehearsal needs.

    Args:
        authors: what stands in for activities of an author's own; others are not run, and answer nothing.
        provide: makes what a step needs, before it is taken, as its kind and arguments tell.
        most_events: in one run's history.
    """

    database: Database
    temporal: Client
    links: RecipientLinks
    authors: Mapping[str, Author] = field(default_factory=dict)
    provide: Provide | None = None
    most_seconds: float = MOST_SECONDS
    most_events: int = 8000


async def rehearse(
    stage: Stage, account_id: UUID, prepare: Callable[[Connection, datetime], Awaitable[Play]]
) -> Timeline:
    """Run it, and tell what would have happened.

    Args:
        prepare: what is rehearsed, found or made within the transaction.

    Raises:
        CannotSkipTime: the server can't.
        InTheWay: somebody waited for what it had locked.
        StandsStill: it would never come to its end.
        TooLong: it took longer than `stage.most_seconds`.
    """
    began = monotonic()
    wanted = asyncio.Event()
    try:
        # The transaction is the last to end, so that nobody is left who could still ask for it.
        async with (
            unrecorded(stage.database, stage.most_seconds + 5) as database,
            asyncio.timeout(stage.most_seconds) as bound,
            _beside(_give_way(stage.database, database, bound, wanted)),
        ):
            async with database.transaction(account_id) as tx:
                play = await prepare(tx, datetime.now(UTC))
                cast = await _cast(tx, account_id, play, stage.most_events)
            seen = await _Performance(stage, database, account_id, play, cast).run()
            async with database.transaction(account_id) as tx:
                return await timeline(tx, play.starts_at, seen, seconds=monotonic() - began, texts=play.texts)
    except TimeoutError as error:
        if wanted.is_set():
            raise InTheWay from error
        raise TooLong(
            f"The rehearsal was not over after {stage.most_seconds:g} s. Take fewer contacts, or a shorter automation."
        ) from error


async def _give_way(
    database: Database, rehearsal: OneTransaction, bound: asyncio.Timeout, wanted: asyncio.Event
) -> None:
    """End the rehearsal as soon as anybody real waits for it."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if await is_waited_for(database, rehearsal):
            break
    wanted.set()
    bound.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have this go on meanwhile; if it fails, nobody misses it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True)
class Cast:
    """Who goes through what."""

    input: CohortInput
    places: Sequence[Place]
    refused: Mapping[UUID, str]
    latest_touch: int
    templates: Mapping[str, str]  # names by id


async def _cast(tx: Connection, account_id: UUID, play: Play, most_events: int) -> Cast:
    """Have the contacts enter a copy of the automation."""
    terms = Terms.model_validate({key: play.definition[key] for key in Terms.model_fields if key in play.definition})
    source_id = await rehearsals.copy(
        tx,
        account_id,
        name=play.name,
        version=play.version,
        code=play.code,
        topic=terms.topic,
        definition=play.definition,
    )
    await automations.look_at(tx, account_id, source_id, _looks_at(terms))
    source = (await sources.read(tx, [source_id]))[source_id]
    candidates = [Candidate(each.id, "rehearsal", trigger=play.event) for each in play.players]
    outcomes = await enroll_each(tx, account_id, source, candidates, now=play.starts_at, prune=False)
    refused = {each: outcome for outcome, those in outcomes.items() if outcome != "enrolled" for each in those}
    how: dict[str, Any] = {"joins": False, "limit": len(candidates), "now": play.starts_at, "prune": False}
    formed = await cohorts.form(tx, account_id, source_id, "automation", None, **how)
    places = await rehearsals.places(tx, source_id, formed.number) if formed else []
    newcomers = formed.members if formed else []
    input = CohortInput(
        account_id=account_id,
        source_id=source_id,
        cohort=formed.number if formed else 1,
        name=play.name,
        version=play.version,
        code=play.code,
        definition=None if play.code else dict(play.definition),
        topic=terms.topic,
        time_limit=terms.time_limit,
        most_events=most_events,
        members=[Member(**vars(each) if play.code else {**vars(each), "trigger": {}}) for each in newcomers],
    )
    return Cast(input, places, refused, await rehearsals.latest_touch(tx), await rehearsals.template_names(tx))


def _looks_at(terms: Terms) -> frozenset[Subject]:
    """Nobody enters but at the beginning."""
    found: set[Subject] = {(subject, "exit") for subject in exit_subjects(terms.exit_on)}
    if terms.goal:
        found.add((f"event:{terms.goal.event}", "goal"))
    return frozenset(found)


@dataclass
class _Performance:
    stage: Stage
    database: OneTransaction
    account_id: UUID
    play: Play
    cast: Cast
    outbox: Outbox = field(default_factory=Outbox)
    calls: CallBox = field(default_factory=CallBox)

    async def run(self) -> Seen:
        workflow_id = rehearsal_workflow_id(self.cast.input.source_id)
        witness = Witness(
            database=self.database,
            client=self.stage.temporal,
            workflow_id=workflow_id,
            places=self.cast.places,
            latest_touch=self.cast.latest_touch,
            templates=self.cast.templates,
            provide=self.stage.provide,
        )
        moments, script = self._script()
        acting = Rehearsals(self.database, script, witness.names)
        if self.cast.places:
            async with self._worker(workflow_id, acting, witness):
                await self._perform(workflow_id, moments)
        entry = self.play.definition.get("entry")
        told = (entry, self.cast.input, witness, acting.acted, self.outbox, self.calls)
        return Seen(self.play.players, self.cast.places, self.cast.refused, *told)

    def _script(self) -> tuple[list[datetime], list[list[Part]]]:
        """Its moments, and what is done at each."""
        players = {each.id: each for each in self.play.players}
        by_moment: dict[datetime, list[Part]] = {}
        for act, who in self.play.script:
            moment = ahead(self.play.starts_at, act.at) if act.at else self.play.starts_at
            parts = by_moment.setdefault(moment, [])
            parts += [
                Part(players[place.contact_id], place.enrollment_id, act)
                for place in self.cast.places
                if who in (None, place.contact_id)
            ]
        moments = sorted(by_moment)
        return moments, [by_moment[each] for each in moments]

    def _worker(self, task_queue: str, acting: Rehearsals, witness: Witness) -> Worker:
        channels = {"email": self.outbox}
        # It is asked for at once: nobody else leases what only this transaction has.
        steps = Journeys(self.database, channels, self.stage.links, prune=False)
        journals = Journals(self.database)
        secrets = WebhookSecrets(b"nobody gets to see what is sealed with it")
        outward = Outward(self.database, self.calls, secrets, authors=_Authors(self.stage.authors))
        return Worker(
            self.stage.temporal,
            task_queue=task_queue,
            workflows=[RehearsalWorkflow],
            workflow_runner=OneTurnAtATime(),
            activities=[
                *(steps.send, steps.matches, steps.engagement, steps.add_to, steps.remove_from, steps.update_contact),
                *(steps.tag, steps.watch, steps.note, journals.keep_journal, journals.read_journal, acting.act_out),
                *(outward.webhook, outward.notify, outward.report_failures, outward.create_campaign, outward.perform),
            ],
            interceptors=[witness],
        )

    async def _perform(self, workflow_id: str, moments: list[datetime]) -> None:
        rest: RehearsalInput | None = RehearsalInput(
            cohort=self.cast.input, starts_at=self.play.starts_at, script=moments
        )
        while rest:
            rest = await self._run(workflow_id, rest)

    async def _run(self, workflow_id: str, input: RehearsalInput) -> RehearsalInput | None:
        skipper = TimeSkipper(self.stage.temporal, config=TimeSkippingConfig(max_session_skip_count=MOST_SKIPS))
        try:
            handle = await skipper.client.start_workflow(
                RehearsalWorkflow.run,
                input,
                id=workflow_id,
                task_queue=workflow_id,
                priority=Priority(priority_key=PRIORITY_TEST, fairness_key=str(self.account_id)),
                search_attributes=keywords(AccountId=str(self.account_id), Kind="rehearsal"),
                static_summary=f"rehearsal of {self.play.name}, {len(self.cast.places)} contacts",
            )
        except RPCError as error:
            if error.status is RPCStatusCode.UNIMPLEMENTED:
                raise CannotSkipTime from error
            raise
        try:
            if await skipper.get_time_skipping_info(handle) is None:  # a server that does not know what it was told
                raise CannotSkipTime
            return await _unless_it_stands_still(handle)
        except BaseException:
            await _end(handle)
            raise


async def _unless_it_stands_still(handle: WorkflowHandle[Any, RehearsalInput | None]) -> RehearsalInput | None:
    result = asyncio.ensure_future(handle.result())
    try:
        while not (await asyncio.wait([result], timeout=LOOK_SECONDS))[0]:
            if problem := await standstill(handle):
                raise StandsStill(f"The rehearsal can't go on: {problem}")
        return await result
    finally:
        result.cancel()


async def _end(handle: WorkflowHandle[Any, Any]) -> None:
    """Whatever it is at, nobody waits for it any more."""
    ending = asyncio.ensure_future(handle.terminate("The rehearsal was given up."))
    await asyncio.wait([ending], timeout=5)
    if ending.done():
        ending.exception()


class _Authors(dict[str, Author]):
    """Stand-ins; any other activity of an author's own is not run."""

    def get(self, name: str, _: Any = None) -> Author:  # there is one for every name
        return super().get(name, _nothing)


def _nothing(*_: Any) -> None:
    return None
