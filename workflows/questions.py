"""What contacts ask of activities: the same step for many is one activity."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError

from activities.journey_inputs import Answer, Caller, StepCall
from workflows.asked import read
from workflows.options import STEPPING
from workflows.passes import Call, Pass

# So many activities at a time: what comes of them still fits into a history that is full (10,000 events).
AT_ONCE = 100
# Bytes that these take along, in one request to Temporal: it has 4 MiB at the most.
AT_WORK = 2 << 20

Group = list[tuple[Pass, Call]]
Take = Callable[[Pass, Call, Answer, datetime], None]


class Questions:
    """Gathers them, asks them, and hands every contact's answer to `take`, with the moment when it was asked."""

    def __init__(self, ids: dict[str, Any], priority: Priority, take: Take) -> None:
        self.asking = 0  # activities at work
        self.answered = False  # one has come back
        self._size = 0  # of what those at work took along
        self._ids = ids
        self._priority = priority
        self._take = take
        self._groups: dict[tuple[str, str, int, bytes, datetime | None], Group] = {}

    def put(self, one: Pass, call: Call) -> None:
        call.stage = "queued"
        key = (call.asks, call.step, call.attempt, call.args, _over_at(call))
        self._groups.setdefault(key, []).append((one, call))

    def ask(self, now: datetime) -> None:
        """As many as may be at work at a time. Others may join those that must wait."""
        for key in list(self._groups)[: AT_ONCE - self.asking]:
            if self.asking and self._size + len(key[3]) > AT_WORK:
                break
            group = [(one, call) for one, call in self._groups.pop(key) if call.is_open and not one.ending]
            if group:
                self.asking += 1
                self._size += len(key[3])
                asyncio.create_task(self._ask(group, now))  # noqa: RUF006  # the loop of a workflow keeps its tasks

    async def _ask(self, group: Group, now: datetime) -> None:
        first = group[0][1]
        for _, call in group:
            call.stage = "asked"
        callers, since = _callers(group)
        step = StepCall(
            **self._ids,
            step=first.step,
            args=read(first.args),
            callers=callers,
            attempt=first.attempt,
            now=now,
            since=since,
            until=_over_at(first),
        )
        try:
            answers = await workflow.execute_activity(
                first.asks,
                step,
                result_type=list[Answer],
                summary=f"{first.step} for {len(group):,}",
                priority=self._priority,
                **STEPPING,
            )
        except ActivityError as error:  # one that no retry can help
            answers = [Answer(error=str(error.cause), final=True)] * len(group)
        if len(answers) != len(group):
            problem = f"{first.asks} gave {len(answers):,} answers for {len(group):,} contacts"
            answers = [Answer(error=problem, final=True)] * len(group)
        for (one, call), answer in zip(group, answers, strict=True):
            self._take(one, call, answer, now)
        self.asking -= 1
        self._size -= len(first.args)
        self.answered = True


def _over_at(call: Call) -> datetime | None:
    return call.until if call.last else None


def _callers(group: Group) -> tuple[list[Caller], datetime | None]:
    """Who they are; and if they wait for something to happen, since when it counts, for each."""
    if group[0][1].until is None:
        return [call.caller for _, call in group], None
    since = min(one.since for one, _ in group)
    return [
        Caller(
            member=one.member,
            call=call.caller.call,
            since=one.since if one.since > since else None,
            heard=one.heard.id if one.heard and one.heard.occurred_at >= one.since else None,
        )
        for one, call in group
    ], since
