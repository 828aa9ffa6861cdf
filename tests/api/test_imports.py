"""Many contacts at once, from a file, over the API and through the workflow."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from database.imports import BLOCK
from local_stack import EmbeddedTemporal
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from workflows.connection import connect
from workflows.imports import import_workflow_id
from workflows.options import ORCHESTRATION
from workflows.sweeps import SweepWorkflow

pytestmark = pytest.mark.usefixtures("worker")

FILE = (
    "Email Address,First Name,Phone Number,OPTIN_TIME,OPTIN_IP,CC,City,TAGS\r\n"
    'zoe@example.com,Zoë,+33612345678,2024-01-02 03:04:05,192.0.2.7,FR,Paris,"""vip"",""new"""\r\n'
    "ann@example.com,Ann,,2024-01-02 03:04:05,,GB,,\r\n"
    "not an address,Bob,,,,,,\r\n"
    "ANN@example.com,,,,,,London,\r\n"
)
COUNTS = {"rows": 4, "added": 2, "updated": 0, "unchanged": 0, "rejected": 1, "duplicates": 1, "protected": 0}


Imported = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def imported(api: httpx.AsyncClient, temporal: Client) -> Imported:
    """Posts a file and gives the import as it is when all is done."""

    async def post(content: str | bytes | AsyncIterator[bytes], **query: Any) -> dict[str, Any]:
        raw = content.encode() if isinstance(content, str) else content
        headers = {"Content-Type": "text/csv"}
        posted = await api.post("/api/contacts/import", content=raw, headers=headers, params=query)
        assert posted.status_code == 202, posted.text
        return await finished(api, temporal, posted.json()["id"])

    return post


async def finished(api: httpx.AsyncClient, temporal: Client, import_id: str) -> dict[str, Any]:
    await temporal.get_workflow_handle(import_workflow_id(UUID(import_id))).result()
    read: dict[str, Any] = (await api.get(f"/api/contacts/import/{import_id}")).json()
    return read


async def everybody(api: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    contacts = (await api.get("/api/contacts", params={"limit": 500})).json()["items"]
    return {contact["email"]: contact for contact in reversed(contacts)}


async def test_a_file_becomes_contacts_with_exact_counts(api: httpx.AsyncClient, imported: Imported) -> None:
    done = await imported(FILE, filename="subscribed.csv", tag=["spring"])
    assert (done["status"], done["counts"], done["progress"]) == ("completed", COUNTS, 1.0)
    people = await everybody(api)
    assert list(people) == ["zoe@example.com", "ann@example.com"]
    zoe = people["zoe@example.com"]
    assert (zoe["first_name"], zoe["phone"], zoe["country"]) == ("Zoë", "+33612345678", "FR")
    assert (zoe["tags"], zoe["attributes"]) == (["spring", "vip", "new"], {"city": "Paris"})
    (agreed,) = zoe["subscriptions"]
    assert (agreed["status"], agreed["consent"]["how"]) == ("subscribed", "import")
    assert agreed["consent"]["at"] == "2024-01-02T03:04:05Z"
    assert agreed["consent"]["where"] == "192.0.2.7"
    assert agreed["consent"]["proof"]["file"] == "subscribed.csv"
    assert people["ann@example.com"]["attributes"] == {"city": "London"}


async def test_the_same_file_again_changes_nothing(api: httpx.AsyncClient, imported: Imported) -> None:
    await imported(FILE)
    before = await everybody(api)
    again = await imported(FILE)
    assert again["counts"] == COUNTS | {"added": 0, "unchanged": 2}
    assert await everybody(api) == before


async def test_what_a_file_leaves_empty_stays_and_the_rest_is_laid_over(
    api: httpx.AsyncClient, imported: Imported
) -> None:
    await imported(FILE)
    done = await imported("Email,First Name,City\nzoe@example.com,,Lyon\nann@example.com,Anne,\n", tag="second")
    assert (done["counts"]["updated"], done["counts"]["added"]) == (2, 0)
    people = await everybody(api)
    assert people["zoe@example.com"]["first_name"] == "Zoë"
    assert people["zoe@example.com"]["attributes"] == {"city": "Lyon"}
    assert people["ann@example.com"]["first_name"] == "Anne"
    assert people["ann@example.com"]["tags"] == ["second"]


async def test_whoever_unsubscribed_stays_unsubscribed_whatever_the_file_says(
    api: httpx.AsyncClient, imported: Imported
) -> None:
    await imported(FILE)
    zoe = (await everybody(api))["zoe@example.com"]
    left = {"channel": "email", "status": "unsubscribed", "consent": {"how": "one-click"}}
    await api.patch(f"/api/contacts/{zoe['id']}", json={"subscriptions": [left]})
    done = await imported(FILE)
    assert done["counts"]["protected"] == 1
    assert (await everybody(api))["zoe@example.com"]["subscriptions"][0]["status"] == "unsubscribed"


async def test_who_left_elsewhere_is_unsubscribed_here_and_dead_addresses_are_suppressed(
    api: httpx.AsyncClient, imported: Imported, account: TestAccount
) -> None:
    await imported("Email,Status\na@example.com,subscribed\nb@example.com,subscribed\nc@example.com,subscribed\n")
    done = await imported("Email,Status\na@example.com,unsubscribed\nb@example.com,cleaned\nc@example.com,\n")
    assert (done["counts"]["updated"], done["counts"]["unchanged"]) == (2, 1)
    people = await everybody(api)
    assert people["a@example.com"]["subscriptions"][0]["status"] == "unsubscribed"
    async with account.transaction() as tx:
        rows = (await tx.exec_driver_sql("SELECT channel, address, reason FROM suppressions")).all()
    assert [tuple(row) for row in rows] == [("email", "b@example.com", "bounced")]


async def test_rejects_come_back_as_a_file_that_can_be_corrected_and_imported(
    api: httpx.AsyncClient, imported: Imported
) -> None:
    done = await imported("Email,Note\nbroken,=cmd()\nalso broken,+1\nfine@example.com,x\n")
    answer = await api.get(f"/api/contacts/import/{done['id']}/rejects")
    assert answer.headers["content-type"].startswith("text/csv")
    header, *rows = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert header == ["Carillon line", "Carillon reason", "Email", "Note"]
    assert [(row[0], row[2], row[3]) for row in rows] == [("2", "broken", "'=cmd()"), ("3", "also broken", "'+1")]
    assert "@-sign" in rows[0][1]
    corrected = answer.content.decode().replace("also broken", "b@example.com").replace("broken", "a@example.com")
    again = await imported(corrected)
    assert (again["source"], again["counts"]["added"], again["counts"]["rejected"]) == ("carillon", 2, 0)
    assert (await everybody(api))["a@example.com"]["attributes"] == {"note": "=cmd()"}


def semicolons(text: str) -> bytes:
    return text.replace(",", ";").encode()


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("cp1252"),
        semicolons,
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace(",", "|").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"sep=;\n" + semicolons(text),
    ],
    ids=["bom", "utf-16", "utf-16-be", "cp1252", "semicolons", "tabs", "bars", "cr", "crlf", "sep"],
)
async def test_a_file_means_the_same_however_it_is_written(
    api: httpx.AsyncClient, imported: Imported, encoded: Any
) -> None:
    done = await imported(encoded('Email,Name,Note\nzoe@example.com,Zoë,"two\nlines"\nann@example.com,José,\n'))
    assert done["counts"]["added"] == 2
    people = await everybody(api)
    assert people["zoe@example.com"]["attributes"]["name"] == "Zoë"
    assert people["zoe@example.com"]["attributes"]["note"].split() == ["two", "lines"]
    assert people["ann@example.com"]["attributes"] == {"name": "José"}


async def test_bad_rows_of_every_kind_are_counted_exactly_and_harm_no_other(
    api: httpx.AsyncClient, imported: Imported
) -> None:
    rows = [
        b"good@example.com,x",
        b"bad-utf8@example.com,Jos\xe9",
        b"nul@example.com,a\0b",
        b'huge@example.com,"' + b"x" * 10_000_000 + b'"',
        b"good@EXAMPLE.com,y",
        "x@bücher.test,ü".encode(),
        "שלום@example.com,רחל".encode(),
        b'formula@example.com,"=HYPERLINK(""http://x.test"")"',
        b"few@example.com",
        b"many@example.com,x,y",
        b"",
        b'quoted@example.com,"line one\nline two, with a ""quote"""',
        b"last@example.com,z",
    ]
    done = await imported(b"Email,Note\n" + b"\n".join(rows))
    assert done["counts"] == COUNTS | {"rows": 12, "added": 6, "rejected": 5, "duplicates": 1}
    people = await everybody(api)
    assert people["quoted@example.com"]["attributes"]["note"] == 'line one\nline two, with a "quote"'
    assert people["good@example.com"]["attributes"]["note"] == "y"
    assert {"x@bücher.test", "שלום@example.com", "formula@example.com", "last@example.com"} < set(people)
    rejects = (await api.get(f"/api/contacts/import/{done['id']}/rejects")).content
    assert len(rejects) < 5_000
    assert [row[0] for row in csv.reader(io.StringIO(rejects.decode("utf-8-sig")))][1:] == ["3", "4", "5", "10", "11"]


