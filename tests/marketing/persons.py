"""Random people and what they did, made of what random criteria ask about."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from tests.marketing.belonging import Happening, Person
from tests.marketing.criteria import (
    ATTRIBUTES,
    CAMPAIGNS,
    CHANNELS,
    COLUMNS,
    CURRENCIES,
    EVENTS,
    FEW,
    NUMBERS,
    ODD_ATTRIBUTES,
    SCALARS,
    SEGMENTS,
    STATUSES,
    TAGS,
    TEXTS,
    TIMES,
    TOPICS,
)

_T = TypeVar("_T")
_BIT = timedelta(microseconds=1)
_NEARLY = (-_BIT, timedelta(0), _BIT)
_AGES = [
    *(timedelta(minutes=-5), *_NEARLY, timedelta(seconds=50), timedelta(minutes=90), timedelta(hours=6)),
    *(timedelta(days=days) for days in (1, 2, 45, 200, 366, 400, 2000)),
    *(timedelta(days=days) + shift for days in (7, 14, 28, 29, 30, 31, 90, 92, 365) for shift in _NEARLY),
]
_TIMES_OF_DAY = [each for each in TIMES if len(each) > 10 and "1900" <= each[:4] < "2199"]


class Crowd:
    """Whom chance makes; the same again from the same seed."""

    def __init__(self, seed: int, now: datetime) -> None:
        self.chance, self.now = Random(seed), now

    def people(self, number: int) -> list[Person]:
        """No two share an address; some have none, which can't be suppressed either."""
        addresses = {
            "email": [*COLUMNS["email"]],
            "phone": [*COLUMNS["phone"]],
            "external_id": [*COLUMNS["external_id"]],
        }
        return [
            self._person({name: free.pop() if free else None for name, free in addresses.items()})
            for _ in range(number)
        ]

    def _one(self, several: Sequence[_T]) -> _T:
        return self.chance.choice(several)

    def _some(self, several: Sequence[_T], most: int) -> list[_T]:
        return self.chance.sample(several, self.chance.randint(0, min(most, len(several))))

    def _maybe(self, several: Sequence[_T]) -> _T | None:
        return self._one(several) if self.chance.random() < 0.6 else None

    def _person(self, addresses: dict[str, str | None]) -> Person:
        others = {name: self._maybe(values) for name, values in COLUMNS.items() if name not in addresses}
        times = {"created_at": self._moment(), "updated_at": self._moment()}
        return Person(
            id=UUID(int=self.chance.getrandbits(128), version=4),
            columns={**addresses, **others, **times},
            attributes=self._json(),
            tags=self._some(TAGS, 3),
            statuses={
                (self._one(CHANNELS), self._one(TOPICS)): self._one(STATUSES) for _ in range(self.chance.randint(0, 6))
            },
            suppressed={
                channel for channel in self._some(CHANNELS, 3) if addresses["email" if channel == "email" else "phone"]
            },
            events=[self._event() for _ in range(self.chance.randint(0, 6))],
            segments={*self._some(SEGMENTS, 2)},
            default_zone="Asia/Kathmandu",
        )

    def _event(self) -> Happening:
        value = self._maybe([*NUMBERS, *NUMBERS[:8]])
        return Happening(
            name=self._one([*EVENTS, *EVENTS[:1] * 4]),
            occurred_at=self._moment(),
            machine=self.chance.random() < 0.25,
            value=None if value is None else Decimal(repr(value)),
            currency=self._maybe(CURRENCIES),
            campaign_id=UUID(campaign) if (campaign := self._maybe(CAMPAIGNS)) else None,
            properties=self._json(),
        )

    def _moment(self) -> datetime:
        if self.chance.random() < 0.7:
            return self.now - self._one(_AGES)
        moment = datetime.fromisoformat(self._one(_TIMES_OF_DAY))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    # -- JSON --------------------------------------------------------------------------------------------------------

    def _json(self) -> dict[str, Any]:
        """What each attribute mostly is, and now and then something else."""
        usual = {
            "plan": lambda: self._one([*TEXTS, *TEXTS[:6] * 4]),
            "age": lambda: self._one([*NUMBERS, *NUMBERS[:8] * 2]),
            "born": self._time,
            "list": self._list,
            "a": self._object,
        }
        names = [name.partition(".")[0] for name in self._some([*ATTRIBUTES, *ODD_ATTRIBUTES, *usual], 20)]
        return {
            name: usual[name]() if name in usual and self.chance.random() < 0.8 else self._anything() for name in names
        }

    def _scalar(self) -> Any:
        return self._one(self._one([FEW, FEW, SCALARS, TIMES]))

    def _time(self) -> str:
        if self.chance.random() < 0.3:
            return self._one(TIMES)
        near = self.now + self._one([-1, -1, 1]) * self._one(_AGES)
        return self._one([near.isoformat(), near.isoformat()[:10]])

    def _list(self) -> list[Any]:
        return [
            self._one([self._scalar(), self._one(FEW), None, [self._one(FEW)]])
            for _ in range(self.chance.randint(0, 4))
        ]

    def _object(self) -> dict[str, Any]:
        inner = [("b", self._scalar()), ("b", {"c": self._scalar()}), ("x", self._scalar())]
        return dict(self._some(inner, 3))

    def _anything(self) -> Any:
        return self._one([self._scalar(), self._scalar(), self._list(), self._object(), None])
