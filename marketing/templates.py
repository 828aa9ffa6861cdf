"""What is a stored template?"""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from marketing.content import EmailBody
from marketing.text import Printable


class TemplateDefinition(EmailBody):
    """A message that campaigns can share, with exactly one of `html` and `mjml`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("html", "mjml")],
            "example": {
                "name": "Newsletter",
                "channel": "email",
                "subject": "{{ contact.first_name | default: 'Hello' }}, this is new",
                "html": '<h1>Hello {{ contact.first_name | default: "there" }}</h1>'
                '<p><a href="https://shop.example.com/new">See what is new</a></p>'
                '<p>{{ account.name }}, {{ account.postal_address }} · <a href="{{ unsubscribe_url }}">Unsubscribe</a>',
                "from_name": "Example Outfitters",
                "from_email": "news@example.com",
            },
        },
    )

    name: Printable = Field(min_length=1, max_length=200)
    channel: Literal["email"] = "email"

    @model_validator(mode="after")
    def _one_body(self) -> "TemplateDefinition":
        if (self.html is None) == (self.mjml is None):
            raise ValueError("give one of html and mjml")
        return self
