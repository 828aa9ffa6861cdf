"""`carillon` within this process: most tests of what it says need not wait for another Python to start."""

import asyncio
import logging
import os
from contextlib import chdir
from pathlib import Path

from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli import app
from database.embedded import CannotStart
from settings import settings


async def carillon(*words: str | Path, **environment: str) -> tuple[int, str]:
    """What the command answered, and what it said. It runs beside the loop of the tests, which may serve the API."""
    return await asyncio.to_thread(_run, [str(word) for word in words], environment)


def _run(words: list[str], environment: dict[str, str]) -> tuple[int, str]:
    ours = dict.fromkeys(name for name in os.environ if name.startswith("CARILLON_"))
    quieted = logging.getLogger("temporalio")
    level = quieted.level
    settings.cache_clear()
    try:
        with chdir("/"), capture_logs():  # where there is no .env; and the API may serve it from this process
            done = CliRunner().invoke(app, words, env=ours | environment)
    finally:
        settings.cache_clear()
        quieted.setLevel(level)
    if isinstance(done.exception, CannotStart):
        return 1, f"carillon: {done.exception}\n"  # as `main` tells it
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output
