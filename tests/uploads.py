"""Files on record as they come through the API, for tests below it."""

from sqlalchemy import text

from activities.inputs import ImportRef
from database import imports
from database.imports import BLOCK
from marketing.imports import ImportOptions
from tests.conftest import TestAccount


async def upload(account: TestAccount, file: bytes) -> ImportRef:
    """An import that waits for its workflow."""
    async with account.transaction() as tx:
        import_id = await imports.create(tx, account.id, ImportOptions())
        for number, offset in enumerate(range(0, len(file), BLOCK)):
            await imports.add_block(tx, account.id, import_id, number, file[offset : offset + BLOCK])
        await imports.mark_received(tx, import_id, len(file))
    return ImportRef(account_id=account.id, import_id=import_id)


async def broken_upload(account: TestAccount, minutes: int = 11) -> ImportRef:
    """An import whose file has not grown for so long."""
    async with account.transaction() as tx:
        import_id = await imports.create(tx, account.id, ImportOptions())
        await imports.add_block(tx, account.id, import_id, 0, b"Email\n")
        await tx.execute(
            text("UPDATE imports SET grown_at = now() - make_interval(mins => :minutes) WHERE id = :id"),
            {"minutes": minutes, "id": import_id},
        )
    return ImportRef(account_id=account.id, import_id=import_id)
