"""What there is to know, by e-mail to those who want it: at most one for each source in an hour."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from pydantic import BaseModel
from temporalio import activity

from activities.heartbeats import beating
from channels.base import Channel, Message, Rejected, Sender, Uncertain
from database import accounts, notifications
from database.engine import Database
from database.notifications import Untold
from marketing.accounts import Account
from marketing.keyed import keyed_id
from marketing.notifications import digest

log = structlog.get_logger()

EVERY = timedelta(hours=1)
_FORGOTTEN = timedelta(days=1)


class DigestInput(BaseModel):
    account_id: UUID
    now: datetime


class Digested(BaseModel):
    """When there is more to send; None: nothing is left."""

    due: datetime | None = None


@dataclass
class Notifications:
    database: Database
    channels: Mapping[str, Channel]

    @activity.defn
    async def email_digests(self, input: DigestInput) -> Digested:
        """One e-mail about each source of which there was none within the hour."""
        async with self.database.transaction(input.account_id) as tx:
            account = await accounts.read(tx, input.account_id)
            waiting = await notifications.untold(tx, input.now - _FORGOTTEN)
        if not (account.notification_emails and account.sender_domains):
            return Digested()
        later = []
        async with beating():
            for source in waiting:
                if source.last and source.last + EVERY > input.now:
                    later.append(source.last + EVERY)
                    continue
                await self._send(account, source, input.now)
                async with self.database.transaction(input.account_id) as tx:
                    await notifications.mark(tx, source.ids, input.now)
        return Digested(due=min(later, default=None))

    async def _send(self, account: Account, source: Untold, now: datetime) -> None:
        """To each address; what a server refuses for good is not tried again, what it cannot take now is."""
        subject, text = digest(source.name, source.texts)
        for address in account.notification_emails:
            message = Message(
                delivery_id=keyed_id(now, source.ids[0], address),  # so that a receiver knows a repetition
                to=address,
                sender=Sender("Carillon", f"carillon@{account.sender_domains[0]}"),
                subject=subject,
                text=text,
                headers={"Auto-Submitted": "auto-generated"},
            )
            try:
                await self.channels["email"].send(message)
            except (Rejected, Uncertain) as error:
                log.warning("a notification may not have arrived", account_id=str(account.id), why=error.reply)
