"""Contacts, templates and segments that are there for one rehearsal only: what a test of an automation needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from database import contacts, journeys, rehearsals, stored_segments, templates
from database.engine import Connection
from database.rehearsals import Player
from marketing.automations import AutomationDefinition, Terms
from marketing.contacts import NewContact
from marketing.kinds import told
from marketing.moments import Moment
from marketing.rehearsal_scripts import ScriptedAct
from marketing.rehearsals import Timeline
from marketing.spans import ago
from marketing.stored_segments import SegmentDefinition, SegmentKind
from marketing.templates import TemplateDefinition
from rehearsals.rehearse import Play, Stage, rehearse
from workflows.code import know_function

Json = Mapping[str, Any]

_ACTS: TypeAdapter[list[ScriptedAct]] = TypeAdapter(list[ScriptedAct])
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)
_AGREED = [{"channel": "email", "status": "subscribed", "consent": {"how": "rehearsal"}}]


def _moment(given: datetime | str) -> datetime:
    try:
        return _MOMENT.validate_python(given)
    except ValidationError as error:
        raise ValueError(f"starts_at {told(error.errors()[0])}") from None


@dataclass(frozen=True)
class Troupe:
    """What `rehearse` of `pytest_carillon` is given."""

    account_id: UUID
    automation: Callable[..., Any] | Json
    contacts: Sequence[Json]
    script: Sequence[str | Json]
    templates: Mapping[str, Json]
    event: Json
    starts_at: datetime | str | None

    async def play(self, stage: Stage, activities: Mapping[str, Callable[..., Any]]) -> Timeline:
        return await rehearse(replace(stage, authors=activities, provide=self._provide), self.account_id, self._prepare)

    async def _prepare(self, tx: Connection, now: datetime) -> Play:
        starts_at = max(_moment(self.starts_at or now), now)
        for name, written in self.templates.items():
            await self._template(tx, name, written)
        players = [await self._player(tx, each, starts_at) for each in self.contacts]
        named = {name: each.id for each in players for name in (str(each.id), each.email)}
        script = [
            (act, named[act.contact] if act.contact else None) for act in _ACTS.validate_python(list(self.script))
        ]
        about: dict[str, Any] = {"players": players, "starts_at": starts_at, "script": script, "event": self.event}
        if callable(self.automation):
            code = know_function(self.automation)
            terms = Terms.model_validate({name: getattr(code, name) for name in Terms.model_fields})
            definition = terms.model_dump(mode="json")
            return Play(
                name=code.name, version=code.version, code=code.name, definition=definition, texts=True, **about
            )
        declared = AutomationDefinition.model_validate({"name": "rehearsed", **self.automation})
        return Play(name=declared.name, definition=declared.model_dump(mode="json"), texts=True, **about)

    async def _player(self, tx: Connection, given: Json, starts_at: datetime) -> Player:
        known = {name: value for name, value in given.items() if name != "events"}
        saved, _ = await contacts.save(
            tx, self.account_id, NewContact.model_validate({"subscriptions": _AGREED, **known})
        )
        for each in given.get("events", ()):
            about = {name: each.get(name) for name in ("value", "currency")}
            await rehearsals.happen(
                tx,
                self.account_id,
                saved.id,
                each["event"],
                at=ago(starts_at, each["ago"]) if "ago" in each else starts_at,
                properties=each.get("properties", {}),
                **about,
            )
        (player,) = await rehearsals.named(tx, [saved.id], [])
        return player

    # -- what is made up ---------------------------------------------------------------------------------------------

    async def _provide(self, tx: Connection, kind: str, args: Json) -> None:
        """Make what a step names and nobody has given."""
        match kind:
            case "send" if (name := args.get("template")) and not await templates.called(tx, name):
                await self._template(tx, name, {})
            case "add_to" | "remove_from" if not await journeys.static_segments(tx, args["segment"]):
                segment = SegmentDefinition(name=args["segment"], kind=SegmentKind.STATIC)
                await stored_segments.create(tx, self.account_id, segment)

    async def _template(self, tx: Connection, name: str, given: Json) -> None:
        plain = (
            f'<p>{name}</p><p><a href="https://example.com/">Look</a> <a href="{{{{ unsubscribe_url }}}}">Leave</a></p>'
        )
        body = {} if given.get("mjml") else {"html": plain}
        made_up = {"subject": name, "from_name": "Example Outfitters", "from_email": "news@example.com", **body}
        await templates.create(
            tx, self.account_id, TemplateDefinition.model_validate({**made_up, "name": name, **given})
        )
