"""Imports: the file in blocks, where we are in it, and what became of its rows."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, func, insert, select, text, update

from database.engine import Connection, Database
from database.schema import import_blocks, import_people, import_rejects, imports
from marketing.contact_files import Position
from marketing.import_columns import ImportPlan
from marketing.import_rows import Reject
from marketing.imports import Import, ImportCounts, ImportOptions, ImportState

BLOCK = 1 << 20  # bytes of the file per row, but for the last


@dataclass(frozen=True)
class Job:
    """What the work on an import needs to know."""

    state: ImportState
    options: ImportOptions
    size: int
    plan: ImportPlan | None
    position: Position
    merged_line: int
    counts: ImportCounts


class GivenUp(Exception):
    """The file had not grown for so long that the import was closed."""


async def create(tx: Connection, account_id: UUID, options: ImportOptions) -> UUID:
    """A new import, whose file is to follow."""
    values = {"account_id": account_id, "options": options.model_dump(mode="json")}
    created: UUID = (await tx.execute(insert(imports).values(values).returning(imports.c.id))).scalar_one()
    return created


async def add_block(tx: Connection, account_id: UUID, import_id: UUID, number: int, data: bytes) -> None:
    """Keep `BLOCK` bytes of the file, or fewer at its end; GivenUp, if it is too late."""
    await _receive(tx, import_id, grown_at=func.now())
    await tx.execute(insert(import_blocks).values(account_id=account_id, import_id=import_id, number=number, data=data))


async def mark_received(tx: Connection, import_id: UUID, size: int) -> None:
    """The file is complete; GivenUp, if it is too late."""
    await _receive(tx, import_id, state=ImportState.WAITING, size=size)


async def _receive(tx: Connection, import_id: UUID, **values: Any) -> None:
    receiving = update(imports).where(imports.c.id == import_id, imports.c.state == ImportState.RECEIVING)
    if not (await tx.execute(receiving.values(**values))).rowcount:
        raise GivenUp


async def forget(tx: Connection, import_id: UUID) -> None:
    """As if the import had never been: its upload was broken off."""
    await tx.execute(delete(imports).where(imports.c.id == import_id))


@dataclass(frozen=True)
class OpenImport:
    """An import that waits for its workflow, or whose upload (`receiving`) has broken off."""

    account_id: UUID
    import_id: UUID
    state: ImportState


async def open_imports(database: Database) -> list[OpenImport]:
    """Imports of all accounts that the sweep looks after."""
    async with database.transaction(None) as tx:
        rows = await tx.execute(text("SELECT account_id, import_id, state FROM open_imports()"))
        return [OpenImport(row.account_id, row.import_id, ImportState(row.state)) for row in rows]


async def window(tx: Connection, import_id: UUID, offset: int, length: int) -> bytes:
    """The bytes of the file from `offset` on, as many as there are up to `length`."""
    first, last = offset // BLOCK, (offset + length - 1) // BLOCK
    query = select(import_blocks.c.data).where(
        import_blocks.c.import_id == import_id, import_blocks.c.number.between(first, last)
    )
    data = b"".join((await tx.execute(query.order_by(import_blocks.c.number))).scalars())
    return data[offset - first * BLOCK :][:length]


async def load(tx: Connection, import_id: UUID, *, lock: bool = False) -> Job:
    """How the import stands; with `lock`, nobody else moves it until this transaction ends."""
    query = select(imports).where(imports.c.id == import_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).one()
    return Job(
        state=ImportState(row.state),
        options=ImportOptions.model_validate(row.options),
        size=row.size,
        plan=ImportPlan.model_validate(row.plan) if row.plan else None,
        position=Position.model_validate(row.position),
        merged_line=row.merged_line,
        counts=ImportCounts.model_validate(row.counts),
    )


async def move(tx: Connection, import_id: UUID, **values: Any) -> None:
    """Note how far the import has come."""
    await tx.execute(update(imports).where(imports.c.id == import_id).values(**values))


async def finish(tx: Connection, import_id: UUID, state: ImportState, problem: str = "") -> None:
    """Close the books: the counts and the rejects stay, the file and the staged people go."""
    closing = update(imports).where(imports.c.id == import_id, imports.c.finished_at.is_(None))
    await tx.execute(closing.values(state=state, problem=problem, finished_at=func.now()))
    await tx.execute(delete(import_blocks).where(import_blocks.c.import_id == import_id))
    await tx.execute(delete(import_people).where(import_people.c.import_id == import_id))


_ADD_REJECTS = text("""
    INSERT INTO import_rejects (account_id, import_id, line, raw, reason)
    SELECT :account_id, :import_id, line, raw, reason
    FROM jsonb_to_recordset(CAST(:rejects AS jsonb)) AS rejects (line bigint, raw text, reason text)
""")


async def add_rejects(tx: Connection, account_id: UUID, import_id: UUID, rejects: list[Reject]) -> None:
    if rejects:
        documents = orjson.dumps(rejects).decode()
        await tx.execute(_ADD_REJECTS, {"account_id": account_id, "import_id": import_id, "rejects": documents})


async def rejects(tx: Connection, import_id: UUID, *, after: int, limit: int) -> list[Reject]:
    """Rejects in the order of their lines, from behind the line `after`."""
    table = import_rejects.c
    query = select(table.line, table.raw, table.reason).where(table.import_id == import_id, table.line > after)
    return [Reject(*row) for row in await tx.execute(query.order_by(table.line).limit(limit))]


async def find(tx: Connection, import_id: UUID) -> Import | None:
    row = (await tx.execute(select(imports).where(imports.c.id == import_id))).one_or_none()
    return _readable(row) if row else None


async def page(tx: Connection, *, after: UUID | None, limit: int) -> list[Import]:
    query = select(imports).order_by(imports.c.id.desc()).limit(limit)
    if after:
        query = query.where(imports.c.id < after)
    return [_readable(row) for row in await tx.execute(query)]


def _readable(row: Any) -> Import:
    position = Position.model_validate(row.position)
    progress = (position.offset / max(row.size, 1) + row.merged_line / position.line) / 2
    return Import(
        id=row.id,
        status=ImportState(row.state),
        problem=row.problem,
        filename=row.options["filename"],
        source=row.plan["source"] if row.plan else "",
        progress=1.0 if row.state == ImportState.COMPLETED else round(min(progress, 0.999), 3),
        counts=ImportCounts.model_validate(row.counts),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
