"""Win-back: an offer to good customers of whom nothing was heard for two weeks; who leaves that alone is at risk.

Template: `win-back`. Static segment: `At risk`. Purchases are events named `purchase`, with their value.
"""

from workflows.journey import Contact, Journey, automation, on_inactivity

CUSTOMERS = {
    "all": [
        {"field": "subscriptions.email", "is": "subscribed"},
        {"total": "purchase.value", "at_least": 50},
    ]
}
ENGAGED = {
    "any": [
        {"event": "message.opened", "within": "7 days"},
        {"event": "message.clicked", "within": "7 days"},
        {"event": "purchase", "within": "7 days"},
    ]
}


@automation("winback", trigger=on_inactivity(14), entry=CUSTOMERS, reentry={"after": "90 days"})
async def winback(_: Contact, journey: Journey) -> None:
    await journey.send("win-back")
    await journey.wait("7 days")
    if not await journey.matches(ENGAGED, step="engaged"):
        await journey.add_to("At risk")
