"""Are a thousand contacts taken through an automation as if each were alone?"""

import asyncio
import gc
from contextlib import suppress
from datetime import timedelta

from temporalio.client import Client, WorkflowHistory
from temporalio.exceptions import ApplicationError

from activities.journey_inputs import Answer, Caller, Leave, StepCall
from tests.cohorts import SENT, StandIn, besides_tasks, carrying, contact_id, members
from tests.timers import timers
from workflows.cohorts import CohortWorkflow
from workflows.journey import Contact, Journey, StepFailed
from workflows.journey_inputs import Reason
from workflows.passes import MOST_STEPS


async def welcome(_: Contact, journey: Journey) -> None:
    await journey.wait(minutes=5)
    await journey.send("welcome")
    await journey.wait("1 day")
    if not await journey.wait_for("message.clicked", within="3 days"):
        await journey.send("nudge")


async def one_message(_: Contact, journey: Journey) -> None:
    await journey.send("offer")


async def two_messages(_: Contact, journey: Journey) -> None:
    await journey.send("first")
    await journey.wait("1 day")
    await journey.send("second")


# -- together --------------------------------------------------------------------------------------------------------


async def test_what_many_do_at_the_same_moment_is_one_activity(temporal: Client) -> None:
    async with carrying(temporal, welcome, 500) as cohort:
        done = await cohort.run.result()
        (history,) = await cohort.histories()
    assert done.left == {"completed": 500}
    assert cohort.stand_in.steps == ["send:welcome", "wait_for:message.clicked", "send:nudge"]
    assert set(cohort.stand_in.times().values()) == {1}
    assert len(besides_tasks(history)) < 46


async def test_who_wakes_within_the_same_minute_goes_on_together(temporal: Client) -> None:
    async def at_some_second(contact: Contact, journey: Journey) -> None:
        await journey.wait(timedelta(hours=2, seconds=contact.id.int % 60))
        await journey.send("offer")

    async with carrying(temporal, at_some_second, 200) as cohort:
        await cohort.run.result()
    assert len(cohort.stand_in.steps) <= 2
    assert set(cohort.stand_in.times().values()) == {1}


async def test_nothing_that_a_thousand_contacts_need_is_larger_than_256_kib(temporal: Client) -> None:
    thousand = members(1000, zones=["America/Argentina/Buenos_Aires", "Europe/Paris"])
    async with carrying(temporal, welcome, members=thousand, most_events=30) as cohort:
        done = await cohort.run.result()
        histories = await cohort.histories()
    assert done.left == {"completed": 1000}
    assert len(histories) > 1
    assert max(_largest(each) for each in histories) < 256 * 1024


def _largest(history: WorkflowHistory) -> int:
    return max(each.ByteSize() for each in history.events)


async def test_people_read_of_each_wait_and_of_each_step_that_ended(temporal: Client) -> None:
    async with carrying(temporal, welcome, 2) as cohort:
        done = await cohort.run.result()
        told = await cohort.run.describe()
    assert cohort.stand_in.noted() == [
        ("wait:5 minutes", ""),
        ("send:welcome", "sent"),
        ("wait:1 day", ""),
        ("wait_for:message.clicked", "did not happen"),
        ("send:nudge", "sent"),
    ]
    assert cohort.stand_in.is_in("wait:1 day") == 2
    assert [report.ended for report in cohort.stand_in.reports].count(True) == 1
    assert cohort.stand_in.reports[-1].ended
    assert {each.step: (each.inside, each.done, each.failed) for each in done.steps} == dict.fromkeys(
        [step for step, _ in cohort.stand_in.noted()], (0, 2, 0)
    )
    assert told.typed_search_attributes


# -- alone -----------------------------------------------------------------------------------------------------------


async def test_a_contact_on_whom_the_code_fails_fails_alone(temporal: Client) -> None:
    async def fragile(contact: Contact, journey: Journey) -> None:
        await journey.send("first")
        if contact.id == contact_id(3):
            raise ZeroDivisionError("by none")
        await journey.send("second")

    async with carrying(temporal, fragile, 10) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 9, "failed": 1}
    problem = cohort.stand_in.endings()[3]
    assert problem.startswith("failed: ZeroDivisionError: by none (test_cohorts.py:")
    (failures,) = cohort.stand_in.failures
    assert [left.members for left in failures.left] == [[3]]


