"""Machines read mail too: at least 95 % of their visits are found out, at most 2 % of people's are taken for theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.machines import BURST, Action, Sign, bursts, sign_in_request, sign_in_timing

SENT_AT = datetime(2026, 11, 27, 9, tzinfo=UTC)
OPEN, CLICK = Action.OPEN, Action.CLICK

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
EDGE = CHROME + " Edg/142.0.0.0"
MAC_SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/26.1 Safari/605.1.15"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
THUNDERBIRD = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.4.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/26.1 Mobile/15E148 Safari/604.1"
)
IPHONE_WEBVIEW = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
)
ANDROID = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)
SAMSUNG = (
    "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 "
    "Chrome/130.0.0.0 Mobile Safari/537.36"
)
CUBOT_PHONE = (
    "Mozilla/5.0 (Linux; Android 13; CUBOT P80) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 "
    "Mobile Safari/537.36"
)
FACEBOOK_APP = IPHONE_WEBVIEW + " [FBAN/FBIOS;FBAV/530.0.0.0;FBDV/iPhone15,2;FBMD/iPhone;FBSN/iOS;FBSV/18.7]"
INSTAGRAM_APP = IPHONE_WEBVIEW + " Instagram 400.0.0.0 (iPhone15,2; iOS 18_7; en_GB; en-GB; scale=3.00; 1179x2556)"
GMAIL_PROXY = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
YAHOO_PROXY = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"
OUTLOOK_OLD = "Mozilla/4.0 (compatible; ms-office; MSOffice rmj)"
OUTLOOK = "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.18526; Pro)"
ANDROID_MAIL = "Dalvik/2.1.0 (Linux; U; Android 15; Pixel 8 Build/AP4A.250205.002)"

BROWSERS = [CHROME, EDGE, MAC_SAFARI, FIREFOX, IPHONE, IPHONE_WEBVIEW, ANDROID, SAMSUNG, CUBOT_PHONE]
BROWSERS += [FACEBOOK_APP, INSTAGRAM_APP]
READERS = [*BROWSERS, THUNDERBIRD, GMAIL_PROXY, YAHOO_PROXY, OUTLOOK, OUTLOOK_OLD, ANDROID_MAIL]

MACHINE_AGENTS = [
    "",
    "curl/8.9.1",
    "Wget/1.21.4",
    "python-requests/2.32.4",
    "Python-urllib/3.12",
    "aiohttp/3.12.0",
    "Go-http-client/2.0",
    "Java/17.0.15",
    "Apache-HttpClient/4.5.14 (Java/17.0.15)",
    "node-fetch/1.0 (+https://example.com/node-fetch)",
    "axios/1.8.2",
    "libwww-perl/6.77",
    "Ruby",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    f"{CHROME} BingPreview/1.0b",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)",
    "Twitterbot/1.0",
    "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
    "TelegramBot (like TwitterBot)",
    "WhatsApp/2.24.20.81 A",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/141.0.0.0 Safari/537.36",
    "BarracudaCentral/1.0 (link check)",
    "Mozilla/5.0 (compatible; proofpoint-url-defense)",
    "Mimecast-URL-Scanner/2",
    "Microsoft Office Existence Discovery",
    "Microsoft Office Protocol Discovery",
    "Microsoft-CryptoAPI/10.0",
    "Mozilla/5.0 (compatible; Sophos URL scanner)",
    "Zscaler Cloud Sandbox",
    "urlscan.io/1.0",
    "AhrefsBot/7.0 (+http://ahrefs.com/robot/)",
]


@dataclass(frozen=True)
class Visit:
    """One visitor to one message: its request, and the seconds after the sending of its opening or clicks."""

    action: Action
    agent: str
    seconds: Sequence[float]
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    links: Sequence[int] = ()

    def flagged(self) -> list[bool]:
        headers = {"user-agent": self.agent, **self.headers}
        moments = [SENT_AT + timedelta(seconds=each) for each in self.seconds]
        links = self.links or range(1, len(moments) + 1)
        burst = bursts(list(zip(moments, links, strict=True))) if self.action is CLICK else set()
        return [
            bool(
                sign_in_request(self.action, self.method, headers)
                or sign_in_timing(self.action, at, SENT_AT)
                or position in burst
            )
            for position, at in enumerate(moments)
        ]


MACHINES = [
    # Those who say who they are, at any hour of the day.
    *(Visit(CLICK, agent, [40.0 + 900 * n]) for n, agent in enumerate(MACHINE_AGENTS)),
    *(Visit(OPEN, agent, [25.0 + 700 * n]) for n, agent in enumerate(MACHINE_AGENTS)),
    # Link checkers that ask for the headers only, under a browser's name.
    *(Visit(CLICK, agent, [12.0], method="HEAD") for agent in BROWSERS),
    # Browsers that load before anybody asks.
    Visit(CLICK, CHROME, [90.0], headers={"sec-purpose": "prefetch"}),
    Visit(CLICK, ANDROID, [90.0], headers={"sec-purpose": "prefetch;prerender"}),
    Visit(CLICK, MAC_SAFARI, [90.0], headers={"x-purpose": "preview"}),
    Visit(CLICK, FIREFOX, [90.0], headers={"x-moz": "prefetch"}),
    Visit(CLICK, CHROME, [90.0], headers={"purpose": "prefetch"}),
    # Apple Mail Privacy Protection, minutes or hours after the message came.
    *(Visit(OPEN, "Mozilla/5.0", [seconds]) for seconds in (5.0, 60.0, 1_800.0, 14_400.0)),
    # Gateways under a browser's name: at the door, or all links at once, once the message is opened.
    *(Visit(CLICK, agent, [0.3, 0.9, 1.6, 2.4]) for agent in (CHROME, EDGE, MAC_SAFARI)),
    *(Visit(CLICK, agent, [200 + n / 10 for n in range(10)]) for agent in BROWSERS),
    *(Visit(CLICK, agent, [30, 30.3, 30.7, 31.1]) for agent in BROWSERS),
    *(Visit(OPEN, agent, [0.4]) for agent in (CHROME, IPHONE)),
    # And the ones that nobody can tell from a reader: one link, a browser's name, half a minute later.
    *(Visit(CLICK, agent, [35.0]) for agent in (CHROME, EDGE, MAC_SAFARI, FIREFOX)),
]

PEOPLE = [
    *(Visit(OPEN, agent, [7.0 + 311 * n]) for n, agent in enumerate(READERS)),
    *(Visit(OPEN, agent, [4.0, 4.2, 3_600.0]) for agent in READERS),
    *(Visit(CLICK, agent, [9.0 + 173 * n]) for n, agent in enumerate(BROWSERS)),
    # Quick readers, with the telephone in hand.
    *(Visit(CLICK, agent, [5.0]) for agent in (IPHONE, ANDROID, SAMSUNG)),
    # A double click, and coming back to the same link.
    *(Visit(CLICK, agent, [60.0, 60.2, 4_000.0], links=[1, 1, 1]) for agent in BROWSERS),
    # One link after another, and several in new tabs as fast as a hand goes.
    *(Visit(CLICK, agent, [30.0, 48.0, 95.0]) for agent in BROWSERS),
    *(Visit(CLICK, agent, [80.0, 80.7, 81.5, 82.2]) for agent in (CHROME, EDGE, MAC_SAFARI, FIREFOX)),
    # Who sits waiting for the message and clicks within two seconds is taken for a machine: rare enough.
    Visit(CLICK, IPHONE, [2.0]),
]


def test_at_least_95_percent_of_machine_visits_are_flagged() -> None:
    verdicts = [each for visit in MACHINES for each in visit.flagged()]
    assert len(verdicts) > 200
    assert sum(verdicts) / len(verdicts) >= 0.95


def test_at_most_2_percent_of_peoples_visits_are_flagged() -> None:
    verdicts = [each for visit in PEOPLE for each in visit.flagged()]
    assert len(verdicts) > 140
    assert sum(verdicts) / len(verdicts) <= 0.02


@pytest.mark.parametrize("agent", MACHINE_AGENTS)
def test_every_machine_that_says_so_is_believed(agent: str) -> None:
    assert sign_in_request(CLICK, "GET", {"user-agent": agent}) is Sign.AGENT


@pytest.mark.parametrize("agent", READERS)
def test_no_mail_reader_is_taken_for_a_machine_when_it_opens(agent: str) -> None:
    assert sign_in_request(OPEN, "GET", {"user-agent": agent}) is None


@pytest.mark.parametrize("agent", BROWSERS)
def test_no_browser_is_taken_for_a_machine_when_it_follows_a_link(agent: str) -> None:
    assert sign_in_request(CLICK, "GET", {"user-agent": agent}) is None


@pytest.mark.parametrize("agent", [GMAIL_PROXY, YAHOO_PROXY, ANDROID_MAIL, OUTLOOK])
def test_what_only_loads_images_never_clicks(agent: str) -> None:
    assert sign_in_request(CLICK, "GET", {"user-agent": agent}) is Sign.AGENT


def test_apples_privacy_proxy_opens_nothing_for_anybody() -> None:
    assert sign_in_request(OPEN, "GET", {"user-agent": "Mozilla/5.0"}) is Sign.PRIVACY_PROXY


def test_an_unknown_moment_of_sending_says_nothing() -> None:
    assert sign_in_timing(CLICK, SENT_AT, None) is None
    assert sign_in_timing(CLICK, SENT_AT - timedelta(seconds=1), SENT_AT) is Sign.TOO_SOON


clicks = st.lists(
    st.tuples(st.integers(0, 5_000).map(lambda ms: SENT_AT + timedelta(milliseconds=ms)), st.integers(1, 4))
)


@given(clicks)
def test_a_burst_is_every_pair_of_different_links_within_half_a_second(moments: list[tuple[datetime, int]]) -> None:
    pairs = {
        one
        for one, (at, link) in enumerate(moments)
        for other_at, other_link in moments
        if other_link != link and abs(other_at - at) <= BURST
    }
    assert bursts(moments) == pairs


def test_100_000_clicks_on_one_link_are_looked_through_at_once() -> None:
    flood = [(SENT_AT, 1)] * 100_000 + [(SENT_AT + BURST * 3, 2)]
    assert bursts(flood) == set()
