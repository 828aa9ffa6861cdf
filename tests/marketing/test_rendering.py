"""What does one contact receive?"""

import pytest

from marketing.content import EmailContent, Prepared, prepare
from marketing.rendering import Renderer, RenderError
from tests.marketing.letters import UNSUBSCRIBE, received, render


@pytest.mark.parametrize(
    ("liquid", "text"),
    [
        ("{{ contact.first_name }}", "Zoë"),
        ("{{ contact.last_name | default: 'friend' }}", "friend"),
        ("{{ contact.plan }} {{ contact.attributes.plan }} {{ contact['plan'] }}", "gold gold gold"),
        ("{{ contact.address.city }}", "Paris"),
        ("{{ contact.nothing }}{{ nothing.at.all }}", ""),
        ("{{ account.name }}, {{ account.postal_address }}", "Example Outfitters, 1 Example Street, Paris"),
        ("{{ campaign.name }}", "Autumn"),
        ("{% for item in contact.items %}{{ item.name }};{% endfor %}", "Tea & cake;Milk;"),
        ("{% if contact.tags contains 'vip' %}yes{% else %}no{% endif %}", "yes"),
        ("{% for n in (1..3) %}{{ n }}{% endfor %}", "123"),
        ("{{ contact.items | map: 'name' | join: ', ' }}", "Tea & cake, Milk"),
        ("{{ contact.born | date: '%d %B %Y' }}", "17 May 1990"),
        ("{{ 0 | date: '%Y' }} {{ '1764201600' | date: '%Y-%m-%d' }}", "1970 2025-11-27"),
        ("{{ 'soon' | date: '%Y' }}", "soon"),
        ("{{ 'now' | date: '%Y' }} {{ now | date: '%m' }}", "2026 11"),
        ("{{ contact.note | strip_html }}", '5 > 3 & "so"'),
        ("{% assign price = 7 | times: 3 | plus: 0.5 %}{{ price }}", "21.5"),
    ],
)
def test_liquid_says(liquid: str, text: str) -> None:
    assert received("<p></p>", text=liquid).text == text
    assert received("<p></p>", subject=f"{liquid}!").subject == f"{text}!"


def test_html_is_escaped_and_plain_text_is_not() -> None:
    given = received("<p>{{ contact.note }}</p>", subject="{{ contact.note }}", text="{{ contact.note }}")
    assert "<p>&lt;b&gt;5 &gt; 3 &amp; &#34;so&#34;&lt;/b&gt;</p>" in given.html
    assert given.subject == given.text == '<b>5 > 3 & "so"</b>'


def test_no_filter_turns_data_into_html() -> None:
    for filters in (
        "append: '!'",
        "prepend: '<i>'",
        "replace: 'so', '<i>'",
        "upcase",
        "strip",
        "truncate: 99",
        "slice: 0, 9",
    ):
        assert "<b>" not in received(f"{{{{ contact.note | {filters} }}}}").html.lower()


def test_a_subject_is_one_line() -> None:
    assert received(
        "x", subject="a\r\nb {{ contact.x }}\n c", contact={"attributes": {"x": "\n\u2028Bcc: y"}}
    ).subject == ("a b Bcc: y c")


def test_a_contacts_own_fields_win_over_attributes_of_the_same_name() -> None:
    contact = {"first_name": "Zoë", "attributes": {"first_name": "Mallory", "id": "7"}}
    assert received("x", text="{{ contact.first_name }} {{ contact.id }}", contact=contact).text == "Zoë 7"


def test_the_pixel_is_last_in_the_body_and_only_there_if_asked_for() -> None:
    written = "<html><body><p>x</p></body></html>"
    html = received(written, open_pixel_url="https://carillon.test/o?a&b").html
    assert html.endswith(' alt="" style="display:block;border:0"></body></html>')
    assert 'src="https://carillon.test/o?a&amp;b"' in html
    assert received(written).html == written


def test_the_preheader_comes_first_and_hidden() -> None:
    html = received("<html><body><p>x</p></body></html>", preheader="5 < 6 for {{ contact.note }}").html
    assert html.index("display:none") < html.index("5 &lt; 6 for &lt;b&gt;") < html.index("<p>x</p>")


def test_what_fails_for_one_contact_says_where() -> None:
    with pytest.raises(RenderError, match=r"html, line 2: divided_by: can't divide by 0"):
        received("<p>\n{{ 1 | divided_by: contact.nothing }}</p>")


def test_prepared_content_survives_storage() -> None:
    prepared = prepare(EmailContent(subject="Hi {{ contact.first_name }}", html="<a href='https://example.com'>x</a>"))
    assert Prepared.model_validate_json(prepared.model_dump_json()) == prepared


def test_one_render_leaves_nothing_for_the_next() -> None:
    prepared = prepare(EmailContent(subject="x", html="{% increment n %}{% assign a = a | append: 'x' %}{{ a }}"))
    renderer = Renderer(prepared)
    assert {render(renderer).html for _ in range(3)} == {"0x"}


def test_assignments_reach_what_comes_after_them() -> None:
    assert received(
        "{{ a }}{% assign a = 1 %}{{ a }}{% capture b %}<i>{{ contact.note }}</i>{% endcapture %}{{ b }}"
    ).html == ("1<i>&lt;b&gt;5 &gt; 3 &amp; &#34;so&#34;&lt;/b&gt;</i>")


def test_lines_that_hold_only_tags_leave_no_gaps_in_text() -> None:
    text = "a\n{% if true %}\n\n{% assign x = 1 %}\n\nb\n{% endif %}\n\n\nc"
    assert received("x", text=text).text == "a\n\nb\n\nc"


def test_the_unsubscribe_address_is_escaped_once() -> None:
    given = received('<a href="{{ unsubscribe_url }}">x</a>', text="{{ unsubscribe_url }}")
    assert 'href="https://carillon.test/u/token?a=1&amp;b=2"' in given.html
    assert given.text == UNSUBSCRIBE
