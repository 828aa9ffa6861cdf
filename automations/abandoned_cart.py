"""Abandoned cart: a reminder after an hour, an offer a day later; whoever buys hears nothing more of it.

Templates: `cart-reminder`, `cart-offer`. Events: `cart.filled`, `purchase`.
"""

from workflows.journey import Contact, Journey, automation, on_event


@automation(
    "abandoned_cart",
    trigger=on_event("cart.filled"),
    reentry={"after": "7 days"},
    goal={"event": "purchase"},
    time_limit="7 days",
)
async def abandoned_cart(_: Contact, journey: Journey) -> None:
    await journey.wait("1 hour")
    await journey.send("cart-reminder")
    await journey.wait("24 hours")
    await journey.send("cart-offer")
