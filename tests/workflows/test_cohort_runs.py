"""Does a cohort go on in a run with an empty history as if nothing had been?"""

import asyncio
from base64 import b64encode
from collections import defaultdict
from datetime import datetime, timedelta
from hashlib import sha256
from random import Random
from uuid import UUID

from temporalio.client import Client

from activities.journey_inputs import Answer, Caller, Join, JournalPart, Leave, NoteInput, StepCall
from tests.cohorts import StandIn, as_usual, besides_tasks, carrying, contact_id, event, members, written
from workflows.cohorts import CohortWorkflow
from workflows.journey import Contact, Journey, StepFailed
from workflows.journey_inputs import Migration


def chance(*of: object) -> int:
    """The same for the same, in every run."""
    return sha256(repr(of).encode()).digest()[0]


def by_chance(step: StepCall, caller: Caller) -> Answer:
    """What becomes of a step differs from contact to contact, and is the same whenever it is asked."""
    dice = chance(caller.member, caller.call, step.step.partition("-")[0])
    if step.step.startswith("webhook") and dice < 60:
        return Answer(error="503", final=dice < 30)
    if step.step.startswith("matches"):
        return Answer(value=dice < 128)
    if step.step.startswith("wait_for") and dice < 80:
        found = event(caller.member, caller.call)
        return Answer(value={"id": str(found.event_id), "name": found.name, "occurred_at": step.now.isoformat()})
    return as_usual(step, caller)


SEEN: dict[tuple[int, int], set[datetime]] = defaultdict(set)


async def lively(contact: Contact, journey: Journey) -> None:
    """Something of everything, at moments of each contact's own."""
    for week in range(2):
        SEEN[contact.id.int, week].add(journey.now)
        await journey.send("tip")
        found, _, way = await asyncio.gather(
            journey.wait_for("clicked", within=timedelta(hours=3, minutes=contact.id.int % 2)),
            journey.wait(minutes=contact.id.int % 3),
            journey.split({"early": 1, "late": 2}),
        )
        if way == "late":
            await journey.wait_until("09:00")
        try:
            await journey.webhook("https://crm.example.com/leads")
        except StepFailed:
            await journey.tag("unreachable")
        if await journey.matches({"field": "country", "is": "FR"}) or found:
            await asyncio.gather(journey.send("offer"), journey.add_to("buyers"))


async def test_every_contact_takes_the_same_steps_in_one_run_as_in_many(temporal: Client) -> None:
    told, name = [], written(lively)
    for most_events in (8_000, 100):
        SEEN.clear()
        zones = ["Europe/Paris", "Asia/Kolkata"]
        who = members(8, zones=zones)
        async with carrying(temporal, name, stand_in=StandIn(by_chance), members=who, most_events=most_events) as it:
            done = await it.run.result()
            histories = await it.histories()
        assert done.left == {"completed": 8}
        assert len(it.stand_in.endings()) == 8
        assert {len(clocks) for clocks in SEEN.values()} == {1}, "the journey's clock is the same in every run"
        told.append(([it.stand_in.noted(member) for member in range(8)], it.stand_in.times(), done.steps))
        assert max(len(besides_tasks(each)) for each in histories) < most_events + 80
    assert len(histories) > 2
    in_one_run, in_many = told
    assert in_many[0] == in_one_run[0]
    again = {key for key, times in in_many[1].items() if times > 1}
    assert {step.partition("-")[0] for *_, step in again} <= {"webhook"}, "only what fails is asked again"
    assert in_many[1] == in_one_run[1]
    assert sorted(map(str, in_many[2])) == sorted(map(str, in_one_run[2]))


