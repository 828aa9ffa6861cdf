"""`/u/…` and `/p/…`: leaving with one click, coming back, and choosing what to receive, all without a login."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from api.html import PRIVATE, nothing_here, page, try_again
from database import subscriptions
from database.engine import AWAY, Database
from database.subscriptions import Proof, Recipient
from marketing.subscriptions import EVERYTHING, Standing, Statuses, masked
from marketing.tracking import OF_A_TEST, Tokens

log = structlog.get_logger()
router = APIRouter()

LARGEST_FORM = 32_768  # 200 topics with the longest keys are 15 kB
MESSAGES = {"email": "email", "sms": "text messages", "whatsapp": "WhatsApp messages"}
Form = dict[str, list[str]]


async def unsubscribe(request: Request) -> Response:
    """GET shows what leaving means and changes nothing, for scanners follow every link. POST leaves.

    A POST without a button of our page is a mail program's one click (RFC 8058): answered in one line, with no login,
    cookie or redirect.
    """

    def show(recipient: Recipient, token: str, form: Form | None) -> Response:
        if form is not None and "do" not in form:
            return PlainTextResponse("You are unsubscribed.\n", headers=PRIVATE)
        return _unsubscribe_page(recipient, token, came_back=form is not None and form["do"] == ["return"])

    return await _visit(request, _leave_or_return, show)


async def preferences(request: Request) -> Response:
    """GET shows the account's topics, POST saves which of them to receive."""

    def show(recipient: Recipient, token: str, form: Form | None) -> Response:
        return _preference_page(recipient, token, saved=form is not None and "do" in form)

    return await _visit(request, _choose, show)


router.add_route("/u/{token:path}", unsubscribe, methods=["GET", "POST"])
router.add_route("/p/{token:path}", preferences, methods=["GET", "POST"])


async def _visit(
    request: Request,
    wanted: Callable[[Standing, Form], Statuses],
    show: Callable[[Recipient, str, Form | None], Response],
) -> Response:
    """Store what a form asks for, and only then show how things stand."""
    tokens: Tokens = request.app.state.tokens
    token: str = request.path_params["token"]
    if token == OF_A_TEST:
        return page("nobody")
    if (bearer := tokens.read_unsubscribe(token)) is None:
        return nothing_here()
    form = await _form(request) if request.method == "POST" else None
    database: Database = request.app.state.database
    try:
        async with database.transaction(bearer.account_id) as tx:
            recipient = await subscriptions.read(tx, bearer)
            if recipient is not None and form is not None:
                statuses = wanted(recipient.standing, form)
                await subscriptions.change(tx, bearer, recipient.standing, statuses, _proof(request, form))
                recipient = await subscriptions.read(tx, bearer)
    except AWAY as error:
        log.warning("subscription not stored", contact_id=str(bearer.contact_id), error=type(error).__name__)
        return try_again()
    return page("nobody") if recipient is None else show(recipient, token, form)


def _leave_or_return(standing: Standing, form: Form) -> Statuses:
    match form.get("do"):
        case ["return"]:
            return standing.returning()
        case ["leave everything"]:
            return standing.leaving(everything=True)
        case _:
            return standing.leaving(everything=False)


def _choose(standing: Standing, form: Form) -> Statuses:
    match form.get("do"):
        case ["save"]:
            return standing.choosing(form.get("topic", []))
        case ["leave everything"]:
            return standing.leaving(everything=True)
        case _:
            return {}


def _unsubscribe_page(recipient: Recipient, token: str, *, came_back: bool) -> Response:
    standing = recipient.standing
    state = "left" if standing.has_left else "back" if came_back else "asking"
    names = {topic.key: topic.name for topic in standing.topics}
    values = {
        "state": state,
        "title": {"left": "You are unsubscribed", "back": "You are subscribed again"}.get(state, "Unsubscribe"),
        "messages": MESSAGES[standing.channel],
        "topic": names.get(standing.topic, standing.topic) or None,  # to Liquid, '' is true
        "not_everything": not standing.has_left_everything,
        "choices": len(standing.topics) > 0,
    }
    return page("unsubscribe", {**_about(recipient, token), **values})


def _preference_page(recipient: Recipient, token: str, *, saved: bool) -> Response:
    standing = recipient.standing
    choices = [
        {"key": topic.key, "name": topic.name, "description": topic.description, "on": standing.receives(topic.key)}
        for topic in standing.topics
    ]
    if not choices:
        whole = {
            "key": EVERYTHING,
            "name": MESSAGES[standing.channel].capitalize(),
            "on": standing.receives(EVERYTHING),
        }
        choices = [{**whole, "description": ""}]
    return page("preferences", {**_about(recipient, token), "choices": choices, "saved": saved})


def _about(recipient: Recipient, token: str) -> dict[str, str]:
    return {
        "token": token,
        "sender": recipient.sender,
        "postal_address": recipient.postal_address,
        "address": masked(recipient.address) if recipient.address else "you",
    }


def _proof(request: Request, form: Form) -> Proof:
    page_name = "unsubscribe page" if request.url.path.startswith("/u/") else "preference page"
    return Proof(
        at=datetime.now(UTC),
        how=page_name if "do" in form else "one-click",
        where=request.client.host if request.client else "",
        user_agent=request.headers.get("user-agent", "")[:300],
    )


async def _form(request: Request) -> Form:
    """The fields of our own pages. Whatever else is sent, in whatever form, has none; we read no more than we need."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            return {}
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    try:
        return parse_qs(body.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=1_000)
    except ValueError:
        return {}
