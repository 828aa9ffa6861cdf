"""What the benchmarks send: 3 KB of HTML with five tracked links, personalised in seven places."""

from typing import Any
from uuid import UUID, uuid4

from activities.messages import Composer
from marketing.campaigns import EmailPlan
from marketing.content import EmailContent, prepare
from marketing.tracking import RecipientLinks, Tokens

_ARTICLES = (
    ("boots", "Boots for the first frost", "Sewn by hand, resoled for life, and broken in before the snow comes."),
    ("coats", "Coats with deep pockets", "Waxed cotton outside, wool inside, and room for a book on the way home."),
    ("lamps", "Lamps for long evenings", "Warm light for the table by the window, on a cable that is long enough."),
    ("tea", "Tea from the north slope", "Picked in the second week of May, dark in the cup, and gone by Christmas."),
)

_ARTICLE = """
<table role="presentation" width="100%" style="border-collapse:collapse;margin:0 0 24px 0"><tr>
<td style="padding:16px;background-color:#f6f4ef;font-family:Georgia,serif;font-size:16px;line-height:24px">
<h2 style="margin:0 0 8px 0;font-size:20px;color:#22333b">{title}</h2>
<p style="margin:0 0 12px 0;color:#444444">{text} Made for {{{{ contact.city | default: "your town" }}}}.</p>
<a href="https://shop.example.com/{path}?from=autumn" style="color:#8a3324;font-weight:bold">Have a look</a>
</td></tr></table>"""

HTML = (
    """<html><body style="margin:0;padding:24px;background-color:#ffffff">
<h1 style="font-family:Georgia,serif;color:#22333b">
Good morning, {{ contact.first_name | default: "dear reader" }}!</h1>
<p style="font-family:Georgia,serif;font-size:16px">
You are with us on the {{ contact.plan | default: "free" }} plan,
and this is what we have set aside for you this week. It stays on its shelf until Sunday night.</p>"""
    + "".join(_ARTICLE.format(path=path, title=title, text=text) for path, title, text in _ARTICLES)
    + """
<p style="font-family:Georgia,serif"><a href="https://shop.example.com/autumn">Everything that is new</a></p>
<p style="font-size:12px;color:#777777">Example Outfitters, 1 Example Street, Paris.
<a href="{{ unsubscribe_url }}">Unsubscribe</a></p></body></html>"""
)

CONTENT: dict[str, Any] = {
    "subject": 'For {{ contact.first_name | default: "you" }}: autumn is on the shelf',
    "html": HTML,
    "from_name": "Example Outfitters",
    "from_email": "news@example.com",
}


def content() -> EmailContent:
    return EmailContent.model_validate(CONTENT)


def composer(account_id: UUID) -> Composer:
    """Writes it as a campaign would that nobody launched."""
    written = content()
    plan = EmailPlan(
        prepared=prepare(written),
        from_name=written.from_name,
        from_email=written.from_email,
        reply_to=None,
        account={},
        campaign={},
    )
    links = RecipientLinks("http://127.0.0.1:8000", Tokens(b"a key for messages that nobody reads"))
    return Composer(account_id, uuid4(), plan, links)
