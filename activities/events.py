"""Make room for the events to come, and let go of those that nobody keeps any more."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.heartbeats import beating
from activities.inputs import Forgotten
from database import partitions
from database.engine import Database


@dataclass
class Events:
    """Looks after the table of events.

    Args:
        batch: rows deleted in one transaction.
    """

    database: Database
    batch: int = 10_000

    @activity.defn
    async def make_partitions(self) -> int:
        """So that each event finds the partition of its month; how many are new."""
        async with beating():
            return await partitions.make(self.database)

    @activity.defn
    async def forget_old_events(self) -> Forgotten:
        """Months that no account keeps are dropped; of accounts that keep less than others, events are deleted."""
        forgotten = Forgotten()
        async with beating():
            forgotten.months = await partitions.drop(self.database)
            forgotten.silently = forgotten.months > 0 or activity.info().attempt > 1
            for each in await partitions.shorter_retentions(self.database):
                kept_from = datetime.now(UTC) - timedelta(days=each.days)
                while True:
                    async with self.database.transaction(each.account_id) as tx:
                        deleted = await partitions.forget(tx, kept_from=kept_from, limit=self.batch)
                    forgotten.events += deleted
                    if deleted < self.batch:
                        break
            while deleted := await partitions.forget_keys(self.database, limit=self.batch):
                forgotten.keys += deleted
            await partitions.analyze(self.database)
        return forgotten
