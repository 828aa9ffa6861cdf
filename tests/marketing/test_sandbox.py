"""Does every hostile template end soon, with a clear error, and without a look at anything but plain data?"""

import resource
import sys
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from marketing.content import ContentError, EmailContent, prepare
from marketing.problems import problems
from marketing.rendering import RenderError
from tests.marketing.letters import received

LONG = "x" * 100_000
HOARD = {"long": LONG, "other": LONG[:-1] + "y", "quotes": '"' * 100_000}
LOOP = "{% for i in (1..10000) %}"
DOUBLING = [
    "{% assign x = x | append: x %}",
    "{% assign x = x | prepend: x %}",
    "{% capture x %}{{ x }}{{ x }}{% endcapture %}",
    "{% assign x = x | replace: 'a', x %}",
    "{% assign x = x | replace: '', x %}",
    "{% assign x = x | replace_first: 'a', x | append: x %}",
    "{% assign x = x | escape | replace: 'a', '&&&&' %}",
    "{% assign x = x | url_encode | append: '%%%%' | append: x %}",
    "{% assign x = x | split: '' | join: x %}",
    "{% assign x = x | newline_to_br | append: x %}",
    "{% assign x = x | base64_encode | append: x %}",
]

HOSTILE = {
    "a range of 10^9": "{% for i in (1..1000000000) %}x{% endfor %}",
    "a range of 10^9, reversed": "{% for i in (1..1000000000) reversed %}x{% endfor %}",
    "a range from a variable": "{% assign n = 1000000000 %}{% for i in (1..n) %}x{% endfor %}",
    "a range joined": "{{ (1..1000000000) | join }}",
    "a range searched": '{% if (1..1000000000) contains "a" %}x{% endif %}',
    "a range of 10^400": f"{{{{ (1..1{'0' * 400}) | size }}}}",
    "nested loops": LOOP * 3 + "x" + "{% endfor %}" * 3,
    "nested empty loops": LOOP * 3 + "{% endfor %}" * 3,
    "nested loops that break": LOOP * 2 + LOOP + "{% break %}{% endfor %}" + "{% endfor %}" * 2,
    "nested loops that begin at the end": LOOP
    + "{% for i in (1..10000) reversed %}{% break %}{% endfor %}{% endfor %}",
    "nested loops that skip": LOOP + "{% for i in (1..10000) offset: 9999 %}{% endfor %}{% endfor %}",
    "a list of nothings that doubles": "{% assign x = ',,,,,,,,' | split: ',' %}"
    + "{% assign x = x | concat: x %}" * 60,
    "many loops": (LOOP + "{% endfor %}") * 400,
    "tables in tables": "{% tablerow i in (1..10000) cols:1 %}" * 2 + "x" + "{% endtablerow %}" * 2,
    "a when that fits a thousand times": ("{% case 1 %}{% when " + ",".join("1" * 400) + " %}") * 3
    + "x"
    + "{% endcase %}" * 3,
    "a loop of captures": LOOP + "{% capture x %}" + LONG + "{% endcapture %}{% endfor %}",
    "a loop of prints": LOOP + "{{ contact }}{% endfor %}",
    "a loop of searches": LOOP + "{% if contact.long contains 'xxxxxxxxxxy' %}{% endif %}{% endfor %}",
    "a loop of comparisons": LOOP + "{% if contact.long == contact.other %}{% endif %}{% endfor %}",
    "a loop of splits": LOOP + "{% assign y = contact.long | split: '' %}{% endfor %}",
    "a loop of cycles": (
        LOOP + "{% cycle 'a', 'b' %}{% increment x %}{% ifchanged %}{{ i }}{% endifchanged %}{% endfor %}"
    )
    * 9,
    "a long list sorted": "{% assign x = contact.long | split: '' %}"
    + "{% assign x = x | concat: x %}" * 4
    + "{{ x | sort | join }}",
    "a long list made unique": "{{ contact.long | split: '' | uniq | join }}",
    "a list that doubles": "{% assign x = 'a,b' | split: ',' %}" + "{% assign x = x | concat: x %}" * 60,
    "a list of one long text, many times": "{% assign x = contact.long | split: '?' %}"
    + "{% assign x = x | concat: x %}" * 14
    + "{{ x | sort | size }}",
    "a number that squares": "{% assign x = 999999999 %}" + "{% assign x = x | times: x %}" * 60 + "{{ x }}",
    "a date with a width": "{{ '2020-01-01' | date: '%1000000000d' }}",
    "a date with a long form": "{{ '2020-01-01' | date: contact.long }}",
    "many long values": "{{ contact.long | append: contact.long }}" * 400,
    "escapes to five times the size": "{{ contact.quotes }}" * 15,
    "stripping tags from what looks like them": "{% assign x = '<' %}"
    + "{% assign x = x | append: x %}" * 16
    + "{{ x | strip_html }}" * 20,
    **{code: "{% assign x = 'aaaaaaaaaaaaaaaa' %}" + code * 60 + "{{ x }}" for code in DOUBLING},
}


def cpu(code: str) -> tuple[float, Exception]:
    """How long it takes, all in all, until it is refused."""
    start = time.process_time()
    with pytest.raises((ContentError, RenderError)) as refused:
        received(code, contact={"attributes": HOARD})
    return time.process_time() - start, refused.value


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
def test_it_ends_within_a_second(code: str) -> None:
    seconds, _ = cpu(code)
    assert seconds < 1


def test_all_of_them_together_stay_small() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for code in HOSTILE.values():
        cpu(code)
    unit = 1024 if sys.platform == "darwin" else 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 / unit < 256


