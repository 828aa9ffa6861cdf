"""Hooks of `st run`: what the OpenAPI document can't tell about how this API is asked."""

import atexit
import json
import os
import re
from collections import defaultdict
from itertools import count, cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import IgnoredAuth, RejectedPositiveData

# CSV files, by all the names that programs give them.
CSV = ["text/csv", "text/tab-separated-values", "application/csv", "application/vnd.ms-excel"]
schemathesis.serializer.alias(CSV, "text/plain")

# What a schema has no word for. A refusal for any other reason contradicts the document.
BEYOND_A_SCHEMA = (
    "has passed. Give a moment to come",
    "has not come yet",
    "There is no such contact",
    "stands for another event",
    "the year must be 1900 to 2200",
    "valid datetime",  # 30 February looks like one
    "takes a moment such as",
    "is no IANA time zone",
    "is no country we know",
    "how these people agreed",  # one parameter asks for another
    "there is no segment",
    "name each segment once",
    "must be before `until`",
    "that is in the calendar",
    "has more digits than a number may have",
    "whole numbers beyond 64 bits",  # to a schema 1e30 is whole
    "the lower first",  # in criteria, as all that follows
    "is not in the calendar",
    "is no locale",
    "is no phone number",
    "too long for a phone number",
    "is longer than 250 characters",
    "must be less than `high`",
    "must be shorter than `past`",
    "can't be totalled",
    "`never` goes with none of",
    "has nothing in it: from",
    "nothing lies after",
    "of no events there is no first",
    "takes a piece of a phone number",
    "levels deep",
    "at most 500 nodes",
    "Another step is called",  # in automations, as all that follows
    "at most 200 steps",
    "nobody would go on from here",
    "the fallback is the channel itself",
    "give one of weekday and date",
    "name at least one tag",
    "takes five fields",
    "takes numbers, and *",
    "is no time that ever comes",
    "and * for the other",
    "is empty",
    "no file of automations has",
    "a clock skips ahead, not back",  # in rehearsals, as all that follows
    "is not understood: write it",
    "can't be acted. Take an event of your own",
    "does something, but does not take part",
    "must have an @-sign",  # in rehearsals, for whose contacts ids will do
    "can neither rise nor fall by so much",  # in experiments, as all that follows
    "no list is long enough",
    "there is no such variant",
)
_ITEM = re.compile(r"^body\.((contacts|items|script)\.)?\d+\.")
SPELLED_IN_MANY_WAYS = (
    "body.email",
    "body.phone",
    "body.country",
    "body.locale",
    "body.timezone",
    "body.send_to",
    "body.contact",  # also of a rehearsal, for which an id will do
)

_numbers = count()
_answers: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
# How often each operation was answered with which status, for the test that runs this.
atexit.register(lambda: Path(os.environ["CARILLON_FUZZING_ANSWERS"]).write_text(json.dumps(_answers)))


# Whom an operation is asked about, by the name of the dictionary, where it changes or ends them. Not by the settings of
# `st run`: it remembers of all operations on a path the choice of one.
_THEIR_OWN = {
    "PUT /api/campaigns/{campaign_id}": "drafts",
    "POST /api/campaigns/{campaign_id}/launch": "launched",
    "POST /api/campaigns/{campaign_id}/send": "sent",
    "POST /api/campaigns/{campaign_id}/schedule": "scheduled",
    "POST /api/campaigns/{campaign_id}/pause": "running",
    "POST /api/campaigns/{campaign_id}/resume": "running",
    "POST /api/campaigns/{campaign_id}/cancel": "cancelled",
    "DELETE /api/campaigns/{campaign_id}": "doomed-campaigns",
    "POST /api/campaigns/{campaign_id}/ab-tests": "tested",
    "POST /api/campaigns/ab-tests/{experiment_id}/start": "startable-experiments",
    "POST /api/campaigns/ab-tests/{experiment_id}/apply-winner": "decided-experiments",
    "POST /api/campaigns/ab-tests/{experiment_id}/stop": "stopped-experiments",
    "DELETE /api/contacts/{contact_id}": "doomed-contacts",
    "DELETE /api/templates/{template_id}": "doomed-templates",
    "DELETE /api/segments/{segment_id}": "doomed-segments",
    "POST /api/segments/{segment_id}/refresh": "dynamic-segments",
    "PUT /api/automations/{automation_id}": "draft-automations",
    "DELETE /api/automations/{automation_id}": "doomed-automations",
    "POST /api/automations/{automation_id}/deactivate": "held-automations",
    "POST /api/automations/{automation_id}/pause": "held-automations",
    "POST /api/automations/{automation_id}/cancel": "cancelled-automations",
    "GET /t/c/{token}": "clicks",
    "HEAD /t/c/{token}": "clicks",
    "GET /u/{token}": "unsubscribes",
    "POST /u/{token}": "unsubscribes",
    "GET /p/{token}": "unsubscribes",
    "POST /p/{token}": "unsubscribes",
}
_ids: dict[str, list[str]] = json.loads(os.environ["CARILLON_FUZZING_IDS"])
_known = {
    each
    for name in ("campaigns", "experiments", "contacts", "templates", "segments", "automations", "opens")
    for each in _ids[name]
}
_turns = {operation: cycle(_ids[name]) for operation, name in _THEIR_OWN.items()}

