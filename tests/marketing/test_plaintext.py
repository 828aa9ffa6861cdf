"""Does the text part say what the HTML says?"""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing.content import ContentError, EmailContent, prepare
from marketing.markup import liquid_pieces
from marketing.plaintext import text_from
from tests.marketing.letters import received


def text(html: str) -> str:
    return text_from(html, lambda tag: tag.attributes["href"].of(html))


@pytest.mark.parametrize(
    ("html", "becomes"),
    [
        ("<h1>Title</h1><p>One\n  two</p><p>Three<br>four</p>", "Title\n\nOne two\n\nThree\nfour"),
        ("<ul><li>One</li><li>Two</ul>", "- One\n- Two"),
        ("<p>a</p><hr><p>b</p>", "a\n\n---\n\nb"),
        ("<div>a</div><div><div>b</div></div>c<br><br><br>d", "a\nb\nc\n\nd"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c<td>d</table>", "a b\nc d"),
        ("&lt;b&gt; &amp; &nbsp;&copy; caf&eacute;", "<b> & © café"),
        ('<a href="https://example.com">Shop</a>', "Shop (https://example.com)"),
        ('<a href="https://example.com">https://example.com</a>', "https://example.com"),
        ('<a href="mailto:a@example.com">a@example.com</a>', "a@example.com"),
        ('<a href="mailto:a@example.com">Write</a>', "Write (mailto:a@example.com)"),
        ('<a href="https://example.com"><img src="x" alt="Shop"></a>', "Shop (https://example.com)"),
        ('<a href="https://example.com"><img src="x" alt=""></a>', "https://example.com"),
        ('<a href="{{ url }}">Shop</a>', "Shop ({{ url }})"),
        ("<style>p{}</style><script>x</script><title>t</title><!-- c -->a", "a"),
        ("<!--[if mso]>Outlook<![endif]--><!--[if !mso]><!-->others<!--<![endif]-->", "others"),
        ('<div style="display:none">pre<div>x</div>header</div><p>body</p>', "body"),
        ("{% for i in x %}<p>{{ i | append: '<b>  </b>' }}</p>{% endfor %}",
         "{% for i in x %}\n\n{{ i | append: '<b>  </b>' }}\n\n{% endfor %}"),
        ('<p class="{% if a %}b{% endif %}">{% if a < b %}x{% endif %}</p>',
         "{% if a %}{% endif %}{% if a < b %}x{% endif %}"),
        ("<style>{% assign a = 1 %}p{color:{{ c }}}</style>{{ a }}", "{% assign a = 1 %}{{ a }}"),
        ('<img alt="{% if a %}{{ b }} &amp; c{% endif %}" src="{{ s }}">', "{% if a %}{{ b }} & c{% endif %}"),
        ("{% raw %}<b>{{ x }}</b>{% endraw %}", "{% raw %}<b>{{ x }}</b>{% endraw %}"),
        ("&#123;&#123; x }}", "{ { x }}"),
        ("{<b>{</b> x", "{{ x"),
        ("<a>no address</a>", "no address"),
    ],
)  # fmt: skip
def test_html_becomes_text(html: str, becomes: str) -> None:
    assert text_from(html, lambda tag: tag.attributes["href"].of(html) if "href" in tag.attributes else None) == becomes


def test_text_that_the_author_wrote_is_left_alone() -> None:
    prepared = prepare(EmailContent(html="<p>x</p>", text="see https://example.com\n\n  {{ contact.id }}"))
    assert prepared.text == "see https://example.com\n\n  {{ contact.id }}"


def test_text_is_not_escaped_and_html_is() -> None:
    assert received("<p>{{ contact.items[0].name }}</p>").text == "Tea & cake"


def test_a_block_that_begins_inside_an_address_is_told() -> None:
    with pytest.raises(ContentError, match="begins inside an address"):
        prepare(EmailContent(html='<a href="https://example.com/{% if a %}b">x</a>{% endif %}'))


LETTERS = st.sampled_from(
    ["<p>", "</p>", "<div style='display:none'>", "</div>", "<a href='{{ a }}'>", "</a>", "<li>", "<td>",
     "<img alt='{{ b }}'>", "<!--[if mso]>", "<![endif]-->", "<!-- {% assign x = 1 %} -->",
     "<style>{% assign y = 2 %}</style>", "word", " ",
     "\n",     "{{ c }}", "{% assign z = 3 %}", "<b class='{% assign w = 4 %}'>", "&lt;"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(LETTERS, max_size=25).map("".join))
def test_no_liquid_tag_is_ever_lost_or_doubled(html: str) -> None:
    after = text(html.replace("<a>", ""))
    tags = [html[piece.start : piece.end] for piece in liquid_pieces(html)]
    kept = re.findall(r"\{%.*?%\}", after)
    assert kept == [tag for tag in tags if tag.startswith("{%")]
