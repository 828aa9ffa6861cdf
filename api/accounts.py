"""`/api/account`: the account that a key belongs to."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from api.auth import Owner, Viewer
from database import accounts
from marketing.accounts import Account, AccountSettings
from marketing.webhooks import WebhookSecrets

router = APIRouter(prefix="/api/account", tags=["account"])


class WebhookSecret(BaseModel):
    """What receivers check the account's webhooks with."""

    secret: str = Field(description="`whsec_…`, as libraries of Standard Webhooks take it.")


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


@router.get("/webhook-secret")
async def read_webhook_secret(request: Request, caller: Owner) -> WebhookSecret:
    """The secret that all webhooks of the account are signed with. It changes with `CARILLON_SECRET_KEY`."""
    secrets: WebhookSecrets = request.app.state.webhook_secrets
    return WebhookSecret(secret=secrets.spelled(caller.account_id))
