"""Pages for recipients: small, self-contained, readable without scripts, styles from elsewhere or a login."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from liquid import CachingFileSystemLoader, Environment
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

PAGES = Path(__file__).parent / "pages"
STYLE = (PAGES / "style.css").read_text()
_liquid = Environment(loader=CachingFileSystemLoader(PAGES), autoescape=True)

# What a page shows is one person's: nobody keeps it, frames it, lists it, or learns from a link where it was.
PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}
GUARDED = {
    **PRIVATE,
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
    "X-Content-Type-Options": "nosniff",
}


def page(
    name: str, values: Mapping[str, object] = {}, *, status: int = 200, headers: Mapping[str, str] = {}
) -> Response:
    """The page `api/pages/<name>.html` with these values."""
    html = _liquid.get_template(f"{name}.html").render(style=Markup(STYLE), **values)
    return HTMLResponse(html, status, {**GUARDED, **headers})


def nothing_here() -> Response:
    """The one answer to every forged, damaged or outlived address: it tells nothing."""
    return Response(status_code=404, headers=PRIVATE)


def try_again(retry_after: int = 3) -> Response:
    """We can't put anything on record right now, and so acknowledge nothing. The page loads itself again if it may."""
    headers = {"Retry-After": str(retry_after)}
    return page("try_again", {"retry_after": retry_after}, status=503, headers=headers)
