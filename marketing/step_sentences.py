"""What does a step say that it does, and a trigger whom it lets in?"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import TypeAdapter

from marketing.segment_conditions import Where
from marketing.segment_sentences import Names, describe, describe_where
from marketing.segments import InvalidCriteria, parse

Args = Mapping[str, Any]
_WHERE: TypeAdapter[Where] = TypeAdapter(Where)


class Expression(str):
    """What the code of an automation works out by itself: shown as it is written there."""


class Filled(Expression):
    """A text with places that the code fills in: `welcome-{n}`."""


def said(kind: str, args: Args, names: Names) -> str:
    """A step in a few words.

    Args:
        args: as the declarative form has them, in JSON.
        names: what the segments are called, as far as that is known.
    """
    say = _SAID.get(kind)
    return say(args, names) if say else kind.replace("_", " ").capitalize()


def entered(trigger: Args, names: Names) -> str:
    """What lets contacts in, in a few words."""
    match trigger["type"]:
        case "event":
            return _event(trigger, names)
        case "segment_entered":
            return f"Entered the segment {_segment(trigger, names)}"
        case "segment_left":
            return f"Left the segment {_segment(trigger, names)}"
        case "tag_added":
            return f"Got the tag {_quoted(trigger['tag'])}"
        case "field_changed":
            return f"{trigger['field']} changed"
        case "date":
            offset, at = str(trigger.get("offset", "0 days")), str(trigger.get("at", "09:00"))[:5]
            when = "on" if offset.startswith("0") else "before" if offset.startswith("-") else "after"
            much = "" if when == "on" else f"{offset.lstrip('+-')} "
            return f"{much}{when} {trigger['field']}, at {at}"
        case "inactivity":
            return f"{trigger['days']} days without {_quoted(trigger['event']) if 'event' in trigger else 'activity'}"
        case "schedule":
            zone = trigger.get("timezone", "UTC")
            return f"{trigger['cron']} ({zone}), everybody in the segment {_segment(trigger, names)}"
    return "When the API says so"


def _message(args: Args) -> str:
    content = args.get("content")
    if isinstance(content, Mapping):
        return _quoted(content.get("subject", ""))
    return _quoted(args.get("template") or content or "")


def _moment(args: Args) -> str:
    day = args.get("weekday") or args.get("date")
    day = day.capitalize() if isinstance(day, str) and not isinstance(day, Expression) else day
    at = args.get("at")
    at = at[:5] if isinstance(at, str) and not isinstance(at, Expression) else at
    zone = args.get("zone")
    where = "" if zone in (None, "contact") else f" in {zone}"
    return " ".join(str(each) for each in (day, at) if each) + where


def _event(args: Args, names: Names) -> str:
    where = args.get("where")
    if not where:
        return _quoted(args.get("event", ""))
    try:
        return f"{_quoted(args.get('event', ''))} {describe_where(_WHERE.validate_python(where), names)}"
    except ValueError:
        return f"{_quoted(args.get('event', ''))} where {where}"


def _holds(criteria: Any, names: Names) -> str:
    if isinstance(criteria, Expression):
        return criteria
    try:
        return describe(parse(criteria), names).removeprefix("Contacts ").removesuffix(".")
    except InvalidCriteria:
        return str(criteria)


def _segment(args: Args, names: Names) -> str:
    segment = args.get("segment", "")
    try:
        return _quoted(names.get(UUID(segment), segment))
    except ValueError:
        return _quoted(segment)


def _changed(changes: Any) -> str:
    if not isinstance(changes, Mapping):
        return str(changes)
    fields = [name.replace("_", " ") for name in changes if name != "attributes"]
    attributes = changes.get("attributes")
    return ", ".join([*fields, *map(_quoted, attributes if isinstance(attributes, Mapping) else ())])


def _quoted(*words: Any) -> str:
    plain = (isinstance(word, Expression) and not isinstance(word, Filled) for word in words)
    return ", ".join(str(word) if as_is else f"“{word}”" for word, as_is in zip(words, plain, strict=True))


def _sent(args: Args, _: Names) -> str:
    channel = args.get("channel") or "email"
    return f"Send {_message(args)}{'' if channel == 'email' else f' by {channel}'}"


def _asked(args: Args, names: Names) -> str:
    holds = _holds(args.get("if"), names)
    return f"{holds[:1].upper()}{holds[1:]}?"


def _tagged(args: Args, _: Names) -> str:
    parts = [("Tag", args.get("add")), ("Take away", args.get("remove"))]
    return ", ".join(f"{word} {_quoted(*tags)}" for word, tags in parts if tags)


def _told(args: Args, _: Names) -> str:
    url = args.get("url", "")
    return f"Tell {url if isinstance(url, Expression) else urlsplit(url).hostname}"


def _made(args: Args, _: Names) -> str:
    campaign = args.get("campaign")
    named = f" {_quoted(campaign['name'])}" if isinstance(campaign, Mapping) and "name" in campaign else ""
    return f"{'Draft' if args.get('launch') is False else 'Launch'} a campaign{named}"


_SAID: Mapping[str, Callable[[Args, Names], str]] = {
    "send": _sent,
    "wait": lambda args, _: f"Wait {args.get('duration', '')}",
    "wait_until": lambda args, _: f"Wait until {_moment(args)}",
    "wait_for": lambda args, names: f"{_event(args, names)} within {args.get('within', '')}?",
    "branch": _asked,
    "split": lambda *_: "By chance",
    "exit": lambda args, _: f"Leaves: {args.get('reason') or 'exit'}",
    "add_to": lambda args, names: f"Add to the segment {_segment(args, names)}",
    "remove_from": lambda args, names: f"Remove from the segment {_segment(args, names)}",
    "update_contact": lambda args, _: f"Set {_changed(args.get('changes'))}",
    "tag": _tagged,
    "webhook": _told,
    "create_campaign": _made,
    "notify": lambda args, _: f"Notify: {args.get('text', '')}",
    "activity": lambda args, _: f"Run {args.get('name', '')}",
}