async def test_people_known_by_phone_or_external_id_are_found_and_thefts_rejected(
    api: httpx.AsyncClient, imported: Imported
) -> None:
    await imported("Email,Phone,External ID\na@example.com,+33612345678,one\n,+33612345679,two\n")
    done = await imported(
        "Email,Phone,External ID,City\n"
        "a.new@example.com,,one,Paris\n"  # the id knows best: the address has changed
        "b@example.com,+33612345679,,Lyon\n"  # known by phone alone until now
        "c@example.com,+33612345678,,Nice\n"  # the phone of somebody with another address
        "b@example.com,,one,Metz\n",  # the id of another row
    )
    assert done["counts"] == COUNTS | {"rows": 4, "added": 0, "updated": 2, "rejected": 2, "duplicates": 0}
    people = await everybody(api)
    assert {each: people[each]["attributes"]["city"] for each in people} == {
        "a.new@example.com": "Paris",
        "b@example.com": "Lyon",
    }


async def test_columns_are_mapped_on_demand(api: httpx.AsyncClient, imported: Imported) -> None:
    done = await imported(
        "Login,Points,Noise\nzoe@example.com,7,x\n",
        map=["Login=email", "Points=attributes.points:number", "Noise=ignore"],
        subscribe="email",
        consent="agreed at the till",
    )
    assert done["counts"]["added"] == 1
    zoe = (await everybody(api))["zoe@example.com"]
    assert zoe["attributes"] == {"points": 7}
    assert zoe["subscriptions"][0]["consent"]["proof"]["statement"] == "agreed at the till"


