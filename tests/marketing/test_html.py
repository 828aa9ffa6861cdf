"""Do the tools that work on HTML leave everything else alone, Liquid above all?"""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketing.content import ContentError, EmailContent, prepare
from marketing.html import inline_css, mjml_to_html
from marketing.markup import liquid_pieces
from tests.marketing.letters import received

STYLE = "<style>p{color:red} .b{margin:0} td{padding:1px} a:hover{color:blue} @media print{p{color:black}}</style>"


def inlined(html: str, style: str = STYLE) -> str:
    return inline_css(style + html).removeprefix(style)


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("<p>x</p>", '<p style="color: red">x</p>'),
        ('<p class="b">x', '<p style="color: red;margin: 0" class="b">x'),
        ('<p style="color:blue">x</p>', '<p style="color: red; color:blue">x</p>'),
        ("<p style='*zoom:1; \"'>x</p>", "<p style='color: red; *zoom:1; \"'>x</p>"),
        ("<p style=color:blue class=b>x</p>", "<p style=color:blue class=b>x</p>"),
        ("<p style>x</p>", '<p style="color: red" style>x</p>'),
        ("<p style='color:{{ c }}'>x</p>", "<p style='color: red; color:{{ c }}'>x</p>"),
        ('<p style="{% if a %}top:0{% endif %}">x', '<p style="color: red; {% if a %}top:0{% endif %}">x'),
        ('<p class="{% if a > 1 %}b{% endif %}">x', '<p style="color: red" class="{% if a > 1 %}b{% endif %}">x'),
        ('<p class="{% if a %} b {% endif %}">x', '<p style="color: red" class="{% if a %} b {% endif %}">x'),
        ('<p {% if a > "b" %}id="c"{% endif %}>x', '<p style="color: red" {% if a > "b" %}id="c"{% endif %}>x'),
        ('<p title="{{ a | default: "<p>" }}">x', '<p style="color: red" title="{{ a | default: "<p>" }}">x'),
        ("{{ a | default: '<p>' }}<b>x</b>", "{{ a | default: '<p>' }}<b>x</b>"),
        ("{% if a < b and b > c %}<b>x</b>{% endif %}", "{% if a < b and b > c %}<b>x</b>{% endif %}"),
        ("{% raw %}<p>{{ x }}</p>{% endraw %}", "{% raw %}<p>{{ x }}</p>{% endraw %}"),
        ("<!-- <p> --><!--[if mso]><p>x</p><![endif]-->", "<!-- <p> --><!--[if mso]><p>x</p><![endif]-->"),
        ("<!--[if !mso]><!--><p>x</p><!--<![endif]-->",
         '<!--[if !mso]><!--><p style="color: red">x</p><!--<![endif]-->'),
        ("<![if !mso]><p>x</p><![endif]>", '<![if !mso]><p style="color: red">x</p><![endif]>'),
        ("<P CLASS=B>x<BR/>&nbsp;&copy; é", '<P style="color: red" CLASS=B>x<BR/>&nbsp;&copy; é'),
        ('<p data-a="<b>">x</p>', '<p style="color: red" data-a="<b>">x</p>'),
        (
            "<table>{% for i in x %}<tr><td>{{ i }}{% endfor %}</table>",
            '<table>{% for i in x %}<tr><td style="padding: 1px">{{ i }}{% endfor %}</table>',
        ),
        ("<textarea><p></textarea><p", "<textarea><p></textarea><p"),
    ],
)  # fmt: skip
def test_styles_are_written_into_tags_and_nothing_else_changes(written: str, becomes: str) -> None:
    assert inlined(written) == becomes


def test_a_rule_that_insists_wins_over_an_attribute() -> None:
    assert "red !important" in inlined("<p style='color:{{ c }}'>", "<style>p{color:red !important}</style>")


