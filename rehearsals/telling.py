"""What was seen in a rehearsal, told contact by contact."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from activities.journey_inputs import Note
from activities.rehearsals import Acted
from channels.outbox import CallBox, Outbox
from database import rehearsals
from database.engine import Connection
from database.rehearsals import Place, Planned, Player
from marketing.rehearsals import (
    WHY_REFUSED,
    WHY_SKIPPED,
    Called,
    ContactTimeline,
    Happening,
    Timeline,
    Written,
    summary,
)
from marketing.segment_sentences import describe
from marketing.segments import parse
from marketing.step_sentences import said
from marketing.webhooks import call_id
from rehearsals.witness import Asked, Witness
from workflows.journey_inputs import CohortInput

WHY_LEFT = {
    "goal": "the goal is reached",
    "exit": "an exit condition holds",
    "unsubscribed": "the contact has unsubscribed",
    "contact_deleted": "the contact was deleted",
}


@dataclass(frozen=True)
class Seen:
    """All that is known of a rehearsal that is over."""

    players: Sequence[Player]
    places: Sequence[Place]
    refused: Mapping[UUID, str]
    entry: Mapping[str, Any] | None
    input: CohortInput
    witness: Witness
    acted: Sequence[Acted]
    outbox: Outbox
    calls: CallBox


async def timeline(tx: Connection, starts_at: datetime, seen: Seen, *, seconds: float, texts: bool) -> Timeline:
    """
    Args:
        texts: whether the text of each message is told.
    """
    telling = _Telling(
        seen, starts_at, await rehearsals.planned(tx, seen.input.source_id), await rehearsals.names(tx), texts
    )
    contacts = [telling.contact(each) for each in seen.players]
    ends_at = max((each.at for contact in contacts for each in contact.happenings), default=starts_at)
    return Timeline(starts_at=starts_at, ends_at=ends_at, seconds=seconds, contacts=contacts, summary=summary(contacts))


class _Telling:
    def __init__(
        self, seen: Seen, starts_at: datetime, planned: Sequence[Planned], names: Mapping[UUID, str], texts: bool
    ) -> None:
        self.seen = seen
        self.starts_at = starts_at
        self.names = names
        self.texts = texts
        self.places = {each.contact_id: each for each in seen.places}
        self.notes: dict[int, list[tuple[int, Note]]] = defaultdict(list)
        for (member, call), note in sorted(seen.witness.notes.items()):
            self.notes[member].append((call, note))
        self.messages = {each.delivery_id: each for each in seen.outbox.messages}
        self.planned: dict[tuple[UUID, int], list[Planned]] = defaultdict(list)
        for each in planned:
            self.planned[each.enrollment_id, each.call].append(each)
        self.calls: dict[str, list[Called]] = defaultdict(list)
        for made in seen.calls.calls:
            self.calls[made.id].append(Called(url=made.url, body=orjson.loads(made.body)))

    def contact(self, player: Player) -> ContactTimeline:
        place = self.places.get(player.id)
        about = {"contact_id": player.id, "email": player.email, "zone": player.zone}
        if place is None:
            reason = self._why_refused(self.seen.refused.get(player.id, ""))
            return ContactTimeline(**about, entered=False, state="refused", reason=reason, happenings=[])
        happenings = [
            Happening(at=self.starts_at, until=self.starts_at, kind="entered", what="Enters"),
            *(self._step(player, place, call, note) for call, note in self.notes[place.member]),
            *self._acts(player),
        ]
        happenings.sort(key=lambda each: each.at)
        left = self.seen.witness.left.get(place.member)
        if left:
            reason = WHY_LEFT.get(left.reason, left.reason)
            what = {"completed": "Has come to the end", "failed": "Fails"}.get(left.state, "Leaves")
            why = left.problem or reason
            happenings.append(Happening(at=left.at, until=left.at, kind="left", what=what, why=why))
        return ContactTimeline(
            **about,
            entered=True,
            state=left.state if left else "active",
            reason=(left.reason or left.problem) if left else "",
            converted=bool(left and left.converted),
            happenings=happenings,
        )

    def _why_refused(self, outcome: str) -> str:
        if outcome == "entry" and self.seen.entry:
            return f"{WHY_REFUSED['entry']}: {describe(parse(self.seen.entry), self.names)}"
        return WHY_REFUSED.get(outcome, outcome)

    def _acts(self, player: Player) -> Iterator[Happening]:
        for each in self.seen.acted:
            if each.player == player:
                words = each.act.words
                yield Happening(
                    at=each.at,
                    until=each.at,
                    kind="act",
                    what=f"{words[:1].upper()}{words[1:]}",
                    outcome="could not" if each.problem else "",
                    why=each.problem,
                )

    def _step(self, player: Player, place: Place, call: int, note: Note) -> Happening:
        asked = self.seen.witness.asked.get((place.member, call))
        outcome, _, reason = note.outcome.partition(": ")
        why = WHY_SKIPPED.get(reason, reason)  # type: ignore[call-overload]  # a str is found too
        if note.kind == "split":  # a way has any name
            outcome, why = note.outcome, self._why_led(note)
        return Happening(
            at=note.entered_at,
            until=note.left_at,
            kind="branch" if note.kind == "matches" else note.kind,
            step=note.step,
            what=self._what(player, note, asked),
            name=self._name(note, asked),
            outcome=_figures(asked) or outcome,
            why=note.error or why,
            message=self._written(place, call),
            calls=self.calls.get(call_id(place.enrollment_id, call), []),
        )

    def _why_led(self, note: Note) -> str:
        """Of experiments; other splits lead by chance, which needs no words."""
        steps = (self.seen.input.definition or {}).get("steps", ())
        ways: Mapping[str, Any] = next((each["variants"] for each in steps if each["id"] == note.step), {})
        return str(ways.get(note.outcome, {}).get("why", ""))

    def _name(self, note: Note, asked: Asked | None) -> str:
        return self.seen.witness.message_name(note.step, asked.args if asked else {}) if note.kind == "send" else ""

    def _what(self, player: Player, note: Note, asked: Asked | None) -> str:
        args = asked.args if asked else {}
        until = f"{note.due_at.astimezone(ZoneInfo(player.zone)):%a %d %b %Y %H:%M}" if note.due_at else ""
        match note.kind:
            case "wait" | "wait_until":
                return f"Wait until {until}" if until else "Wait"
            case "wait_for":
                return (
                    said("wait_for", {**args, "within": ""}, self.names).removesuffix(" within ?") + f", until {until}?"
                )
            case "send":
                channel = args.get("channel") or "email"
                return f"Send “{self._name(note, asked)}”{'' if channel == 'email' else f' by {channel}'}"
            case "matches":
                return said("branch", {"if": args.get("criteria")}, self.names)
        return said(note.kind, args, self.names)

    def _written(self, place: Place, call: int) -> Written | None:
        for each in self.planned[place.enrollment_id, call]:
            if message := self.messages.get(each.id):
                return Written(to=message.to, subject=message.subject, text=message.text if self.texts else "")
        return None


def _figures(asked: Asked | None) -> str:
    """What a contact did with its messages, in words."""
    if asked is None or asked.kind != "engagement" or not isinstance(asked.answer.value, dict):
        return ""
    return ", ".join(f"{number} {name}" for name, number in asked.answer.value.items())
