"""The whole path of a message beside the mail alone; does it cost more where there are many?"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from statistics import quantiles

from bench import ceiling
from bench.bench import Bench
from bench.campaigns import Campaign, Run
from bench.table import Aim, Row

LOOKS = 50


async def measure(bench: Bench) -> AsyncIterator[Row]:
    few, many = await bench.sent(bench.sizes.few), await bench.sent(bench.sizes.many)
    with bench.bar("as many messages, ready-made", many.messages):
        ready_made = await asyncio.to_thread(
            ceiling.messages_per_second,
            bench.relay.url,
            many.messages,
            processes=bench.workers,
            connections=bench.connections,
        )
    yield Row(
        f"{many.messages:,} messages, launch to last row recorded",
        many.per_second,
        "ready-made messages",
        ready_made,
        "messages/s",
        bench.aims(Aim("at least", 3000), Aim("at least", 0.6, of="ratio")),
    )
    for row in cost(many, few):
        yield row
    at_rest: list[float] = []
    with bench.bar("look at a campaign at rest", LOOKS) as show:
        async for _, seconds in Campaign(bench.stack, many.campaign_id).looks():
            at_rest.append(seconds)
            show(len(at_rest))
            if len(at_rest) == LOOKS:
                break
    yield Row(
        "the API's answer while messages leave, p95",
        _p95(many.answers),
        "at rest",
        _p95(at_rest),
        "ms",
    )


def cost(many: Run, few: Run, *, most_times: Sequence[Aim] = (), most_memory: Sequence[Aim] = ()) -> Iterator[Row]:
    """Of a message among many, beside one among few, and of many in memory."""
    among, beside = f", {many.messages:,} recipients", f"{few.messages:,} recipients"
    cpu = many.cpu_milliseconds, beside, few.cpu_milliseconds
    yield Row("CPU per message" + among, *cpu, "ms, all programs", most_times)
    of_database = many.cpu_milliseconds_of("PostgreSQL"), beside, few.cpu_milliseconds_of("PostgreSQL")
    yield Row("of which PostgreSQL's" + among, *of_database, "ms")
    yield Row("time per message" + among, many.milliseconds, beside, few.milliseconds, "ms", most_times)
    log = many.log_bytes / many.messages / 1e3, beside, few.log_bytes / few.messages / 1e3
    yield Row("PostgreSQL's log (WAL) per message" + among, *log, "KB")
    disk = many.disk_bytes / many.messages / 1e3, beside, few.disk_bytes / few.messages / 1e3
    yield Row("database growth per message" + among, *disk, "KB")
    before, growth = many.grown
    memory = growth / 1e6, "what it held before", before / 1e6
    yield Row("growth of a worker's memory" + among, *memory, "MB", most_memory)


def _p95(seconds: list[float]) -> float:
    return 1000 * quantiles(seconds, n=20)[-1]
