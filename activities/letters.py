"""Which message does a step of a journey send? Read live, and made ready once per version of its template."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from activities.journey_inputs import SourceRef
from activities.messages import Composer
from database import accounts, campaigns, links, templates
from database.engine import Connection, Database
from database.standings import Standing
from marketing.campaigns import EmailPlan
from marketing.content import EmailContent, prepare
from marketing.tracking import RecipientLinks

_MOST_LETTERS = 200  # kept compiled per process


class NoLetter(Exception):
    """There is nothing to send, and another attempt would find no more."""


@dataclass(frozen=True)
class Letter:
    """A message made ready for sending."""

    composer: Composer
    asks_event: bool  # it says something of what the journey began with


@dataclass
class Letters:
    database: Database
    links: RecipientLinks
    kept: OrderedDict[bytes, Letter] = field(default_factory=OrderedDict)

    async def letter(self, source: SourceRef, standing: Standing, args: Mapping[str, Any]) -> Letter:
        """What the step says: of an automation as it stands now, of a drip as it was frozen at the launch.

        Raises:
            NoLetter: there is no such template, or several.
            ContentError: what is written there can't be sent.
        """
        if source.kind == "drip":
            return await self._kept(
                [source.source_id, args["template"]], partial(self._frozen, args["template"]), source
            )
        async with self.database.transaction(source.account_id) as tx:
            account = await accounts.read(tx, source.account_id)
            content = await _content(tx, args)
        about = {"name": account.name, "postal_address": account.postal_address}
        key = [source.source_id, standing.name, about, content.model_dump(mode="json")]
        return await self._kept(key, partial(_prepared, content, about, standing.name), source)

    async def _kept(
        self, told: list[Any], plan: Callable[[SourceRef], Awaitable[EmailPlan]], source: SourceRef
    ) -> Letter:
        """The one that was made ready for this, or a new one."""
        key = orjson.dumps(told)
        if key not in self.kept:
            email = await plan(source)
            async with self.database.transaction(source.account_id) as tx:
                numbers = await links.numbered(tx, source.account_id, source.source_id, email.prepared.links)
            asks_event = any(each.path.split(".")[0] == "event" for each in email.prepared.variables)
            composer = Composer(source.account_id, source.source_id, email, self.links, source.kind, numbers)
            self.kept[key] = Letter(composer, asks_event)
            if len(self.kept) > _MOST_LETTERS:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    async def _frozen(self, message: str, source: SourceRef) -> EmailPlan:
        async with self.database.transaction(source.account_id) as tx:
            plan = await campaigns.load_plan(tx, source.source_id)
        if message not in plan.messages:
            raise NoLetter(f"The drip has no message “{message}”.")
        return plan.messages[message]


async def _prepared(content: EmailContent, account: dict[str, str], name: str, source: SourceRef) -> EmailPlan:
    return EmailPlan(
        prepared=await asyncio.to_thread(prepare, content),
        from_name=content.from_name,
        from_email=content.from_email,
        reply_to=content.reply_to,
        account=account,
        campaign={"id": str(source.source_id), "name": name},
    )


async def _content(tx: Connection, args: Mapping[str, Any]) -> EmailContent:
    """What is written in the step, or in the template that it names by id or name."""
    if "template" not in args:
        return await templates.filled_in(tx, EmailContent.model_validate(args["content"]))
    found = await templates.called(tx, args["template"])
    if len(found) != 1:
        raise NoLetter(f"There is {'more than one' if found else 'no'} template “{args['template']}”.")
    return EmailContent().filled_in(found[0].definition)
