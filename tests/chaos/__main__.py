"""`python -m tests.chaos`: every fault at full size, and a line for each."""

import asyncio
import sys
import traceback
from typing import Annotated

import typer

from tests.chaos.everything import CASES
from tests.chaos.ground import FULL, SMALL
from tests.chaos.lanes import struck


def main(
    only: Annotated[str, typer.Option(help="Numbers of cases, with commas, such as F1,P3.")] = "",
    seed: Annotated[int, typer.Option(help="The same seed does the same damage.")] = 1,
    small: Annotated[bool, typer.Option(help="The size that `make test` takes.")] = False,
    lanes: Annotated[int, typer.Option(min=1, help="Stacks side by side.")] = 1,
) -> None:
    """Do damage to a running stack, and judge by what its mail server received."""
    numbers = set(filter(None, only.split(",")))
    if unknown := numbers - {each.number for each in CASES}:
        raise typer.BadParameter(f"there is no case {', '.join(sorted(unknown))}", param_hint="--only")
    chosen = [each for each in CASES if not numbers or each.number in numbers]

    async def run() -> int:
        broken = 0
        async with struck(chosen, SMALL if small else FULL, seed, lanes) as verdicts:
            for each, verdict in verdicts.items():
                try:
                    broken += bool((await verdict).broken)
                    print(f"{each}: {verdict.result()}", flush=True)
                except Exception:
                    broken += 1
                    print(f"{each}: {traceback.format_exc()}", flush=True)
        return broken

    broken = asyncio.run(run())
    print(f"{len(chosen)} faults, " + (f"{broken} of which did harm" if broken else "none of which did harm"))
    sys.exit(bool(broken))


if __name__ == "__main__":
    typer.run(main)
