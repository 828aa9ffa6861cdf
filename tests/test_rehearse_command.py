"""`carillon rehearse`, typed as people type it, against a real server."""

import json

import httpx

from tests.audience import EMAIL, people
from tests.commands import carillon
from tests.conftest import TestAccount
from tests.test_contacts_command import url  # noqa: F401  # a fixture

WELCOME = {
    "name": "Welcome",
    "trigger": {"type": "api"},
    "steps": [
        {"id": "welcome", "type": "send", "content": EMAIL},
        {"type": "wait_for", "event": "message.clicked", "within": "3 days"},
    ],
}


async def test_the_timeline_is_printed_for_people_or_as_json(
    account: TestAccount,
    api: httpx.AsyncClient,
    url: str,  # noqa: F811  # it is that fixture
) -> None:
    (contact,) = await people(account, 1)
    assert (await api.post("/api/automations", json=WELCOME)).status_code == 201
    words = ["rehearse", "Welcome", "--contact", str(contact), "--script", "clicks welcome on day 2", "--url", url]
    code, said = await carillon(*words, "--texts", CARILLON_API_KEY=account.key)
    assert code == 0, said
    lines = said.splitlines()
    assert any("Send “welcome” → sent “Hello Person 1”" in line for line in lines)
    assert any("| Hello Person 1!" in line for line in lines)
    assert any("“message.clicked”" in line and line.endswith("→ happened") for line in lines)
    assert lines[-1].startswith("1 of 1 entered; 2.0 days in ") and lines[-1].endswith("; 1 completed")
    code, said = await carillon(*words, "--json", CARILLON_API_KEY=account.key)
    assert code == 0 and json.loads(said)["summary"]["sent"] == {"welcome": 1}


async def test_what_the_api_refuses_is_told_in_one_line(account: TestAccount, url: str) -> None:  # noqa: F811  # as above
    for words, says in (
        (["Nothing"], "carillon: there is no automation called “Nothing”"),
        ([str(account.id), "--campaign"], "carillon: There is no such campaign."),
        ([str(account.id), "--script", "dances"], "carillon: body.script.0"),
    ):
        code, said = await carillon("rehearse", *words, "--url", url, CARILLON_API_KEY=account.key)
        assert code == 1 and said.startswith(says) and said.count("\n") == 1, said
    code, said = await carillon("rehearse", "Nothing", "--url", "http://127.0.0.1:9", CARILLON_API_KEY=account.key)
    assert code == 1 and "does not answer" in said
