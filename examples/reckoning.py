"""Do the figures add up?"""

from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table


@dataclass(frozen=True)
class Claim:
    """A figure that Carillon tells or promises, beside what somebody else counted."""

    figure: str
    told: int
    counted: int
    witness: str

    @property
    def holds(self) -> bool:
        return self.told == self.counted


def reckoning(claims: list[Claim]) -> Table:
    """One row for each claim."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    table.add_column("Carillon", justify="right")
    table.add_column("counted", justify="right")
    table.add_column("by")
    table.add_column("")
    for claim in claims:
        verdict = "[green]agrees[/]" if claim.holds else "[bold red]DIFFERS[/]"
        table.add_row(claim.figure, f"{claim.told:,}", f"{claim.counted:,}", claim.witness, verdict)
    return table
