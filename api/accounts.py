"""`/api/account`: the account that a key belongs to."""

from fastapi import APIRouter

from api.auth import Owner, Viewer
from database import accounts
from marketing.accounts import Account, AccountSettings

router = APIRouter(prefix="/api/account", tags=["account"])


@router.get("")
async def read_account(caller: Viewer) -> Account:
    """The account, with its sending rules."""
    async with caller.transaction() as tx:
        return await accounts.read(tx, caller.account_id)


@router.put("")
async def replace_account(settings: AccountSettings, caller: Owner) -> Account:
    """Replace the account's settings; running campaigns follow with their next set of messages."""
    async with caller.transaction() as tx:
        return await accounts.replace(tx, caller.account_id, settings)
