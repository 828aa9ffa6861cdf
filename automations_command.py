"""`carillon automations`: those that are written in Python, as they are on disk, and those inside of them."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contacts_command import asking
from database.embedded import CannotStart
from settings import settings

if TYPE_CHECKING:  # other commands answer at once
    import httpx

    from database.code_automations import InsideCode
    from workflows.code import Loaded

automations = typer.Typer(no_args_is_help=True, help="Automations written in Python.")


@automations.command("list")
def list_automations() -> None:
    """Each automation and version: what lets contacts in, how many steps it has, who is inside, where it is written.

    Those inside are told if there is a database (CARILLON_DATABASE_URL).
    """
    from marketing.step_sentences import entered
    from workflows.code_flows import count_steps, flow

    code = loaded().automations
    url = settings().database_url
    known = asyncio.run(_inside(url)) if url else None
    people = Counter({(each.code, each.version): 0 for each in known or ()})
    accounts: Counter[tuple[str, int]] = Counter()
    for each in known or ():
        people[each.code, each.version] += each.contacts
        accounts[each.code, each.version] += 1
    table = Table("name", "version", "lets in", "steps", "inside", "accounts", "file", box=None, pad_edge=False)
    for name, version in sorted({*code, *people}):
        key = (name, version)
        inside = ("", "") if known is None else (f"{people[key]:,}", f"{accounts[key]:,}")
        if written := code.get(key):
            trigger = entered(written.definition.model_dump(mode="json")["trigger"], {})
            steps = str(count_steps(flow(written.function, {})))
            table.add_row(name, str(version), Text(trigger), steps, *inside, Text(written.place))
        else:
            table.add_row(name, str(version), "", "", *inside, "no file has it any more: those inside wait")
    Console(width=1_000).print(table)  # as wide as it must be: the lines are for `grep` too


async def _inside(url: str) -> "list[InsideCode]":
    """Over all accounts."""
    from cli import reach_postgres
    from database.code_automations import inside
    from database.engine import Database

    await reach_postgres(settings())
    database = Database(url, pool_size=1)
    try:
        return await inside(database)
    finally:
        await database.close()


@automations.command()
def activate(
    name: Annotated[str, typer.Argument(help="An automation in Python.")],
    url: Annotated[str, typer.Option(help="Where the API is. [default: CARILLON_PUBLIC_URL]")] = "",
) -> None:
    """Let contacts in, or from now on into the newest version; over the API, with the key in CARILLON_API_KEY."""
    with asking(url) as api:
        automation_id = _made_of(api, name)
        if automation_id is None:
            made = api.post("/api/automations", json={"name": name, "code": name}).raise_for_status()
            automation_id = made.json()["id"]
        active = api.post(f"/api/automations/{automation_id}/activate").raise_for_status().json()
    print(f"{name}, version {active['version']}, lets contacts in. Its id is {automation_id}.")
    for warning in active["warnings"]:
        print(f"{warning['part']}: {warning['message']}")


def _made_of(api: "httpx.Client", code: str) -> str | None:
    """The automation of the account that is this code, if there is one yet."""
    query = {"limit": "500"}
    while True:
        page = api.get("/api/automations", params=query).raise_for_status().json()
        found: str | None = next((each["id"] for each in page["items"] if each["code"] == code), None)
        if found or not page["next_cursor"]:
            return found
        query["cursor"] = page["next_cursor"]


@automations.command()
def graph(
    name: Annotated[str, typer.Argument(help="An automation in Python, or the name or id of one of the account.")],
    url: Annotated[str, typer.Option(help="Where the API is. [default: CARILLON_PUBLIC_URL]")] = "",
) -> None:
    """Draw the steps as Mermaid: paste it where Mermaid is understood, such as into Markdown.

    What no file has is asked for over the API, with the key in CARILLON_API_KEY.
    """
    from marketing import step_flows
    from marketing.flows import mermaid
    from marketing.step_sentences import entered
    from workflows import code_flows

    code = loaded()
    names: dict[UUID, str] = {}
    written = code.newest(name)
    if written is None and settings().api_key is None:
        known = ", ".join(sorted({each for each, _ in code.automations}))
        sys.exit(
            f"carillon: no file has an automation {name!r}, only {known}. With CARILLON_API_KEY the API is asked too"
        )
    if written is None:
        with asking(url) as api:
            found = _called(api, name)
            segments = api.get("/api/segments", params={"limit": 500}).raise_for_status().json()["items"]
        names = {UUID(each["id"]): each["name"] for each in segments}
        trigger, written = found["trigger"], code.newest(found["code"] or "")
        flow = step_flows.flow(found["steps"], names)
    if written is not None:
        trigger = written.definition.model_dump(mode="json")["trigger"]
        flow = code_flows.flow(written.function, names)
    print(mermaid(entered(trigger, names), flow), end="")


def _called(api: "httpx.Client", name: str) -> dict[str, Any]:
    """An automation of the account, by its name or its id."""
    page = api.get("/api/automations", params={"search": name, "limit": 500}).raise_for_status().json()
    found = next((each["id"] for each in page["items"] if each["name"] == name), name)
    try:
        automation_id = UUID(found)
    except ValueError:
        sys.exit(f"carillon: neither a file nor the account has an automation {name!r}")
    answer: dict[str, Any] = api.get(f"/api/automations/{automation_id}").raise_for_status().json()
    return answer


@automations.command()
def check(
    automation: Annotated[UUID | None, typer.Option(help="The id of one, instead of all.")] = None,
    most: Annotated[int, typer.Option(min=1, help="So many runs, the newest first.")] = 1_000,
) -> None:
    """Replay what is under way against the code on disk, and say which contacts could not go on.

    Changes nothing. Ends with status 1 if any would break, so that a deployment can stop there.
    """
    import logging

    loaded()
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # what it tells of each that breaks, we tell in words
    breaking, still, checked, all_ = asyncio.run(_check(automation, most))
    rest = f", of {all_:,} that are under way" if all_ > checked else ""
    stuck = f", {still:,} can't go on already" if still else ""
    print(f"{checked:,} runs replayed{rest}: {breaking:,} would break{stuck}.")
    sys.exit(1 if breaking else 0)


async def _check(automation: UUID | None, most: int) -> tuple[int, int, int, int]:
    """How many would break, and how many stand still, of how many that were looked at, of all that are under way."""
    from rich.progress import Progress

    from cli import reach_temporal
    from workflows.automations import AutomationWorkflow
    from workflows.code_checks import check, under_way
    from workflows.cohorts import CohortWorkflow

    client = await reach_temporal(settings())
    workflows = [CohortWorkflow, AutomationWorkflow]
    query = under_way(workflows, automation)
    everything = (await client.count_workflows(query)).count
    breaking = still = checked = 0
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Replaying", total=min(everything, most))
        async for each in check(client, query, workflows, most):
            checked += 1
            progress.advance(bar)
            if each.problem:
                breaking += 1
                print(f"{each.workflow_id}: {each.problem}", flush=True)
            if each.stands_still:
                still += 1
                print(f"{each.workflow_id}: can't go on under the code at work: {each.stands_still}", flush=True)
    return breaking, still, checked, everything


def loaded() -> "Loaded":
    """What is on disk. A folder here that looks like it and is not read is told of.

    Raises:
        CannotStart: something is wrong there; all of it, with file and line.
    """
    from workflows.code_files import READY_MADE, CannotLoad, folders, load

    named = settings().automation_folders
    here = Path(READY_MADE.name).absolute()
    if not named and here.is_dir() and not here.samefile(READY_MADE):
        print(f"carillon: {here} is not read: CARILLON_AUTOMATIONS={here.name} has it read", file=sys.stderr)
    try:
        return load(folders(named))
    except CannotLoad as error:
        raise CannotStart(f"automations can't be loaded:\n{error}") from None
