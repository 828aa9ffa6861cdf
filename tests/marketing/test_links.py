"""Which addresses are followed, and which are left alone?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing.content import EmailContent, prepare
from marketing.rendering import Renderer
from marketing.text import UNPRINTABLE
from tests.marketing.letters import UNSUBSCRIBE, received


def test_each_address_has_one_number_in_html_and_text() -> None:
    prepared = prepare(
        EmailContent(
            html="<a href='https://example.com/?a=1&amp;b=2'>one</a><A HREF=https://example.org>two</A>"
            '<a href="https://example.com/?a=1&b=2">again</a>'
        )
    )
    assert prepared.links == ["https://example.com/?a=1&b=2", "https://example.org"]
    given = Renderer(prepared).render(
        {}, account={}, links=lambda n, _: f"T{n}", unsubscribe_url="", preferences_url="", open_pixel_url=None
    )
    assert given.html == '<a href="T0">one</a><A HREF="T1">two</A><a href="T0">again</a>'
    assert given.text == "one (T0)two (T1)again (T0)"


@pytest.mark.parametrize(
    "link",
    [
        '<a href="mailto:help@example.com">x</a>',
        '<a href="tel:+33123456789">x</a>',
        '<a href="sms:+33123456789">x</a>',
        '<a href="#top">x</a>',
        '<a href="">x</a>',
        "<a>x</a>",
        '<a name="https://example.com">x</a>',
        '<a href="{{ preferences_url }}">x</a>',
        '<a href=" {{- unsubscribe_url -}} ">x</a>',
        '<a href="mailto:{{ contact.email }}">x</a>',
        '<a href="https://example.com" data-track="off">x</a>',
        '<a data-track=off href="https://example.com/{{ contact.id }}">x</a>',
        '<link href="https://example.com/a.css" rel="stylesheet">',
        '<img src="https://example.com/a.png" alt="">',
        "<!-- <a href='https://example.com'>x</a> -->",
        "<style>/* <a href='https://example.com'> */</style>",
    ],
)
def test_these_are_left_alone(link: str) -> None:
    assert prepare(EmailContent(html=link)).links == []
    assert "/t/c/" not in received(link).html


def test_an_image_map_and_an_outlook_button_are_followed_too() -> None:
    html = (
        '<!--[if mso]><a href="https://example.com/o">x</a><![endif]--><map><area href="https://example.com/m"></map>'
    )
    assert prepare(EmailContent(html=html)).links == ["https://example.com/o", "https://example.com/m"]


def test_an_address_written_for_one_contact_is_handed_over_whole() -> None:
    seen: list[tuple[int, str]] = []

    def links(number: int, url: str) -> str:
        seen.append((number, url))
        return "https://carillon.test/?x=1&y=2"

    given = received(
        '<a href="https://example.com/?id={{ contact.id }}&amp;plan={{ contact.plan | url_encode }}">x</a>', links=links
    )
    assert seen == [(0, "https://example.com/?id=0199&plan=gold")] * 2
    assert given.html == '<a href="https://carillon.test/?x=1&amp;y=2">x</a>'
    assert given.text == "x (https://carillon.test/?x=1&y=2)"


def test_a_whole_address_from_an_attribute_is_followed() -> None:
    given = received('<a href="{{ contact.site }}">x</a>', links=lambda _, url: url.upper())
    assert given.text == "x (HTTPS://ZOE.EXAMPLE.ORG/?A=1&B=2)"


def test_an_attribute_cannot_smuggle_in_a_script() -> None:
    assert received('<a href="{{ contact.evil }}">x</a>').html == '<a href="#">x</a>'


def test_our_own_pages_are_not_followed_by_any_detour() -> None:
    html = '{% assign u = unsubscribe_url %}<a href="{{ u }}">x</a>'
    assert received(html).html == '<a href="https://carillon.test/u/token?a=1&amp;b=2">x</a>'
    assert UNSUBSCRIBE in received(html).text


def test_loops_follow_each_of_their_links() -> None:
    html = '{% for item in contact.items %}<a href="https://example.com/{{ item.price }}">x</a>{% endfor %}'
    assert received(html, links=lambda _, url: url[-2:]).html == '<a href="/7">x</a><a href="20">x</a>'


def test_links_in_a_captured_block_are_followed() -> None:
    html = '{% capture button %}<a href="https://example.com">x</a>{% endcapture %}{{ button }}'
    assert received(html).html == '<a href="https://carillon.test/t/c/0">x</a>'


# Cn: noncharacters such as U+FDD0 are no text, and refused.
CHARACTERS = st.characters(exclude_categories=["Cn", "Cs"], exclude_characters='"<>{}\r\n')
ADDRESS = st.text(CHARACTERS.filter(lambda character: not UNPRINTABLE.search(character)), max_size=30)


@settings(max_examples=300)
@given(ADDRESS)
def test_whatever_an_address_holds_only_the_address_is_replaced(rest: str) -> None:
    html = f'<p class="a">before</p><a class="b" href="https://example.com/{rest}" id="c">label</a><p>after</p>'
    assert received(html).html == html.replace(f"https://example.com/{rest}", "https://carillon.test/t/c/0")
