"""What the measures share: the stack, the people and campaigns on it, and a progress bar for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.progress import Progress

from bench import campaigns
from bench.campaigns import Run
from bench.relay import Relay
from bench.stack import Running
from bench.table import Aim

WARM_UP = 500  # messages, before any other


@dataclass(frozen=True)
class Sizes:
    """How many recipients, rows, visits and events."""

    few: int = 2_000
    many: int = 100_000
    million: int = 1_000_000
    rows: int = 100_000
    visits: int = 50_000
    events: int = 100_000


QUICK = Sizes(few=1_000, many=10_000, million=50_000, rows=10_000, visits=10_000, events=10_000)


@dataclass
class Bench:
    stack: Running
    relay: Relay
    sizes: Sizes
    workers: int
    connections: int  # SMTP connections of each worker
    progress: Progress
    runs: dict[int, Run] = field(default_factory=dict)
    groups: set[int] = field(default_factory=set)

    def aims(self, *aims: Aim) -> tuple[Aim, ...]:
        """Aims are for whole sizes."""
        return () if self.sizes == QUICK else aims

    async def sent(self, messages: int) -> Run:
        """A campaign to so many that has run to its end, on a stack that is warm; the same for all who ask."""
        if messages not in self.runs:
            if not self.runs and messages != WARM_UP:
                await self.sent(WARM_UP)
            group = await self.people(messages)
            with self.bar(f"send {messages:,} messages", messages) as show:
                self.runs[messages] = await campaigns.send(self.stack, group, messages, show)
        return self.runs[messages]

    async def people(self, count: int) -> str:
        """The tag of a group of so many contacts."""
        group = f"group of {count}"
        if count not in self.groups:
            with self.bar(f"load {count:,} contacts", count) as show:
                await campaigns.load_contacts(self.stack, group, count, show)
            self.groups.add(count)
        return group

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        task = self.progress.add_task(what, total=total)
        yield lambda done: self.progress.update(task, completed=done)
        self.progress.update(task, completed=total)
        self.progress.stop_task(task)
