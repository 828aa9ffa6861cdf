"""A pass on which nothing is done: it writes down what a journey takes, and answers as it is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from workflows.journey import Contact, Exit, Journey

BEGIN = datetime(2026, 11, 2, 9, tzinfo=UTC)
CLICKED = {"id": str(UUID(int=7)), "name": "message.clicked", "occurred_at": "2026-11-02T10:00:00Z"}
ZOE = Contact(UUID(int=1), "Europe/Paris")

Answers = Callable[[str, str], Any]
"""What is answered to a step, by its kind and name; what is waited for has not happened if that is None."""


@dataclass(frozen=True)
class Taken:
    kind: str
    step: str
    args: dict[str, Any]
    at: datetime
    until: datetime | None
    answer: Any


def nobody_answers(kind: str, step: str) -> Any:
    """Messages are sent, nothing holds and nothing happens."""
    return {"send": {"state": "sent"}, "engagement": {}, "create_campaign": str(UUID(int=9))}.get(kind)


@dataclass
class Recorded:
    answers: Answers = nobody_answers
    now: datetime = BEGIN
    automation: str = "welcome"
    taken: list[Taken] = field(default_factory=list)

    async def take(
        self,
        kind: str,
        step: str,
        args: dict[str, Any] | None = None,
        *,
        asks: str = "",
        until: datetime | None = None,
        value: Any = None,
    ) -> Any:
        answer = self.answers(kind, step) if asks else value
        self.taken.append(Taken(kind, step, args or {}, self.now, until, answer))
        if until and answer is None:
            self.now = max(self.now, until)
        return answer


async def walked(
    way: Callable[[Contact, Journey], Any], answers: Answers = nobody_answers, contact: Contact = ZOE
) -> tuple[list[Taken], str]:
    """What a contact takes on its way, and why it leaves; nothing if it comes to the end."""
    recorded = Recorded(answers)
    try:
        await way(contact, Journey(contact, BEGIN, {}, recorded))
    except Exit as left:
        return recorded.taken, left.reason
    return recorded.taken, ""
