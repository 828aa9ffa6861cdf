"""A contact and an account to render for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marketing.content import EmailContent, prepare
from marketing.links import Linker
from marketing.rendering import Rendered, Renderer

CONTACT: dict[str, Any] = {
    "id": "0199",
    "email": "zoe@example.com",
    "first_name": "Zoë",
    "last_name": None,
    "tags": ["vip", "paris"],
    "attributes": {
        "plan": "gold",
        "note": '<b>5 > 3 & "so"</b>',
        "site": "https://zoe.example.org/?a=1&b=2",
        "evil": "javascript:alert(1)",
        "items": [{"name": "Tea & cake", "price": 7}, {"name": "Milk", "price": 20}],
        "address": {"city": "Paris"},
        "born": "1990-05-17",
    },
}
ACCOUNT = {"name": "Example Outfitters", "postal_address": "1 Example Street, Paris"}
UNSUBSCRIBE = "https://carillon.test/u/token?a=1&b=2"


def followed(number: int, url: str) -> str:
    return f"https://carillon.test/t/c/{number}"


def render(
    renderer: Renderer,
    *,
    contact: Mapping[str, Any] = CONTACT,
    links: Linker = followed,
    open_pixel_url: str | None = None,
) -> Rendered:
    return renderer.render(
        contact,
        account=ACCOUNT,
        campaign={"id": "0042", "name": "Autumn"},
        links=links,
        unsubscribe_url=UNSUBSCRIBE,
        preferences_url="https://carillon.test/p/token",
        open_pixel_url=open_pixel_url,
        now=datetime(2026, 11, 27, tzinfo=UTC),
    )


def received(html: str | None = None, *, subject: str = "Hello", text: str | None = None, **given: Any) -> Rendered:
    """What the contact receives, all the way from what the author wrote."""
    parts = {name: given.pop(name) for name in ("mjml", "preheader") if name in given}
    content = EmailContent(subject=subject, html=html, text=text, **parts)
    return render(Renderer(prepare(content)), **given)