async def test_only_those_whose_step_failed_take_it_again_three_times_at_most(temporal: Client) -> None:
    def answer(step: StepCall, caller: Caller) -> Answer:
        fails = caller.member in (3, 4) or (caller.member == 5 and step.attempt < 3)
        return Answer(error="mailbox of zoe@example.com full") if fails else SENT

    async with carrying(temporal, one_message, 10, StandIn(answer)) as cohort:
        done = await cohort.run.result()
        (history,) = await cohort.histories()
    assert done.left == {"completed": 8, "failed": 2}
    asked = [step for _, step in cohort.stand_in.asked]
    assert [[each.member for each in step.callers] for step in asked] == [list(range(10)), [3, 4, 5], [3, 4, 5]]
    assert [step.attempt for step in asked] == [1, 2, 3]
    pauses = [each for each in timers(history) if each < timedelta(hours=1)]
    assert pauses == [timedelta(seconds=10), timedelta(seconds=60)]
    assert cohort.stand_in.endings()[4] == "failed: send:offer: mailbox of [address] full"


async def test_what_no_attempt_can_help_is_tried_once(temporal: Client) -> None:
    stand_in = StandIn(lambda *_: Answer(error="no such template", final=True))
    async with carrying(temporal, one_message, 2, stand_in) as cohort:
        await cohort.run.result()
    assert len(stand_in.asked) == 1
    assert stand_in.endings() == dict.fromkeys([0, 1], "failed: send:offer: no such template")


async def test_code_may_catch_what_a_step_failed_of(temporal: Client) -> None:
    async def careful(_: Contact, journey: Journey) -> None:
        try:
            await journey.webhook("https://crm.example.com/leads")
        except StepFailed as failed:
            await journey.notify(f"CRM: {failed.problem}", step="tell")

    def answer(step: StepCall, _: Caller) -> Answer:
        return Answer(error="503", final=True) if step.step == "webhook" else Answer()

    stand_in = StandIn(answer)
    async with carrying(temporal, careful, 3, stand_in) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 3}
    assert stand_in.asked[-1][1].args == {"text": "CRM: 503"}
    assert stand_in.noted() == [("webhook", "failed"), ("tell", "")]


async def test_an_activity_that_fails_for_good_fails_those_who_asked_for_it(temporal: Client) -> None:
    async def refuse(*_: object) -> None:
        raise ApplicationError("this version reads no such step", non_retryable=True)

    async with carrying(temporal, one_message, 2, StandIn(before=refuse)) as cohort:
        await cohort.run.result()
    assert cohort.stand_in.endings() == dict.fromkeys([0, 1], "failed: send:offer: this version reads no such step")


async def test_an_activity_that_is_away_is_waited_for(temporal: Client) -> None:
    async def away(kind: str, _: StepCall) -> None:
        if len(stand_in.asked) < 3:
            raise ConnectionError("nobody there")

    stand_in = StandIn(before=away)
    async with carrying(temporal, one_message, 2, stand_in) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 2}
    assert {step.attempt for _, step in stand_in.asked} == {1}


async def test_a_pass_takes_a_thousand_steps_and_no_more(temporal: Client) -> None:
    async def endless(_: Contact, journey: Journey) -> None:
        while True:
            await journey.split({"a": 1})

    async with carrying(temporal, endless) as cohort:
        done = await cohort.run.result()
    assert done.left == {"failed": 1}
    assert cohort.stand_in.endings()[0] == "failed: It has taken 1,000 steps, and is to end with fewer."
    assert sum(step.done for step in done.steps) == MOST_STEPS


# -- in time ---------------------------------------------------------------------------------------------------------


async def test_what_is_to_be_asked_later_is_asked_again_then(temporal: Client) -> None:
    def answer(step: StepCall, caller: Caller) -> Answer:
        quiet = caller.member < 3 and len(stand_in.asked) == 1
        return Answer(later=step.now + timedelta(hours=9)) if quiet else SENT

    stand_in = StandIn(answer)
    async with carrying(temporal, one_message, 5, stand_in) as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 5}
    first, again = (step for _, step in stand_in.asked)
    assert [each.member for each in again.callers] == [0, 1, 2]
    assert again.attempt == 1
    assert timedelta(hours=9) <= again.now - first.now < timedelta(hours=9, minutes=2)


