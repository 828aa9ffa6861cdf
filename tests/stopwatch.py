"""Seconds, as somebody counts them who has the machine to themselves."""

from pathlib import Path
from time import monotonic

PRESSURE = Path("/proc/pressure/cpu")


class Stopwatch:
    """Stands still while anybody on the machine stands in line for a processor: what others do there is no fault of
    ours. So a promise in seconds is held to where a processor is free, and nobody fails because none was."""

    def __init__(self) -> None:
        self._began = _counted()

    def read(self) -> float:
        return _counted() - self._began


def _counted() -> float:
    return monotonic() - _in_line()


def _in_line() -> float:
    """For how many seconds anybody was, since the machine was started. Only Linux counts them."""
    if not PRESSURE.exists():
        return 0.0
    return int(PRESSURE.read_text().partition("total=")[2].split()[0]) / 1_000_000
