"""What an import's workflow does: look at the file, stage its rows, merge its people."""

import asyncio
from dataclasses import dataclass

from temporalio import activity

from activities.inputs import ImportFailure, ImportProgress, ImportRef
from database import import_people, imports
from database.engine import Database
from database.imports import BLOCK, Job
from marketing.contact_files import EncodingVotes, NoHeader, Position, read_header, read_records
from marketing.import_columns import Unreadable, plan_for
from marketing.import_rows import Batch, RowReader, read_batch
from marketing.imports import ImportCounts, ImportState

# So that an activity lasts seconds: long enough for a short history (1 M rows in some 200 events), short enough for
# the operators' page to move.
WINDOWS_AT_ONCE = 12
PEOPLE_AT_ONCE = 8_000
SETS_AT_ONCE = 12
# After how many sets the planner is told of the new size of a table.
GROWTH = {0, *(8**power for power in range(1, 7))}


@dataclass
class Imports:
    """Every step may run twice: it takes effect with the transaction that moves the import's own position."""

    database: Database

    @activity.defn
    async def examine_file(self, ref: ImportRef) -> ImportProgress:
        """Find out how the file is written and what its columns are; an unreadable file fails the import."""
        async with self.database.transaction(ref.account_id) as tx:
            job = await imports.load(tx, ref.import_id)
        if job.state is not ImportState.WAITING:
            return _progress(job)
        votes = EncodingVotes()
        for offset in range(0, job.size, BLOCK):
            votes.add(await self._window(ref, offset))
            activity.heartbeat(offset)
        first = await self._window(ref, 0)
        try:
            cells, form, position = read_header(first, votes.result(), final=len(first) >= job.size)
            plan = plan_for(cells, form, job.options.columns)
        except (NoHeader, Unreadable) as error:
            return await self.fail_import(ImportFailure(**ref.model_dump(), problem=str(error)))
        values = {"plan": plan.model_dump(mode="json"), "position": position.model_dump(mode="json")}
        async with self.database.transaction(ref.account_id) as tx:
            if (await imports.load(tx, ref.import_id, lock=True)).state is ImportState.WAITING:
                await imports.move(tx, ref.import_id, state=ImportState.READING, **values)
            return _progress(await imports.load(tx, ref.import_id))

    @activity.defn
    async def stage_rows(self, ref: ImportRef) -> ImportProgress:
        """Read some windows of the file into the staging table; each is read while the one before is written."""
        async with self.database.transaction(ref.account_id) as tx:
            job = await imports.load(tx, ref.import_id)
        if job.state is not ImportState.READING or job.plan is None:
            return _progress(job)
        reader = RowReader(job.plan, job.options)
        reading = asyncio.create_task(self._read(ref, job, reader, job.position))
        try:
            for _ in range(WINDOWS_AT_ONCE):
                start = job.position
                batch, documents, end = await reading
                reading = asyncio.create_task(self._read(ref, job, reader, end))
                job = await self._stage(ref, batch, documents, start, end)
                activity.heartbeat(end.offset)
                if job.state is not ImportState.READING or job.position != end:
                    break
        finally:
            reading.cancel()
        return _progress(job)

    @activity.defn
    async def merge_people(self, ref: ImportRef) -> ImportProgress:
        """Merge some sets of staged people into the contacts; the last one closes the import."""
        for _ in range(SETS_AT_ONCE):
            async with self.database.transaction(ref.account_id) as tx:
                job = await imports.load(tx, ref.import_id, lock=True)
                if job.state is not ImportState.MERGING:
                    break
                counts, line = await import_people.merge(
                    tx,
                    ref.account_id,
                    ref.import_id,
                    after=job.merged_line,
                    most=PEOPLE_AT_ONCE,
                    proof={
                        "import": str(ref.import_id),
                        "file": job.options.filename,
                        "statement": job.options.consent,
                    },
                )
                if line is None or job.counts.merged // PEOPLE_AT_ONCE in GROWTH:
                    await import_people.analyze(tx, "contacts", "subscriptions")
                if line is None:
                    await imports.finish(tx, ref.import_id, ImportState.COMPLETED)
                else:
                    await imports.move(tx, ref.import_id, merged_line=line, counts=(job.counts + counts).model_dump())
                job = await imports.load(tx, ref.import_id)
            activity.heartbeat(job.merged_line)
        return _progress(job)

    @activity.defn
    async def fail_import(self, failure: ImportFailure) -> ImportProgress:
        """End the import with what it has done so far."""
        async with self.database.transaction(failure.account_id) as tx:
            await imports.finish(tx, failure.import_id, ImportState.FAILED, failure.problem)
            return _progress(await imports.load(tx, failure.import_id))

    async def _window(self, ref: ImportRef, offset: int) -> bytes:
        async with self.database.transaction(ref.account_id) as tx:
            return await imports.window(tx, ref.import_id, offset, BLOCK)

    async def _read(
        self, ref: ImportRef, job: Job, reader: RowReader, start: Position
    ) -> tuple[Batch, bytes, Position]:
        """What the file says from `start` on. In a thread, so that heartbeats and queries go on meanwhile."""
        window = await self._window(ref, start.offset)
        assert job.plan is not None
        form, final = job.plan.form, start.offset + len(window) >= job.size

        def work() -> tuple[Batch, bytes, Position]:
            records, end = read_records(window, form, start, final=final)
            batch = read_batch(records, reader)
            return batch, batch.documents(), end

        return await asyncio.to_thread(work)

    async def _stage(self, ref: ImportRef, batch: Batch, documents: bytes, start: Position, end: Position) -> Job:
        async with self.database.transaction(ref.account_id) as tx:
            job = await imports.load(tx, ref.import_id, lock=True)
            if job.state is not ImportState.READING or job.position != start:
                return job  # another attempt at this activity was faster
            counts = ImportCounts(rows=batch.rows, rejected=len(batch.rejects), duplicates=batch.duplicates)
            await imports.add_rejects(tx, ref.account_id, ref.import_id, batch.rejects)
            counts += await import_people.stage(tx, ref.account_id, ref.import_id, documents)
            if start.offset // BLOCK in GROWTH:
                await import_people.analyze(tx, "import_people")
            state = ImportState.MERGING if end.offset >= job.size else ImportState.READING
            await imports.move(
                tx,
                ref.import_id,
                state=state,
                position=end.model_dump(mode="json"),
                counts=(job.counts + counts).model_dump(),
            )
            return await imports.load(tx, ref.import_id)


def _progress(job: Job) -> ImportProgress:
    counts = job.counts
    return ImportProgress(state=job.state, rows=counts.rows, rejected=counts.rejected, merged=counts.merged)
