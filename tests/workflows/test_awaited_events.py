"""Does each contact of a cohort hear of what it waits for, and of nothing else?"""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from temporalio.client import Client

from activities.journey_inputs import Answer, Caller, Happened, StepCall
from tests.cohorts import StandIn, as_usual, carrying, contact_id, event, members
from workflows.cohorts import CohortWorkflow
from workflows.journey import Contact, Journey


async def test_those_for_whom_it_happens_go_on_at_once(temporal: Client) -> None:
    seen = []

    async def waiting(_: Contact, journey: Journey) -> None:
        found = await journey.wait_for("message.clicked", within="3 days")
        seen.append(found and found.id)
        await journey.send("thanks" if found else "nudge")

    async with carrying(temporal, waiting, 4, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait_for:message.clicked"))
        untimely = [event(0, 7), event(77, 0)]
        await cohort.run.signal(CohortWorkflow.happened, [event(0, 0), event(1, 0), event(0, 0), *untimely])
        await cohort.stand_in.until(lambda: len(cohort.stand_in.asked) > 1)
        await cohort.skip(timedelta(days=4))
        done = await cohort.run.result()
    assert done.left == {"completed": 4}
    assert seen == [contact_id(0), contact_id(1), None, None]
    assert cohort.stand_in.taken()[1] == ["wait_for:message.clicked", "send:thanks"]
    assert cohort.stand_in.noted(1)[0] == ("wait_for:message.clicked", "happened")
    assert cohort.stand_in.taken()[2] == ["wait_for:message.clicked", "send:nudge"]


async def test_an_event_may_be_quicker_than_the_look_for_it(temporal: Client) -> None:
    go_on = asyncio.Event()

    async def slowly(kind: str, _: StepCall) -> None:
        if kind == "watch":
            await go_on.wait()

    stand_in = StandIn(before=slowly)
    async with carrying(temporal, welcome_by_click, 2, stand_in, skipping=False) as cohort:
        await stand_in.until(lambda: stand_in.asked)
        await cohort.run.signal(CohortWorkflow.happened, [event(0, 0), event(1, 0)])
        await stand_in.until(lambda: len(stand_in.asked) > 1)
        go_on.set()
        done = await cohort.run.result()
    assert done.left == {"completed": 2}
    assert stand_in.steps == ["wait_for:message.clicked", "send:thanks"]


async def welcome_by_click(_: Contact, journey: Journey) -> None:
    if await journey.wait_for("message.clicked", within="3 days"):
        await journey.send("thanks")


async def test_what_has_happened_already_is_not_waited_for(temporal: Client) -> None:
    def answer(step: StepCall, caller: Caller) -> Answer:
        if step.step != "wait_for:message.clicked":
            return as_usual(step, caller)
        assert step.since
        found = event(caller.member, 0)
        return Answer(value={"id": str(found.event_id), "name": found.name, "occurred_at": step.now.isoformat()})

    async with carrying(temporal, welcome_by_click, 2, StandIn(answer)) as cohort:
        await cohort.run.result()
    assert cohort.stand_in.noted() == [("wait_for:message.clicked", "happened"), ("send:thanks", "sent")]


async def test_what_has_happened_in_time_counts_however_late_the_word_of_it_comes(temporal: Client) -> None:
    """As if no worker had been there when the router should have told of it."""

    def answer(step: StepCall, caller: Caller) -> Answer:
        if not step.until or caller.member == 1:
            return as_usual(step, caller)
        occurred_at = step.until - timedelta(minutes=1)
        return Answer(value={"id": str(contact_id(0)), "name": "opened", "occurred_at": occurred_at.isoformat()})

    async def patient(_: Contact, journey: Journey) -> None:
        if await journey.wait_for("opened", within="1 day"):
            await journey.send("thanks")
        await journey.wait_for("clicked", within="1 day")

    async with carrying(temporal, patient, 2, StandIn(answer)) as cohort:
        await cohort.run.result()
    assert cohort.stand_in.noted(0)[:2] == [("wait_for:opened", "happened"), ("send:thanks", "sent")]
    assert cohort.stand_in.noted(1)[0] == ("wait_for:opened", "did not happen")
    (deadline,) = {look.until for look in cohort.stand_in.last_looks if look.step == "wait_for:opened"}
    since = {
        caller.member: (step.since_of(caller), caller.heard)
        for _, step in cohort.stand_in.asked
        for caller in step.callers
        if step.step == "wait_for:clicked"
    }
    assert deadline
    assert since == {0: (deadline - timedelta(minutes=1), contact_id(0)), 1: (deadline, None)}


async def test_each_of_two_waits_is_for_an_event_of_its_own_though_both_occur_at_the_same_moment(
    temporal: Client,
) -> None:
    async def twice(_: Contact, journey: Journey) -> None:
        for _wait in range(2):
            await journey.wait_for("opened", within="1 day")

    async with carrying(temporal, twice, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait_for:opened"))
        at = datetime.now(UTC)
        first, second = (
            Happened(member=0, call=0, event_id=UUID(int=number), name="opened", occurred_at=at) for number in (1, 2)
        )
        await cohort.run.signal(CohortWorkflow.happened, [first])
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait_for:opened-2"))
        again = [each.model_copy(update={"call": 1}) for each in (first, second)]
        await cohort.run.signal(CohortWorkflow.happened, again[:1])
        assert (await cohort.progress()).inside == 1
        await cohort.run.signal(CohortWorkflow.happened, again)
        done = await cohort.run.result()
    assert done.left == {"completed": 1}
    assert [step.callers[0].heard for _, step in cohort.stand_in.asked] == [None, first.event_id]


async def test_what_happens_after_the_deadline_ends_no_wait(temporal: Client) -> None:
    async with carrying(temporal, welcome_by_click, 2, skipping=False) as cohort:
        await cohort.stand_in.until(lambda: cohort.stand_in.is_in("wait_for:message.clicked"))
        late = event(0, 0).model_copy(update={"occurred_at": datetime.now(UTC) + timedelta(days=3, minutes=2)})
        await cohort.run.signal(CohortWorkflow.happened, [late, event(1, 0)])
        await cohort.skip(timedelta(days=4))
        await cohort.run.result()
    assert cohort.stand_in.noted(0) == [("wait_for:message.clicked", "did not happen")]
    assert cohort.stand_in.noted(1)[0] == ("wait_for:message.clicked", "happened")


async def test_an_event_counts_from_when_each_contact_woke_last(temporal: Client) -> None:
    async def twice(_: Contact, journey: Journey) -> None:
        await journey.wait_for("opened", within="1 day")
        await journey.wait_for("opened", within="1 day")

    entered = members(3)
    entered[1].entered_at += timedelta(seconds=1)
    async with carrying(temporal, twice, members=entered) as cohort:
        await cohort.run.result()
    first, second = (step for _, step in cohort.stand_in.asked)
    assert [first.since_of(caller) for caller in first.callers] == [each.entered_at for each in entered]
    assert {second.since_of(caller) for caller in second.callers} == {second.since}
    assert second.since and second.since - entered[0].entered_at >= timedelta(days=1)
