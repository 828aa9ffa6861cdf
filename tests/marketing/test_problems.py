"""Is an author told everything at once?"""

from typing import Any

import pytest

from marketing.content import EmailContent
from marketing.problems import problems

LEAVE = '<a href="{{ unsubscribe_url }}">Unsubscribe</a>'


def codes(html: str | None = None, attributes: list[str] | None = None, **parts: Any) -> list[tuple[str, str]]:
    content = EmailContent.model_validate({"subject": "Hello", "from_email": "news@example.com", "html": html} | parts)
    return [(problem.code, str(problem.severity)) for problem in problems(content, attributes)]


def test_good_content_has_no_problems() -> None:
    html = f'<p>{{{{ contact.plan }}}}</p><img src="https://example.com/a.png" alt="">{LEAVE}'
    assert codes(html, ["plan"], reply_to="help@example.com", preheader="x", text="{{ unsubscribe_url }}") == []


@pytest.mark.parametrize(
    ("given", "code", "severity"),
    [
        ({"subject": "  "}, "no_subject", "error"),
        ({"html": None}, "no_body", "error"),
        ({"mjml": "<mjml></mjml>"}, "two_bodies", "error"),
        ({"html": None, "template_id": "01990000-0000-7000-8000-000000000000"}, "no_template", "error"),
        ({"template_id": "01990000-0000-7000-8000-000000000000"}, "two_bodies", "error"),
        ({"from_email": "news"}, "invalid_address", "error"),
        ({"reply_to": "a\r\nBcc: b@example.com"}, "invalid_address", "error"),
        ({"html": "<p>x</p>"}, "no_unsubscribe_link", "error"),
        ({"text": "x"}, "no_unsubscribe_link", "warning"),
        ({"html": f"{LEAVE}<a href='/shop'>x</a>"}, "invalid_link", "error"),
        ({"html": f"{LEAVE}<a href='javascript:alert(1)'>x</a>"}, "invalid_link", "error"),
        ({"html": f"{LEAVE}<a href='https://'>x</a>"}, "invalid_link", "error"),
        ({"html": f"{LEAVE}<a href='ftp://{{{{ contact.id }}}}'>x</a>"}, "invalid_link", "error"),
        ({"html": f"{LEAVE}<a href=''>x</a>"}, "empty_link", "warning"),
        ({"html": f"{LEAVE}<img src='https://example.com/a.png'>"}, "image_without_alt", "warning"),
        ({"html": LEAVE + "x" * 105_000}, "too_large", "warning"),
        ({"html": LEAVE + "{{ first_name }}"}, "unknown_variable", "error"),
        ({"html": LEAVE + "{{ cart.total | default: 0 }}"}, "unknown_variable", "warning"),
        ({"html": LEAVE + "{{ account.phone }}"}, "unknown_variable", "error"),
        ({"html": LEAVE + "{{ contact.colour }}"}, "unknown_variable", "error"),
        ({"html": LEAVE + "{{ 1 | divided_by: contact.plan }}"}, "rendering_fails", "warning"),
        ({"html": LEAVE + "{% break %}"}, "rendering_fails", "error"),
        ({"html": LEAVE + "{% if %}"}, "unusable_content", "error"),
        ({"html": None, "mjml": f"<mjml>{LEAVE}"}, "unusable_content", "error"),
    ],
)
def test_each_problem_is_told(given: dict[str, Any], code: str, severity: str) -> None:
    assert codes(**{"html": LEAVE, "attributes": ["plan"]} | given) == [(code, severity)]


@pytest.mark.parametrize(
    "address", ["{{ contact.site }}", "mailto:a@example.com", "#top", "HTTPS://example.com", "tel:+33"]
)
def test_these_links_are_fine(address: str) -> None:
    assert codes(f'{LEAVE}<a href="{address}">x</a>') == []


def test_all_is_told_at_once_with_the_place() -> None:
    content = EmailContent(subject="{{ a", html="<p>\n{{ x | y }}</p>", text="\n\n{% z %}", from_email="x")
    told = [(problem.code, problem.part, problem.line) for problem in problems(content)]
    assert told == [
        ("invalid_address", "from_email", None),
        ("unusable_content", "subject", 1),
        ("unusable_content", "html", 2),
        ("unusable_content", "text", 3),
        ("no_unsubscribe_link", "html", None),
        ("no_unsubscribe_link", "text", None),
    ]


