"""`python -m tests.chaos`: every fault at full size, and a line for each."""

import asyncio
import sys
import traceback
from typing import Annotated

import typer

from tests.chaos.everything import CASES
from tests.chaos.ground import FULL, SMALL, ground


def main(
    only: Annotated[str, typer.Option(help="Numbers of cases, with commas, such as F1,P3.")] = "",
    seed: Annotated[int, typer.Option(help="The same seed does the same damage.")] = 1,
    small: Annotated[bool, typer.Option(help="The size that `make test` takes.")] = False,
) -> None:
    """Do damage to a running stack, and judge by what its mail server received."""
    chosen = [each for each in CASES if not only or each.number in only.split(",")]
    if unknown := set(filter(None, only.split(","))) - {each.number for each in CASES}:
        raise typer.BadParameter(f"there is no case {', '.join(sorted(unknown))}", param_hint="--only")

    async def run() -> int:
        broken = 0
        async with ground(SMALL if small else FULL) as it:
            for each in chosen:
                try:
                    verdict = await each.struck(it, seed)
                    broken += bool(verdict.broken)
                    print(f"{each}: {verdict}", flush=True)
                except Exception:  # one that can't be judged: the others still can
                    broken += 1
                    print(f"{each}: {traceback.format_exc()}", flush=True)
        print(f"{len(chosen)} faults, {broken} of which did harm" if broken else f"{len(chosen)} faults, none did harm")
        return broken

    sys.exit(1 if asyncio.run(run()) else 0)


if __name__ == "__main__":
    typer.run(main)
