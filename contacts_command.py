"""`carillon contacts`: a file of people is handed to the API, as any other program would."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from settings import settings

if TYPE_CHECKING:  # other commands answer at once
    import httpx

contacts = typer.Typer(no_args_is_help=True, help="The people that campaigns reach.")


@contacts.command("import")
def import_contacts(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A CSV file.")],
    columns: Annotated[list[str] | None, typer.Option("--map", help="`column=field`; again for each column.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag that everybody in the file gets.")] = None,
    subscribe: Annotated[
        list[str] | None, typer.Option(help="A channel that those agreed to of whom the file says nothing.")
    ] = None,
    consent: Annotated[str, typer.Option(help="How they agreed; needed with --subscribe.")] = "",
    default_region: Annotated[str, typer.Option(help="The country of national phone numbers, such as FR.")] = "",
    rejects: Annotated[
        Path | None,
        typer.Option(dir_okay=False, writable=True, help="Where to write the rows that were not taken, as CSV."),
    ] = None,
    url: Annotated[str, typer.Option(help="Where the API is. [default: CARILLON_PUBLIC_URL]")] = "",
) -> None:
    """Import contacts from a CSV file over the API, with the key in CARILLON_API_KEY."""
    query = {
        "filename": file.name,
        "map": columns or [],
        "tag": tag or [],
        "subscribe": subscribe or [],
        "consent": consent,
        "default_region": default_region,
    }
    if rejects and not os.access(rejects.parent, os.W_OK):
        sys.exit(f"carillon: {rejects.parent} is no folder that the rejected rows can be written to")
    with asking(url) as client:
        try:
            done = _import_file(client, file, query)
            counts: dict[str, int] = done["counts"]
            print(", ".join(f"{number:,} {name}" for name, number in counts.items() if number or name == "rows"))
            if counts["rejected"]:
                path = f"/api/contacts/import/{done['id']}/rejects"
                if rejects:
                    rejects.write_bytes(client.get(path).raise_for_status().content)
                print(f"The rejected rows, each with its reason: {rejects or str(client.base_url).rstrip('/') + path}")
        except OSError as error:
            sys.exit(f"carillon: {error}")
    if done["status"] == "failed":
        sys.exit(f"carillon: {done['problem']}")


@contextmanager
def asking(url: str) -> "Iterator[httpx.Client]":
    """A client of the API with the key in CARILLON_API_KEY; what goes wrong in the block ends the command in one line.

    Args:
        url: where the API is; empty for CARILLON_PUBLIC_URL.
    """
    import httpx

    key = settings().api_key
    if key is None:
        sys.exit("carillon: set CARILLON_API_KEY to an API key with the role editor or owner")
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    with httpx.Client(base_url=url or settings().public_url, headers=headers, timeout=60) as client:
        try:
            yield client
        except httpx.HTTPStatusError as error:
            sys.exit(f"carillon: {_reason(error.response)}")
        except httpx.TransportError as error:
            sys.exit(f"carillon: the API at {client.base_url} does not answer: {error}")
        except _NOT_OURS:
            sys.exit(f"carillon: what answers at {client.base_url} is not the API of Carillon")


_NOT_OURS = (ValueError, LookupError, TypeError)  # no JSON, or without what we tell in it


def _reason(answer: "httpx.Response") -> str:
    """Why the API said no; if somebody else did, such as a proxy, who and what."""
    try:
        said = answer.json()
        others = [f"{each['part']}: {each['message']}" for each in said.get("problems", ())[1:]]
        return "\n".join([str(said["detail"]), *others])
    except _NOT_OURS:
        return f"{answer.url.copy_with(query=None)} answers {answer.status_code} {answer.reason_phrase}".rstrip()


def _import_file(client: "httpx.Client", file: Path, query: dict[str, Any]) -> dict[str, Any]:
    """Upload the file and watch until the import is done; gives it as the API tells of it."""
    from time import sleep

    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress, file.open("rb") as content:
        uploading = progress.add_task("Uploading", total=file.stat().st_size)
        importing = progress.add_task("Importing", total=1.0)

        def pieces() -> Iterator[bytes]:
            while piece := content.read(1 << 18):
                yield piece
                progress.advance(uploading, len(piece))

        headers = {"Content-Type": "text/csv"}
        answer = client.post("/api/contacts/import", params=query, content=pieces(), headers=headers)
        answer.raise_for_status()
        while True:
            answer = client.get(f"/api/contacts/import/{answer.json()['id']}").raise_for_status()
            found: dict[str, Any] = answer.json()
            progress.update(importing, completed=found["progress"])
            if found["status"] in ("completed", "failed"):
                return found
            sleep(0.3)
