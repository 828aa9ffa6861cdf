"""Messages to colleagues before the launch: marked as tests, outside the figures."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.inputs import SampleSent, SendSample
from activities.messages import NOBODY, composer
from channels.base import Channel, Deferred, Rejected, Unavailable, Uncertain
from database import campaigns, reach
from database.engine import Database
from marketing.content import ContentError
from marketing.rendering import RenderError
from marketing.tracking import RecipientLinks


@dataclass
class Samples:
    database: Database
    channels: Mapping[str, Channel]
    links: RecipientLinks

    @activity.defn
    async def send_sample(self, input: SendSample) -> SampleSent:
        """Send one campaign's message to a few addresses, as one contact would get it."""
        async with self.database.transaction(input.account_id) as tx:
            campaign = await campaigns.read(tx, input.campaign_id)
            contact = await reach.contact(tx, input.contact_id) if input.contact_id else None
            if campaign is None:
                raise ApplicationError("There is no such campaign.", non_retryable=True)
            try:
                written = await composer(tx, input.account_id, campaign, self.links, input.message)
            except ContentError as error:
                raise ApplicationError(str(error), non_retryable=True) from error
        results: dict[str, str] = {}
        for address in input.addresses:
            try:
                message = written.sample(uuid4(), contact or NOBODY, address, input.now)
                marked = {**message.headers, "X-Carillon-Test": "yes"}
                await self.channels["email"].send(replace(message, subject=f"[Test] {message.subject}", headers=marked))
                results[address] = "sent"
            except (Rejected, Deferred, Unavailable, Uncertain, RenderError) as error:
                results[address] = str(error)
        return SampleSent(results=results)
