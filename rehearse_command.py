"""`carillon rehearse`: an automation or a campaign is rehearsed over the API, and the timeline printed."""

import sys
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from settings import settings

if TYPE_CHECKING:  # other commands answer at once
    import httpx

_SECONDS = 120.0  # more than the API takes


def rehearse(
    what: Annotated[str, typer.Argument(help="The name or the id of an automation; with --campaign, of a campaign.")],
    campaign: Annotated[bool, typer.Option("--campaign", help="It is a campaign.")] = False,
    contact: Annotated[
        list[str] | None, typer.Option(help="Who takes part, by id or e-mail address; again for each.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, max=100, help="So many of those who may enter. [default: 10]")
    ] = None,
    script: Annotated[
        list[str] | None, typer.Option(help='What they do, such as "clicks welcome on day 2"; again for each.')
    ] = None,
    starts_at: Annotated[
        str | None, typer.Option(help="When they enter, such as 2027-03-27T08:00Z. [default: now]")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Show the text of each message.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what the API answers.")] = False,
    url: Annotated[str, typer.Option(help="Where the API is. [default: CARILLON_PUBLIC_URL]")] = "",
) -> None:
    """Show who would get what, when and why, on a clock that skips; with the key in CARILLON_API_KEY. Nobody gets
    anything."""
    import httpx

    from marketing.rehearsals import Timeline

    key = settings().api_key
    if key is None:
        sys.exit("carillon: set CARILLON_API_KEY to an API key with the role editor or owner")
    wanted = {"contacts": contact, "sample": sample, "script": script or [], "starts_at": starts_at, "texts": texts}
    body = {name: value for name, value in wanted.items() if value is not None}
    kind = "campaigns" if campaign else "automations"
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    with httpx.Client(base_url=url or settings().public_url, headers=headers, timeout=_SECONDS) as client:
        try:
            answer = _answer(client.post(f"/api/{kind}/{_id(client, kind, what)}/rehearse", json=body))
        except httpx.TransportError as error:
            sys.exit(f"carillon: the API does not answer at {client.base_url}: {error}")
    timeline = Timeline.model_validate_json(answer.content)
    print(answer.text if json else timeline.told(texts=texts))


def _id(client: "httpx.Client", kind: str, what: str) -> str:
    """Of what has this name; or it is an id already."""
    try:
        return str(UUID(what))
    except ValueError:
        found: list[dict[str, Any]] = _answer(client.get(f"/api/{kind}", params={"search": what})).json()["items"]
    ids = [each["id"] for each in found if each["name"] == what]
    if len(ids) != 1:
        sys.exit(f"carillon: there {'are several' if ids else 'is no'} {kind if ids else kind[:-1]} called “{what}”")
    return str(ids[0])


def _answer(answer: "httpx.Response") -> "httpx.Response":
    if answer.is_error:
        sys.exit(f"carillon: {answer.json().get('detail', answer.text)}")
    return answer
