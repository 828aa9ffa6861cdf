"""What does each column of a contact file hold?"""

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import get_args

from pydantic import BaseModel

from marketing.accounts import ChannelName
from marketing.contact_files import FileForm
from marketing.contacts import normal_text
from marketing.text import UNPRINTABLE

CHANNELS: tuple[ChannelName, ...] = get_args(ChannelName)

# A person has one of each.
SINGLE_FIELDS = ("email", "phone", "external_id", "first_name", "last_name", "country", "locale", "timezone")
# `…_status` holds words, `…_refused` yes or no; of `…_joined`, `…_left` and `…_bounced` it counts that they are filled.
FACTS = ("status", "joined", "left", "bounced", "refused")
FIELDS = (
    *SINGLE_FIELDS,
    *("tags", "consent_at", "consent_where", "ignore"),
    *(f"{channel}_{fact}" for channel in CHANNELS for fact in FACTS),
)
_ATTRIBUTE = r"attributes\.[^.:=\x00-\x1f]{1,100}(:number)?"
TARGET = rf"({'|'.join(FIELDS)}|{_ATTRIBUTE})"

# The spellings in the exports of four products and in files made by hand; compared as `_simple` writes them.
_SPELLINGS = {
    "email": "email, e mail, email address, e mail address, mail, courriel, adresse email, correo electronico",
    "phone": "phone, phone number, mobile, mobile phone, mobile phone number, mobile number, cell, cell phone, tel,"
    " telephone, sms phone number, telefon, telefono",
    "external_id": "external id, customer id, contact id, record id, record id contact, user id, klaviyo id",
    "first_name": "first name, firstname, fname, given name, forename, prenom, vorname, nombre",
    "last_name": "last name, lastname, lname, surname, family name, nachname, apellido, apellidos",
    "country": "country, country code, country region, cc, default address country code, pays, land, pais",
    "locale": "locale, language, lang, preferred language, language code, langue, sprache, idioma",
    "timezone": "timezone, time zone, tz",
    "tags": "tags, tag, labels",
    "email_status": "status, email status, subscription status, email marketing status, email marketing consent,"
    " accepts email marketing, accepts marketing, marketing contact status, email consent",
    "sms_status": "sms status, sms marketing status, sms marketing consent, accepts sms marketing, sms consent",
    "email_joined": "optin time",
    "email_left": "unsub time",
    "email_bounced": "clean time",
    "email_refused": "unsubscribed from all email, opted out, opted out of email, email opt out, unsubscribed",
    "consent_at": "confirm time, consent at, consented at, email consent timestamp, email marketing consent timestamp",
    "consent_where": "optin ip, confirm ip, consent where, consent ip",
    # Our own list of rejects, given back corrected.
    "ignore": "carillon line, carillon reason",
}
_FIELD_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split(", ")}
_NUMBERS = {"total spent", "total orders", "member rating"}

# By which columns an export is known.
_SOURCES = {
    "mailchimp": {"email address", "member rating", "leid"},
    "shopify": {"accepts email marketing", "total orders"},
    "klaviyo": {"klaviyo id"},
    "hubspot": {"record id", "lead status"},
    "carillon": {"carillon line", "carillon reason"},
}


class Claim(IntEnum):
    """What a file says of someone on a channel. Where it says more than one thing, the greatest holds."""

    SUBSCRIBED = 1
    PENDING = 2
    NEVER = 3  # known, but did not agree
    UNSUBSCRIBED = 4
    CLEANED = 5  # mail to this address came back for good


_WORDS = {
    Claim.SUBSCRIBED: "subscribed, yes, y, true, 1, opted in, opt in, marketing contact, active, confirmed, granted",
    Claim.PENDING: "pending, unconfirmed, pending confirmation",
    Claim.NEVER: "non subscribed, nonsubscribed, never subscribed, not subscribed, non marketing contact, none,"
    " not specified, unknown, transactional",
    Claim.UNSUBSCRIBED: "unsubscribed, no, n, false, 0, opted out, opt out, inactive, revoked, denied, withdrawn",
    Claim.CLEANED: "cleaned, bounced, hard bounced, invalid, redacted",
}
_CLAIM_OF = {word: claim for claim, words in _WORDS.items() for word in words.split(", ")}


def _simple(text: str) -> str:
    """`E-Mail_Address*` becomes `e mail address`."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def claim_of(words: str) -> Claim | None:
    """What the cell of a status column says; None if we don't know these words."""
    return _CLAIM_OF.get(_simple(words))


def column_field(target: str) -> str:
    """The target itself, if a column can be mapped to it.

    Raises:
        ValueError: it can't; says to what it can.
    """
    if not re.fullmatch(TARGET, target):
        raise ValueError(
            f"{target!r} is no field. A column can become attributes.<name>, attributes.<name>:number"
            f" or one of {', '.join(FIELDS)}"
        )
    return target


class ImportPlan(BaseModel):
    """How a file is read: found once, then kept, so that every window of it is read alike."""

    form: FileForm
    header: list[str]
    fields: list[str]
    source: str = ""


class Unreadable(ValueError):
    """No row of this file can be used; the message says what to do."""


def plan_for(header: Sequence[str], form: FileForm, mapped: Mapping[str, str]) -> ImportPlan:
    """What each column of the file is.

    Args:
        mapped: fields by the names of columns, for those that we would not know, or not like that.

    Raises:
        Unreadable: no column says whom a row is about, or a column was mapped that is not there.
    """
    header = [normal_text(UNPRINTABLE.sub("", cell)[:200]) for cell in header]
    names = [_simple(name) for name in header]
    chosen = {_simple(column): target for column, target in mapped.items()}
    if missing := [column for column in mapped if _simple(column) not in names]:
        raise Unreadable(f"There is no column {missing[0]!r}. The columns are: {', '.join(header)}.")
    taken = set(chosen.values())
    fields: list[str] = []
    for number, name in enumerate(names, start=1):
        target = chosen.get(name) or _FIELD_OF.get(name)
        # Not known, or known a second time, such as a mobile number beside the phone number.
        if target is None or (target in SINGLE_FIELDS and target in taken and name not in chosen):
            target = _attribute(name or f"column {number}", taken)
        taken.add(target)
        fields.append(target)
    if not {"email", "phone", "external_id"} & taken:
        raise Unreadable(
            "No column is known to hold an e-mail address, a phone number or an external id. "
            f"The columns are: {', '.join(header)}. Name one, such as map={header[0] if header else 'Column'}=email."
        )
    source = next((source for source, signature in _SOURCES.items() if signature <= set(names)), "")
    return ImportPlan(form=form, header=header, fields=fields, source=source)


def _attribute(name: str, taken: set[str]) -> str:
    """`attributes.loyalty_points`, or `attributes.loyalty_points_2` if that is taken."""
    snake, kind, again = name.replace(" ", "_")[:90], ":number" if name in _NUMBERS else "", 2
    target = f"attributes.{snake}{kind}"
    while target in taken:
        target, again = f"attributes.{snake}_{again}{kind}", again + 1
    return target
