"""Steps of journeys that concern our own record: messages, questions, what is known of contacts, waits and notes.

Each is asked for many contacts at once and answers for each; whatever it does is keyed by pass and call, or the same
when done twice, so that another attempt does nothing twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from time import monotonic
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from temporalio import activity

from activities.heartbeats import beating
from activities.journey_inputs import CANCELLED, Answer, Note, NoteInput, SourceRef, StepCall
from activities.journey_sendings import JourneySendings, nobody_hears
from activities.letters import Letters
from channels.base import Channel
from database import enrollments, exposures, journeys, memberships, standings, waits
from database.engine import Connection, Database
from database.enrollments import Enrolled, Noted, Over
from database.exposures import Split
from database.journeys import Engaged
from marketing.segments import InvalidCriteria
from marketing.steps import Changes
from marketing.tracking import RecipientLinks

# What had begun before a source first waited for such an event is waited for no longer than this.
LONGEST_WAIT = 300.0
# An event that is being written when a wait is over may have been in time.
LAST_LOOK = 5.0
POLL_SECONDS = 0.02

_MOMENT: TypeAdapter[datetime] = TypeAdapter(datetime)

Members = list[Enrolled]
Take = Callable[[Connection, Members], Awaitable[Callable[[Enrolled], Answer]]]


class Impossible(Exception):
    """A step that no other attempt could take either."""


@dataclass
class Journeys:
    """
    Args:
        prune: whether the ids of events tell when they happened. Not in a rehearsal, whose clock is ahead of ours.
        last_look: seconds; so long is waited, when a wait is over, for what is being written.
        paused: has the workflow of a source know that this was paused while messages left.
    """

    database: Database
    channels: Mapping[str, Channel]
    links: RecipientLinks
    prune: bool = True
    last_look: float = LAST_LOOK
    lease_seconds: float = 60.0
    traced_share: float = 0.0
    paused: Callable[[SourceRef], Awaitable[None]] = nobody_hears
    # By source and event: those of whose happening triggers have told for long enough. Whoever takes 'wait' out of
    # `automation_subjects` does so when nobody is inside any more.
    watched: set[tuple[UUID, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sendings = JourneySendings(
            self.database,
            self.channels,
            Letters(self.database, self.links),
            prune=self.prune,
            lease_seconds=self.lease_seconds,
            traced_share=self.traced_share,
            paused=self.paused,
        )

    @activity.defn
    async def send(self, call: StepCall) -> list[Answer]:
        """A message to each; answers `state` and `reason`."""
        return await self.sendings.send(call)

    # -- questions ---------------------------------------------------------------------------------------------------

    @activity.defn
    async def matches(self, call: StepCall) -> list[Answer]:
        """Whether criteria hold of each contact."""

        async def ask(tx: Connection, members: Members) -> Callable[[Enrolled], Answer]:
            contacts = [each.contact_id for each in members]
            try:
                met = await journeys.matching(tx, call.args["criteria"], contacts, now=call.now, prune=self.prune)
            except InvalidCriteria as error:
                raise Impossible(f"{error.path}: {error}") from error
            return lambda member: Answer(value=member.contact_id in met)

        return await self._each(call, ask)

    @activity.defn
    async def engagement(self, call: StepCall) -> list[Answer]:
        """What each did with the messages of this source: how many it got, opened, clicked; machines do not count."""

        async def ask(tx: Connection, members: Members) -> Callable[[Enrolled], Answer]:
            since = call.args.get("since")
            since = since and _MOMENT.validate_python(since)
            ids = [each.id for each in members]
            done = await journeys.engagement(tx, call.source_id, ids, since=since, prune=self.prune)
            return lambda member: Answer(value=asdict(done.get(member.contact_id, Engaged())))

        return await self._each(call, ask)

    # -- what is known of contacts -----------------------------------------------------------------------------------

    @activity.defn
    async def add_to(self, call: StepCall) -> list[Answer]:
        """Into a static segment."""
        return await self._each(call, self._membership(call, memberships.add))

    @activity.defn
    async def remove_from(self, call: StepCall) -> list[Answer]:
        """Out of a static segment."""
        return await self._each(call, self._membership(call, memberships.remove))

    def _membership(self, call: StepCall, change: Callable[..., Awaitable[object]]) -> Take:
        async def take(tx: Connection, members: Members) -> Callable[[Enrolled], Answer]:
            named = call.args["segment"]
            found = await journeys.static_segments(tx, named)
            if len(found) != 1:
                raise Impossible(f"There is {'more than one' if found else 'no'} static segment “{named}”.")
            await change(tx, found[0], [each.contact_id for each in members], now=call.now)
            return _done

        return take

    @activity.defn
    async def update_contact(self, call: StepCall) -> list[Answer]:
        """Fields and attributes, as the API would."""

        async def take(tx: Connection, members: Members) -> Callable[[Enrolled], Answer]:
            try:
                changes = Changes.model_validate(call.args["changes"]).model_dump()
            except ValidationError as error:
                raise Impossible(f"A contact can't be changed like this: {error}") from error
            contacts = [each.contact_id for each in members]
            await journeys.change(tx, call.account_id, contacts, changes, now=call.now)
            return _done

        return await self._each(call, take)

    @activity.defn
    async def tag(self, call: StepCall) -> list[Answer]:
        """Tags that come, and tags that go."""

        async def take(tx: Connection, members: Members) -> Callable[[Enrolled], Answer]:
            contacts = [each.contact_id for each in members]
            add, remove = call.args.get("add", ()), call.args.get("remove", ())
            await journeys.tag(tx, call.account_id, contacts, add=add, remove=remove, now=call.now)
            return _done

        return await self._each(call, take)

    # -- waiting -----------------------------------------------------------------------------------------------------

    @activity.defn
    async def watch(self, call: StepCall) -> list[Answer]:
        """Begin to wait for an event; answers the first that has happened since the contact woke last, if any has.

        What happens from now on is told by whoever routes events. Asked again when a wait is over, it looks for what
        was not told in time.
        """
        event, where = call.args["event"], call.args.get("where")
        since = {(each.member, each.call): call.since_of(each) or call.now for each in call.callers}

        async def begin(tx: Connection, members: Members) -> Callable[[Enrolled], Answer]:
            inside = {each.member for each in members}
            callers = [(*key, moment) for key, moment in since.items() if key[0] in inside]
            if await waits.begin(tx, call.account_id, call.source_id, call.cohort, callers, event=event, where=where):
                self.watched.discard((call.source_id, event))
            return _done

        answers = await self._each(call, begin)
        async with beating():
            await self._told_of(call, event)
            async with self.database.transaction(call.account_id) as tx:
                happened = await waits.happened_already(
                    tx,
                    call.source_id,
                    call.cohort,
                    list(since),
                    event=event,
                    where=where,
                    now=call.now,
                    until=call.until,
                    heard={(each.member, each.call): each.heard for each in call.callers if each.heard},
                    prune=self.prune,
                )
        for number, caller in enumerate(call.callers):
            if answers[number] == Answer() and (found := happened.get((caller.member, caller.call))):
                occurred_at = found.occurred_at.isoformat()
                value = {"id": str(found.event_id), "name": found.name, "occurred_at": occurred_at}
                answers[number] = Answer(value=value)
        return answers

    async def _told_of(self, call: StepCall, event: str) -> None:
        """Until nothing is under way any more that began before triggers looked for this event; and, where it is looked
        for the last time, that may have it, for nobody listens to whoever routes it then."""
        is_watched = (call.source_id, event) in self.watched
        if (is_watched and call.until is None) or not self.prune:  # all of a rehearsal is one transaction
            return
        async with self.database.transaction(call.account_id) as tx:
            mark = await waits.mark(tx)
        give_up = monotonic() + (self.last_look if is_watched else LONGEST_WAIT)
        while monotonic() < give_up:
            async with self.database.transaction(call.account_id) as tx:
                if await memberships.all_ended(tx, mark):
                    break
            await asyncio.sleep(POLL_SECONDS)
        self.watched.add((call.source_id, event))

    # -- what people read --------------------------------------------------------------------------------------------

    @activity.defn
    async def note(self, input: NoteInput) -> None:
        """Write down where the members of a cohort are, for people to read, and which way each split has led them."""
        async with self.database.transaction(input.account_id) as tx:
            await exposures.record(tx, input.source_id, input.cohort, _splits(input.notes))
            await enrollments.note(
                tx,
                input.account_id,
                input.source_id,
                input.cohort,
                version=input.version,
                steps=[
                    Noted(
                        members=[each.member for each in note.callers],
                        calls=[each.call for each in note.callers],
                        **{name: getattr(note, name) for name in _NOTED},
                    )
                    for note in input.notes
                ],
                left=[Over(**{name: getattr(left, name) for name in _OVER}) for left in input.left],
                ended=input.ended,
                now=input.now,
            )

    # -- what they share ---------------------------------------------------------------------------------------------

    async def _each(self, call: StepCall, take: Take) -> list[Answer]:
        """The step for each who is still inside, in one transaction; for none while the source is paused."""
        async with beating(), self.database.transaction(call.account_id) as tx:
            going = await standings.going(tx, call.kind, call.source_id, call.cohort)
            if going == "paused":
                return [Answer(held=True) for _ in call.callers]
            if going == "over":
                return [CANCELLED for _ in call.callers]
            numbers = [each.member for each in call.callers]
            members = await enrollments.members(tx, call.source_id, call.cohort, numbers)
            inside = [each for each in members.values() if not each.has_left]
            try:
                answer = await take(tx, inside) if inside else _done
            except Impossible as error:
                return [Answer(error=str(error), final=True) for _ in call.callers]
        return [_answered(members.get(each.member), answer) for each in call.callers]


_NOTED = ("step", "kind", "entered_at", "left_at", "due_at", "outcome", "error", "broken_off")
_OVER = ("members", "state", "at", "reason", "problem", "converted")


def _splits(notes: Iterable[Note]) -> list[Split]:
    return [
        Split([each.member for each in note.callers], note.step, note.outcome, note.left_at)
        for note in notes
        if note.kind == "split" and note.left_at
    ]


def _done(_: Enrolled) -> Answer:
    return Answer()


def _answered(member: Enrolled | None, answer: Callable[[Enrolled], Answer]) -> Answer:
    if member is None:
        return Answer(error="There is no such member of the cohort.", final=True)
    return Answer.gone(member.state, member.reason) if member.has_left else answer(member)
