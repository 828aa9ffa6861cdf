"""`/api/contacts`: the people that campaigns reach."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.auth import Editor, Viewer
from api.errors import Conflict, NotFound
from api.paging import Cursor, Limit, Page, page_of
from database import contacts
from database.contacts import Filters, Nameless, Taken
from marketing.contacts import Contact, ContactChanges, NewContact
from marketing.moments import Moment
from marketing.text import Printable

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


def _missing() -> NotFound:
    return NotFound("There is no such contact.")


def _conflict(taken: Taken) -> Conflict:
    return Conflict(str(taken), contact_id=str(taken.other) if taken.other else None)
