"""Are a thousand contacts taken through an automation as if each were alone?"""

from temporalio.client import Client

from tests.cohorts import carrying
from workflows.journey import Contact, Journey


async def welcome(contact: Contact, journey: Journey) -> None:
    await journey.wait(minutes=5)
    await journey.send("welcome")
    await journey.wait("1 day")
    if not await journey.wait_for("message.clicked", within="3 days"):
        await journey.send("nudge")


async def test_what_many_do_at_the_same_moment_is_one_activity(temporal: Client) -> None:
    async with carrying(temporal, welcome, 500) as cohort:
        done = await cohort.handle.result()
        history = await cohort.handle.fetch_history()
    assert done.left == {"completed": 500}
    asked = [step.step for _, step in cohort.stand_in.steps]
    assert asked == ["send:welcome", "wait_for:message.clicked", "send:nudge"]
    assert set(cohort.stand_in.times().values()) == {1}
    assert len(history.events) < 70