async def test_a_form_can_carry_the_file(api: httpx.AsyncClient, temporal: Client) -> None:
    posted = await api.post("/api/contacts/import", files={"file": ("list.csv", FILE.encode(), "text/csv")})
    done = await finished(api, temporal, posted.json()["id"])
    assert (done["counts"], done["filename"]) == (COUNTS, "list.csv")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no header row"),
        (b"Login,Points\nzoe,7\n", "map=Login=email"),
    ],
)
async def test_an_unreadable_file_fails_the_import_and_says_what_to_do(
    api: httpx.AsyncClient, imported: Imported, content: bytes, problem: str
) -> None:
    done = await imported(content)
    assert done["status"] == "failed"
    assert problem in done["problem"]
    refused = await api.get(f"/api/contacts/import/{done['id']}/rejects")
    assert (refused.status_code, refused.json()["detail"]) == (409, done["problem"])


async def test_a_moment_that_cannot_be_kept_is_a_reason_to_reject_and_spoils_no_list(
    api: httpx.AsyncClient, imported: Imported
) -> None:
    done = await imported(
        "Email,OPTIN_TIME\nann@example.com,0001-01-01T00:00:00+14:00\nbob@example.com,9999-12-31T23:59:59-12:00\n"
        "zoe@example.com,2024-01-02T03:04:05+01:00\n"
    )
    assert (done["counts"]["added"], done["counts"]["rejected"]) == (1, 2)
    assert list(await everybody(api)) == ["zoe@example.com"]
    assert "1900 to 2200" in (await api.get(f"/api/contacts/import/{done['id']}/rejects")).text


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "application/zip"])
async def test_what_is_no_csv_file_by_its_content_type_is_refused(api: httpx.AsyncClient, kind: str) -> None:
    refused = await api.post("/api/contacts/import", content=b"{}", headers={"Content-Type": kind})
    assert refused.status_code == 415
    assert f"{kind} can't be imported. Send a CSV file as text/csv" in refused.json()["detail"]
    assert (await api.get("/api/contacts/import")).json()["items"] == []


