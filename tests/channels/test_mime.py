"""Nothing that anybody writes can add a header, a recipient or a command to a message."""

import os
import re
from email import message_from_bytes, policy
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from functools import lru_cache
from typing import cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from channels.base import Message, Rejected, Sender
from channels.mime import address, one_line, write
from tests.channels.messages import a_message

pytestmark = pytest.mark.long
CASES = int(os.environ.get("CARILLON_TEST_CASES", "10000"))  # 100,000 take three minutes
NOW = 1_764_000_000

# The parser asks for each Content-Type six times over, and most are alike: remembering them halves the time.
ORACLE = policy.default.clone(header_factory=lru_cache(1000)(policy.default.header_factory))

HOSTILE = [
    *(
        "\r\n",
        "\n",
        "\r",
        "\x00",
        "\u2028",
        "\u2029",
        "\x85",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x7f",
        "\t",
        "\ud800",
        "\ufeff",
    ),
    *(
        "\r\nBcc: eve@example.net",
        "\r\n\r\nbody",
        "\r\n.\r\nMAIL FROM:<eve@example.net>",
        ".",
        "..",
        "\n.\n",
        "\r\n..\r\n",
    ),
    *(
        "=?utf-8?q?=0d=0aBcc:_eve?=",
        "=?",
        "?=",
        "=\r\n",
        "=3D",
        "--=_alternative",
        "--=_alternative--",
        "From ",
        ": ",
    ),
    *('"', "\\", "<", ">", "@", ",", ";", "(", ")", "[", "]", "=", "_", " ", "  ", "\u202e", "\xa0", "\u3000"),
    *("é", "ß", "Ж", "漢", "🔔", "e\u0301", "x" * 80, "y" * 1100, "é" * 90, "word " * 40),
]


