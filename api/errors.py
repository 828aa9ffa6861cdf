"""How do we say no? RFC 9457 problem details: a status, what is wrong, and the next step."""

import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from database.engine import AWAY, is_away
from marketing.kinds import words

log = structlog.get_logger()

LATER = {"Retry-After": "3"}


class ProblemDetails(BaseModel):
    """The body of every answer that is an error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Problem(Exception):
    """An error for people: `detail` says what is wrong and what to do; `more` is added to the answer, and replaces
    nothing of it."""

    status = 500
    title = "Internal error"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        self.more = more

    def response(self) -> JSONResponse:
        body = {**self.more, "type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        return JSONResponse(body, self.status, self.headers, media_type="application/problem+json")


class BadRequest(Problem):
    status, title = 400, "Bad request"


class Unauthorized(Problem):
    status, title = 401, "No valid API key"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    status, title = 403, "Not allowed"


class NotFound(Problem):
    status, title = 404, "Not found"


class Conflict(Problem):
    status, title = 409, "Not possible now"


class TooLarge(Problem):
    status, title = 413, "Too large"


class UnsupportedMedia(Problem):
    status, title = 415, "Not a kind that is taken"


class Malformed(Problem):
    status, title = 422, "Malformed"


class TooMany(Problem):
    status, title = 429, "Too many requests"


class NotPossibleHere(Problem):
    status, title = 501, "Not possible with this installation"


class Unavailable(Problem):
    status, title = 503, "Not available right now"


def documented(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """What a route may answer, for the OpenAPI document."""
    content = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}}}
    return {kind.status: {"description": kind.title, "content": content} for kind in kinds}


# What any route under /api may answer.
PROBLEMS = documented(
    BadRequest, Unauthorized, Forbidden, NotFound, Conflict, TooLarge, Malformed, TooMany, Unavailable
)


def install(app: FastAPI) -> None:
    """Make every error leave as problem details, and none with a stack trace."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [{"path": ".".join(map(str, each["loc"])), "message": message_of(each)} for each in error.errors()]
        return malformed(wrong).response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, RecursionError):  # of whoever reads the JSON
            deep = {"path": "body", "message": "has hundreds of levels of lists and objects within each other"}
            return Malformed(f"{deep['path']}: {deep['message']}.", errors=[deep]).response()
        if type(error.__cause__) is ValueError:  # what Python says of more digits than it reads
            long = {"path": "body", "message": f"has a number of more than {sys.get_int_max_str_digits():,} digits"}
            return Malformed(f"{long['path']}: {long['message']}.", errors=[long]).response()
        answer = Problem(f"{error.detail}.", headers=dict(error.headers or {}))
        answer.status, answer.title = error.status_code, HTTPStatus(error.status_code).phrase
        if error.status_code == 404:
            answer.detail = "There is nothing at this address. GET /docs shows what there is."
        if error.status_code == 405:
            taken = ", ".join(_methods(request))
            answer.detail, answer.headers = f"{request.method} is not taken here, but {taken}.", {"Allow": taken}
        return answer.response()

    for kind in AWAY:
        app.add_exception_handler(kind, _away)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("request failed", method=request.method, exc_info=error)
        # Starlette answers this outside of all middleware.
        headers = {"X-Request-ID": str(structlog.contextvars.get_contextvars().get("request_id", ""))}
        return Problem("Something went wrong on our side. It was logged; try again.", headers=headers).response()


async def _away(_: Request, error: Exception) -> JSONResponse:
    if not is_away(error):
        raise error
    log.error("database away", exc_info=error)
    return Unavailable("The database does not answer right now. Try again in a moment.", headers=LATER).response()


def _methods(request: Request) -> list[str]:
    """What may be asked of this path. Starlette knows only what the first of its routes takes."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") if taken(method)]


def message_of(error: Mapping[str, Any]) -> str:
    """What Pydantic tells of an error, in our words or in those of whoever raised it."""
    return words(error) or str(error["msg"]).removeprefix("Value error, ")


def malformed(wrong: Sequence[Mapping[str, str]]) -> Malformed:
    """Everything that is wrong with a request, each with its `path` and a `message`."""
    first = f"{wrong[0]['path']}: {wrong[0]['message'].rstrip('.')}."
    return Malformed(first if len(wrong) == 1 else f"{first} And {len(wrong) - 1} more, see `errors`.", errors=wrong)
