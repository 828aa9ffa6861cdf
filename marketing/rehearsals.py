"""What came of a rehearsal: who would get what, when, and why, or why not."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, JsonValue

from marketing.deliveries import SkipReason

MOST_CONTACTS = 100

WHY_SKIPPED = {
    SkipReason.CONTACT_DELETED: "the contact was deleted",
    SkipReason.NO_ADDRESS: "the contact has no address for this channel",
    SkipReason.NO_CONSENT: "the contact has not agreed to get this",
    SkipReason.UNSUBSCRIBED: "the contact has unsubscribed",
    SkipReason.SUPPRESSED: "the address is suppressed",
    SkipReason.FREQUENCY_CAP: "the contact has got as many messages as the account allows in such a time",
    SkipReason.BUDGET: "the campaign's budget of messages is used up",
    SkipReason.CANCELLED: "it was cancelled",
    SkipReason.STOPPED: "the experiment was stopped",
    SkipReason.LEFT: "the contact had left",
    SkipReason.HOLDOUT: "the contact is held out, to tell what sending brings",
}
WHY_REFUSED = {
    "entry": "the entry criteria do not hold",
    "exit": "criteria of exit_on hold already",
    "runaway": "the contact was enrolled too often within an hour",
    "inside": "the contact is inside already",
    "once": "the contact has entered before",
}


class Written(BaseModel):
    """A message as it would have left."""

    to: str
    subject: str
    text: str = Field(description="Its text part; empty unless asked for.")


class Called(BaseModel):
    """A webhook that would have been called."""

    url: str
    body: JsonValue


class Happening(BaseModel):
    """A step that a contact took, or something that it did because the script says so."""

    at: datetime
    until: datetime | None = Field(description="When it had ended; null if it never did.")
    kind: str = Field(description="The kind of step, `act` for what the script says, or `entered` and `left`.")
    step: str = ""
    what: str = Field(description="In words.")
    name: str = Field("", description="Of a message: its template, or else its step.")
    outcome: str = Field("", description="Such as `sent`, `skipped`, `yes`, `no`, `happened`, `did not happen`.")
    why: str = Field("", description="Why not, if a message was not sent or a step failed.")
    message: Written | None = None
    calls: list[Called] = []


class ContactTimeline(BaseModel):
    """All that happened to one contact, in its order."""

    contact_id: UUID
    email: str | None
    zone: str
    entered: bool
    state: Literal["refused", "active", "completed", "exited", "failed", "timed_out", "cancelled"]
    reason: str = Field(description="Why it did not enter, or why it left.")
    converted: bool = False
    happenings: list[Happening]

    @property
    def sent(self) -> list[str]:
        """The messages that it got: their templates, or their steps."""
        return [each.name for each in self.happenings if each.kind == "send" and each.outcome == "sent"]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """The messages that it did not get, each with the reason."""
        kept = (each for each in self.happenings if each.kind == "send" and each.outcome in ("skipped", "failed"))
        return [(each.name, each.why) for each in kept]

    def __str__(self) -> str:
        return self.told()

    def told(self, *, texts: bool = False) -> str:
        """A line for each thing that happened, in the contact's local time, and if wished the texts of messages."""
        lines = [f"{self.email or self.contact_id} ({self.zone})"]
        began = self.happenings[0].at if self.happenings else None
        for each in self.happenings:
            assert began
            day = (each.at - began).days
            local = each.at.astimezone(ZoneInfo(self.zone))
            lines.append(f"  day {day:<3} {local:%a %d %b %H:%M}  {_line(each)}")
            if texts and each.message:
                lines += [f"{'':13}| {line}" for line in each.message.text.splitlines()]
        if not self.entered:
            lines.append(f"  did not enter: {self.reason}")
        return "\n".join(lines)


def _line(happening: Happening) -> str:
    parts = [happening.what]
    if happening.outcome:
        parts.append(f"→ {happening.outcome}")
    if happening.why:
        parts.append(f"({happening.why})")
    if happening.message:
        parts.append(f"“{happening.message.subject}”")
    return " ".join(parts)


class Summary(BaseModel):
    """All contacts together."""

    contacts: int
    entered: int
    sent: dict[str, int] = Field(description="Messages that would have been sent, by name.")
    skipped: dict[str, dict[str, int]] = Field(description="Those that would not, by name and reason.")
    ended: dict[str, int] = Field(description="How many passes ended in each way: `completed`, `exited: goal`, …")


class Timeline(BaseModel):
    """A rehearsal, from the moment at which all entered."""

    starts_at: datetime
    ends_at: datetime
    seconds: float = Field(description="How long it took on our clocks.")
    contacts: list[ContactTimeline]
    summary: Summary

    def __getitem__(self, who: str | UUID) -> ContactTimeline:
        """Of one contact, by e-mail address or id."""
        return next(each for each in self.contacts if who in (each.email, each.contact_id, str(each.contact_id)))

    def __iter__(self) -> Iterator[ContactTimeline]:  # type: ignore[override]  # of contacts rather than of fields
        return iter(self.contacts)

    @property
    def sent(self) -> list[str]:
        """The messages that all contacts got, in the order in which they left."""
        happenings = [each for contact in self.contacts for each in contact.happenings]
        those = (each for each in happenings if each.kind == "send" and each.outcome == "sent")
        return [each.name for each in sorted(those, key=lambda each: each.until or each.at)]

    def __str__(self) -> str:
        return self.told()

    def told(self, *, texts: bool = False) -> str:
        """Contact by contact, for people."""
        ended = ", ".join(f"{n} {how}" for how, n in self.summary.ended.items())
        days = (self.ends_at - self.starts_at).total_seconds() / 86400
        head = f"{self.summary.entered} of {self.summary.contacts} entered; {days:.1f} days in {self.seconds:.1f} s"
        return "\n\n".join(
            [*(each.told(texts=texts) for each in self.contacts), f"{head}; {ended or 'nobody has left'}"]
        )


def summary(contacts: list[ContactTimeline]) -> Summary:
    sent: Counter[str] = Counter()
    skipped: dict[str, Counter[str]] = {}
    ended: Counter[str] = Counter()
    for contact in contacts:
        for each in contact.happenings:
            if each.kind == "send" and each.outcome == "sent":
                sent[each.name] += 1
            elif each.kind == "send" and each.outcome in ("skipped", "failed"):
                skipped.setdefault(each.name, Counter())[each.why] += 1
        reason = f": {contact.reason}" if contact.reason and contact.state == "exited" else ""
        ended[f"{contact.state}{reason}"] += 1
    return Summary(
        contacts=len(contacts),
        entered=sum(each.entered for each in contacts),
        sent=dict(sent),
        skipped={step: dict(reasons) for step, reasons in skipped.items()},
        ended=dict(ended),
    )
