"""How does Temporal know that an activity is still at work, and not lost with its worker?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

HEARTBEAT_SECONDS = 2.0


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Heartbeats from the beginning of the block to its end, whatever it waits for."""
    beats = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beats.cancel()


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_SECONDS)


@asynccontextmanager
async def until_the_worker_stops() -> AsyncIterator[None]:
    """End the block at once when the worker is asked to stop, wherever it is, for another worker to take it up."""
    block = asyncio.current_task()
    assert block

    async def stop() -> None:
        await activity.wait_for_worker_shutdown()
        block.cancel()

    stopping = asyncio.create_task(stop())
    try:
        yield
    except asyncio.CancelledError:
        if not activity.is_worker_shutdown():
            raise
        raise ApplicationError(
            "The worker stops.", next_retry_delay=timedelta(milliseconds=50), category=ApplicationErrorCategory.BENIGN
        ) from None
    finally:
        stopping.cancel()
