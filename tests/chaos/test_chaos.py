"""What is lost, doubled or left in doubt when things break? Judged by the mail server, fault by fault."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.chaos.campaign import Verdict
from tests.chaos.cases import Case
from tests.chaos.conftest import told
from tests.chaos.everything import CASES
from tests.chaos.ground import SMALL, Ground, ground

SEED = 1


@pytest.fixture(scope="module")
async def shaken() -> AsyncIterator[Ground]:
    """One stack for all of them: it must survive everything, one after the other."""
    async with ground(SMALL) as it:
        yield it


@pytest.mark.chaos
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_it_does_no_harm(case: Case, shaken: Ground) -> None:
    verdict = await case.struck(shaken, SEED)
    told.append(f"{case}: {verdict}")
    assert verdict.broken == []


@pytest.mark.chaos
async def test_the_same_seed_strikes_at_the_same_moments(shaken: Ground) -> None:
    def moments(seed: str) -> list[int]:
        shaken.start_over(seed)
        return shaken.moments(8, 1000)

    assert moments("1") == moments("1") != moments("2")


def test_a_verdict_names_each_harm() -> None:
    harmless = Verdict(
        messages=100, lost=0, twice=2, uncertain=3, twice_allowed=2, uncertain_allowed=3, recovered=None, claims={}
    )
    assert harmless.broken == []
    harmed = replace(harmless, lost=1, twice=3, uncertain=4).and_also(paused_in_time=False, resumed=True)
    assert harmed.broken == ["1 lost", "3 twice", "4 uncertain", "not true: paused in time"]
