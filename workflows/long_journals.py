"""What the code of a cohort was told is kept on record, in parts, if it is too much to hand to the next run."""

from collections.abc import Iterable
from typing import Any

from temporalio import workflow
from temporalio.common import Priority

from activities.journey_inputs import JournalPart
from workflows import journals
from workflows.options import NOTING
from workflows.passes import Entry, Pass

# Temporal takes 2 MiB in one piece, also of what can't be made shorter.
MOST_IN_HAND, MOST_IN_A_PART = 500_000, 500_000  # bytes


class LongJournals:
    """Adds parts, and reads them all when the next run begins."""

    def __init__(self, ids: dict[str, Any], priority: Priority, parts: int) -> None:
        self.parts = parts  # so many there are
        self._ids = ids
        self._priority = priority

    async def keep(self, passes: Iterable[Pass]) -> bool:
        """Whether there was more than may be handed over; then it is on record now."""
        those = [(one, size) for one in passes if (size := _size(one))]
        if sum(size for _, size in those) <= MOST_IN_HAND:
            return False
        if len(journals.pack(journals.write_logs(one for one, _ in those))) <= MOST_IN_HAND:
            return False  # contacts have most of it in common
        part: list[Pass] = []
        room = MOST_IN_A_PART
        for one, size in those:
            if part and size > room:
                await self._keep(part)
                part, room = [], MOST_IN_A_PART
            part.append(one)
            room -= size
        await self._keep(part)
        return True

    async def _keep(self, part: list[Pass]) -> None:
        written = journals.pack(journals.write_logs(part))
        ends = [len(one.log) for one in part]
        await self._execute("keep_journal", self.parts, written)
        self.parts += 1
        for one, end in zip(part, ends, strict=True):
            one.kept = end

    async def read(self, passes: dict[int, Pass]) -> None:
        """Have passes that are about to begin know what they were told before the rest of their logs."""
        logs: dict[int, dict[int, Entry]] = {}
        for part in range(self.parts):
            read = journals.read_logs(journals.unpack(await self._execute("read_journal", part)), passes)
            for member, log in read.items():
                # What was kept before it was told is in a later part too, or in hand, with the moment when it was.
                logs.setdefault(member, {}).update((entry.call, entry) for entry in log)
        for member, earlier in logs.items():
            one = passes[member]
            in_hand, one.log, one.remembered = one.log, [], 0
            one.remember((earlier | {entry.call: entry for entry in in_hand}).values())
            one.known.update(earlier)
            one.kept = sum(entry.told_at is not None for entry in earlier.values())

    async def _execute(self, name: str, part: int, content: str = "") -> Any:
        return await workflow.execute_activity(
            name,
            JournalPart(**self._ids, part=part, content=content),
            result_type=str if name == "read_journal" else None,
            summary=f"part {part + 1}",
            priority=self._priority,
            **NOTING,
        )


def _size(one: Pass) -> int:
    return sum(entry.size + 20 for entry in one.log[one.kept :])
