"""Who may know what the account's webhooks are signed with?"""

import httpx
from fastapi import FastAPI

from marketing.webhooks import WebhookSecrets
from tests.conftest import SECRET_KEY, TestAccount, client_for

PATH = "/api/account/webhook-secret"


async def test_an_owner_reads_the_secret_of_their_own_account(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, account: TestAccount
) -> None:
    told = (await api.get(PATH)).json()
    assert told == {"secret": WebhookSecrets(SECRET_KEY).spelled(account.id)}
    assert (await stranger.get(PATH)).json() != told


async def test_whoever_may_only_write_campaigns_is_not_told(app: FastAPI, account: TestAccount) -> None:
    async with client_for(app, await account.key_for("editor")) as editor:
        assert (await editor.get(PATH)).status_code == 403
