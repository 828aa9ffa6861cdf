"""What does a row of a contact file say, and of whom?"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from marketing.contact_files import Record
from marketing.contacts import (
    LARGEST_ATTRIBUTES,
    normal_country,
    normal_email,
    normal_locale,
    normal_phone,
    normal_tags,
    normal_text,
    normal_timezone,
)
from marketing.import_columns import CHANNELS, SINGLE_FIELDS, Claim, ImportPlan, claim_of
from marketing.imports import ImportOptions
from marketing.moments import kept_moment
from marketing.text import UNPRINTABLE


class Person:
    """Someone whom rows of the file are about.

    Where the file says nothing, None stands in the class and nothing in the instance: what is known stays, and
    `vars(person)` is the document to stage.
    """

    key = ""  # the address by which rows are known to be about the same person
    email: str | None = None
    phone: str | None = None
    external_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    country: str | None = None
    locale: str | None = None
    timezone: str | None = None
    email_claim: Claim | None = None
    sms_claim: Claim | None = None
    whatsapp_claim: Claim | None = None
    consent_at: str | None = None
    consent_where: str | None = None

    def __init__(self, line: int, raw: str) -> None:
        self.line = line
        self.raw = raw
        self.attributes: dict[str, str | float] = {}
        self.tags: list[str] = []

    def claim(self, channel: str, claim: Claim) -> None:
        """Note what the file says; a refusal is never overruled."""
        name = f"{channel}_claim"
        setattr(self, name, max(claim, getattr(self, name) or claim))

    def lay_over(self, later: "Person") -> None:
        """A later row corrects this one; what it leaves empty stays."""
        for name in (*SINGLE_FIELDS, "consent_at", "consent_where"):
            value = getattr(later, name)
            if value is not None:
                setattr(self, name, value)
        for channel in CHANNELS:
            claim = getattr(later, f"{channel}_claim")
            if claim:
                self.claim(channel, claim)
        self.attributes |= later.attributes
        self.tags = list(dict.fromkeys(self.tags + later.tags))


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken, and why."""

    line: int
    raw: str
    reason: str


Read = Callable[[Person, str], None]


class RowReader:
    """Reads the rows of one file. A row is taken whole or not at all, so that nothing of it is lost in silence."""

    def __init__(self, plan: ImportPlan, options: ImportOptions) -> None:
        self._options = options
        self._columns = [(name, _reader(target)) for name, target in zip(plan.header, plan.fields, strict=True)]
        self._guarded = plan.source == "carillon"  # our own list of rejects, corrected
        self._phone_column = plan.header[plan.fields.index("phone")] if "phone" in plan.fields else ""

    def read(self, record: Record) -> Person | Reject:
        try:
            return self._person(record)
        except ValueError as error:
            return Reject(record.line, storable(record.text), str(error))

    def _person(self, record: Record) -> Person:
        if record.problem:
            raise ValueError(f"The row {record.problem}")
        # The regular expression costs four times as much as the question that most rows answer.
        if not record.text.rstrip().isprintable() and (found := UNPRINTABLE.search(record.text)):
            raise ValueError(f"The row {_unprintable(found.group())}")
        person = Person(record.line, record.text)
        for (column, read), cell in zip(self._columns, _squared(record.cells, len(self._columns)), strict=True):
            text = cell.strip()
            if self._guarded and text.startswith("'"):
                text = text[1:]
            if text and read:
                try:
                    read(person, text)
                except ValueError as error:
                    raise ValueError(f"{column}: {error}") from None
        self._complete(person)
        return person

    def _complete(self, person: Person) -> None:
        """What needs the whole row."""
        if person.phone:
            try:
                person.phone = normal_phone(person.phone, person.country or self._options.default_region)
            except ValueError as error:
                raise ValueError(f"{self._phone_column}: {error}") from None
        key = person.email or person.phone or (person.external_id and f"#{person.external_id}")
        if not key:
            raise ValueError("The row has no e-mail address, phone number or external id: nobody can be found by it")
        person.key = key
        if person.tags or self._options.tags:
            person.tags = normal_tags(self._options.tags + person.tags)
        if len(orjson.dumps(person.attributes)) > LARGEST_ATTRIBUTES:
            raise ValueError(f"The columns kept as attributes hold more than {LARGEST_ATTRIBUTES // 1024} KiB")
        for channel in self._options.subscribe:
            if getattr(person, f"{channel}_claim") is None:
                person.claim(channel, Claim.SUBSCRIBED)
        if not person.email:
            person.email_claim = None
        if not person.phone:
            person.sms_claim = person.whatsapp_claim = None


def _squared(cells: list[str], width: int) -> list[str]:
    """As many cells as the header has; empty ones too many, which spreadsheets add, are left out."""
    if len(cells) == width:
        return cells
    if len(cells) > width and not any(map(str.strip, cells[width:])):
        return cells[:width]
    hint = "Is a separator or a quotation mark missing?" if len(cells) < width else "Does a cell hold the separator?"
    raise ValueError(f"The row has {len(cells)} cells where the header has {width}. {hint}")


