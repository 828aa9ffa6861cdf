"""What one run of a cohort hands to the next: who is inside, and what the code of each contact was told."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID
from zlib import compress, decompress

from pydantic_core import from_json, to_json

from activities.journey_inputs import Caller, Member
from workflows.passes import Call, Desk, Entry, Heard, Pass, Start

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND, MILLISECOND = timedelta(microseconds=1), timedelta(milliseconds=1)


def pack(whole: Any) -> str:
    return b64encode(compress(to_json(whole), 6)).decode()


def unpack(text: str) -> Any:
    return from_json(decompress(b64decode(text)))


def write(passes: Iterable[Pass]) -> dict[str, Any]:
    """All passes as JSON: what contacts have in common is said once, and times are differences."""
    words = _Words()
    rows = [_row(one, words) for one in passes]
    return {"words": words.rows, "passes": rows}


def read(written: dict[str, Any], desk: Desk) -> dict[int, Pass]:
    """The same passes, about to begin anew."""
    words = written["words"]
    return {row[0]: _pass(row, words, desk) for row in written["passes"]}


def write_logs(passes: Iterable[Pass]) -> dict[str, Any]:
    """What they were told, as far as it is not kept yet."""
    words = _Words()
    rows = [[one.member, *_log(one, words)] for one in passes]
    return {"words": words.rows, "logs": rows}


def read_logs(written: dict[str, Any], passes: dict[int, Pass]) -> dict[int, list[Entry]]:
    """The same, of those who are inside, by member."""
    words = written["words"]
    found = {row[0]: _entries(passes[row[0]].began, row[1:], words) for row in written["logs"] if row[0] in passes}
    # What came before a migration is not of the pass that began with it.
    return {member: [each for each in log if each.call >= passes[member].began.first] for member, log in found.items()}


class _Words:
    """Whatever comes again and again."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, value: Any) -> int:
        key = value if isinstance(value, str) else to_json(value)
        place = self._places.setdefault(key, len(self.rows))
        if place == len(self.rows):
            self.rows.append(value)
        return place


def _row(one: Pass, words: _Words) -> list[Any]:
    who, began = one.who, one.began
    return [
        one.member,
        who.contact_id.hex,
        words.place(who.zone),
        (who.entered_at - EPOCH) // MICROSECOND,
        words.place(who.trigger),
        words.place([began.version, began.step]),
        [_milliseconds(began.now), (began.since - EPOCH) // MICROSECOND, began.first, *_heard(began)],
        *_log(one, words),
        [_open(call, words) for call in one.open.values() if call.is_open],
    ]


def _heard(began: Start) -> list[Any]:
    return [(began.heard.occurred_at - EPOCH) // MICROSECOND, began.heard.id.hex] if began.heard else []


def _log(one: Pass, words: _Words) -> list[list[Any]]:
    before, moments, lags, log = _milliseconds(one.began.now), [], [], one.log[one.kept :]
    for entry in log:
        came_at = _milliseconds(entry.came_at)
        moments.append(came_at - before)
        lags.append(None if entry.told_at is None else _milliseconds(entry.told_at) - came_at)
        before = came_at
    return [
        [entry.call for entry in log],
        [words.place(entry.step) for entry in log],
        moments,
        lags,
        [words.place([entry.value, entry.problem]) for entry in log],
    ]


def _entries(began: Start, log: list[list[Any]], words: list[Any]) -> list[Entry]:
    came_at, entries = _milliseconds(began.now), []
    for number, name, after, lag, what in zip(*log, strict=True):
        came_at += after
        value, problem = words[what]
        told_at = None if lag is None else _moment(came_at + lag)
        entries.append(Entry(number, words[name], _moment(came_at), value, problem, told_at))
    return entries


def _open(call: Call, words: _Words) -> list[Any]:
    wakes_at = call.wakes_at and _milliseconds(call.wakes_at)
    what = words.place([call.step, call.kind, call.stage, call.attempt])
    return [call.caller.call, what, _milliseconds(call.entered_at), wakes_at]


def _pass(row: list[Any], words: list[Any], desk: Desk) -> Pass:
    member, contact_id, zone, entered_at, trigger, *course, _, _, _, _, _, opened = row
    (version, step), (now, since, first, *heard) = words[course[0]], course[1]
    before = Heard(EPOCH + heard[0] * MICROSECOND, UUID(heard[1])) if heard else None
    who = Member(
        contact_id=UUID(contact_id),
        zone=words[zone],
        entered_at=EPOCH + entered_at * MICROSECOND,
        trigger=words[trigger],
    )
    one = Pass(member, who, Start(version, _moment(now), EPOCH + since * MICROSECOND, first, step, before), desk)
    one.remember(_entries(one.began, row[7:12], words))
    one.known.update(entry.call for entry in one.log)
    for number, what, entered, wakes_at in opened:
        name, kind, stage, attempt = words[what]
        call = Call(Caller(member=member, call=number), name, _moment(entered), kind, stage=stage, attempt=attempt)
        call.wakes_at = wakes_at and _moment(wakes_at)
        one.open[number] = call
    return one


@lru_cache(maxsize=4096)
def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


@lru_cache(maxsize=4096)
def _moment(milliseconds: int) -> datetime:
    return EPOCH + milliseconds * MILLISECOND
