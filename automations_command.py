"""`carillon automations`: those that are written in Python, as they are on disk, and those inside of them."""

from typing import TYPE_CHECKING, Annotated

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
