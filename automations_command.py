"""`carillon automations`: those that are written in Python, as they are on disk, and those inside of them."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from database.embedded import CannotStart
from settings import settings

if TYPE_CHECKING:  # other commands answer at once
    from workflows.code import Loaded

automations = typer.Typer(no_args_is_help=True, help="Automations written in Python.")


@automations.command("list")
def list_automations() -> None:
    """Each automation and version, what lets contacts in, and where it is written."""
    from marketing.step_sentences import entered
    from workflows.code_flows import count_steps, flow

    table = Table("name", "version", "lets in", "steps", "file", box=None, pad_edge=False)
    for (name, version), written in sorted(loaded().automations.items()):
        trigger = written.definition.model_dump(mode="json")["trigger"]
        steps = count_steps(flow(written.function, {}))
        table.add_row(name, str(version), Text(entered(trigger, {})), str(steps), Text(written.place))
    Console(width=1_000).print(table)  # as wide as it must be: the lines are for `grep` too


@automations.command()
def graph(name: Annotated[str, typer.Argument(help="An automation in Python.")]) -> None:
    """Draw the steps as Mermaid: paste it where Mermaid is understood, such as into Markdown."""
    from marketing.flows import mermaid
    from marketing.step_sentences import entered
    from workflows.code_flows import flow

    written = loaded().newest(name)
    if written is None:
        raise typer.BadParameter(f"no file has an automation {name!r}")
    trigger = written.definition.model_dump(mode="json")["trigger"]
    print(mermaid(entered(trigger, {}), flow(written.function, {})), end="")


@automations.command()
def check(
    automation: Annotated[UUID | None, typer.Option(help="The id of one, instead of all.")] = None,
    most: Annotated[int, typer.Option(min=1, help="So many cohorts, the newest first.")] = 1_000,
) -> None:
    """Replay what is under way against the code on disk, and say which contacts could not go on.

    Changes nothing. Ends with status 1 if any would break, so that a deployment can stop there.
    """
    import logging

    loaded()
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # what it tells of each that breaks, we tell in words
    breaking, checked, all_ = asyncio.run(_check(automation, most))
    rest = f", of {all_:,} that are under way" if all_ > checked else ""
    print(f"{checked:,} cohorts replayed{rest}: {breaking:,} would break.")
    sys.exit(1 if breaking else 0)


async def _check(automation: UUID | None, most: int) -> tuple[int, int, int]:
    """How many would break, of how many that were looked at, of all that are under way."""
    from rich.progress import Progress

    from cli import reach_temporal
    from workflows.code_checks import check, under_way
    from workflows.cohorts import CohortWorkflow

    client = await reach_temporal(settings())
    query = under_way([CohortWorkflow], automation)
    everything = (await client.count_workflows(query)).count
    breaking = checked = 0
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Replaying", total=min(everything, most))
        async for each in check(client, query, [CohortWorkflow], most):
            checked += 1
            progress.advance(bar)
            if each.problem:
                breaking += 1
                print(f"{each.workflow_id}: {each.problem}", flush=True)
    return breaking, checked, everything


def loaded() -> "Loaded":
    """What is on disk.

    Raises:
        CannotStart: something is wrong there; all of it, with file and line.
    """
    from workflows.code_files import CannotLoad, folders, load

    try:
        return load(folders(settings().automation_folders))
    except CannotLoad as error:
        raise CannotStart(f"automations can't be loaded:\n{error}") from None