_BUCKET: dict[str, Any] = {"const": {"bucket": [0, 10]}}
_CRITERIA = (
    *(("Audience", "filter"), ("SegmentDefinition", "criteria"), ("ExitIf", "if"), ("Branch", "if")),
    *(("AutomationDefinition", "entry"), ("AutomationAnswer", "entry")),
)
_MOST = 2**63 - 1  # the bounds that the document gives this number
_WHERES = ("OnEvent", "WaitFor", "ExitEvent", "GoalEvent")
_WHERE: dict[str, Any] = {
    "type": "object",
    "properties": {"field": {"const": "value"}, "at_least": {"type": "number", "minimum": -_MOST, "maximum": _MOST}},
    "required": ["field", "at_least"],
    "additionalProperties": False,
}
# Hardly any text that a schema describes is one of these: else nearly no body would get past the reader.
_KNOWN: dict[tuple[str, str], list[str | None]] = {
    ("WaitUntil", "zone"): ["contact", "Europe/Paris"],
    ("WaitUntil", "date"): ["2027-02-28", None],
    ("OnSchedule", "timezone"): ["UTC", "Europe/Paris"],
    ("OnSchedule", "cron"): ["0 9 * * 1", "*/15 8-18 1,15 * *"],
    ("Changes", "timezone"): ["Europe/Paris", None],
    ("Changes", "country"): ["FR", "Germany", None],
    ("Changes", "locale"): ["pt-BR", None],
}
_WITHIN = (("Branch", "then"), ("Branch", "else"), ("WaitFor", "then"), ("WaitFor", "else"), ("Variant", "steps"))


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    # To combine criteria with all else of a body takes minutes for each operation: a preview tries all of them. So it
    # is with steps within steps, and campaigns within these.
    known = raw_schema["components"]["schemas"]
    for name, criteria in _CRITERIA:
        known[name]["properties"][criteria] = {"anyOf": [_BUCKET, {"type": "null"}]}
    known["Branch"]["properties"]["if"] = known["ExitIf"]["properties"]["if"] = _BUCKET
    for (name, part), words in _KNOWN.items():
        known[name]["properties"][part] = {"enum": words}
    for name in _WHERES:
        known[name]["properties"]["where"] = {"anyOf": [_WHERE, {"type": "null"}]}
    for name, steps in _WITHIN:
        known[name]["properties"][steps] = {"type": "array", "items": {"$ref": "#/components/schemas/Exit"}}
    known["CreateCampaign"]["properties"]["campaign"] = {"const": {"name": "Made"}}


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    # One that comes again is answered as what it repeats.
    key = dict(case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and key.isascii() and key.isprintable() and 0 < len(key) <= 255:
        case.headers["Idempotency-Key"] = f"{next(_numbers)}-{key}"[:255]
    turns = _turns.get(f"{case.method.upper()} {case.operation.path}")
    for parameter, given in case.path_parameters.items():
        if turns and isinstance(given, str) and given in _known:
            case.path_parameters[parameter] = next(turns)
    # Lists tell the id of the key that all of this is asked with.
    if case.path_parameters.get("key_id") == os.environ["CARILLON_FUZZING_OWN_KEY"]:
        case.path_parameters["key_id"] = str(UUID(int=0))
    # No two automations have one name.
    if case.operation.path.startswith("/api/automations") and isinstance(case.body, dict):
        name = case.body.get("name")
        if isinstance(name, str) and 0 < len(name) <= 100:
            case.body = {**case.body, "name": f"{next(_numbers)} {name}"}
    # Any two ids are hardly those of two segments.
    if case.operation.path == "/api/segments/compare" and isinstance(case.body, dict) and _are_ids(case.body):
        case.body = {**case.body, "segments": [*_ids["segments"][:2]]}
    # Without it no campaign could be launched any more.
    if case.operation.path == "/api/account" and isinstance(case.body, dict):
        domains = case.body.get("sender_domains", [])
        if isinstance(domains, list) and len(domains) < 100:
            case.body = {**case.body, "sender_domains": [*domains, "example.com"]}


def _are_ids(body: dict[str, Any]) -> bool:
    given = body.get("segments")
    return isinstance(given, list) and 2 <= len(given) <= 5 and all(_is_id(each) for each in given)


def _is_id(given: object) -> bool:
    return isinstance(given, str) and re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", given) is not None


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    _answers[f"{case.method.upper()} {case.operation.path}"][response.status_code] += 1


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Let pass what is no contradiction."""
    if isinstance(failure, RejectedPositiveData) and response.status_code == 422:
        return not _no_schema_tells(response.json())
    if isinstance(failure, AcceptedNegativeData):
        # CSV is text, and so is whatever is sent. And of a list the bad may be refused alone.
        return case.media_type not in CSV and not _refused_in_part(response)
    if isinstance(failure, IgnoredAuth):
        return "`429 Too Many Requests`" not in failure.message  # too many wrong keys: no key is ignored
    return True


def _refused_in_part(response: Response) -> bool:
    return response.status_code == 207 and any(each["status"] == 422 for each in response.json()["results"])


def _no_schema_tells(problem: dict[str, Any]) -> bool:
    if problem["detail"].startswith("The template can't be used"):
        return True
    wrong = problem.get("errors") or [{"path": "", "message": problem["detail"]}]
    return all(
        _ITEM.sub("body.", each["path"]).startswith(SPELLED_IN_MANY_WAYS)
        or any(known in each["message"] for known in BEYOND_A_SCHEMA)
        for each in wrong
    )
