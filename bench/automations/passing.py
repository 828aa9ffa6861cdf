"""Send, wait, branch, send; so short a wait that it does not count."""

from workflows.journey import Contact, Journey, automation, on_request

CLICKED = {"event": "message.clicked", "within": "3 days"}
TEMPLATE = "bench"
WAIT_SECONDS = 2.0


@automation("bench", trigger=on_request(), reentry="always")
async def passing(_: Contact, journey: Journey) -> None:
    await journey.send(TEMPLATE)
    await journey.wait(seconds=WAIT_SECONDS)
    if not await journey.matches(CLICKED):
        await journey.send(TEMPLATE)
