"""What does each word of an author ask for?"""

from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, TypeAdapter
from temporalio import activity
from temporalio.client import Client

from activities.journey_inputs import Answer, Caller, StepCall
from marketing.steps import Step
from marketing.triggers import Trigger
from tests.cohorts import StandIn, as_usual, carrying, contact_id, members
from tests.recorded import BEGIN, Recorded
from workflows import journey as authoring
from workflows.journey import Contact, Engagement, Journey, Sent

STEP: TypeAdapter[Any] = TypeAdapter(Step)
SEGMENT = UUID("0198c0de-0000-7000-8000-000000000001")


class Score(BaseModel):
    points: int


@activity.defn(name="score")
async def score(contact_id: UUID, factor: int) -> Score:
    return Score(points=factor)


async def test_every_step_asks_for_what_the_declarative_form_would(temporal: Client) -> None:
    seen: list[object] = []

    async def everything(contact: Contact, journey: Journey) -> None:
        seen.append(await journey.send("welcome", channel="email"))
        await journey.send(content={"subject": "Hello", "text": "Hello"}, step="hello")
        seen.append(await journey.matches({"field": "country", "is": "FR"}))
        seen.append(await journey.engagement("7 days"))
        await journey.add_to(SEGMENT)
        await journey.remove_from(str(SEGMENT))
        await journey.update_contact({"attributes": {"plan": "gold"}})
        await journey.tag("loyal", remove=["new"])
        await journey.webhook("https://crm.example.com/leads", {"stage": 2})
        await journey.notify("somebody is here")
        seen.append(await journey.wait_for("purchase", where={"field": "value", "at_least": 5}, within="1 day"))
        seen.append(await journey.activity(score, contact.id, 3))
        seen.append(await journey.activity("score", contact.id, 3, within="5 minutes"))
        journey.exit("done")

    def answer(step: StepCall, caller: Caller) -> Answer:
        if activity.info().activity_type == "perform":
            return Answer(value={"points": step.args["arguments"][1]})
        return as_usual(step, caller)

    began = datetime.now(UTC)
    async with carrying(temporal, everything, 1, StandIn(answer)) as cohort:
        await cohort.run.result()
    stand_in = cohort.stand_in
    assert stand_in.endings()[0] == "exited: done"
    assert seen == [Sent("sent"), False, Engagement(sent=1), None, Score(points=3), {"points": 3}]
    assert stand_in.steps == [
        *("send:welcome", "hello", "matches", "engagement", "add_to", "remove_from", "update_contact", "tag:loyal"),
        *("webhook", "notify", "wait_for:purchase", "activity:score", "activity:score-2"),
    ]
    by_kind = {kind: step.args for kind, step in stand_in.asked}
    a_week_later = datetime.fromisoformat(by_kind["engagement"]["since"]) + timedelta(days=7)
    assert began <= a_week_later <= datetime.now(UTC)
    assert by_kind["perform"] == {"name": "score", "arguments": [str(contact_id(0)), 3], "seconds": 300}
    declared = ("send", "add_to", "remove_from", "update_contact", "tag", "webhook", "notify")
    for kind in declared:
        STEP.validate_python({"type": kind, **by_kind[kind]})
    STEP.validate_python({"type": "wait_for", "within": "1 day", **by_kind["watch"]})
    STEP.validate_python({"type": "branch", "if": by_kind["matches"]["criteria"]})


async def test_names_that_come_again_are_numbered_and_given_names_are_kept(temporal: Client) -> None:
    async def repeating(_: Contact, journey: Journey) -> None:
        for _turn in range(2):
            await journey.send("tip")
            await journey.wait("1 hour", step="rest")
        await journey.wait(minutes=90)
        await journey.wait(timedelta(days=3))
        await journey.wait_until("09:00", weekday="monday")
        await journey.wait_until(date="2026-01-01")

    async with carrying(temporal, repeating) as cohort:
        await cohort.run.result()
    assert [step for step, _ in cohort.stand_in.noted()] == [
        *("send:tip", "rest", "send:tip-2", "rest-2", "wait:90 minutes", "wait:3 days"),
        *("wait_until:monday 09:00", "wait_until:2026-01-01"),
    ]


async def test_each_contact_wakes_at_its_own_local_hour(temporal: Client) -> None:
    zones = ["Pacific/Auckland", "Europe/Paris", "America/New_York", "UTC"]
    woke = {}

    async def at_nine(contact: Contact, journey: Journey) -> None:
        await journey.wait_until(time(9))
        woke[contact.zone] = journey.now
        await journey.wait_until("09:00", zone="Asia/Kolkata")
        woke[f"{contact.zone}, there"] = journey.now

    async with carrying(temporal, at_nine, members=members(4, zones=zones)) as cohort:
        await cohort.run.result()
    for zone in zones:
        here, there = (woke[key].astimezone(ZoneInfo(of)) for key, of in _wakings(zone))
        assert (here.hour, here.minute) == (there.hour, there.minute) == (9, 0)


def _wakings(zone: str) -> list[tuple[str, str]]:
    return [(zone, zone), (f"{zone}, there", "Asia/Kolkata")]


async def test_a_contact_that_asks_for_nonsense_fails_with_the_reason(temporal: Client) -> None:
    async def nonsense(_: Contact, journey: Journey) -> None:
        await journey.wait("3 dayz")

    async with carrying(temporal, nonsense) as cohort:
        await cohort.run.result()
    assert "'3 dayz' is no duration: write it such as '24 hours' or '3 days'" in cohort.stand_in.endings()[0]


async def test_the_same_contact_always_goes_the_same_way_and_shares_are_kept() -> None:
    ids = [UUID(int=number) for number in range(10_000)]

    async def ways(automation: str, step: str) -> list[str]:
        found = []
        for each in ids:
            journey = Journey(Contact(each), BEGIN, {}, Recorded(automation=automation))
            found.append(await journey.split({"a": 60, "b": 30, "c": 10}, step=step))
        return found

    first = await ways("welcome", "split")
    assert await ways("welcome", "split") == first
    for other in (await ways("welcome", "split-2"), await ways("win-back", "split")):
        counts = Counter(other)
        assert abs(counts["a"] - 6000) < 300 and abs(counts["b"] - 3000) < 300 and abs(counts["c"] - 1000) < 200
        alike = sum(one == another for one, another in zip(first, other, strict=True))
        assert abs(alike - 4600) < 300, "0.6² + 0.3² + 0.1²: one says nothing of the other"


@pytest.mark.parametrize(
    "trigger",
    [
        authoring.on_event("contact.subscribed", where={"field": "properties.channel", "is": "email"}),
        authoring.on_segment_entered(SEGMENT),
        authoring.on_segment_left(SEGMENT),
        authoring.on_tag("vip"),
        authoring.on_field("attributes.plan"),
        authoring.on_date("attributes.birthday", offset="-3 days"),
        authoring.on_inactivity(14, "purchase"),
        authoring.on_schedule("0 9 * * 1", segment=SEGMENT),
        authoring.on_request(),
    ],
    ids=lambda trigger: trigger["type"],
)
def test_every_trigger_is_one_of_the_declarative_form(trigger: dict[str, Any]) -> None:
    assert TypeAdapter(Trigger).validate_python(trigger).type == trigger["type"]


def test_moments_and_days_are_taken_as_they_are() -> None:
    assert authoring._after(datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)) == datetime(2026, 1, 2, tzinfo=UTC)
    assert authoring._said(timedelta(hours=36)) == "36 hours"
    assert authoring._said(timedelta(seconds=90)) == "90 seconds"
    assert authoring._said(timedelta(seconds=1)) == "1 second"
