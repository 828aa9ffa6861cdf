"""What does the OpenAPI document tell beyond what the routes under /api tell themselves?"""

from functools import cache
from typing import Any

from fastapi import FastAPI

from api.errors import ProblemDetails

Document = dict[str, Any]

_IDEMPOTENCY_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes it safe to ask again: the same request with the same key has one effect, and for a day the "
    "first answer. Any text that is new to you, such as a UUID.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}

# The routes of recipients are asked by their mail programs and browsers, and bypass FastAPI (`api.tracking.Shortcut`).
_TOKEN: Document = {
    "name": "token",
    "in": "path",
    "required": True,
    "description": "Signed; it vouches for one message.",
    "schema": {"type": "string"},
}
_PAGE: Document = {"description": "A page for people.", "content": {"text/html": {}}}
_REFUSALS: Document = {
    "404": {"description": "The token is forged, damaged or outlived. Always the same, without a body."},
    "503": {"description": "It can't be put on record right now: nothing is acknowledged. Try again."},
}


def _operation(summary: str, description: str, answers: Document, body: Document | None = None) -> Document:
    operation = {
        "tags": ["recipients"],
        "summary": summary,
        "description": description,
        "parameters": [_TOKEN],
        "responses": {**answers, **_REFUSALS},
    }
    return operation | ({"requestBody": {"content": {"application/x-www-form-urlencoded": body}}} if body else {})


_RECIPIENTS: Document = {
    "/t/o/{token}": {
        "get": _operation(
            "Opened",
            "A message was opened: a transparent pixel, once that is on record.",
            {"200": {"description": "A picture of 1 × 1.", "content": {"image/gif": {}}}},
        )
    },
    "/t/c/{token}": {
        "get": _operation(
            "Clicked",
            "A link was followed: on to the address that its author wrote, once that is on record.",
            {"302": {"description": "`Location` is where the link leads."}},
        )
    },
    "/u/{token}": {
        "get": _operation("Unsubscribe page", "Offer to unsubscribe. Changes nothing.", {"200": _PAGE}),
        "post": _operation(
            "Unsubscribe",
            "Unsubscribe: in one click for mail programs (RFC 8058), which are answered with one line, or by a button "
            "of the page, which is `do`. With `return` take it back.",
            {"200": {**_PAGE, "content": {"text/html": {}, "text/plain": {}}}},
            {
                "schema": {
                    "type": "object",
                    "properties": {
                        "do": {
                            "type": "string",
                            "description": "`leave everything` or `return`; whatever else is said means to leave.",
                        }
                    },
                },
                "example": {"List-Unsubscribe": "One-Click"},
            },
        ),
    },
    "/p/{token}": {
        "get": _operation("Preference page", "Show which topics are received. Changes nothing.", {"200": _PAGE}),
        "post": _operation(
            "Save preferences",
            "Receive exactly these topics from now on, or nothing any more.",
            {"200": _PAGE},
            {
                "schema": {
                    "type": "object",
                    "properties": {
                        "do": {
                            "type": "string",
                            "description": "`save` or `leave everything`; whatever else is said changes nothing.",
                        },
                        "topic": {"type": "array", "items": {"type": "string"}},
                    },
                },
                "example": {"do": "save", "topic": ["news"]},
            },
        ),
    },
}


def describe(app: FastAPI) -> None:
    """Have the description made when it is first asked for: it takes 0.7 s, which no start should wait for."""
    by_fastapi = app.openapi

    @cache
    def whole() -> Document:
        document = by_fastapi()
        _complete(document)
        return document

    app.openapi = whole  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _complete(document: Document) -> None:
    """Add the header that every POST takes, the body of every refusal, and the routes that FastAPI does not know."""
    document["components"]["schemas"][ProblemDetails.__name__] = ProblemDetails.model_json_schema()
    for path, operations in document["paths"].items():
        if path.startswith("/api/") and "post" in operations:
            operations["post"].setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    document["paths"].update(_RECIPIENTS)
