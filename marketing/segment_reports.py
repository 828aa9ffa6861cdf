"""What do segments bring, and how much do they have in common?"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import combinations
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, PlainSerializer

Step = Literal["hour", "day"]

# Money as text, digit for digit: 0.1 + 0.2 is 0.3 here.
Amount = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str)]


class Performance(BaseModel):
    """What was sent to the members of a segment within a window, and what they did.

    Opens and clicks are messages that a person opened or followed, each counted once; what machines did is not in them.
    Rates are shares of 1; null where there is nothing to share.
    """

    members: int = Field(description="As they are now; the figures are theirs, whenever they entered.")
    messages: int = Field(0, description="Sent within the window.")
    opens: int = Field(0, description="Of these messages, whenever they were opened.")
    clicks: int = Field(0, description="Of these messages, whenever they were clicked.")
    unsubscribes: int = Field(0, description="Of these messages, whenever somebody left by them.")
    conversions: int = Field(0, description="Events of the goal within the window.")
    converted: int = Field(0, description="Members who have at least one.")
    revenue: dict[str, Amount] = Field(
        {}, description="Sum of the goal's `value` per currency; an empty name where events tell none."
    )
    open_rate: float | None = Field(None, description="opens / messages")
    click_rate: float | None = Field(None, description="clicks / messages")
    conversion_rate: float | None = Field(None, description="converted / members")


def performance(counted: Mapping[str, int], revenue: Mapping[str, Decimal]) -> Performance:
    """The figures with their rates."""
    figures = Performance(**counted, revenue=dict(sorted(revenue.items())))
    figures.open_rate = _share(figures.opens, figures.messages)
    figures.click_rate = _share(figures.clicks, figures.messages)
    figures.conversion_rate = _share(figures.converted, figures.members)
    return figures


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


class Overlap(BaseModel):
    """Two segments, and the contacts that are in both."""

    segments: tuple[UUID, UUID]
    contacts: int


class Compared(BaseModel):
    """One of the segments that are compared."""

    id: UUID
    name: str
    size: int
    unique: int = Field(description="Contacts that are in none of the others.")
    performance: Performance


class Comparison(BaseModel):
    """Segments side by side, in the order asked for."""

    since: datetime
    until: datetime
    goal: str
    segments: list[Compared]
    overlaps: list[Overlap] = Field(description="One for each pair.")
    union: int = Field(description="Contacts that are in at least one of them.")
    common: int = Field(description="Contacts that are in all of them.")


class Overlaps:
    """How often each combination of segments occurs, by the sum of `2 ** place` of those that a contact is in."""

    def __init__(self, ids: Sequence[UUID], combined: Mapping[int, int]) -> None:
        self.ids = ids
        self.combined = combined
        self.union = sum(combined.values())
        self.common = combined.get((1 << len(ids)) - 1, 0)

    def size(self, place: int) -> int:
        return self._in_all(1 << place)

    def unique(self, place: int) -> int:
        return self.combined.get(1 << place, 0)

    def pairs(self) -> list[Overlap]:
        return [
            Overlap(segments=(self.ids[one], self.ids[other]), contacts=self._in_all(1 << one | 1 << other))
            for one, other in combinations(range(len(self.ids)), 2)
        ]

    def _in_all(self, wanted: int) -> int:
        return sum(n for mask, n in self.combined.items() if mask & wanted == wanted)


class Change(BaseModel):
    """How a segment changed within one hour or day, UTC. Those in which nothing changed are left out."""

    start: datetime
    size: int = Field(description="At its end.")
    entered: int
    left: int
    drift: int = Field(description="How many of these the nightly recount had to put right: 0 if all is well.")
