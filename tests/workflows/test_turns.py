"""Does a run survive that Temporal takes it for stuck?"""

import threading

from temporalio.client import Client

from tests.cohorts import carrying, contact_id
from workflows.journey import Contact, Journey


async def test_a_run_whose_turn_took_too_long_goes_on_once_that_turn_is_over(temporal: Client) -> None:
    given_up = threading.Event()

    async def held_up(contact: Contact, journey: Journey) -> None:
        if contact.id == contact_id(100):
            given_up.wait(timeout=300)
        await journey.send("offer")

    async with carrying(temporal, held_up, 200) as cohort:
        async for event in temporal.get_workflow_handle(cohort.run.id).fetch_history_events(wait_new_event=True):
            if event.HasField("workflow_task_failed_event_attributes"):
                given_up.set()
                break
        done = await cohort.run.result()
    assert done.left == {"completed": 200}
    assert set(cohort.stand_in.times().values()) == {1}