def test_a_block_that_holds_liquid_stays_a_block() -> None:
    style = "<style>p { color: {{ contact.colour | default: 'red' }} } {% if x %}p{margin:0}{% endif %}</style>"
    assert inlined("<p>x</p>", style) == "<p>x</p>"


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = '<link rel="stylesheet" href="file:///etc/passwd"><style>@import "file:///etc/passwd"; p{top:0}</style>'
    assert inline_css(html + "<p>") == html + '<p style="top: 0">'


LIQUID = st.sampled_from(
    ["{{ contact.a }}", '{{ a | default: "<b>\'" }}', "{% if a < 1 %}", "{% endif %}", "{%- assign x = '\">' -%}",
     "{{'}'}}",      "{% raw %}<p class='b'>{{{% endraw %}", "{{\n x\n}}"]
)  # fmt: skip
MARKUP = st.sampled_from(
    ["<p>", "</p>", "<p class=b>", "<table>", "<tr>", "<td>", "</table>", "<a href='", "'", '"', ">", "<", "</", "<!--",
     "-->", "<!--[if mso]>", "<![endif]-->", "<div style='top:0' ", "class=\"", " ", "=", "/", "text", "&amp;",
     "<style>",
     "</style>", "p{color:red}", "<br/>", "<img alt=", "é", "\n", "<body>", "</body>", "<script>", "<title>", "<b",
     "<a href=https://example.com>"]
)  # fmt: skip
SOUP = st.lists(LIQUID | MARKUP, max_size=25).map("".join)


def liquid_of(source: str) -> list[str]:
    return [source[piece.start : piece.end] for piece in liquid_pieces(source)]


ADDED = re.compile(r" style=\"[^\"]*\"|(?<=style=)(['\"]?)[^'\">]*\1")


@settings(max_examples=500, deadline=None)
@given(SOUP)
@example("<table><td><tr><p>")  # the paragraph is moved before the table
def test_inlining_into_any_soup_adds_styles_and_loses_nothing(soup: str) -> None:
    try:
        after = inline_css(STYLE + soup)
    except ContentError:
        return
    assert liquid_of(after) == liquid_of(STYLE + soup)
    assert ADDED.sub("", after) == ADDED.sub("", STYLE + soup)


@settings(max_examples=500, deadline=None)
@given(SOUP)
def test_any_soup_is_prepared_or_refused(soup: str) -> None:
    try:
        prepared = prepare(EmailContent(subject="x", html=STYLE + soup))
    except ContentError:
        return
    assert prepared.html.count("{{ open_pixel }}") == 1


# -- MJML ------------------------------------------------------------------------------------------------------------


def mjml(inside: str, head: str = "") -> str:
    body = f"<mj-body><mj-section><mj-column>{inside}</mj-column></mj-section></mj-body>"
    return f"<mjml><mj-head>{head}</mj-head>{body}</mjml>"


@pytest.mark.parametrize(
    "liquid",
    [
        '<mj-text>Hello {{ contact.first_name | default: "<b>" }}</mj-text>',
        "<mj-text>{% if contact.a > 5 and contact.b < 6 %}x{% endif %}</mj-text>",
        "{% for item in contact.items %}<mj-text>{{ item.name }}</mj-text>{% endfor %}",
        "<mj-table>{% for i in contact.items %}<tr><td>{{ i.name }}</td></tr>{% endfor %}</mj-table>",
        '<mj-button href="https://example.com/{{ contact.id }}?a=1&b={{ contact.b | default: "x" }}">Go</mj-button>',
        '<mj-image src="https://example.com/{{ contact.id }}.png" alt="{{ contact.first_name }}" />',
        "<mj-raw>{% if contact.a %}<p>x</p>{% endif %}</mj-raw>",
        "<!-- {{ contact.a }} --><mj-text>x</mj-text>",
        '<mj-text color="{{ contact.colour }}">x</mj-text>',
    ],
)
def test_liquid_passes_through_mjml(liquid: str) -> None:
    html = mjml_to_html(mjml(liquid))
    for piece in re.findall(r"\{[{%].*?[%}]\}", liquid):
        assert piece in html


