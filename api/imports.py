"""`/api/contacts/import`: many contacts at once, from a file of any size."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.inputs import ImportRef
from api.auth import Caller, Editor, Viewer
from api.errors import Conflict, Malformed, NotFound, TooLarge, UnsupportedMedia, documented, message_of
from api.paging import Cursor, Limit, Page, page_of
from database import imports
from database.imports import BLOCK, GivenUp
from marketing.accounts import ChannelName
from marketing.contact_files import Utf8Stream, in_blocks
from marketing.contacts import LONGEST_TAG, MOST_TAGS
from marketing.import_columns import TARGET, ImportPlan
from marketing.import_rows import guarded
from marketing.imports import Import, ImportOptions, ImportState
from marketing.text import Printable
from workflows.imports import ContactImportWorkflow, start_options
from workflows.options import ORCHESTRATION, STARTING

router = APIRouter(prefix="/api/contacts/import", tags=["contacts"])

LARGEST_FILE = 8 << 30
FORM = "multipart/form-data"
# What CSV files are sent as; browsers on Windows know them by the program that opens them.
PLAIN = (
    *("text/csv", "text/plain", "text/tab-separated-values"),
    *("application/csv", "application/vnd.ms-excel", "application/octet-stream"),
)
REJECTS_AT_ONCE = 500

_EXAMPLE = "Email Address,First Name,OPTIN_TIME,Plan\nzoe@example.com,Zoë,2026-11-02 09:30:00,gold\n"
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string"}, "example": _EXAMPLE} for kind in PLAIN},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                },
                "example": {"file": _EXAMPLE},
            },
        },
    }
}


_MAP = rf"^[^\x00-\x08\x0e-\x1f\x7f]*={TARGET}$"


class AcceptedImport(BaseModel):
    """Look at `GET /api/contacts/import/{id}` for how it goes."""

    id: UUID


@router.post("", status_code=202, openapi_extra=_BODY, responses=documented(UnsupportedMedia))
async def import_contacts(
    request: Request,
    caller: Editor,
    columns: Annotated[
        list[Annotated[str, Field(json_schema_extra={"pattern": _MAP})]],
        Query(alias="map", default_factory=list, description="`column=field`; again for each column."),
    ],
    tag: Annotated[
        list[Annotated[Printable, Field(max_length=LONGEST_TAG)]],
        Query(default_factory=list, max_length=MOST_TAGS, description="A tag that everybody in the file gets."),
    ],
    subscribe: Annotated[
        list[ChannelName],
        Query(
            default_factory=list,
            description="A channel that those agreed to of whom the file says nothing, by `consent`.",
        ),
    ],
    consent: Annotated[Printable, Query(max_length=500, description="How they agreed; needed with `subscribe`.")] = "",
    default_region: Annotated[Printable | None, Query(description="The country of national phone numbers.")] = None,
    filename: Annotated[Printable, Query(max_length=255)] = "",
) -> AcceptedImport:
    """Import a CSV file: the exports of Mailchimp, HubSpot, Shopify and Klaviyo as they are, others with `map`.

    Send the file itself as `text/csv` (or as one of the other content types below), or a form with the file in it.
    """
    upload = await _multipart(request)
    options = _options(columns, tag, subscribe, consent, default_region, filename or (upload and upload.filename) or "")
    async with caller.transaction(effective=False) as tx:  # without the whole file nothing comes of it
        import_id = await imports.create(tx, caller.account_id, options)
    try:
        await _receive(caller, import_id, _pieces(upload) if upload else request.stream())
    except (ClientDisconnect, TooLarge):
        async with caller.transaction(effective=False) as tx:
            await imports.forget(tx, import_id)
        raise
    except GivenUp:
        raise Conflict("The upload stood still for so long that it was given up. Send the file again.") from None
    await _ensure_running(request.app.state.temporal, caller.account_id, import_id)
    return AcceptedImport(id=import_id)


@router.get("")
async def list_imports(caller: Viewer, cursor: Cursor = None, limit: Limit = 50) -> Page[Import]:
    """Imports, newest first."""
    async with caller.transaction() as tx:
        found = await imports.page(tx, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)


@router.get("/{import_id}")
async def read_import(request: Request, import_id: UUID, caller: Viewer) -> Import:
    """How an import goes: `status`, `progress` and what became of its rows."""
    async with caller.transaction() as tx:
        found = await imports.find(tx, import_id)
    if found is None:
        raise _missing()
    if found.status is ImportState.WAITING:  # perhaps we fell between storing the file and starting the work
        await _ensure_running(request.app.state.temporal, caller.account_id, import_id)
    return found


@router.get("/{import_id}/rejects", response_class=StreamingResponse, responses={200: {"content": {"text/csv": {}}}})
async def read_rejects(import_id: UUID, caller: Viewer) -> StreamingResponse:
    """The rows that were not taken as CSV, each with its line and the reason: correct them and import this file."""
    async with caller.transaction() as tx:
        found = await imports.find(tx, import_id)
        if found is None:
            raise _missing()
        plan = (await imports.load(tx, import_id)).plan
    if plan is None:  # and so no row was read
        raise Conflict(found.problem or "This file has not been looked at yet. Try again in a moment.")
    headers = {"Content-Disposition": f'attachment; filename="rejects-{import_id}.csv"'}
    return StreamingResponse(_rejects(caller, import_id, plan), media_type="text/csv; charset=utf-8", headers=headers)


def _missing() -> NotFound:
    return NotFound("There is no such import.")


def _options(
    mapped: list[str], tags: list[str], subscribe: list[ChannelName], consent: str, region: str | None, filename: str
) -> ImportOptions:
    if unequal := next((each for each in mapped if "=" not in each), None):
        raise Malformed(f"map: {unequal!r} is no `column=field`.")
    columns = dict(each.rpartition("=")[::2] for each in mapped)
    try:
        return ImportOptions.model_validate(
            {
                "columns": columns,
                "tags": tags,
                "subscribe": subscribe,
                "consent": consent,
                "default_region": region or None,
                "filename": filename,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = first["loc"][0] if first["loc"] else "query"
        raise Malformed(f"{_ASKED_AS.get(option, option)}: {message_of(first).rstrip('.')}.") from None


_ASKED_AS: dict[int | str, str] = {"columns": "map", "tags": "tag"}


async def _multipart(request: Request) -> UploadFile | None:
    """The file of a form, which waits on disk; None if the body is the file itself."""
    kind = (request.headers.get("content-type") or PLAIN[-1]).partition(";")[0].strip().lower()
    if kind in PLAIN:
        return None
    if kind != FORM:
        raise UnsupportedMedia(f"{kind} can't be imported. Send a CSV file as text/csv, or in a form.")
    form = await request.form(max_files=1, max_fields=10)
    upload = next((part for part in form.values() if isinstance(part, UploadFile)), None)
    if upload is None:
        raise Malformed("The form has no file in it. Send it as the part `file`.")
    return upload


async def _pieces(upload: UploadFile) -> AsyncIterator[bytes]:
    while piece := await upload.read(BLOCK):
        yield piece


async def _receive(caller: Caller, import_id: UUID, pieces: AsyncIterator[bytes]) -> None:
    """Keep the file block by block, never the whole of it in memory."""
    size = 0
    number = 0
    async for block in in_blocks(Utf8Stream().convert(pieces), BLOCK):
        size += len(block)
        if size > LARGEST_FILE:
            raise TooLarge(f"A file has at most {LARGEST_FILE >> 30} GiB. Cut it into several.")
        async with caller.transaction(effective=False) as tx:
            await imports.add_block(tx, caller.account_id, import_id, number, block)
        number += 1
    async with caller.transaction() as tx:
        await imports.mark_received(tx, import_id, size)


async def _ensure_running(temporal: Client, account_id: UUID, import_id: UUID) -> None:
    """Start the import's workflow, unless it runs. If Temporal does not answer, the sweep does it, or the next look."""
    ref = ImportRef(account_id=account_id, import_id=import_id)
    try:
        await temporal.start_workflow(
            ContactImportWorkflow.run,
            ref,
            task_queue=ORCHESTRATION,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            rpc_timeout=STARTING,
            **start_options(ref),
        )
    except RPCError:
        return


async def _rejects(caller: Caller, import_id: UUID, plan: ImportPlan) -> AsyncIterator[bytes]:
    # With a byte order mark, for without one spreadsheets misread whatever is not English.
    yield b"\xef\xbb\xbf" + _csv_row(["Carillon line", "Carillon reason", *plan.header])
    line = 0
    while True:
        async with caller.transaction() as tx:
            found = await imports.rejects(tx, import_id, after=line, limit=REJECTS_AT_ONCE)
        for reject in found:
            cells = next(csv.reader(io.StringIO(reject.raw, newline=""), delimiter=plan.form.delimiter), [])
            yield _csv_row([str(reject.line), reject.reason, *map(guarded, cells)])
        if len(found) < REJECTS_AT_ONCE:
            return
        line = found[-1].line


def _csv_row(cells: list[str]) -> bytes:
    row = io.StringIO(newline="")
    csv.writer(row).writerow(cells)
    return row.getvalue().encode()