async def test_histories_stay_short_however_different_the_moments_are(temporal: Client) -> None:
    async def scattered(contact: Contact, journey: Journey) -> None:
        for turn in range(2):
            await journey.wait(hours=1, minutes=chance(contact.id, turn))
            await journey.send("tip")

    async with carrying(temporal, scattered, 20, most_events=250) as cohort:
        await cohort.run.result()
        histories = await cohort.histories()
    assert set(cohort.stand_in.times().values()) == {1}
    assert len(cohort.stand_in.times()) == 40
    assert max(len(besides_tasks(each)) for each in histories) < 225
    assert sum(len(besides_tasks(each)) for each in histories) / 80 < 4, "even where nobody can share anything"


async def test_who_waits_goes_on_waiting_in_the_next_run_until_the_same_moment(temporal: Client) -> None:
    async def patient(_: Contact, journey: Journey) -> None:
        found = await journey.wait_for("clicked", within="10 days")
        await journey.send("thanks" if found else "nudge")

    async with carrying(temporal, patient, 3, most_events=100, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait_for:clicked") == 3)
        await cohort.fill_history()
        await cohort.run.signal(CohortWorkflow.happened, [event(1, 0, "clicked")])
        done = await cohort.finish()
    assert done.left == {"completed": 3}
    looked, thanks, nudge = (step for _, step in cohort.stand_in.asked)
    assert [each.member for each in thanks.callers] == [1]
    assert [each.member for each in nudge.callers] == [0, 2]
    assert timedelta(days=10) <= nudge.now - looked.now < timedelta(days=10, minutes=2)


async def test_a_pause_holds_into_the_next_run(temporal: Client) -> None:
    async def two(_: Contact, journey: Journey) -> None:
        await journey.send("first")
        await journey.wait("1 day")
        await journey.send("second")

    async with carrying(temporal, two, 2, most_events=100, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day"))
        await cohort.run.signal(CohortWorkflow.pause)
        await cohort.fill_history()
        await cohort.skip(timedelta(days=2))
        assert cohort.stand_in.steps == ["send:first"]
        await cohort.run.signal(CohortWorkflow.resume)
        done = await cohort.finish()
    assert done.left == {"completed": 2}
    assert cohort.stand_in.steps == ["send:first", "send:second"]


async def test_a_pass_that_the_code_does_not_fit_any_more_fails_alone_and_says_where(temporal: Client) -> None:
    changed: list[bool] = []

    async def edited(contact: Contact, journey: Journey) -> None:
        odd = contact.id == contact_id(1)
        await journey.send("hello" if changed and odd else "welcome")
        for _ in range(20):
            await journey.wait(hours=2)
            await journey.notify("still here", step="tick")

    def answer(step: StepCall, caller: Caller) -> Answer:
        if step.step == "tick-5":
            changed.append(True)
        return as_usual(step, caller)

    async with carrying(temporal, edited, 3, StandIn(answer), most_events=200) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 2, "failed": 1}
    assert cohort.stand_in.endings()[1] == (
        "failed: Step 1 of this pass was “send:welcome”, and the code takes “send:hello” there now. "
        "Give changed code a version of its own."
    )


async def test_a_pass_whose_code_has_become_shorter_fails_alone(temporal: Client) -> None:
    changed: list[bool] = []

    async def edited(contact: Contact, journey: Journey) -> None:
        for number in range(20):
            if changed and contact.id == contact_id(1) and number == 2:
                return
            await journey.notify("still here", step="tick")
            await journey.wait(hours=2)

    def answer(step: StepCall, caller: Caller) -> Answer:
        if step.step == "tick-5":
            changed.append(True)
        return as_usual(step, caller)

    async with carrying(temporal, edited, 3, StandIn(answer), most_events=200) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 2, "failed": 1}
    assert "Step 5 of this pass was “tick-3”, and the code does not get there now" in cohort.stand_in.endings()[1]


async def test_a_thousand_contacts_are_brought_back_without_holding_up_the_worker(temporal: Client) -> None:
    """They were told 25,000 things, and a worker that is told so much at once is taken for stuck."""

    async def talkative(_: Contact, journey: Journey) -> None:
        for _step in range(25):
            await journey.split({"a": 1})
        await journey.wait("1 day")
        await journey.send("offer")

    async with carrying(temporal, talkative, 1000, most_events=90) as cohort:
        done = await cohort.run.result()
        histories = await cohort.histories()
    assert done.left == {"completed": 1000}
    assert len(histories) > 1
    assert set(cohort.stand_in.times().values()) == {1}


