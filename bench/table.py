"""The table, on the screen and on the page: each figure beside a reference from the same run, and the aim it had."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True)
class Aim:
    """A bound, of the figure itself or of its ratio to the reference."""

    word: Literal["at least", "at most"]
    bound: float
    of: Literal["figure", "ratio"] = "figure"

    def __str__(self) -> str:
        sign = "≥" if self.word == "at least" else "≤"
        return f"{sign} {self.bound:.0%}" if self.of == "ratio" else f"{sign} {self.bound:,g}"

    def reached(self, row: "Row") -> bool:
        holds = operator.ge if self.word == "at least" else operator.le
        return bool(holds(row.ratio if self.of == "ratio" else row.figure, self.bound))


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what it is held against, both in the same unit."""

    what: str
    figure: float
    beside: str
    reference: float
    unit: str
    aims: Sequence[Aim] = ()

    @property
    def ratio(self) -> float:
        return self.figure / self.reference

    def facts(self) -> dict[str, Any]:
        aims = [{"aim": str(aim), "reached": aim.reached(self)} for aim in self.aims]
        return asdict(self) | {"ratio": self.ratio, "aims": aims}


def table(title: str, rows: Sequence[Row], caption: str) -> Table:
    made = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("measured", "beside, in the same run"):
        made.add_column(name)
        made.add_column("", justify="right")
    made.add_column("ratio", justify="right")
    made.add_column("unit")
    made.add_column("aim")
    for row in rows:
        aims = ", ".join(f"{aim} {'[green]✓[/]' if aim.reached(row) else '[red]missed[/]'}" for aim in row.aims)
        made.add_row(row.what, _told(row.figure), row.beside, _told(row.reference), _told(row.ratio), row.unit, aims)
    return made


def on_the_page(results: Mapping[str, Any]) -> str:
    """What `results.json` holds, in Markdown."""
    machine = "{cores} cores of {cpu}, {memory_gib} GiB, {workers} workers, mail to {sink}".format_map(results)
    when = "{at:.10}, commit `{commit}`, Python {versions[python]}, load before {load_before[0]}".format_map(results)
    lines = ["| measured | figure | beside | reference | ratio | unit | aim |", "|---|--:|---|--:|--:|---|---|"]
    for row in results["rows"]:
        aims = ", ".join(f"{aim['aim']}: {'reached' if aim['reached'] else '**missed**'}" for aim in row["aims"])
        cells = (
            row["what"],
            _told(row["figure"]),
            row["beside"],
            _told(row["reference"]),
            _told(row["ratio"]),
            row["unit"],
        )
        lines.append(f"| {' | '.join(cells)} | {aims} |")
    return f"{machine}; {when}:\n\n" + "\n".join(lines) + "\n"


def _told(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 10 else f"{number:.2f}"
