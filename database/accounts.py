"""Accounts: made, read and changed."""

from uuid import UUID

from sqlalchemy import func, insert, select, text, update

from database.engine import Connection, Database
from database.schema import accounts
from marketing.accounts import Account, AccountSettings


async def create(database: Database, settings: AccountSettings) -> UUID:
    """A new account; its id is drawn first, because row-level security wants it named before it is written."""
    async with database.transaction(None) as tx:
        account_id: UUID = (await tx.execute(text("SELECT uuidv7()"))).scalar_one()
    async with database.transaction(account_id) as tx:
        await tx.execute(insert(accounts).values(id=account_id, **settings.model_dump(mode="json")))
    return account_id


async def first(database: Database) -> UUID | None:
    """The oldest account: the one that `carillon up` made."""
    async with database.transaction(None) as tx:
        account_id: UUID | None = (await tx.execute(text("SELECT first_account()"))).scalar_one()
        return account_id


async def read(tx: Connection, account_id: UUID) -> Account:
    row = (await tx.execute(select(accounts).where(accounts.c.id == account_id))).mappings().one()
    return Account.model_validate(dict(row))


async def replace(tx: Connection, account_id: UUID, settings: AccountSettings) -> Account:
    columns = settings.model_dump(mode="json", include=set(AccountSettings.model_fields))
    await tx.execute(update(accounts).where(accounts.c.id == account_id).values(**columns, updated_at=func.now()))
    return await read(tx, account_id)
