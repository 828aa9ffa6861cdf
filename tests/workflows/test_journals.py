"""Does a pass that is told the same again come to where it stood, whatever its code does?"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from activities.journey_inputs import Member
from workflows import journals
from workflows.journey import Contact, Journey, StepFailed, Way
from workflows.passes import Desk, Entry, Pass, Start

NOW = datetime(2031, 3, 3, 12, 0, 0, 123000, tzinfo=UTC)
ZOE = Member(
    contact_id=UUID(int=7), zone="Europe/Paris", entered_at=NOW - timedelta(microseconds=877), trigger={"a": 1}
)

# What the code of an author does: one thing after the other, several at once, again and again, caught or not.
Program = tuple[str, Any]
leaves = st.sampled_from(["send", "wait", "wait_for", "matches", "split"]).map(lambda kind: (kind, None))
programs = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("sequence"), st.lists(inner, max_size=4)),
        st.tuples(st.just("together"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("twice"), inner),
        st.tuples(st.just("try"), inner),
        st.tuples(st.just("if"), inner),
    ),
    max_leaves=10,
)
FRENCH = {"field": "country", "is": "FR"}
SINGLE: dict[str, Callable[[Journey], Coroutine[Any, Any, object]]] = {
    "send": lambda journey: journey.send("tip"),
    "wait": lambda journey: journey.wait(days=1),
    "wait_for": lambda journey: journey.wait_for("clicked", within="1 day"),
    "matches": lambda journey: journey.matches(FRENCH),
    "split": lambda journey: journey.split({"a": 1, "b": 2}),
}


def way(program: Program, seen: list[Any]) -> Way:
    async def run(_: Contact, journey: Journey) -> None:
        await take(journey, program)

    async def take(journey: Journey, program: Program) -> None:
        match program:
            case "sequence", inner:
                for each in inner:
                    await take(journey, each)
            case "together", inner:
                await asyncio.gather(*(take(journey, each) for each in inner))
            case "twice", inner:
                for _turn in range(2):
                    await take(journey, inner)
            case "try", inner:
                try:
                    await take(journey, inner)
                except StepFailed as failed:
                    seen.append(failed.step)
            case "if", inner:
                if await journey.matches(FRENCH):
                    await take(journey, inner)
            case kind, _:
                seen.append((await SINGLE[kind](journey), journey.now))

    return run


@dataclass
class Carrier:
    """Takes one pass along; what comes of its steps, and in which order, is chance."""

    program: Program
    choose: Callable[[int], int]
    one: Pass = field(init=False)
    seen: list[Any] = field(default_factory=list)
    clock: datetime = NOW

    def begin(self, one: Pass) -> None:
        self.one, self.seen = one, []
        one.start(way(self.program, self.seen))

    async def quiet(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def go_on(self, things: int) -> None:
        """So many things come of its steps, and are told."""
        for _ in range(things):
            await self.quiet()
            waiting = [call for call in self.one.open.values() if call.is_open]
            if waiting and not self.one.ending:
                call = waiting[self.choose(len(waiting))]
                self.clock += timedelta(milliseconds=self.choose(10_000_000))
                value, problem = self.outcome(call.kind)
                self.one.put(Entry(call.caller.call, call.step, self.clock, value, problem))
            if self.one.told < len(self.one.log) and not self.one.ending:
                self.one.tell(self.clock)
        await self.quiet()

    def outcome(self, kind: str) -> tuple[Any, str]:
        match kind, self.choose(4):
            case (("send" | "matches"), 0):
                return None, "no answer"
            case "send", _:
                return {"state": "sent", "reason": ""}, ""
            case "matches", dice:
                return dice > 1, ""
            case "wait_for", dice if dice > 1:
                return {"id": str(UUID(int=dice)), "name": "clicked", "occurred_at": self.clock.isoformat()}, ""
            case "split", _:
                return "a", ""
        return None, ""

    def state(self) -> Any:
        one = self.one
        calls = [(call.caller, call.step, call.kind, call.until, call.entered_at) for call in one.open.values()]
        return (
            self.seen,
            one.now,
            one.since,
            one.heard,
            one.taken,
            one.ending,
            sorted(calls, key=lambda call: call[0].call),
        )


@given(programs, st.integers(0, 20), st.integers(0, 10), st.randoms(use_true_random=False))
async def test_a_pass_that_is_told_the_same_again_stands_where_it_stood(
    program: Program, before: int, after: int, chance: Any
) -> None:
    rolls: list[int] = []

    def choose(among: int) -> int:
        rolls.append(chance.randrange(1_000_000_000))
        return rolls[-1] % among

    first = Carrier(program, choose)
    first.begin(Pass(3, ZOE, Start(1, NOW, ZOE.entered_at), Desk()))
    await first.go_on(before)
    if first.one.ending:
        return  # nobody is handed on who has left

    text = journals.pack(journals.write([first.one]))
    again = Carrier(program, choose)
    (one,) = journals.read(journals.unpack(text), Desk()).values()
    again.begin(one)
    await again.quiet()
    while one.told < len(one.log):
        one.tell(first.clock)
        await again.quiet()
    again.clock = first.clock
    assert again.state() == first.state()
    assert one.who == ZOE

    rolls.clear()
    await first.go_on(after)
    same = iter(rolls.copy())
    again.choose = lambda among: next(same) % among
    await again.go_on(after)
    assert again.state() == first.state()
    for each in (first.one, one):
        if each.task and not each.task.done():
            each.task.cancel()
    await again.quiet()
