"""Which faults are there, and who does the damage?"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from tests.chaos.campaign import Verdict
from tests.chaos.ground import Ground


@dataclass(frozen=True)
class Case:
    """A fault, by its number in docs/reliability.md."""

    number: str
    fault: str
    strike: Callable[[Ground], Awaitable[Verdict]]
    alone: bool  # it measures: nothing else may keep the machine busy meanwhile

    def __str__(self) -> str:
        return f"{self.number} {self.fault}"

    async def struck(self, ground: Ground, seed: int) -> Verdict:
        """Do the damage, and judge. The same seed gives the same damage."""
        ground.start_over(chance_of(seed, self))
        async with asyncio.timeout(ground.scale.patience_seconds):
            return await self.strike(ground)


def chance_of(seed: int, case: Case) -> Random:
    """What is left to chance in a case."""
    return Random(f"{seed} {case}")


CASES: list[Case] = []


def case(number: str, fault: str, *, alone: bool = False) -> Callable[[Callable[[Ground], Awaitable[Verdict]]], None]:
    """Put a case on the list."""

    def add(strike: Callable[[Ground], Awaitable[Verdict]]) -> None:
        CASES.append(Case(number, fault, strike, alone))

    return add
