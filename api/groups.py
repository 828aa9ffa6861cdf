"""How do thousands of small requests share few transactions? Those that arrive during one are the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar
from uuid import UUID

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Full(Exception):
    """More is waiting than can be stored in good time: try again in a moment."""


class GroupCommit(Generic[Item, Answer]):
    """Stores items in groups, one account at a time each, and answers when theirs is stored.

    A lone item is stored at once; no timer makes it wait. Under load, groups grow by themselves.

    Args:
        store: puts a group on record in one transaction and gives one answer per item.
        size: how much of a group an item takes; as a rule each is one of many.
        sort: only items of one sort share a group; as a rule all are of one.
        largest: most items in one group, or one alone that is larger.
        most_waiting: once this many wait, more are refused with `Full`.
        at_once: groups that are stored at the same time, each of another account.
        patience_seconds: how long an item waits for its answer.
    """

    def __init__(
        self,
        store: Callable[[UUID, Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        size: Callable[[Item], int] = lambda _: 1,
        sort: Callable[[Item], object] = lambda _: None,
        largest: int = 500,
        most_waiting: int = 10_000,
        at_once: int = 4,
        patience_seconds: float = 60.0,
    ) -> None:
        self._store = store
        self._size = size
        self._sort = sort
        self._largest = largest
        self._most_waiting = most_waiting
        self._patience_seconds = patience_seconds
        self._slots = asyncio.Semaphore(at_once)
        self._waiting: dict[UUID, deque[tuple[Item, asyncio.Future[Answer]]]] = {}
        self._count = 0
        self._patient: deque[tuple[float, asyncio.Future[Answer]]] = deque()  # all of them, and until when each waits
        self._watched = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, account_id: UUID, item: Item) -> Answer:
        """Wait until the item is stored.

        Raises:
            Full: nothing was stored.
            TimeoutError: it took too long or was broken off; it may be stored yet.
            Exception: whatever `store` raised for the group.
        """
        if self._count >= self._most_waiting:
            raise Full("Too much is waiting to be stored.")
        self._count += self._size(item)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if account_id in self._waiting:
            self._waiting[account_id].append((item, answer))
        else:
            self._waiting[account_id] = deque([(item, answer)])
            task = asyncio.create_task(self._work_off(account_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._patient.append((loop.time() + self._patience_seconds, answer))
        if not self._watched:
            self._watch()
        return await answer

    async def close(self) -> None:
        """Store what is waiting."""
        await asyncio.gather(*self._tasks)

    async def _work_off(self, account_id: UUID) -> None:
        waiting = self._waiting[account_id]
        group: list[tuple[Item, asyncio.Future[Answer]]] = []
        try:
            while waiting:
                async with self._slots:
                    group = self._next(waiting)
                    await self._answer(account_id, group)
        finally:  # even if we are cancelled: all are told, and the next item starts afresh
            del self._waiting[account_id]
            self._count -= sum(self._size(item) for item, _ in waiting)
            for _, waiter in (*group, *waiting):
                if not waiter.done():
                    waiter.set_exception(TimeoutError("Storing was broken off."))

    def _next(self, waiting: deque[tuple[Item, asyncio.Future[Answer]]]) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """As many as go into one group, taken from what is waiting."""
        group = [waiting.popleft()]
        taken, sort = self._size(group[0][0]), self._sort(group[0][0])
        while waiting and self._sort(waiting[0][0]) == sort:
            if (more := self._size(waiting[0][0])) > self._largest - taken:
                break
            group.append(waiting.popleft())
            taken += more
        self._count -= taken
        return group

    async def _answer(self, account_id: UUID, group: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._store(account_id, [item for item, _ in group])
            answered = list(zip(group, answers, strict=True))
        except Exception as error:
            for _, waiter in group:
                if not waiter.done():
                    waiter.set_exception(error)
            return
        for (_, waiter), answer in answered:
            if not waiter.done():  # whoever asked may be gone
                waiter.set_result(answer)

    def _watch(self) -> None:
        """Tell those whose patience is over. One timer for all: to set one for each took 8 µs of a click's 100."""
        loop = asyncio.get_running_loop()
        while self._patient and (self._patient[0][1].done() or self._patient[0][0] <= loop.time()):
            _, answer = self._patient.popleft()
            if not answer.done():
                answer.set_exception(TimeoutError("It was not stored in good time."))
        self._watched = bool(self._patient)
        if self._watched:
            loop.call_later(self._patience_seconds / 50, self._watch)