HEARD: dict[tuple[UUID, int], set[str]] = defaultdict(set)


async def well_informed(_: Contact, journey: Journey) -> None:
    for number in range(12):
        HEARD[journey.contact.id, number].add(await journey.activity("look", step=f"look-{number}"))
        await journey.wait("1 day")
    await journey.send("offer")


def at_length(step: StepCall, caller: Caller) -> Answer:
    """What can't be made shorter."""
    if not step.step.startswith("look"):
        return as_usual(step, caller)
    return Answer(value=b64encode(Random(f"{caller.member} {step.step}").randbytes(1050)).decode())


async def test_journals_that_are_too_long_to_hand_over_are_kept_on_record(temporal: Client) -> None:
    HEARD.clear()
    meanwhile = asyncio.Event()

    async def leaves(_: JournalPart) -> None:
        if not meanwhile.is_set():
            meanwhile.set()
            await cohort.run.signal(CohortWorkflow.leave, [Leave(member=7, reason="goal")])

    stand_in = StandIn(at_length, before_keeping=leaves)
    async with carrying(temporal, well_informed, 160, stand_in, most_events=60) as cohort:
        done = await cohort.run.result()
        histories = await cohort.histories()
    assert done.left == {"completed": 159, "exited": 1}
    assert len(stand_in.journal) > 2
    assert sum(map(len, stand_in.journal.values())) > 2 << 20
    assert len(histories) > 2
    assert max(map(len, stand_in.journal.values())) < 1 << 20
    assert set(stand_in.times().values()) == {1}
    assert len(HEARD) >= 159 * 12
    assert {len(answers) for answers in HEARD.values()} == {1}, "every run is told the same"


async def test_a_pass_that_is_told_too_much_to_be_remembered_fails_alone(temporal: Client) -> None:
    def too_long(step: StepCall, caller: Caller) -> Answer:
        return Answer(value="x" * 3_000) if caller.member == 1 and step.step != "send:offer" else as_usual(step, caller)

    async with carrying(temporal, well_informed, 3, StandIn(too_long)) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 2, "failed": 1}
    assert "more than 20,000 bytes" in cohort.stand_in.endings()[1]


# -- those who come later, and other versions ------------------------------------------------------------------------


async def test_who_comes_and_goes_while_a_cohort_is_closing_is_told_of(temporal: Client) -> None:
    async def soon_over(_: Contact, journey: Journey) -> None:
        await journey.split({"a": 1})

    async def joined_by_others(report: NoteInput) -> None:
        if report.ended and not stand_in.reports:
            await cohort.run.signal(CohortWorkflow.join, Join(first=2, members=members(5)[2:]))
            history = temporal.get_workflow_handle(cohort.run.id).fetch_history_events(wait_new_event=True)
            heard = False
            async for each in history:  # its code has run, and all of them have left
                heard = heard or each.HasField("workflow_execution_signaled_event_attributes")
                if heard and each.HasField("workflow_task_completed_event_attributes"):
                    return

    stand_in = StandIn(before_report=joined_by_others)
    async with carrying(temporal, soon_over, 2, stand_in, skipping=False) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 5}
    assert stand_in.endings() == dict.fromkeys(range(5), "completed")


async def test_newcomers_go_the_same_way(temporal: Client) -> None:
    async def waiting(_: Contact, journey: Journey) -> None:
        await journey.wait("1 day")
        await journey.send("offer")

    async with carrying(temporal, waiting, 2, skipping=False) as cohort:
        everybody = members(5)
        await cohort.run.signal(CohortWorkflow.leave, [Leave(member=4, reason="early")])
        await cohort.run.signal(CohortWorkflow.join, Join(first=2, members=everybody[2:4]))
        await cohort.run.signal(CohortWorkflow.join, Join(first=2, members=everybody[2:]))
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day") >= 4)
        await cohort.skip(timedelta(days=2))
        done = await cohort.run.result()
    assert done.left == {"completed": 4, "exited": 1}
    assert cohort.stand_in.endings()[4] == "exited: early"
    assert set(cohort.stand_in.times().values()) == {1}


