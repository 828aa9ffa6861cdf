"""Journals of cohorts that are too long for what one run hands to the next are kept, and read again."""

from dataclasses import dataclass

from temporalio import activity

from activities.journey_inputs import JournalPart
from database import journals
from database.engine import Database


@dataclass
class Journals:
    database: Database

    @activity.defn
    async def keep_journal(self, part: JournalPart) -> None:
        async with self.database.transaction(part.account_id) as tx:
            await journals.keep(tx, part.account_id, part.source_id, part.cohort, part.part, part.content)

    @activity.defn
    async def read_journal(self, part: JournalPart) -> str:
        async with self.database.transaction(part.account_id) as tx:
            return await journals.read(tx, part.source_id, part.cohort, part.part)