async def test_whoever_is_inside_for_too_long_times_out(temporal: Client) -> None:
    async def patient(contact: Contact, journey: Journey) -> None:
        if contact.id == contact_id(0):
            await journey.wait("1 year")
        await journey.send("offer")

    async with carrying(temporal, patient, 3, time_limit="30 days") as cohort:
        done = await cohort.run.result()
    assert done.left == {"completed": 2, "timed_out": 1}
    assert cohort.stand_in.endings()[0] == "timed_out: inside for 30 days"
    assert cohort.stand_in.reports[-1].now - cohort.stand_in.reports[0].now < timedelta(days=31)


# -- paused and ended ------------------------------------------------------------------------------------------------


async def test_nobody_takes_a_step_during_a_pause(temporal: Client) -> None:
    async with carrying(temporal, two_messages, 5, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day"))
        await cohort.run.signal(CohortWorkflow.pause)
        await cohort.skip(timedelta(days=3))
        assert (await cohort.progress()).state == "paused"
        assert cohort.stand_in.steps == ["send:first"]
        await cohort.run.signal(CohortWorkflow.resume)
        done = await cohort.run.result()
    assert cohort.stand_in.steps == ["send:first", "send:second"]
    assert done.left == {"completed": 5}


async def test_what_is_held_is_asked_again_when_the_pause_ends(temporal: Client) -> None:
    go_on = asyncio.Event()

    async def slowly(*_: object) -> None:
        await go_on.wait()

    stand_in = StandIn(lambda *_: SENT if len(stand_in.asked) > 1 else Answer(held=True), slowly)
    async with carrying(temporal, one_message, 5, stand_in, skipping=False) as cohort:
        await stand_in.until(lambda: stand_in.asked)
        await cohort.run.signal(CohortWorkflow.pause)
        go_on.set()
        await cohort.skip(timedelta(days=1))
        assert len(stand_in.asked) == 1
        await cohort.run.signal(CohortWorkflow.resume)
        done = await cohort.run.result()
    assert done.left == {"completed": 5}
    assert len(stand_in.asked) == 2


async def test_what_is_held_without_word_of_a_pause_is_asked_again_a_minute_later(temporal: Client) -> None:
    stand_in = StandIn(lambda *_: SENT if len(stand_in.asked) > 1 else Answer(held=True))
    async with carrying(temporal, one_message, 5, stand_in) as cohort:
        await cohort.run.result()
        (history,) = await cohort.histories()
    assert len(stand_in.asked) == 2
    assert timedelta(minutes=1) in timers(history)


async def test_what_is_held_is_asked_again_at_once_if_the_end_of_the_pause_was_told_before(temporal: Client) -> None:
    go_on = asyncio.Event()

    async def slowly(*_: object) -> None:
        await go_on.wait()

    stand_in = StandIn(lambda *_: SENT if len(stand_in.asked) > 1 else Answer(held=True), slowly)
    async with carrying(temporal, one_message, 5, stand_in) as cohort:
        await stand_in.until(lambda: stand_in.asked)
        await cohort.run.signal(CohortWorkflow.resume)
        await cohort.progress()  # so it has heard that
        go_on.set()
        await cohort.run.result()
        (history,) = await cohort.histories()
    assert len(stand_in.asked) == 2
    assert timedelta(minutes=1) not in timers(history)


async def test_a_cancelled_cohort_ends_where_it_is(temporal: Client) -> None:
    async with carrying(temporal, two_messages, 5, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day"))
        await cohort.run.signal(CohortWorkflow.cancel, Reason(reason="sold out"))
        done = await cohort.run.result()
    assert done.left == {"cancelled": 5}
    assert cohort.stand_in.endings() == dict.fromkeys(range(5), "cancelled: sold out")
    assert cohort.stand_in.steps == ["send:first"]
    assert cohort.stand_in.noted() == [("send:first", "sent"), ("wait:1 day", "sold out")]
    ended = [note for report in cohort.stand_in.reports for note in report.notes if note.left_at]
    assert {note.step: note.broken_off for note in ended} == {"send:first": False, "wait:1 day": True}


async def test_a_cohort_that_is_cancelled_in_temporal_tells_the_database(temporal: Client) -> None:
    async with carrying(temporal, two_messages, 5, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day"))
        await cohort.run.cancel()
        done = await cohort.run.result()
    assert done.left == {"cancelled": 5}
    assert cohort.stand_in.reports[-1].ended


async def test_whoever_leaves_in_the_midst_of_a_wait_takes_no_other_step(temporal: Client) -> None:
    async with carrying(temporal, two_messages, 5, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day"))
        leaving = [Leave(member=1, reason="unsubscribed"), Leave(member=2, reason="goal", converted=True)]
        await cohort.run.signal(CohortWorkflow.leave, [*leaving, leaving[0], Leave(member=77, reason="unknown")])
        await cohort.skip(timedelta(days=2))
        done = await cohort.run.result()
    assert done.left == {"exited": 2, "completed": 3}
    assert cohort.stand_in.endings()[1] == "exited: unsubscribed"
    assert [each.member for each in cohort.stand_in.asked[-1][1].callers] == [0, 3, 4]
    converted = [left.members for report in cohort.stand_in.reports for left in report.left if left.converted]
    assert converted == [[2]]


async def test_whoever_leaves_while_a_message_is_sent_hears_what_became_of_it(temporal: Client) -> None:
    go_on = asyncio.Event()

    async def slowly(*_: object) -> None:
        await go_on.wait()

    stand_in = StandIn(before=slowly)
    async with carrying(temporal, two_messages, 2, stand_in, skipping=False) as cohort:
        await stand_in.until(lambda: stand_in.asked)
        await cohort.run.signal(CohortWorkflow.leave, [Leave(member=each, reason="bought") for each in (0, 1)])
        await stand_in.until(stand_in.endings)
        go_on.set()
        await cohort.run.result()
    assert stand_in.endings() == {0: "exited: bought", 1: "exited: bought"}
    assert stand_in.noted() == [("send:first", "sent")]
    assert stand_in.reports[-1].ended


async def test_an_activity_may_have_a_contact_leave(temporal: Client) -> None:
    stand_in = StandIn(lambda _, caller: Answer(leave="contact_deleted") if caller.member == 1 else SENT)
    async with carrying(temporal, two_messages, 3, stand_in) as cohort:
        done = await cohort.run.result()
    assert done.left == {"exited": 1, "completed": 2}
    assert stand_in.endings()[1] == "exited: contact_deleted"


async def test_whoever_an_activity_finds_cancelled_leaves_as_cancelled(temporal: Client) -> None:
    stand_in = StandIn(lambda *_: Answer(leave="cancelled", left_as="cancelled"))
    async with carrying(temporal, two_messages, 3, stand_in) as cohort:
        done = await cohort.run.result()
    assert done.left == {"cancelled": 3}
    assert stand_in.endings() == dict.fromkeys(range(3), "cancelled: cancelled")


async def test_code_that_holds_on_to_a_contact_cannot_keep_it(temporal: Client) -> None:
    async def clinging(_: Contact, journey: Journey) -> None:
        for _day in range(5):
            try:
                await journey.wait("1 day")
            except BaseException:
                await journey.send("please stay")
            finally:
                await journey.send("each day")

    async with carrying(temporal, clinging, 2, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 day"))
        await cohort.run.signal(CohortWorkflow.leave, [Leave(member=each, reason="bought") for each in (0, 1)])
        done = await cohort.run.result()
    assert done.left == {"exited": 2}
    assert cohort.stand_in.asked == []


async def test_code_that_takes_no_refusal_is_left_behind_and_the_cohort_goes_on(temporal: Client) -> None:
    async def never_ending(_: Contact, journey: Journey) -> None:
        while True:
            with suppress(BaseException):
                await journey.wait("1 hour")

    async with carrying(temporal, never_ending, 2, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait:1 hour"))
        await cohort.run.signal(CohortWorkflow.leave, [Leave(member=0, reason="bought")])
        await cohort.stand_in.until(cohort.stand_in.endings)
        assert (await cohort.progress()).inside == 1
        await cohort.run.signal(CohortWorkflow.leave, [Leave(member=1, reason="bought")])
        done = await cohort.run.result()
    assert done.left == {"exited": 2}
    gc.collect()  # nor does it hold up whoever throws it away