def test_liquid_may_stand_in_the_head_of_mjml() -> None:
    preview = "{% if contact.a %}Hi {{ contact.first_name }}{% endif %}"
    head = f"<mj-preview>{preview}</mj-preview><mj-title>{{{{ account.name }}}}</mj-title>"
    html = mjml_to_html(mjml("<mj-text>x</mj-text>", head))
    assert preview in html
    assert "<title>{{ account.name }}</title>" in html


def test_mjml_is_rendered_with_all_that_html_has() -> None:
    source = mjml(
        "{% for item in contact.items %}<mj-text>{{ item.name }}</mj-text>{% endfor %}"
        '<mj-button href="https://example.com">Go</mj-button>',
        "<mj-style>.x{color:red}</mj-style><mj-preview>In short</mj-preview>",
    )
    given = received(mjml=source, preheader="Even shorter")
    assert "Tea &amp; cake" in given.html
    assert "Milk" in given.html
    assert 'href="https://carillon.test/t/c/0"' in given.html
    assert "<!--[if mso | IE]>" in given.html
    assert given.html.index("Even shorter") < given.html.index("In short")
    assert given.text == "Tea & cake\n\nMilk\n\nGo (https://carillon.test/t/c/0)"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("<mjml><mj-body>", "not MJML"),
        ("<html></html>", "not MJML"),
        ('<mjml><mj-body><mj-include path="/etc/passwd" /></mj-body></mjml>', "not MJML"),
        (mjml("<mj-text {% if a %}color='red'{% endif %}>x</mj-text>"), "not MJML|no place"),
        (mjml("<mj-spacer>{{ x }}</mj-spacer>"), "not MJML|no place for “{{ x }}” here"),
        (mjml("<mj-wrapper>" * 400), "open inside each other"),
        (mjml("<mj-divider />" * 4_000), "3,000 tags"),
        (mjml("<mj-text>\n5 < 6</mj-text>"), "quote each value.*line 2"),
        (mjml('<mj-text><a href="x">y</a><a href=x>z</a></mj-text>'), "quote each value"),
        (mjml("<mj-raw><style>" + "<div>" * 400 + "</mj-raw>"), "open inside each other"),
        (mjml("<mj-raw>" + "<div><!--[if mso]></div><![endif]-->" * 400 + "</mj-raw>"), "open inside each other"),
        (mjml("<mj-raw>" + "<!--[if mso]><div><![endif]-->" * 400 + "</mj-raw>"), "open inside each other"),
        (mjml("<mj-raw>" + "<div><!-- </div> -->" * 400 + "</mj-raw>"), "open inside each other"),
        (mjml("<mj-raw>" + "<div a='</div>'>" * 400 + "</mj-raw>"), "open inside each other"),
        (mjml("<mj-raw>" + "<div><![CDATA[ > </div> ]]>" + "</mj-raw>"), "not MJML"),
        (mjml("<mj-text>" + "<p>" * 400 + "</mj-text>"), "open inside each other"),
        (mjml("<mj-text>" + "<div></p>" * 400 + "</mj-text>"), "open inside each other"),
    ],
)
def test_mjml_that_cannot_be_used_is_refused(source: str, message: str) -> None:
    with pytest.raises(ContentError, match=message) as refused:
        prepare(EmailContent(subject="x", mjml=source))
    assert refused.value.part == "mjml"


@settings(max_examples=300, deadline=None)
@given(st.lists(LIQUID, max_size=8), st.sampled_from(["<mj-text>%s</mj-text>", "<mj-raw>%s</mj-raw>", "%s"]))
def test_mjml_keeps_every_piece_of_liquid_in_order(pieces: list[str], place: str) -> None:
    html = mjml_to_html(mjml(place % "-".join(pieces) if place != "%s" else "".join(pieces)))
    last = 0
    for piece in pieces:
        last = html.index(piece, last) + len(piece)
