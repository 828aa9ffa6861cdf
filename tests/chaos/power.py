"""The power of the whole machine, which is cut while a campaign runs."""

import asyncio
from time import monotonic

from tests.chaos.campaign import UNDER_WAY, Verdict, launched
from tests.chaos.cases import case
from tests.chaos.ground import Ground


@case("F8", "the power is cut: every process ends at once")
async def power_cut(ground: Ground) -> Verdict:
    ground.slow_down(ground.scale.rate)
    campaign = await launched(ground, "f8")
    (moment,) = ground.moments(1, len(campaign.people))
    await campaign.arrivals(moment)
    await asyncio.to_thread(ground.up.cut_power)
    cut = monotonic()
    await asyncio.to_thread(ground.up.start)
    ground.http.base_url = ground.up.state["api_url"]
    await campaign.moves()
    recovered = monotonic() - cut
    completed = await campaign.over() == "completed"
    doubts = await campaign.told("uncertain")
    lost_workers = {each["reason"] for each in doubts.values()} <= {"worker_lost"}
    return await campaign.judged(
        uncertain=UNDER_WAY, recovered=recovered, completed=completed, doubts_say_why=lost_workers
    )
