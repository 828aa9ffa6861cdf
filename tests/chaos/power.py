"""The power of the whole machine, which is cut while a campaign runs."""

import asyncio
from time import monotonic

from tests.chaos.campaign import UNDER_WAY, Campaign, Verdict, launched
from tests.chaos.cases import case
from tests.chaos.ground import Ground


@case("F8", "the power is cut: every process ends at once; the second time, Temporal's data is gone as well")
async def power_cut(ground: Ground) -> Verdict:
    ground.slow_down(ground.scale.rate)
    campaign = await launched(ground, "f8")
    recovered = []
    for moment, temporal_survives in zip(ground.moments(2, len(campaign.people)), (True, False), strict=True):
        await campaign.arrivals(moment)
        recovered.append(await cut_and_start_again(ground, campaign, temporal_survives))
    completed = await campaign.over() == "completed"
    doubts = await campaign.told("uncertain")
    reasons = {each["reason"] for each in doubts.values()}
    return await campaign.judged(
        uncertain=2 * UNDER_WAY,
        recovered=max(recovered),
        completed=completed,
        each_doubt_is_a_lost_workers=reasons <= {"worker_lost"},
    )


async def cut_and_start_again(ground: Ground, campaign: Campaign, temporal_survives: bool) -> float:
    """Seconds until the campaign moves again."""
    await asyncio.to_thread(ground.up.cut_power)
    cut = monotonic()
    if not temporal_survives:
        for file in ground.up.data_dir.glob("temporal.sqlite*"):
            file.unlink()
    await asyncio.to_thread(ground.up.start)
    ground.http.base_url = ground.up.state["api_url"]
    await campaign.moves()
    return monotonic() - cut
