"""What may an author leave out, and does the page about content tell the truth?"""

import re
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing import content, html, links, markup, rendering, sandbox
from marketing.content import ContentError, EmailBody, EmailContent, prepare
from marketing.problems import problems
from tests.marketing.letters import received

PAGE = (Path(__file__).parents[2] / "docs" / "content.md").read_text()


def test_a_draft_may_lack_anything() -> None:
    assert EmailContent() == EmailContent.model_validate({})


@pytest.mark.parametrize("given", [{}, {"subject": "x"}, {"template_id": UUID(int=1)}])
def test_without_a_body_there_is_nothing_to_prepare(given: dict[str, str]) -> None:
    with pytest.raises(ContentError):
        prepare(EmailContent.model_validate(given))


def test_a_template_gives_what_the_content_does_not_say() -> None:
    template = EmailBody(subject="Theirs", html="<p>x</p>", from_name="Them", text="x")
    filled = EmailContent(template_id=UUID(int=1), subject="Mine").filled_in(template)
    assert filled == EmailContent(subject="Mine", html="<p>x</p>", from_name="Them", text="x")


def test_a_body_beside_a_template_is_told_and_not_guessed() -> None:
    both = EmailContent(template_id=UUID(int=1), subject="x", html="<p>mine</p>")
    filled = both.filled_in(EmailBody(html="<p>theirs</p>"))
    assert [problem.code for problem in problems(filled)] == ["two_bodies"]


def test_the_page_lists_every_filter_and_tag() -> None:
    listed = PAGE.split("## Filters and tags")[1].split("## Links")[0]
    filters, tags = listed.split("- Tags:")
    named = re.findall(r"`([a-z_0-9]+)`", filters)
    assert sorted(named) == sorted(links.HTML.filters)
    inner = {"content", "output", "illegal", "link", "written_link"}
    assert sorted(re.findall(r"`([a-z_#]+)`", tags)) == sorted(set(links.HTML.tags) - inner | {"raw"})


def test_the_page_states_the_limits() -> None:
    limits = PAGE.split("## Limits")[1]
    for limit in (
        content.LONGEST_SOURCE, content.MOST_TAGS, content.MOST_LIQUID, content.MOST_MARKUP, markup.LONGEST_PIECE,
        markup.LONGEST_BLANK, html.DEEPEST, html.MOST_MJML, html.MOST_MATCHES, links.MOST_LINKS,
        sandbox.LONGEST_RANGE, sandbox.BUDGET,
        rendering.LONGEST_OUTPUT,
    ):  # fmt: skip
        assert f" {limit:,}" in limits


FILTERS = st.sampled_from(
    ["append: 'a'", "append: contact.evil", "prepend: contact.evil", "replace: 'a', contact.evil", "upcase", "escape",
     "escape_once", "escapejs", "url_encode", "url_decode", "base64_encode", "base64_decode", "newline_to_br",
     "strip", "strip_html", "strip_newlines", "split: ''", "split: 'a'", "join: ''", "join: contact.evil", "first",
     "last", "reverse", "slice: 0, 99", "truncate: 99", "truncatewords: 9", "squish", "default: contact.evil",
     "date: '%Y'", "sort", "uniq"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(FILTERS, max_size=5), st.sampled_from(["<b>", "&lt;b&gt;", "%3Cb%3E", "%253Cb%253E", "PGI+", "<<b>b>"]))
def test_no_chain_of_filters_lets_a_contacts_data_be_html(filters: list[str], evil: str) -> None:
    chain = "".join(f" | {one}" for one in filters)
    source = f"{{{{ contact.evil{chain} }}}}{{% capture c %}}{{{{ contact.evil }}}}{{% endcapture %}}{{{{ c{chain} }}}}"
    try:
        written = received(source, text="x", contact={"attributes": {"evil": evil}}).html
    except rendering.RenderError:
        return
    assert "<b>" not in written.lower()
