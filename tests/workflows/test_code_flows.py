"""Are the ways that the code of an automation has read from its text?"""

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio import activity

from marketing.flows import Do, Fork, Jump, Leave, Loop
from workflows.code_flows import count_steps, flow
from workflows.journey import Contact, Journey, StepFailed

FRENCH = {"field": "country", "is": "FR"}
FRENCH_SAID = "Whose country is “FR”"
NUDGE = "nudge"


@activity.defn
async def score(contact_id: str) -> int:
    return 1


async def straight(_: Contact, journey: Journey) -> None:
    await journey.send("welcome")
    await journey.wait(days=3, hours=1)
    await journey.wait(timedelta(hours=6))
    await journey.send(NUDGE, channel="sms")
    await journey.tag("a", "b")
    await journey.activity(score)
    await journey.send(f"for-{journey.trigger['plan']}")
    await journey.wait(f"{len(NUDGE)!s:>2} days")
    await journey.tag(f"{NUDGE}d", f"{{x}}-{NUDGE}")
    journey.exit("enough")


def test_steps_are_told_in_order_with_what_is_written_in_the_file() -> None:
    assert flow(straight, {}) == (
        Do("Send “welcome”"),
        Do("Wait 3 days 1 hour"),
        Do("Wait 6 hours"),
        Do("Send “nudge” by sms"),
        Do("Tag “a”, “b”"),
        Do("Run score"),
        Do("Send “for-{journey.trigger['plan']}”"),
        Do("Wait {len(NUDGE)} days"),
        Do("Tag “nudged”, “{x}-nudge”"),
        Leave("Leaves: enough"),
    )


async def asked(_: Contact, journey: Journey) -> None:
    if not await journey.wait_for("purchase", within="2 days"):
        await journey.send("nudge")
    elif await journey.matches(FRENCH):
        return
    if await journey.engagement():
        await journey.send("thanks")
    await journey.engagement("7 days")
    await journey.engagement(since=journey.entered_at)
    sent = await journey.send("more")
    if sent.state == "skipped":
        raise ValueError("never mind")


def test_questions_part_the_ways() -> None:
    french = Fork(f"{FRENCH_SAID}?", (("yes", (Leave("Completed"),)), ("no", ())), asks=True)
    assert flow(asked, {}) == (
        Fork("“purchase” within 2 days?", (("yes", (french,)), ("no", (Do("Send “nudge”"),))), asks=True),
        Fork("Opened or clicked?", (("yes", (Do("Send “thanks”"),)), ("no", ())), asks=True),
        Do("Opened or clicked in the last 7 days?"),
        Do("Opened or clicked since journey.entered_at?"),
        Do("Send “more”"),
        Fork("sent.state == 'skipped'?", (("yes", (Leave("Fails: ValueError('never mind')"),)), ("no", ()))),
    )
    assert count_steps(flow(asked, {})) == 8


async def by_chance(_: Contact, journey: Journey) -> None:
    match await journey.split({"a": 1, "b": 3}):
        case "a":
            await journey.send("a")
        case _:
            await journey.send("b")
    if await journey.split({"c": 50, "d": 50}) == "c":
        await journey.send("c")


def test_chance_is_told_with_its_shares() -> None:
    assert flow(by_chance, {}) == (
        Fork("By chance", (("a: 25 %", (Do("Send “a”"),)), ("otherwise", (Do("Send “b”"),))), asks=True),
        Fork("By chance", (("c: 50 %", (Do("Send “c”"),)), ("otherwise", ())), asks=True),
    )


async def round_and_round(_: Contact, journey: Journey) -> None:
    for day in ("monday", "friday"):
        await journey.wait_until("09:00", weekday=day)
    while not await journey.matches(FRENCH):
        await journey.wait("1 day")
    while True:
        if await journey.wait_for("purchase", within="1 day"):
            break
        await journey.send("nudge")


def test_loops_are_told() -> None:
    days, waiting, endless = flow(round_and_round, {})
    assert days == Loop("For each day in ('monday', 'friday')", (Do("Wait until day 09:00"),))
    assert waiting == Loop(f"While not: {FRENCH_SAID}", (Do("Wait 1 day"),))
    bought = Fork("“purchase” within 1 day?", (("yes", (Jump(out=True),)), ("no", ())), asks=True)
    assert endless == Loop("Again and again", (bought, Do("Send “nudge”")), endless=True)


async def remind(_: Contact, journey: Journey, template: str) -> None:
    await journey.send(template)


async def twice(contact: Contact, trip: Journey) -> None:
    await again(contact, trip)
    await remind(contact, trip, "x")
    with suppress(StepFailed):
        await asyncio.gather(trip.send("a"), trip.notify("b"))
    try:
        await trip.webhook("https://example.com/hook")
    except StepFailed:
        await trip.notify("no answer")


async def again(contact: Contact, journey: Journey) -> None:
    await journey.wait("1 day")
    await again(contact, journey)


def test_functions_that_are_handed_the_journey_are_followed_but_not_for_ever() -> None:
    found = flow(twice, {})
    assert found[:4] == (Do("Wait 1 day"),) * 4
    assert found[4:] == (
        Do("Send template"),
        Do("Send “a”"),
        Do("Notify: b"),
        Do("Tell example.com"),
        Fork("Did any of it fail?", (("no", ()), ("StepFailed", (Do("Notify: no answer"),)))),
    )