@pytest.mark.parametrize("kind", ["Text/CSV; charset=utf-8", "application/vnd.ms-excel", "text/plain", ""])
async def test_csv_files_go_by_many_content_types(api: httpx.AsyncClient, kind: str) -> None:
    taken = await api.post("/api/contacts/import", content=FILE.encode(), headers={"Content-Type": kind})
    assert taken.status_code == 202


async def sweep(temporal: Client, account: TestAccount) -> None:
    await temporal.execute_workflow(SweepWorkflow.run, id=f"sweep-{account.id}", task_queue=ORCHESTRATION)


async def test_an_upload_that_goes_on_after_it_was_given_up_is_refused(
    api: httpx.AsyncClient, account: TestAccount, temporal: Client
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield FILE.encode() + b"\r\n" * BLOCK
        async with account.transaction() as tx:
            await tx.exec_driver_sql("UPDATE imports SET grown_at = now() - interval '11 minutes'")
        await sweep(temporal, account)
        yield b"late@example.com,,,,,,,\r\n"

    refused = await api.post("/api/contacts/import", content=content())
    assert (refused.status_code, "Send the file again" in refused.json()["detail"]) == (409, True)
    (given_up,) = (await api.get("/api/contacts/import")).json()["items"]
    assert (given_up["status"], given_up["problem"]) == ("failed", "The upload broke off. Send the file again.")


async def test_an_upload_is_taken_while_temporal_is_away_and_swept_up_later(
    api: httpx.AsyncClient, database: Database, account: TestAccount, temporal: Client
) -> None:
    async with EmbeddedTemporal(durable=False) as server:
        gone = await connect(server.address)
    app = create_app(database, gone, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    async with client_for(app, account.key) as lonely, asyncio.timeout(20):
        posted = await lonely.post("/api/contacts/import", content=FILE.encode())
    assert posted.status_code == 202
    await sweep(temporal, account)
    assert (await finished(api, temporal, posted.json()["id"]))["counts"] == COUNTS


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ({"map": "Login=emial"}, "map: 'emial' is no field"),
        ({"map": "Login"}, "map: 'Login' is no `column=field`"),
        ({"map": "email"}, "map: 'email' is no `column=field`"),
        ({"tag": "x" * 101}, "tag.0: is longer than 100 characters."),
        ({"subscribe": "email"}, "consent="),
        ({"subscribe": "pigeon", "consent": "yes"}, "email"),
        ({"default_region": "Atlantis"}, "no country"),
        ({"filename": "a\0b.csv"}, "control characters"),
        ({"subscribe": "email", "consent": "\0"}, "control characters"),
        ({"map": "\0=email"}, "control characters"),
    ],
)
async def test_malformed_options_are_refused_before_anything_is_stored(
    api: httpx.AsyncClient, query: dict[str, str], hint: str
) -> None:
    refused = await api.post("/api/contacts/import", content=b"Email\n", params=query)
    assert refused.status_code == 422
    assert hint in refused.json()["detail"]
    assert (await api.get("/api/contacts/import")).json()["items"] == []


async def test_imports_are_listed_newest_first_and_to_their_account_alone(
    api: httpx.AsyncClient, imported: Imported, stranger: httpx.AsyncClient
) -> None:
    ids = [(await imported(FILE, filename=f"{n}.csv"))["id"] for n in range(3)]
    first = (await api.get("/api/contacts/import", params={"limit": 2})).json()
    assert [each["id"] for each in first["items"]] == [ids[2], ids[1]]
    rest = (await api.get("/api/contacts/import", params={"cursor": first["next_cursor"]})).json()
    assert [each["filename"] for each in rest["items"]] == ["0.csv"]
    assert (await stranger.get("/api/contacts/import")).json()["items"] == []
    for path in (f"/api/contacts/import/{ids[0]}", f"/api/contacts/import/{ids[0]}/rejects"):
        assert (await stranger.get(path)).status_code == 404


async def test_a_large_file_streams_in_and_out_of_many_windows(api: httpx.AsyncClient, imported: Imported) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"Email,Name,Note\n"
        for start in range(0, 30_000, 1000):
            yield b"".join(b"p%d@example.com,Name %d,%s\n" % (n, n, b"n" * 80) for n in range(start, start + 1000))
        yield b"P0@example.com,Somebody else,\n"

    done = await imported(content())
    assert done["counts"] == COUNTS | {"rows": 30_001, "added": 30_000, "rejected": 0, "duplicates": 1}
