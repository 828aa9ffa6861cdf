"""A million recipients, beside a tenth of them: what does not grow with them?"""

from collections.abc import AsyncIterator

from bench.bench import Bench
from bench.sending import cost
from bench.table import Aim, Row


async def measure(bench: Bench) -> AsyncIterator[Row]:
    many = await bench.sent(bench.sizes.many)
    million = await bench.sent(bench.sizes.million)
    among, beside = f"{million.messages:,} recipients", f"{many.messages:,} recipients"
    times, memory = bench.aims(Aim("at most", 1.1, of="ratio")), bench.aims(Aim("at most", 100))
    for row in cost(million, many, most_times=times, most_memory=memory):
        yield row
    yield Row(
        f"events in the longest of {million.kept.runs} histories, {among}",
        million.kept.most_events,
        beside,
        many.kept.most_events,
        "events",
        bench.aims(Aim("at most", 2000)),
    )
    yield Row(
        f"largest payload in a history, {among}",
        million.kept.largest_payload / 1024,
        beside,
        many.kept.largest_payload / 1024,
        "KiB",
        bench.aims(Aim("at most", 256)),
    )
