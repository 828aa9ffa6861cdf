"""`/api/contacts`: the people that campaigns reach."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.auth import Editor, Viewer
from api.errors import Conflict, NotFound
from api.paging import Cursor, Limit, Page, PairCursor, page_of, pair_cursor, read_pair
from database import contacts, timelines
from database.contacts import Filters, Nameless, Taken
from database.timelines import Place
from marketing.contacts import Contact, ContactChanges, NewContact
from marketing.moments import Moment
from marketing.text import Printable
from marketing.timelines import TimelineItem

router = APIRouter(prefix="/api/contacts", tags=["contacts"])

_ONE = "/{contact_id:uuid}"  # /api/contacts/import is no contact


@router.post("", status_code=201, responses={200: {"model": Contact, "description": "Known already, and changed."}})
async def save_contact(new: NewContact, caller: Editor, response: Response) -> Contact:
    """Add a contact, or change the one that has this `external_id`, `email` or `phone`.

    Nobody is subscribed to anything unless `subscriptions` says so, with how they agreed.
    """
    try:
        async with caller.transaction() as tx:
            contact, added = await contacts.save(tx, caller.account_id, new)
    except Taken as taken:
        raise _conflict(taken) from None
    response.status_code = 201 if added else 200
    return contact


@router.get("")
async def list_contacts(
    caller: Viewer,
    cursor: Cursor = None,
    limit: Limit = 50,
    tag: Annotated[Printable | None, Query(description="Only contacts with this tag.")] = None,
    search: Annotated[
        Printable | None, Query(description="What the e-mail address, first or last name begins with.")
    ] = None,
    created_from: Moment | None = None,
    created_until: Annotated[Moment | None, Query(description="Before this moment.")] = None,
) -> Page[Contact]:
    """Contacts, newest first."""
    filters = Filters(tag, search, created_from, created_until)
    async with caller.transaction() as tx:
        found = await contacts.page(tx, filters, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda contact: contact.id)


@router.get(_ONE)
async def read_contact(contact_id: UUID, caller: Viewer) -> Contact:
    """A contact, with what it agreed to."""
    async with caller.transaction() as tx:
        contact = await contacts.find(tx, contact_id)
    if contact is None:
        raise _missing()
    return contact


@router.patch(_ONE)
async def change_contact(contact_id: UUID, changes: ContactChanges, caller: Editor) -> Contact:
    """Change what is given and leave the rest. Null forgets; attributes are merged name by name; tags are replaced."""
    try:
        async with caller.transaction() as tx:
            contact = await contacts.change(tx, caller.account_id, contact_id, changes)
    except Taken as taken:
        raise _conflict(taken) from None
    except Nameless as nameless:
        raise Conflict(str(nameless)) from None
    if contact is None:
        raise _missing()
    return contact


@router.delete(_ONE, status_code=204)
async def delete_contact(contact_id: UUID, caller: Editor) -> None:
    """Delete a contact: nothing that has not left yet is sent to them any more."""
    async with caller.transaction() as tx:
        if not await contacts.remove(tx, contact_id):
            raise _missing()


@router.get(f"{_ONE}/timeline")
async def timeline_of_contact(
    contact_id: UUID,
    caller: Viewer,
    name: Annotated[
        Printable | None, Query(max_length=200, description="Such as `message.*` or `contact.changed`.")
    ] = None,
    cursor: PairCursor = None,
    limit: Limit = 50,
) -> Page[TimelineItem]:
    """Everything that happened to one person, newest first, and before it the messages that are still to come.

    Messages that were not sent are among it, with the reason why. Who was deleted keeps a timeline.
    """
    async with caller.transaction() as tx:
        if not await timelines.is_there(tx, contact_id):
            raise _missing()
        found = await timelines.page(tx, contact_id, name=name, after=_place(cursor), limit=limit + 1)
    return page_of(found, limit, lambda last: pair_cursor(UUID(int=(last.at - _FIRST) // _TICK), last.id))


_FIRST, _LAST, _TICK = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), timedelta(microseconds=1)


def _place(cursor: str | None) -> Place | None:
    """Where the page before ended: a moment, counted from the first that there is, and an id."""
    if (pair := read_pair(cursor)) is None:
        return None
    ticks, id = pair
    return Place(_FIRST + min(ticks.int, (_LAST - _FIRST) // _TICK) * _TICK, id)


def _missing() -> NotFound:
    return NotFound("There is no such contact.")


def _conflict(taken: Taken) -> Conflict:
    return Conflict(str(taken), contact_id=str(taken.other) if taken.other else None)
