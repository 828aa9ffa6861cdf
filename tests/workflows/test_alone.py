"""Whatever the code does for one contact, does it concern that contact alone?"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.client import Client

from activities.journey_inputs import Answer, Caller, StepCall
from tests.cohorts import StandIn, carrying, contact_id
from workflows.journey import MOST_LOOKS, Contact, Exit, Journey

URL = "https://crm.example.com/leads"
CIRCLE: dict[str, Any] = {}
CIRCLE["again"] = CIRCLE
DEEP: list[Any] = []
for _ in range(199):  # can be written, and read by nobody
    DEEP = [DEEP]


def hands(data: Any) -> Callable[[Journey], Awaitable[Any]]:
    return lambda journey: journey.webhook(URL, data)


async def leaves(reason: Any) -> None:
    raise Exit(reason)


CANNOT_BE_TAKEN: dict[str, Callable[[Journey], Awaitable[Any]]] = {
    "the name of a step is a text, not 3": lambda journey: journey.tag("vip", step=3),  # type: ignore[arg-type]
    "not 2,000": lambda journey: journey.tag("vip", step="x" * 2_000),
    "no control characters in it, as 'a\\x00b' has": lambda journey: journey.tag("vip", step="a\0b"),
    "as '\\ud800' has": lambda journey: journey.tag("vip", step="\ud800"),
    "a way of a split has no control characters": lambda journey: journey.split({"a\0": 1}),
    "the reason of an exit is a text, not 3": lambda _: leaves(3),
    "the reason of an exit has no control": lambda _: leaves("\0"),
    "not JSON serializable: object": hands({"what": object()}),
    "serializable: bytes": hands({"photo": b"\xff"}),
    "Recursion limit": hands(CIRCLE),
    "recursion limit exceeded": hands(DEEP),
    "it has 3,000,": hands({"all": "x" * 3_000_000}),
    "Integer exceeds 64-bit range": hands({"all": 10**400}),
    "surrogates not allowed": hands({"name": "\ud800"}),
    "characters in it that no database keeps": hands({"name": 'quoted "\\\0'}),
}


async def test_what_cannot_be_asked_for_fails_that_contact_at_its_line(temporal: Client) -> None:
    ways = {contact_id(number): way for number, way in enumerate(CANNOT_BE_TAKEN.values())}

    async def various(contact: Contact, journey: Journey) -> None:
        await journey.send("welcome")
        if way := ways.get(contact.id):
            await way(journey)
        await journey.send("more")

    async with carrying(temporal, various, len(ways) + 2) as cohort:
        done = await cohort.run.result()
    assert done.left == {"failed": len(ways), "completed": 2}
    endings = cohort.stand_in.endings()
    for member, said in enumerate(CANNOT_BE_TAKEN):
        assert said in endings[member]
        assert "(test_alone.py:" in endings[member]
    assert cohort.stand_in.steps == ["send:welcome", "send:more"]


async def test_whoever_looks_at_a_clock_that_stands_still_fails_and_the_others_go_on(temporal: Client) -> None:
    async def looking(contact: Contact, journey: Journey) -> None:
        await journey.send("welcome")
        while contact.id == contact_id(1) and journey.now.hour < 25:
            pass
        for _ in range(MOST_LOOKS - 10):
            assert journey.now

    async with carrying(temporal, looking, 3) as cohort:
        done = await cohort.run.result()
    assert done.left == {"failed": 1, "completed": 2}
    assert "`journey.now` was looked at 5,000 times between two steps" in cohort.stand_in.endings()[1]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise self


async def waits_for_what_it_cancels() -> None:
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


async def raises(error: BaseException) -> None:
    raise error


CANNOT_GO_ON: dict[str, Callable[[], Awaitable[Any]]] = {
    "CancelledError: mine": lambda: raises(asyncio.CancelledError("mine")),
    "CancelledError: ": waits_for_what_it_cancels,
    "GeneratorExit: ": lambda: raises(GeneratorExit()),
    "KeyboardInterrupt: ": lambda: raises(KeyboardInterrupt()),
    "SystemExit: 1": lambda: raises(SystemExit(1)),
    "Unspeakable: an error that can't be told": lambda: raises(Unspeakable()),
    "ValueError: ? of a pair": lambda: raises(ValueError("\ud800 of a pair")),
}


async def test_whatever_is_raised_fails_that_contact_at_once(temporal: Client) -> None:
    ways = {contact_id(number): way for number, way in enumerate(CANNOT_GO_ON.values())}

    async def various(contact: Contact, journey: Journey) -> None:
        await journey.send("welcome")
        if way := ways.get(contact.id):
            await way()

    async with carrying(temporal, various, len(ways) + 2) as cohort:
        done = await cohort.run.result()
    assert done.left == {"failed": len(ways), "completed": 2}
    endings = cohort.stand_in.endings()
    for member, said in enumerate(CANNOT_GO_ON):
        assert endings[member].startswith(f"failed: {said} (test_alone.py:")


async def test_what_is_handed_over_comes_as_the_code_has_it(temporal: Client) -> None:
    data = {"of": contact_id(0), 3: [math.nan, "\\u0000", "é\n"], "set": {1}, "tuple": (1.5, 2**63)}

    async def handing_over(_: Contact, journey: Journey) -> None:
        await journey.webhook(URL, data)

    async with carrying(temporal, handing_over) as cohort:
        await cohort.run.result()
    came = {"of": str(contact_id(0)), "3": [None, "\\u0000", "é\n"], "set": [1], "tuple": [1.5, 2**63]}
    assert cohort.stand_in.asked[0][1].args == {"url": URL, "data": came}


async def test_whoever_catches_it_is_told_the_same_by_the_next_run(temporal: Client) -> None:
    async def careful(_: Contact, journey: Journey) -> None:
        for _turn in range(3):
            try:
                await journey.webhook(URL, object())
            except ValueError:
                await journey.send("welcome")
                await journey.wait("1 day")

    async with carrying(temporal, careful, 2, most_events=20) as cohort:
        done = await cohort.run.result()
        assert len(await cohort.histories()) > 1
    assert done.left == {"completed": 2}
    assert cohort.stand_in.steps == ["send:welcome", "send:welcome-2", "send:welcome-3"]


async def test_much_of_many_contacts_is_asked_for_bit_by_bit(temporal: Client) -> None:
    async def heavy(contact: Contact, journey: Journey) -> None:
        await journey.webhook(URL, f"{contact.id}{'x' * 700_000}")

    async with carrying(temporal, heavy, 8) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 8}


async def test_whatever_an_activity_answers_can_be_told(temporal: Client) -> None:
    def answer(_: StepCall, caller: Caller) -> Answer:
        return Answer(value="a\0b") if caller.member else Answer(error="no\0", final=True)

    async def asking(_: Contact, journey: Journey) -> None:
        await journey.activity("look")

    async with carrying(temporal, asking, 2, StandIn(answer)) as cohort:
        await cohort.run.result()
    assert cohort.stand_in.endings() == {0: "failed: activity:look: no?", 1: "completed"}
    notes = [note for report in cohort.stand_in.reports for note in report.notes]
    assert {(note.outcome, note.error) for note in notes} == {("a?b", ""), ("failed", "no?")}


WAYS: list[Any] = ["a"]
FORGOTTEN: dict[str, Callable[[Journey], Any]] = {
    "matches": lambda journey: "gold" if journey.matches({"field": "country", "is": "FR"}) else "silver",
    "split": lambda journey: WAYS.index(journey.split({"a": 1, "b": 1})),
    "send": lambda journey: [journey.send(each) for each in ("a", "b")],
    "wait": lambda journey: (journey.wait("1 day"), journey.exit("done")),
    "tag": lambda journey: list(map(journey.tag, ["a"])),
}


async def test_whoever_forgets_to_await_a_step_fails_and_is_told_which(temporal: Client) -> None:
    ways = {contact_id(number): way for number, way in enumerate(FORGOTTEN.values())}

    async def various(contact: Contact, journey: Journey) -> Any:
        await journey.send("welcome")
        return ways[contact.id](journey) if contact.id in ways else await asyncio.create_task(journey.send("more"))

    async with carrying(temporal, various, len(ways) + 2) as cohort:
        done = await cohort.run.result()
    assert done.left == {"failed": len(ways), "completed": 2}
    endings = cohort.stand_in.endings()
    for member, word in enumerate(FORGOTTEN):
        assert f"`journey.{word}(…)` (test_alone.py:" in endings[member]
        assert f"was not awaited: write `await journey.{word}(…)`" in endings[member]
