"""Which variables does a message use, and which have something to stand in for them?"""

import pytest

from marketing.content import EmailContent, prepare
from marketing.variables import Variable


@pytest.mark.parametrize(
    ("liquid", "expected"),
    [
        ("{{ contact.first_name }}", {"contact.first_name": False}),
        ("{{ contact.first_name | default: 'you' }}", {"contact.first_name": True}),
        ("{{ contact.first_name | upcase | default: 'you' }}", {"contact.first_name": True}),
        ("{{ contact.first_name | default: contact.last_name }}",
         {"contact.first_name": True, "contact.last_name": False}),
        ("{{ contact.plan }}{{ contact.attributes.plan }}{{ contact['plan'] }}", {"contact.attributes.plan": False}),
        ("{% if contact.plan %}{{ contact.plan }}{% endif %}", {"contact.attributes.plan": True}),
        ("{% if contact.plan %}a{% endif %}{{ contact.plan }}", {"contact.attributes.plan": False}),
        ("{% unless contact.plan %}a{% else %}{{ contact.plan }}{% endunless %}", {"contact.attributes.plan": True}),
        ("{% if contact.tags.size > 0 %}{{ contact.tags[0] }}{% endif %}",
         {"contact.tags.size": True, "contact.tags": True}),
        ("{% if x %}{% elsif contact.a %}{{ contact.a }}{% endif %}", {"x": True, "contact.attributes.a": True}),
        ("{% case contact.plan %}{% when 'a' %}{{ contact.plan }}{% endcase %}", {"contact.attributes.plan": True}),
        ("{% if contact.address %}{{ contact.address.city }}{% endif %}",
         {"contact.attributes.address": True, "contact.attributes.address.city": True}),
        ("{% for i in contact.items %}{{ i.name }}{{ forloop.index }}{% endfor %}", {"contact.attributes.items": True}),
        ("{% assign n = contact.a %}{{ n }}", {"contact.attributes.a": False}),
        ("{{ n }}{% assign n = 1 %}{{ n }}", {"n": False}),
        ("{% if true %}{% assign n = 1 %}{% endif %}{{ n }}", {}),
        ("{% capture n %}x{% endcapture %}{{ n }}", {}),
        ("{{ contact.items[contact.i].name }}", {"contact.attributes.items": False, "contact.attributes.i": False}),
        ("{{ unsubscribe_url }}{{ account.name }}", {"unsubscribe_url": False, "account.name": False}),
        ("{% comment %}{{ contact.a }}{% endcomment %}{% raw %}{{ contact.b }}{% endraw %}", {}),
        ("{% liquid\n assign x = contact.a\n echo x %}", {"contact.attributes.a": False}),
    ],
)  # fmt: skip
def test_variables_are_found(liquid: str, expected: dict[str, bool]) -> None:
    found = prepare(EmailContent(html="<p></p>", text=liquid)).variables
    assert {variable.path: variable.has_fallback for variable in found} == expected


def test_a_variable_has_a_fallback_only_if_it_has_one_everywhere() -> None:
    content = EmailContent(
        subject="{{ contact.a | default: 1 }}", html="<p>{{ contact.a }}</p>", preheader="{{ contact.b }}"
    )
    assert prepare(content).variables == [
        Variable(path="contact.attributes.a", has_fallback=False),
        Variable(path="contact.attributes.b", has_fallback=False),
    ]


@pytest.mark.parametrize(
    ("path", "field", "attribute", "is_known"),
    [
        ("contact.first_name", "first_name", None, True),
        ("contact.tags", "tags", None, True),
        ("contact.attributes.plan", None, "plan", False),
        ("contact.attributes.address.city", None, "address", False),
        ("contact.attributes", None, None, True),
        ("contact", None, None, True),
        ("account.postal_address", None, None, True),
        ("account.phone", None, None, False),
        ("unsubscribe_url", None, None, True),
        ("cart.total", None, None, False),
    ],
)
def test_a_variable_knows_what_it_is(path: str, field: str | None, attribute: str | None, is_known: bool) -> None:
    variable = Variable(path=path, has_fallback=False)
    assert (variable.field, variable.attribute, variable.is_known) == (field, attribute, is_known)
