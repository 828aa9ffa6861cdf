"""`/api/events`: what has happened, as others tell it. On record before it is answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, Field, PlainValidator

from api.auth import Caller, Editor
from api.errors import LATER, Unavailable, malformed
from api.groups import Full, GroupCommit
from database import event_intake
from database.engine import Database
from database.event_intake import OnRecord, Outcome
from marketing.events import MOST_EVENTS, NewEvent, Refusal, read
from telemetry import metrics

log = structlog.get_logger()
router = APIRouter(prefix="/api/events", tags=["events"])

# Whoever tells waits for the answer: a database that is away or slow gets this long before we ask them to try again.
PATIENCE_SECONDS = 10
# Lists of more than so many are somebody's import: segments take notice of them behind what is told one by one.
FEW = 20


@dataclass(frozen=True)
class Given:
    """What a request tells, not looked at yet."""

    events: list[Any]
    alone: bool  # one event, not in a list

    def place(self, number: int) -> str:
        return "body" if self.alone else f"body.{number}"


def _given(body: Any) -> Given:
    if isinstance(body, dict):
        return Given([body], alone=True)
    if not isinstance(body, list) or not 1 <= len(body) <= MOST_EVENTS:
        raise ValueError(f"give one event, or a list of 1 to {MOST_EVENTS:,}")
    return Given(body, alone=False)


Events = Annotated[
    Given,
    PlainValidator(
        _given,
        json_schema_input_type=NewEvent | Annotated[list[NewEvent], Field(min_length=1, max_length=MOST_EVENTS)],
    ),
]


class Result(BaseModel):
    """What became of one event: 201 stored, 200 stored before, 422 refused."""

    status: Literal[200, 201, 422]
    id: UUID | None = Field(None, description="Of the event; if it is repeated, of the first one with its key.")
    repeated: bool = Field(False, description="There was one with this `idempotency_key`; this one is not stored.")
    path: str | None = Field(None, description="Where in the event the first thing is that is wrong.")
    detail: str | None = Field(None, description="What is wrong there.")


class Results(BaseModel):
    """One result per event, in their order. What is null or false is left out."""

    results: list[Result]


class Intake(GroupCommit[Sequence[NewEvent], Sequence[Outcome]]):
    """Every event that this process was told of, on its way to the record."""

    def __init__(self, database: Database, *, most_waiting: int = 20 * MOST_EVENTS) -> None:
        def is_list(batch: Sequence[NewEvent]) -> bool:
            return len(batch) > FEW

        async def store(account_id: UUID, batches: Sequence[Sequence[NewEvent]]) -> Sequence[Sequence[Outcome]]:
            async with database.transaction(account_id, bulk=is_list(batches[0])) as tx:
                outcomes = iter(await event_intake.store(tx, account_id, list(chain.from_iterable(batches))))
            return [list(islice(outcomes, len(batch))) for batch in batches]

        super().__init__(
            store,
            size=len,
            sort=is_list,
            largest=MOST_EVENTS,
            most_waiting=most_waiting,
            patience_seconds=PATIENCE_SECONDS,
        )


@router.post(
    "",
    status_code=201,
    response_model=Results,
    responses={207: {"model": Results, "description": "Some were refused, the others are stored."}},
)
async def store_events(given: Annotated[Events, Body()], request: Request, caller: Editor) -> Response:
    """Tell what contacts have done: one event, or a list of up to 1,000. What is answered with 201 is on record.

    An event is stored once per `idempotency_key`, however often it is sent; another one with that key is refused.
    Whoever is not known yet is added, if the account says so (`create_unknown_contacts`), and is subscribed to nothing.
    If some events of a list are bad, the others are stored (207); if all are, nothing is (422).
    """
    now = datetime.now(UTC)
    outcomes = await stored(request, caller, [read(each, now) for each in given.events], given.place)
    content = orjson.dumps({"results": [result(each) for each in outcomes]})
    return Response(content, status_of(outcomes), media_type="application/json")


async def stored(
    request: Request, caller: Caller, told: Sequence[NewEvent | Refusal], place: Callable[[int], str]
) -> list[Outcome]:
    """What became of each of them, in their order; `place` says where in the body one stands.

    Raises:
        Malformed: all are refused.
    """
    events = [each for each in told if isinstance(each, NewEvent)]
    kept = iter(await _on_record(request, caller, events) if events else ())
    outcomes = [next(kept) if isinstance(each, NewEvent) else each for each in told]
    refusals = [(number, each) for number, each in enumerate(outcomes) if isinstance(each, Refusal)]
    metrics.events.labels("refused").inc(len(refusals))
    if len(refusals) == len(outcomes):
        raise malformed(
            [
                {"path": ".".join(filter(None, (place(number), fault.path))), "message": fault.detail}
                for number, refusal in refusals
                for fault in refusal.faults
            ]
        )
    return outcomes


def status_of(outcomes: Sequence[Outcome]) -> int:
    return 207 if any(isinstance(each, Refusal) for each in outcomes) else 201


async def _on_record(request: Request, caller: Caller, events: Sequence[NewEvent]) -> Sequence[Outcome]:
    if caller.claim:  # its transaction has to use up the key of this one request
        async with caller.transaction() as tx:
            return await event_intake.store(tx, caller.account_id, events)
    intake: Intake = request.app.state.intake
    try:
        return await intake.add(caller.account_id, events)
    except (Full, TimeoutError) as error:
        metrics.events.labels("put_off").inc(len(events))
        log.warning("events not stored", events=len(events), error=type(error).__name__)
        raise Unavailable(
            "More events arrive than can be stored right now. Send these again in a moment, with the same keys.",
            headers=LATER,
        ) from error


def result(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case OnRecord(id=id, repeated=True):
            return {"status": 200, "id": id, "repeated": True}
        case OnRecord(id=id):
            return {"status": 201, "id": id}
        case Refusal(faults=[first, *_]):
            return {"status": 422, "path": first.path, "detail": first.detail}
    raise AssertionError(outcome)
