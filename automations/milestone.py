"""Milestone: celebrate the tenth purchase, once, and remember who is loyal.

Template: `milestone`. Purchases are events named `purchase`.
"""

from workflows.journey import Contact, Journey, automation, on_event

TENTH = {"event": "purchase", "count": {"at_least": 10}}


@automation("milestone", trigger=on_event("purchase"), entry=TENTH)
async def milestone(_: Contact, journey: Journey) -> None:
    await journey.wait("1 hour")  # after the order confirmation, which comes from the shop
    await journey.send("milestone")
    await journey.tag("loyal")
