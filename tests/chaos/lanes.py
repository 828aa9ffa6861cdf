"""Several stacks side by side, each with one case after the other: most of a case is waiting."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.chaos.campaign import Verdict
from tests.chaos.cases import Case
from tests.chaos.ground import Scale, ground

Verdicts = dict[Case, asyncio.Future[Verdict]]


@asynccontextmanager
async def struck(cases: Sequence[Case], scale: Scale, seed: int, lanes: int) -> AsyncIterator[Verdicts]:
    """The verdicts on these cases, each as soon as it is there."""
    verdicts: Verdicts = {case: asyncio.get_running_loop().create_future() for case in cases}
    waiting = deque(case for case in cases if not case.alone)

    async def lane(cases: deque[Case]) -> None:
        if not cases:
            return
        async with ground(scale) as it:
            while cases:
                case = cases.popleft()
                try:
                    verdicts[case].set_result(await case.struck(it, seed))
                except Exception as error:  # one that can't be judged: the others still can
                    verdicts[case].set_exception(error)

    async def all_lanes() -> None:
        await asyncio.gather(*(lane(waiting) for _ in range(min(lanes, len(waiting)))))
        await lane(deque(case for case in cases if case.alone))

    def give_up(work: asyncio.Task[None]) -> None:
        for verdict in verdicts.values():
            if not verdict.done():
                verdict.set_exception(work.exception() or RuntimeError("nobody took this case"))

    work = asyncio.create_task(all_lanes())
    work.add_done_callback(lambda done: None if done.cancelled() else give_up(done))
    try:
        yield verdicts
    finally:
        if not all(verdict.done() for verdict in verdicts.values()):
            work.cancel()  # else the stacks are ending by themselves
        await asyncio.wait([work])
