"""`python -m bench`: how fast is Carillon on this machine, beside what is possible on it?"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import (
    events,
    experiments,
    following,
    imports,
    journeys,
    machine,
    million,
    segments,
    sending,
    snapshot,
    tracking,
)
from bench.bench import QUICK, Bench, Sizes
from bench.relay import best_kind
from bench.stack import running
from bench.table import Row, on_the_page, table
from settings import Settings

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

# In the order in which they are measured. A new one is a module with a `measure` and a line here.
MEASURES: dict[str, Callable[[Bench], AsyncIterator[Row]]] = {
    "import": imports.measure,
    "send": sending.measure,
    "tracking": tracking.measure,
    "million": million.measure,
    "snapshot": snapshot.measure,
    "events": events.measure,
    "following": following.measure,
    "journeys": journeys.measure,
    "segments": segments.measure,
    "experiments": experiments.measure,
}


def main(
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(MEASURES)}, with commas.")] = "",
    million: Annotated[bool, typer.Option(help="With a campaign to a million recipients: minutes more.")] = False,
    quick: Annotated[bool, typer.Option(help="Smaller numbers, for a first look.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    sink: Annotated[
        str, typer.Option(help="The mail server: smtp-sink or channels.sink. [default: what is there]")
    ] = "",
) -> None:
    """Measure Carillon with everything it brings, on this machine, and print one table."""
    chosen = set(only.split(",")) if only else set(MEASURES) - {"million"}
    chosen |= {"million"} if million else set()
    if unknown := chosen - set(MEASURES):
        raise typer.BadParameter(f"there is no measure {', '.join(sorted(unknown))}", param_hint="--only")
    settings = Settings()
    if settings.database_url or settings.temporal_address:
        sys.exit(
            "bench: unset CARILLON_DATABASE_URL and CARILLON_TEMPORAL_ADDRESS; the servers it measures are its own"
        )
    sink = sink or best_kind()
    facts = machine.describe() | {"workers": workers, "connections": settings.smtp_connections, "sink": sink}
    measures = [measure for name, measure in MEASURES.items() if name in chosen]
    rows = asyncio.run(measured(measures, QUICK if quick else Sizes(), facts))
    whole = not only and not quick  # a part leaves the results of the whole alone
    if whole:
        _keep({**facts, "rows": [row.facts() for row in rows]})
    title = f"Carillon on {facts['cores']} cores ({facts['cpu']}), {workers} workers, mail to {sink}"
    Console(width=None if sys.stdout.isatty() else 160).print(table(title, rows, f"Also in {RESULTS}" if whole else ""))


def _keep(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{on_the_page(results)}{END}{after}")


async def measured(
    measures: Sequence[Callable[[Bench], AsyncIterator[Row]]], sizes: Sizes, facts: dict[str, Any]
) -> list[Row]:
    """The rows of these measures, on a stack of their own whose versions are added to the facts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        starting = progress.add_task("start the stack", total=1)
        async with running(facts["sink"], facts["workers"]) as (stack, relay):
            progress.update(starting, completed=1)
            facts["versions"] |= await stack.versions()
            bench = Bench(stack, relay, sizes, facts["workers"], facts["connections"], progress)
            return [row for measure in measures async for row in measure(bench)]


if __name__ == "__main__":
    typer.run(main)
