"""What is lost, doubled or left in doubt when things break? Judged by the mail server, fault by fault."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import cast

import psutil
import pytest

from tests.chaos.campaign import Verdict
from tests.chaos.cases import Case, chance_of
from tests.chaos.everything import CASES
from tests.chaos.ground import SMALL
from tests.chaos.lanes import Verdicts, struck

SEED = 1


@pytest.fixture(scope="module")
async def verdicts(request: pytest.FixtureRequest) -> AsyncIterator[Verdicts]:
    """Three stacks, which must survive everything, one case after the other."""
    chosen: list[Case] = [
        cast(Case, item.callspec.params["case"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    ]
    async with struck(chosen, SMALL, SEED, lanes=3) as verdicts:
        yield verdicts


@pytest.mark.chaos
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_it_does_no_harm(case: Case, verdicts: Verdicts, record_property: Callable[[str, object], None]) -> None:
    verdict = await verdicts[case]
    record_property("fault", f"{case}: {verdict}")
    assert verdict.broken == []


def test_the_same_seed_strikes_at_the_same_moments_in_every_process() -> None:
    launches = next(case for case in CASES if case.number == "F9")
    chance = chance_of(1, launches)
    assert [chance.randrange(100_000) for _ in range(4)] == [67825, 10946, 15933, 6172]
    assert chance_of(2, launches).randrange(100_000) != 67825


def test_ctrl_c_even_twice_leaves_no_stack_running() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--small", "--only", "F14"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as run:
        chaos = psutil.Process(run.pid)
        while not any(map(_is_worker, chaos.children(recursive=True))):
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended by itself, with {run.wait(timeout=0.1)}")
        family = chaos.children(recursive=True)
        for _ in range(2):
            os.killpg(run.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                run.wait(timeout=1)  # between one Ctrl-C and the next
    _, left = psutil.wait_procs(family, timeout=90)
    assert left == []


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "worker" in process.cmdline()
    except psutil.NoSuchProcess:  # any more
        return False


def test_a_verdict_names_each_harm() -> None:
    doubts = Counter({"lease_ended": 3})
    harmless = Verdict(
        messages=100,
        lost=0,
        twice=2,
        uncertain=3,
        twice_allowed=2,
        uncertain_allowed=3,
        doubts=doubts,
        recovered=None,
        claims={},
    )
    assert harmless.broken == []
    harmed = replace(harmless, lost=1, twice=3, uncertain=4, doubts=doubts + Counter(timeout=1)).and_also(
        paused_in_time=False, resumed=True
    )
    assert harmed.broken == ["1 lost", "3 twice", "4 uncertain (lease_ended 3, timeout 1)", "not true: paused in time"]
