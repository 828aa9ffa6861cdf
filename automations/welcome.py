"""Welcome series: greet whoever subscribes, show what there is, and write once more to those who have not looked.

Templates: `welcome`, `showcase`, `re-engagement`.
"""

from workflows.journey import Contact, Journey, automation, on_event

EMAIL = {"field": "properties.channel", "is": "email"}
# Since the welcome left: the showcase comes a day later, the question three days after that.
ENGAGED = {"any": [{"event": "message.opened", "within": "4 days"}, {"event": "message.clicked", "within": "4 days"}]}


@automation("welcome", trigger=on_event("contact.subscribed", where=EMAIL))
async def welcome(_: Contact, journey: Journey) -> None:
    await journey.wait("5 minutes")
    await journey.send("welcome")
    await journey.wait("24 hours")
    await journey.send("showcase")
    await journey.wait("3 days")
    if not await journey.matches(ENGAGED, step="engaged"):
        await journey.send("re-engagement")