REFUSED = {
    "{% include 'x' %}": "unexpected tag 'include'",
    "{% render 'x' %}": "unexpected tag 'render'",
    "{% link 0 %}": "unexpected tag 'link'",
    "{% written_link 0 %}x{% endwritten_link %}": "unexpected tag 'written_link'",
    "{% frobnicate %}": "unexpected tag 'frobnicate'",
    "{{ 'x' | frobnicate }}": "unknown filter 'frobnicate'",
    "{{ 'x' | safe }}": "unknown filter 'safe'",
    "\n{{ 'x' | upcase: 1 }}": "upcase: too many positional arguments .*line 2",
    "{{ 'x' | append }}": "append: missing a required argument",
    "{{ 'x' | upcase: context: 1 }}": "upcase: got an unexpected keyword argument 'context'",
    "{{ 'x' | date: '%Y', context: 1 }}": "date: got an unexpected keyword argument 'context'",
    "{{ 'x' | escape: environment: contact }}": "escape: got an unexpected keyword argument 'environment'",
    "{% if 'x' %}": "“{% endif %}” is missing",
    "\n\n{% if a == %}x{% endif %}": "line 3",
    "\n{% if a %}\n{{ b | }}{% endif %}": "line 3",
    "{{ x": "never closed",
    "{% x": "never closed",
    "{% raw %}x": "never closed by “{% endraw %}”",
    "{{ x }": "never closed",
    "{{}}": "expected a primitive expression",
    "{{ 'a\0b' }}": "control characters|string",
    "{{ '\ufdd0' }}": "U\\+FDD0",
    "{{ a" + "[a" * 1600 + "]" * 1600 + " }}": "nested",
    "{% if a %}" * 40 + "{% endif %}" * 40: "nesting",
    "{{" + " " * 100_000 + "}}": "blanks in a row",
    "{{ x" + "x" * 10_000 + " }}": "5000 characters",
    ("{% if" + " " * 49 + "%}") * 1500: "missing expression",
    "{{a}}" * 20_000: "5,000 Liquid tags",
    ("{{ 'a'" + "|escapejs" * 500 + " }}") * 60: "100,000 characters",
    "{% raw %}" * 50_000: "never closed",
    "".join(f"<a href='https://example.com/{n}'>x</a>" for n in range(2000)): "1,000 different links",
    "<style>p{color:red}</style>" + "<div>" * 10_000: "open inside each other",
    "<p>" * 40_000: "20,000 tags",
    "<style>" + "* *{color:red}" * 20_000 + "</style>" + "<p>" * 5_000: "too many",
}


@pytest.mark.parametrize(("code", "message"), REFUSED.items(), ids=[code[:30] for code in REFUSED])
def test_it_is_refused_when_written(code: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        prepare(EmailContent(subject="x", html=code))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "html",
    [
        "<" * 500_000, "<a " * 160_000, '<a "' * 120_000, "<a a=' b=\" " * 40_000, "<!--" * 120_000, "&" * 500_000,
        "<!--[if " * 60_000, "<style>" * 70_000, "</" * 250_000, "<a href='" * 50_000, "<b><i>" * 80_000,
        "<b><i>" * 9_000,
        "<a b='c'>" * 19_000,
    ],
)  # fmt: skip
def test_markup_that_never_ends_is_read_in_a_second(html: str) -> None:
    start = time.process_time()
    with suppress(ContentError):
        prepare(EmailContent(subject="x", html=html))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "path",
    [
        "contact.__class__", "contact['__class__'].__mro__", "contact.first_name.__class__", "contact.tags.__len__",
        "contact.keys", "contact.items.append", "contact.first_name.format", "account.__init__.__globals__",
        "forloop.__class__", "now.__class__", "now.year", "links", "urls", "self", "env", "context", "today",
        "unsubscribe_url.__class__", "contact.first_name[0]",
    ],
)  # fmt: skip
def test_nothing_is_reached_but_plain_data(path: str) -> None:
    assert received("x", text=f"[{{{{ {path} }}}}]").text == "[]"


def test_the_budget_has_room_for_honest_work() -> None:
    row = '<tr><td style="padding:9px">{{ item.name }}</td><td>{{ item.price | plus: 1 }}</td></tr>'
    html = f"<table>{{% for item in contact.rows %}}{row}{{% endfor %}}</table>"
    rows = [{"name": f"Item {n}", "price": n} for n in range(1000)]
    assert received(html, contact={"attributes": {"rows": rows}}).html.count("<tr>") == 1000


def test_an_author_is_told_before_a_worker_is() -> None:
    found = problems(EmailContent(subject="x", html=HOSTILE["nested loops"] + "{{ unsubscribe_url }}"))
    assert [(each.code, each.severity) for each in found] == [("rendering_fails", "error")]


def test_tags_that_are_closed_in_the_wrong_order_do_not_pile_up() -> None:
    prepare(EmailContent(subject="x", html="<style>p{color:red}</style>" + "<div><table></div>" * 6_000))


WORDS = ["{{", "}}", "{%", "%}", " ", "-", "|", ":", "'", '"', ".", "..", "(", ")", "[", "]", "<", ">", ",", "==",
    "for", "endfor", "if", "endif", "case", "when", "else", "endcase", "assign", "capture", "endcapture", "in", "x",
    "raw", "endraw", "comment", "endcomment", "liquid", "tablerow", "endtablerow", "1", "9999999", "append", "split",
    "contact", "join", "sort", "times", "default", "date", "contains", "or", "and", "limit", "offset",
    "reversed", "cycle",
    "\n", "<p>", "</p>",
]  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_rendered_or_refused(code: str) -> None:
    try:
        received(code, text=code, contact={"attributes": {"x": ["a", 1]}})
    except (ContentError, RenderError, ValidationError):  # the last for control characters
        return
