"""How does a campaign's e-mail become a message to one contact?"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from channels.base import Message, Sender
from database import accounts, campaigns, templates
from database.campaigns import Campaign
from database.eligibility import CONTACT_COLUMNS
from database.engine import Connection
from database.links import LAST_NUMBER
from marketing.accounts import Account
from marketing.campaigns import CampaignState, EmailPlan
from marketing.contacts import template_view
from marketing.content import ContentError, EmailContent, prepare
from marketing.drips import message_id
from marketing.rendering import Renderer
from marketing.tracking import RecipientLinks, feedback_id, list_headers


@dataclass
class Composer:
    """One campaign's e-mail, or that of a journey's step, compiled once, written for each contact.

    Args:
        kind: of the campaign or other source, for Gmail's figures.
        numbers: the number, if any, of each link among those of the source; None: the same as in the message.
    """

    account_id: UUID
    campaign_id: UUID
    plan: EmailPlan
    links: RecipientLinks
    kind: str = "broadcast"
    numbers: Sequence[int | None] | None = None

    def __post_init__(self) -> None:
        self.renderer = Renderer(self.plan.prepared)
        self.sender = Sender(self.plan.from_name, self.plan.from_email)

    def message(
        self,
        delivery_id: UUID,
        contact: Mapping[str, Any],
        now: datetime,
        event: Mapping[str, Any] | None = None,
        to: str = "email",
    ) -> Message:
        """The message of a delivery, with its own links, to that address of the contact.

        Args:
            event: what a journey began with.

        Raises:
            RenderError: the templates fail for this contact.
        """
        ours, targets, numbers = self.links, self.plan.prepared.links, self.numbers
        unsubscribe = ours.unsubscribe(self.account_id, contact["id"], delivery_id)

        def tracked(place: int, url: str) -> str:
            number = numbers[place] if numbers else place
            if url == targets[place] and number is not None:
                return ours.click(self.account_id, delivery_id, number)
            # Written for this contact alone, or without a number: it stands in the token itself.
            return ours.click_to(self.account_id, delivery_id, LAST_NUMBER if number is None else number, url)

        rendered = self.renderer.render(
            template_view(contact),
            account=self.plan.account,
            campaign=self.plan.campaign,
            event=event,
            links=tracked,
            unsubscribe_url=unsubscribe,
            preferences_url=ours.preferences(self.account_id, contact["id"], delivery_id),
            open_pixel_url=ours.pixel(self.account_id, delivery_id),
            now=now,
        )
        return Message(
            delivery_id=delivery_id,
            to=contact[to],
            sender=self.sender,
            reply_to=self.plan.reply_to,
            subject=rendered.subject,
            text=rendered.text,
            html=rendered.html,
            headers={**list_headers(unsubscribe), **self._feedback()},
        )

    def preview(self, contact: Mapping[str, Any], now: datetime) -> Message:
        """The sample for an author's eyes, with all headers of the message."""
        sample = self.sample(uuid4(), contact, contact["email"] or NOBODY["email"], now)
        return replace(sample, headers={**sample.headers, **self._feedback()})

    def sample(self, delivery_id: UUID, contact: Mapping[str, Any], to: str, now: datetime) -> Message:
        """The message as this contact would get it, but outside the figures: links lead straight to their targets, the
        ways to unsubscribe to a page that only explains itself, and Gmail is given no `Feedback-ID` to count it by."""
        unsubscribe = self.links.unsubscribe_of_a_test()
        rendered = self.renderer.render(
            template_view(contact),
            account=self.plan.account,
            campaign=self.plan.campaign,
            links=lambda _, url: url,
            unsubscribe_url=unsubscribe,
            preferences_url=unsubscribe,
            open_pixel_url=None,
            now=now,
        )
        return Message(
            delivery_id=delivery_id,
            to=to,
            sender=self.sender,
            reply_to=self.plan.reply_to,
            subject=rendered.subject,
            text=rendered.text,
            html=rendered.html,
            headers=list_headers(unsubscribe),
        )

    def _feedback(self) -> dict[str, str]:
        return {"Feedback-ID": feedback_id(self.account_id, self.campaign_id, self.kind)}


# Somebody to show a message to while an account has no contacts yet.
NOBODY: Mapping[str, Any] = {
    **dict.fromkeys(CONTACT_COLUMNS),
    "id": UUID(int=0),
    "email": "someone@example.com",
    "attributes": {},
    "tags": [],
}


async def email_content(tx: Connection, content: EmailContent | None) -> EmailContent | None:
    """The e-mail as written, with what its stored template gives; None if nothing was written yet."""
    if content is None or content.template_id is None:
        return content
    return await templates.filled_in(tx, content)


async def email_plan(tx: Connection, account: Account, campaign: Campaign, message: int = 1) -> EmailPlan:
    """What was frozen at launch; for a draft, what a launch would freeze now. Of a drip, one of its messages, and of an
    experiment, what one of its variants says.

    Raises:
        ContentError: there is nothing that can be sent.
    """
    contents = campaign.definition.contents
    if not 1 <= message <= len(contents):
        raise ContentError(f"there is no message {message}")
    if campaign.state is not CampaignState.DRAFT:
        plan = await campaigns.load_plan(tx, campaign.id)
        if plan.variants:
            return list(plan.variants.values())[message - 1]
        return plan.messages.get(message_id(message), plan.email)
    content = await email_content(tx, contents[message - 1]) or EmailContent()
    return EmailPlan(
        prepared=await asyncio.to_thread(prepare, content),
        from_name=content.from_name,
        from_email=content.from_email,
        reply_to=content.reply_to,
        account={"name": account.name, "postal_address": account.postal_address},
        campaign={"id": str(campaign.id), "name": campaign.name},
    )


async def composer(
    tx: Connection, account_id: UUID, campaign: Campaign, links: RecipientLinks, message: int = 1
) -> Composer:
    account = await accounts.read(tx, account_id)
    return Composer(account_id, campaign.id, await email_plan(tx, account, campaign, message), links)