def test_a_part_that_can_not_be_read_hides_nothing_in_the_others() -> None:
    html = '<a href="foo">x</a>{{ nope }}{{ 1 | divided_by: contact.plan }}'
    told = codes(html, ["plan"], subject="{{ contact.first_name | shout }}")
    assert told == [
        ("unusable_content", "error"),
        ("unknown_variable", "error"),
        ("invalid_link", "error"),
        ("rendering_fails", "warning"),
        ("no_unsubscribe_link", "error"),
    ]
    told = codes(LEAVE, text="{{ x", preheader="{{ nope }}")
    assert told == [("unusable_content", "error"), ("unknown_variable", "error"), ("no_unsubscribe_link", "warning")]
    told = codes(None, mjml='<mjml><mj-body><mj-text><a href="foo">x</a>', subject="")
    assert told == [
        ("no_subject", "error"),
        ("invalid_link", "error"),
        ("unusable_content", "error"),
        ("no_unsubscribe_link", "error"),
    ]


@pytest.mark.parametrize(
    "html",
    [
        f"<!-- {LEAVE} -->",
        f"<!--[if mso]>{LEAVE}<![endif]-->",
        f'<div style="display: none">{LEAVE}</div>',
        f"<style>.gone {{display:none}}</style><p class=gone>{LEAVE}</p>",
        f"<script>{LEAVE}</script>",
        "<p>{{ unsubscribe_url }}</p>",
        "{% assign way = unsubscribe_url %}",
        '<a href="https://example.com/{{ unsubscribe_url }}">x</a>',
        '<a title="{{ unsubscribe_url }}">x</a>',
        f"{{% comment %}}{LEAVE}{{% endcomment %}}",
        f'{{% if contact.country == "FR" %}}{LEAVE}{{% endif %}}',
        f"{{% for item in contact.items %}}{LEAVE}{{% endfor %}}",
        '<a href="{{ preferences_url }}">Choose what you get</a><!-- unsubscribe_url -->',
    ],
)
def test_what_not_everybody_sees_is_no_way_out(html: str) -> None:
    (problem,) = problems(EmailContent(subject="x", html=f"<p>Hi</p>\n{html}", from_email="a@example.com"), ["items"])
    assert (problem.code, problem.severity, problem.part, problem.line) == ("no_unsubscribe_link", "error", "html", 2)
    assert "sees no link" in problem.message


@pytest.mark.parametrize(
    "html",
    [
        f'{{% if contact.country == "FR" %}}<b>Merci</b>{LEAVE}{{% else %}}{LEAVE}{{% endif %}}',
        f"{{% unless contact.country %}}{LEAVE}{{% endunless %}}",
        f"{{% if contact.email %}}{LEAVE}{{% endif %}}",
        f"{{% if contact.tags.size < 5 %}}{LEAVE}{{% endif %}}",
        '{% assign way = unsubscribe_url %}<a href="{{ way }}">x</a>',
        '<a data-track="off" href=" {{- unsubscribe_url -}} ">x</a>',
        "<a href={{unsubscribe_url}}?lang=fr#top>x</a>",
        '<map name="m"><area href="{{ unsubscribe_url }}"></map>',
        f"<!--[if !mso]><!-->{LEAVE}<!--<![endif]-->",
        f"{{% raw %}}{{{{ {{% endraw %}}{LEAVE}",
    ],
)
def test_these_ways_out_are_fine(html: str) -> None:
    assert codes(html) == []


def test_the_way_out_of_mjml_is_found() -> None:
    button = '<mj-button href="{{ unsubscribe_url }}">Unsubscribe</mj-button>'
    page = "<mjml><mj-body><mj-section><mj-column>{}</mj-column></mj-section></mj-body></mjml>"
    assert codes(None, mjml=page.format(button)) == []
    told = codes(None, mjml=page.format(f"{{% if contact.country %}}{button}{{% endif %}}"))
    assert told == [("no_unsubscribe_link", "error")]


def test_a_text_part_of_the_authors_own_is_looked_at_too() -> None:
    told = codes(LEAVE, text="{% if contact.country %}{{ unsubscribe_url }}{% endif %}")
    assert told == [("no_unsubscribe_link", "warning")]


def test_a_likely_slip_gets_a_hint() -> None:
    content = EmailContent(subject="{{ first_name }}", html=LEAVE, from_email="a@example.com")
    assert [problem.message for problem in problems(content)] == [
        "There is no “first_name”. Did you mean contact.first_name?"
    ]


def test_a_link_is_found_on_its_line() -> None:
    content = EmailContent(subject="x", html=f"{LEAVE}\n\n<a\nhref='/x'>x</a>", from_email="a@example.com")
    assert [problem.line for problem in problems(content)] == [3]