def _unprintable(character: str) -> str:
    if character == "\0":
        return "holds a NUL character"
    return "is not valid text in the encoding of the file" if character > "\x7f" else "holds control characters"


def storable(text: str) -> str:
    """The text as PostgreSQL can hold it: what was no text before becomes U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", text)


# -- one reader per kind of column -----------------------------------------------------------------------------------


def _reader(target: str) -> Read | None:
    if target == "ignore":
        return None
    if target in _READERS:
        return _READERS[target]
    if target.startswith("attributes."):
        name = target.removeprefix("attributes.").removesuffix(":number")
        return _number_into(name) if target.endswith(":number") else _text_into(name)
    channel, fact = target.split("_")
    return _claim_into(channel, fact)


def _into(name: str, normal: Callable[[str], str]) -> Read:
    return lambda person, text: setattr(person, name, normal(text))


def _text_into(name: str) -> Read:
    def read(person: Person, text: str) -> None:
        person.attributes[name] = text

    return read


def _number_into(name: str) -> Read:
    def read(person: Person, text: str) -> None:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number") from None
        if not -1e15 < number < 1e15:
            raise ValueError(f"{text!r} is no number that we can keep exactly")
        person.attributes[name] = int(number) if number.is_integer() else number

    return read


def _claim_into(channel: str, fact: str) -> Read:
    def read(person: Person, text: str) -> None:
        claim = _PRESENT.get(fact) or claim_of(text)
        if claim is None:
            raise ValueError(f"{text!r} says neither subscribed nor unsubscribed in words that we know")
        if fact == "refused":  # yes means no
            claim = Claim.UNSUBSCRIBED if claim is Claim.SUBSCRIBED else None
        if claim:
            person.claim(channel, claim)
        if fact in _PRESENT:
            person.consent_at = _moment(text) or person.consent_at

    return read


_PRESENT = {"joined": Claim.SUBSCRIBED, "left": Claim.UNSUBSCRIBED, "bounced": Claim.CLEANED}


def _read_tags(person: Person, text: str) -> None:
    """`"VIP","Paris"` as Mailchimp writes it, `a, b` as Shopify does, or `a;b` as HubSpot does."""
    separator = "," if '"' in text or ";" not in text else ";"
    person.tags += next(csv.reader([normal_text(text)], delimiter=separator, skipinitialspace=True))


def _moment(text: str) -> str | None:
    """ISO 8601; None if we can't read it: a date alone is no reason to leave somebody out."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return kept_moment(moment).isoformat()
    except ValueError as error:
        raise ValueError(f"{text!r} is no moment that we can keep: {error}") from None


_READERS: dict[str, Read] = {
    "email": _into("email", normal_email),
    "phone": _into("phone", lambda text: text.lstrip("'")),  # Shopify guards ids and numbers from spreadsheets
    "external_id": _into("external_id", lambda text: normal_text(text.lstrip("'"))),
    "first_name": _into("first_name", normal_text),
    "last_name": _into("last_name", normal_text),
    "country": _into("country", normal_country),
    "locale": _into("locale", normal_locale),
    "timezone": _into("timezone", normal_timezone),
    "tags": _read_tags,
    "consent_at": lambda person, text: setattr(person, "consent_at", _moment(text)),
    "consent_where": lambda person, text: setattr(person, "consent_where", text[:500]),
}

# -- many rows -------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """The rows of one window, with those about the same person laid over each other."""

    people: dict[str, Person] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0
    _owners: dict[tuple[str, str], str] = field(default_factory=dict)  # keys by phone number and external id

    def add(self, row: Person | Reject) -> None:
        self.rows += 1
        if isinstance(row, Reject):
            self.rejects.append(row)
        elif stolen := next((kind for kind in OTHER_KEYS if self._owner(kind, row) != row.key), None):
            self.rejects.append(Reject(row.line, row.raw, claimed(stolen)))
        elif row.key in self.people:
            self.duplicates += 1
            self.people[row.key].lay_over(row)
        else:
            self.people[row.key] = row

    def documents(self) -> bytes:
        """One JSON document per person and line, without what the file does not say."""
        return b"\n".join(orjson.dumps(vars(person)) for person in self.people.values())

    def _owner(self, kind: str, row: Person) -> str:
        value = getattr(row, kind)
        return self._owners.setdefault((kind, value), row.key) if value else row.key


OTHER_KEYS = ("phone", "external_id")


def claimed(kind: str) -> str:
    """Why a row is rejected whose phone number or external id an earlier row gave to someone else."""
    return f"Its {kind.replace('_', ' ')} is that of another person in this file"


def read_batch(records: Sequence[Record], reader: RowReader) -> Batch:
    """All rows among these records; blank lines are none."""
    batch = Batch()
    for record in records:
        if any(map(str.strip, record.cells)):
            batch.add(reader.read(record))
    return batch


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula (=, +, -, @, or blanks that it trims away before them)."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell
