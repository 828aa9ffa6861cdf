"""Which faults are there, and who does the damage?"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.campaign import Verdict
from tests.chaos.ground import Ground


@dataclass(frozen=True)
class Case:
    """A fault, by its number in docs/reliability.md."""

    number: str
    fault: str
    strike: Callable[[Ground], Awaitable[Verdict]]

    def __str__(self) -> str:
        return f"{self.number} {self.fault}"

    async def struck(self, ground: Ground, seed: int) -> Verdict:
        """Do the damage, and judge. The same seed gives the same damage."""
        ground.start_over(f"{seed} {self}")
        return await self.strike(ground)


CASES: list[Case] = []


def case(number: str, fault: str) -> Callable[[Callable[[Ground], Awaitable[Verdict]]], None]:
    """Put a case on the list."""

    def add(strike: Callable[[Ground], Awaitable[Verdict]]) -> None:
        CASES.append(Case(number, fault, strike))

    return add
