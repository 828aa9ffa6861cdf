"""Birthday offer: at nine in the morning where the contact lives, with a reminder for those who have not used it.

Templates: `birthday-offer`, `birthday-reminder`. The day is the attribute `birthday`, such as `1990-04-12`.
"""

from workflows.journey import Contact, Journey, automation, on_date


@automation("birthday", trigger=on_date("attributes.birthday", at="09:00"), reentry="always")
async def birthday(_: Contact, journey: Journey) -> None:
    await journey.send("birthday-offer")
    if not await journey.wait_for("purchase", within="5 days", step="used"):
        await journey.wait_until("18:00")
        await journey.send("birthday-reminder")
