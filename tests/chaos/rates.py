"""A rate limit, and workers that join in."""

import asyncio
import signal
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.chaos.campaign import Campaign, Verdict, launched
from tests.chaos.cases import case
from tests.chaos.ground import CONNECTIONS, Ground, ground
from tests.up import CLI, clean_environment

MOST_WORKERS = 4
PER_SECOND = 200


@case("P8", "a rate limit is kept by 1, 2, 3 and 4 workers", alone=True)
async def rate_limit(of: Ground) -> Verdict:
    """On a stack of its own, whose workers are started one after the other while a campaign runs."""
    seconds = of.scale.measure_seconds
    averages, most = list[float](), list[int]()
    async with ground(of.scale, workers=0) as own, AsyncExitStack() as workers:
        messages = PER_SECOND * (seconds + 3) * MOST_WORKERS
        await workers.enter_async_context(_one_more_worker(own))
        campaign = await launched(own, "p8", messages, rate_limit_per_second=PER_SECOND)
        for number in range(MOST_WORKERS):
            if number:
                await workers.enter_async_context(_one_more_worker(own))
            await campaign.arrivals(len(campaign.received) + PER_SECOND)  # it is up, and finds its pace
            first = len(campaign.received)
            await campaign.arrivals(first + PER_SECOND * seconds)
            average, in_one_second = _pace(campaign, first)
            averages.append(average)
            most.append(in_one_second)
        completed = await campaign.over() == "completed"
        verdict = await campaign.judged(completed=completed)
    measured = f"{min(averages):.1f} to {max(averages):.1f} per second of {PER_SECOND}, {max(most)} in one at the most"
    return verdict.and_also(
        measured,
        within_5_percent=all(0.95 <= each / PER_SECOND <= 1.05 for each in averages),
        never_more_than_110_percent_in_a_second=max(most) <= 1.1 * PER_SECOND,
    )


def _pace(campaign: Campaign, first: int) -> tuple[float, int]:
    """Messages per second from this one on, and the most in any one second."""
    at = [each.at for each in campaign.received[first:]]
    return (len(at) - 1) / (at[-1] - at[0]), max(bisect_left(at, began + 1) - n for n, began in enumerate(at))


@asynccontextmanager
async def _one_more_worker(own: Ground) -> AsyncIterator[None]:
    """`carillon worker`, as an operator starts it."""
    state = own.up.state
    settings = {
        "CARILLON_DATABASE_URL": state["database_url"],
        "CARILLON_TEMPORAL_ADDRESS": state["temporal_address"],
        "CARILLON_SECRET_KEY": (own.up.data_dir / "secret_key").read_text(),
        "CARILLON_PUBLIC_URL": state["api_url"],
        "CARILLON_SMTP_URL": own.sink.url,
        "CARILLON_SMTP_CONNECTIONS": str(CONNECTIONS),
    }
    worker = await asyncio.create_subprocess_exec(
        sys.executable, CLI, "worker", env=clean_environment() | settings, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        await worker.wait()