def put_together(which: bytes, free: str) -> str:
    """Half of the pieces hostile, half free: chosen by one draw for all of them, which halves the time of the tests."""
    return "".join(HOSTILE[n // 2 % len(HOSTILE)] if n % 2 else free for n in which)


TEXT = st.builds(put_together, st.binary(min_size=1, max_size=6), st.text(max_size=6))


def hostile_message(some: str, more: str, sender: str, full: bool) -> Message:
    """The same text stands in several places: none of them knows of the others, and it halves the time."""
    return a_message(
        sender=Sender(some, sender),
        subject=more,
        text=some,
        html=more if full else None,
        reply_to="reply@example.com" if full else None,
        headers={"List-Unsubscribe": some, "X-Campaign": more} if full else None,
    )


SENDERS = st.sampled_from(["news@example.com", "jörg@müller.example", "a.b+c@x-y.example"])
MESSAGES = st.builds(hostile_message, TEXT, TEXT, SENDERS, st.booleans())


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(MESSAGES)
@example(a_message(subject="", text="", html=""))
@example(a_message(text="--=_alternative--\nplain", html="--=_alternative\nContent-Type: text/html\n\nplain"))
@example(a_message(text="From here\nFrom there\n.\n..\nplain", html=".\n\tplain\n"))
@example(a_message(text="x" * 900, html="x" * 901))
def test_a_reader_finds_exactly_what_was_written_and_nothing_else(message: Message) -> None:
    content = write(message, NOW).content
    read = message_from_bytes(content, policy=ORACLE)

    expected = ["Date", "Message-ID", "To", "Subject", *message.headers, "From", "MIME-Version", "Content-Type"]
    if message.html is None:
        expected.append("Content-Transfer-Encoding")
    if message.reply_to:
        expected.append("Reply-To")
    assert sorted(read.keys()) == sorted(expected)
    assert str(read["Subject"]) == one_line(message.subject)
    for name, value in message.headers.items():
        assert str(read[name]) == one_line(value)
    ((name, sender),) = mailboxes(read["From"])
    assert (joined(name), sender) == (joined(one_line(message.sender.name)), address(message.sender.address))
    assert mailboxes(read["To"]) == [("", message.to)]
    assert mailboxes(read["Reply-To"]) == ([("", message.reply_to)] if message.reply_to else [])
    assert body(read, "plain") == lines(message.text)
    assert body(read, "html") == (None if message.html is None else lines(message.html))
    assert not read.defects
    assert [part.get_content_type() for part in read.walk()] == (
        ["text/plain"] if message.html is None else ["multipart/alternative", "text/plain", "text/html"]
    )


@settings(max_examples=CASES // 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(MESSAGES)
def test_the_bytes_keep_to_the_limits_of_smtp(message: Message) -> None:
    letter = write(message, NOW)

    assert letter.content.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\x00", letter.content)
    assert max(map(len, letter.content.split(b"\r\n"))) <= 998
    assert letter.content.isascii() or not address(message.sender.address).isascii()


@settings(max_examples=CASES // 5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(TEXT, st.sampled_from(["@", "", "@@", " @"]), TEXT | st.just("example.org")).map("".join))
@example("ann@example.org>\r\nRCPT TO:<eve@example.net")
@example("ann@example.org,eve@example.net")
@example("ann@example.org SIZE=1")
@example('"a b"@example.org')
@example("a@[127.0.0.1]")
@example("a@b..c")
@example(".a@example.org")
@example("a\u2028@example.org")
@example("ann@exam\x00ple.org")
@example("a@" + "漢" * 300)
@example("")
def test_an_address_is_one_address_or_is_refused(text: str) -> None:
    try:
        found = address(text)
    except Rejected:
        return
    assert re.fullmatch(r"[^\x00-\x20\x7f-\x9f\u2028\u2029<>()\[\]\\,;:@\"]+@[A-Za-z0-9.-]+", found)
    assert len(found.encode()) <= 254
    assert mailboxes(message_from_bytes(f"To: {found}\r\n\r\n".encode(), policy=ORACLE)["To"]) == [("", found)]


@pytest.mark.parametrize(
    ("written", "wire"),
    [
        ("Ann.Lee+bells@Example.ORG", "Ann.Lee+bells@Example.ORG"),
        ("ann@münchen.example", "ann@xn--mnchen-3ya.example"),
        ("ann@straße.example", "ann@xn--strae-oqa.example"),
        ("jörg@例え.example", "jörg@xn--r8jz45g.example"),
    ],
)
def test_an_international_address_keeps_its_local_part_and_gets_an_ascii_domain(written: str, wire: str) -> None:
    assert address(written) == wire


def test_only_an_international_local_part_needs_smtputf8() -> None:
    assert not write(a_message("ann@münchen.example", subject="Grüße", text="Grüße"), NOW).needs_smtputf8
    assert write(a_message("jörg@example.org"), NOW).needs_smtputf8


@pytest.mark.parametrize(
    "name", ["Bcc", "to", "Subject", "Content-Type", "X Y", "X:Y", "X\r\nBcc", "", "X-É", "X" * 80]
)
def test_a_header_that_is_ours_or_none_is_refused(name: str) -> None:
    with pytest.raises(Rejected):
        write(a_message(headers={name: "1"}), NOW)


def test_an_ordinary_message_reads_well_in_its_raw_form() -> None:
    letter = write(
        a_message(
            headers={
                "List-Unsubscribe": "<https://example.com/u/abc>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
            text="Hello Ann\nBye = bye",
            html=None,
            reply_to="help@example.com",
        ),
        NOW,
    )
    assert letter.content.decode().splitlines() == [
        "Date: Mon, 24 Nov 2025 16:00:00 -0000",
        f"Message-ID: {letter.message_id}",
        "To: ann@example.org",
        "Subject: The bells are back",
        "List-Unsubscribe: <https://example.com/u/abc>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        'From: "Carillon News" <news@example.com>',
        "Reply-To: help@example.com",
        "MIME-Version: 1.0",
        'Content-Type: text/plain; charset="utf-8"',
        "Content-Transfer-Encoding: 7bit",
        "",
        "Hello Ann",
        "Bye = bye",
    ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Hello\tAnn,\n\nBye", "7bit"),
        ("x" * 900, "7bit"),
        ("x" * 901, "quoted-printable"),
        ("Grüße, Ann, und bis zum nächsten Mal", "quoted-printable"),
        ("Γειά σου", "base64"),
        ("form\ffeed", "quoted-printable"),
        ("--=_alternative--", "quoted-printable"),
        ("From Ann", "quoted-printable"),
        ("Hello\nFrom Ann", "quoted-printable"),
        (".", "quoted-printable"),
        ("Hello\n.\nAnn", "quoted-printable"),
        ("Hello\n.hidden\nAnn", "7bit"),
    ],
)
def test_text_is_sent_as_it_is_where_nobody_can_misread_it(text: str, encoding: str) -> None:
    content = write(a_message(text=text, html=None), NOW).content
    assert f"Content-Transfer-Encoding: {encoding}\r\n".encode() in content


def mailboxes(header: object) -> list[tuple[str, str]]:
    if header is None:
        return []
    # The parser hands bytes beyond ASCII on as they are.
    return [
        (each.display_name, each.addr_spec.encode(errors="surrogateescape").decode())
        for each in cast(AddressHeader, header).addresses
    ]


def joined(name: str) -> str:
    """A name without blanks: Python's parser puts one between encoded words of a name, and makes others plain."""
    return "".join(name.split())


def body(read: EmailMessage, kind: str) -> str | None:
    part = read.get_body((kind,))
    return None if part is None else lines(cast(EmailMessage, part).get_content())


def lines(text: str) -> str:
    """One way to end lines, none at the end, a question mark for half a character."""
    ended = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    return ended.rstrip("\n")
