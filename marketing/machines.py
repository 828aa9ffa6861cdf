"""Was that a person, or a machine that reads mail before people do?"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import groupby, pairwise


class Action(StrEnum):
    OPEN = "open"
    CLICK = "click"


class Sign(StrEnum):
    """What gave the machine away."""

    HEAD = "head"  # asked for the headers only: a link checker
    PREFETCH = "prefetch"  # the browser says itself that nobody has asked yet
    AGENT = "agent"  # calls itself a bot, a gateway, a link preview or a programming library
    PRIVACY_PROXY = "privacy_proxy"  # Apple Mail Privacy Protection loads every image, read or not
    TOO_SOON = "too_soon"  # faster after the sending than any reader
    BURST = "burst"  # different links of one message, faster than a hand can move


# Security gateways follow links while they hold the message back. A reader must see the notification, open and aim.
TOO_SOON = {Action.OPEN: timedelta(seconds=1), Action.CLICK: timedelta(seconds=3)}
# Two *different* links this close: opening links in new tabs takes a practised hand 600 ms and more between them.
BURST = timedelta(milliseconds=500)

PREFETCH_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")

# Names that machines give themselves, in any case. "bot" ends a word, and Cubot is a maker of telephones.
MACHINE_AGENT = re.compile(
    r"(?<!cu)bot\b|(?<!cu)bots\b|crawl|spider|slurp|\bpreview|linkexpand|urlpreview|facebookexternalhit|meta-external"
    r"|whatsapp/|bingpreview|headless|phantomjs|puppeteer|playwright|selenium"
    r"|barracuda|proofpoint|mimecast|messagelabs|symantec|ironport|forcepoint|websense|zscaler|fireeye|trellix"
    r"|sophos|kaspersky|bitdefender|trendmicro|trend micro|fortiguard|cloudmark|vade ?secure|virustotal|urlscan"
    r"|safebrowsing|google-safety|existence discovery|protocol discovery|cryptoapi|censys|nmap|zgrab|masscan"
    r"|^(curl|wget|python|aiohttp|httpx|go-http-client|java|apache-httpclient|libwww|lwp|ruby|axios|node|undici|php|perl"
    r"|guzzle|postman|rest-client|faraday|reqwest|dart|winhttp)\b",
    re.IGNORECASE,
)
# Libraries that mail apps load images with, but no browser follows a link with; and the proxies of Gmail and Yahoo,
# which fetch an image when a person opens the message, and never click.
IMAGES_ONLY_AGENT = re.compile(
    r"^(okhttp|dalvik|cfnetwork|alamofire)\b|googleimageproxy|yahoomailproxy|ms-office|microsoft outlook", re.IGNORECASE
)
# All that Apple's privacy proxy says; a browser goes on and names its platform and engine.
BARE_AGENT = "Mozilla/5.0"


def sign_in_request(action: Action, method: str, headers: Mapping[str, str]) -> Sign | None:
    """What the request itself gives away. `headers` has lower-case names, or finds names in any case."""
    if method == "HEAD":
        return Sign.HEAD
    if any(_says_prefetch(headers[name]) for name in PREFETCH_HEADERS if name in headers):
        return Sign.PREFETCH
    return _sign_in_agent(action, headers.get("user-agent", "")[:500])


def sign_in_timing(action: Action, at: datetime, sent_at: datetime | None) -> Sign | None:
    """What the moment gives away. A message whose sending is not on record (yet) says nothing."""
    if sent_at is None or at - sent_at >= TOO_SOON[action]:
        return None
    return Sign.TOO_SOON


def bursts(clicks: Sequence[tuple[datetime, int]]) -> set[int]:
    """Which of one delivery's clicks, as (moment, link number), belong to a burst: their positions.

    A click belongs to one when a different link of the same message was clicked within half a second of it, before
    or after; so the first of a burst is found out by the second. A double click on one link is no burst.
    """
    by_time = sorted(range(len(clicks)), key=lambda position: clicks[position])
    runs = [list(run) for _, run in groupby(by_time, key=lambda position: clicks[position][1])]
    found: set[int] = set()
    for run, following in pairwise(runs):  # the nearest click of another link is at the border of the next run
        ends, starts = clicks[run[-1]][0], clicks[following[0]][0]
        found.update(position for position in run if starts - clicks[position][0] <= BURST)
        found.update(position for position in following if clicks[position][0] - ends <= BURST)
    return found


@lru_cache(4096)  # a few hundred agents make nearly all visits; looking one through costs 20 µs
def _sign_in_agent(action: Action, agent: str) -> Sign | None:
    if agent.strip() == BARE_AGENT:
        return Sign.PRIVACY_PROXY if action is Action.OPEN else Sign.AGENT
    if not agent.strip() or MACHINE_AGENT.search(agent):
        return Sign.AGENT
    if action is Action.CLICK and IMAGES_ONLY_AGENT.search(agent):
        return Sign.AGENT
    return None


def _says_prefetch(value: str) -> bool:
    return any(word in value.lower() for word in ("prefetch", "prerender", "preview"))