async def test_whoever_joins_during_the_last_report_is_taken_along(temporal: Client) -> None:
    async def brief(_: Contact, journey: Journey) -> None:
        await journey.send("offer")

    stand_in = StandIn()
    go_on = asyncio.Event()

    async def slowly(*_: object) -> None:
        await go_on.wait()

    stand_in.before_report = slowly
    async with carrying(temporal, brief, 1, stand_in) as cohort:
        await stand_in.until(lambda: stand_in.reporting)
        await cohort.run.signal(CohortWorkflow.join, Join(first=1, members=members(2)[1:]))
        await stand_in.until(lambda: len(stand_in.asked) > 1)
        go_on.set()
        done = await cohort.run.result()
    assert done.left == {"completed": 2}
    assert stand_in.reports[-1].ended


def steps(*of: dict[str, str]) -> dict[str, object]:
    return {"steps": list(of)}


async def test_those_at_rest_in_a_step_of_the_new_version_go_on_in_it(temporal: Client) -> None:
    old = steps(
        {"type": "send", "id": "hello", "template": "hello"},
        {"type": "wait", "id": "rest", "duration": "10 days"},
        {"type": "send", "id": "bye", "template": "bye"},
    )
    new = steps(
        {"type": "wait", "id": "rest", "duration": "2 days"},
        {"type": "send", "id": "farewell", "template": "farewell"},
    )
    async with carrying(temporal, old, 3, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("rest") == 3)
        await cohort.skip(timedelta(days=1))
        await cohort.run.signal(CohortWorkflow.migrate, Migration(version=2, definition=new))
        await cohort.skip(timedelta(hours=30))
        done = await cohort.run.result()
    assert done.left == {"completed": 3}
    assert cohort.stand_in.steps == ["hello", "farewell"]
    assert cohort.stand_in.noted() == [("hello", "sent"), ("rest", "migrated"), ("rest", ""), ("farewell", "sent")]
    assert [report.version for report in cohort.stand_in.reports if report.left] == [2]


async def test_those_in_a_step_that_is_gone_finish_in_the_version_they_began_with(temporal: Client) -> None:
    old = steps({"type": "wait", "id": "rest", "duration": "2 days"}, {"type": "send", "id": "bye", "template": "bye"})
    new = steps({"type": "send", "id": "rest", "template": "other"}, {"type": "send", "id": "bye", "template": "new"})
    async with carrying(temporal, old, 3, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("rest") == 3)
        await cohort.run.signal(CohortWorkflow.migrate, Migration(version=2, definition=new))
        await cohort.skip(timedelta(days=3))
        await cohort.run.result()
    assert [step.args["template"] for _, step in cohort.stand_in.asked] == ["bye"]


async def test_whoever_has_migrated_is_brought_back_in_the_new_version(temporal: Client) -> None:
    rest = {"type": "wait", "id": "rest", "duration": "3 days"}
    hello = {"type": "send", "id": "hello", "template": "hello"}
    bye = {"type": "send", "id": "bye", "template": "bye"}
    async with carrying(temporal, steps(hello, rest), 3, skipping=False, most_events=100) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("rest") == 3)
        await cohort.run.signal(CohortWorkflow.migrate, Migration(version=2, definition=steps(rest, bye)))
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("rest") == 6)
        await cohort.fill_history()
        done = await cohort.finish()
    assert done.left == {"completed": 3}
    assert cohort.stand_in.steps == ["hello", "bye"]
    assert cohort.stand_in.noted() == [("hello", "sent"), ("rest", "migrated"), ("rest", ""), ("bye", "sent")]
