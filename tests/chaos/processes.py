"""Programs that are killed, frozen, stopped and started while a campaign runs."""

import signal
from time import monotonic

from tests.chaos.campaign import UNDER_WAY, Campaign, Verdict, launched
from tests.chaos.cases import case
from tests.chaos.ground import WORKERS, Ground


@case("F1", "a worker is killed (-9) eight times")
async def killed_workers(ground: Ground) -> Verdict:
    ground.slow_down(ground.scale.rate_for_long_damage)
    campaign = await launched(ground, "f1")
    slowest = 0.0
    for moment in ground.moments(8, len(campaign.people)):
        await campaign.arrivals(moment)
        slowest = max(slowest, await ground.kill(ground.chance.choice(WORKERS)))
    completed = await campaign.over() == "completed"
    return await campaign.judged(uncertain=8 * UNDER_WAY, recovered=slowest, completed=completed)


@case("F2", "a worker is frozen past its lease, and wakes up")
async def frozen_worker(ground: Ground) -> Verdict:
    """The other carries the campaign to its end; nothing may leave when the frozen one wakes up."""
    ground.slow_down(ground.scale.rate)
    campaign = await launched(ground, "f2")
    (moment,) = ground.moments(1, len(campaign.people))
    await campaign.arrivals(moment)
    ground.slow_down(ground.scale.rate or 1_000)  # so that there is time between taking a message and saying so
    frozen, in_hand = await ground.freeze_in_the_act()
    ground.slow_down(ground.scale.rate)
    began = monotonic()
    completed = await campaign.over() == "completed"
    recovered = monotonic() - began  # what it had in hand is settled
    doubtful = await campaign.told("uncertain")
    before = len(campaign.received)
    ground.hit(frozen, signal.SIGCONT)
    # It has its share in another campaign, and so has had all the time that it needed for a mistake.
    another = await launched(ground, "f2b", 500)
    await another.over()
    return await campaign.judged(
        uncertain=UNDER_WAY,
        recovered=recovered,
        completed=completed,
        what_it_could_not_record_is_in_doubt=in_hand <= doubtful.keys(),
        who_wakes_up_sends_nothing=len(campaign.received) == before,
    )


@case("F3", "the workers are stopped (TERM) one after the other, four times")
async def rolling_restart(ground: Ground) -> Verdict:
    ground.slow_down(ground.scale.rate_for_long_damage)
    campaign = await launched(ground, "f3")
    slowest = longest_drain = 0.0
    for worker, moment in zip(WORKERS * 4, ground.moments(8, len(campaign.people)), strict=True):
        await campaign.arrivals(moment)
        began = monotonic()
        ground.hit(worker, signal.SIGTERM)
        await ground.hear(f"{worker} ended (0)")
        longest_drain = max(longest_drain, monotonic() - began)
        await ground.hear(f"{worker} is up again")
        slowest = max(slowest, monotonic() - began)
    completed = await campaign.over() == "completed"
    return await campaign.judged(recovered=slowest, completed=completed, drained_in_30_s=longest_drain < 30)


@case("F4", "the Temporal server does not answer for a while")
async def frozen_temporal(ground: Ground) -> Verdict:
    campaign = await under_way(ground, "f4")
    missed = await ground.freeze("Temporal", ground.scale.outage_seconds)
    recovered = await campaign.moves()
    completed = await campaign.over() == "completed"
    return await campaign.judged(
        recovered=recovered, completed=completed, it_was_missed=missed, resumed_in_30_s=recovered < 30
    )


@case("F4", "the Temporal server is killed (-9) and started again")
async def killed_temporal(ground: Ground) -> Verdict:
    campaign = await under_way(ground, "f4b")
    recovered = await ground.kill("Temporal") + await campaign.moves()
    completed = await campaign.over() == "completed"
    return await campaign.judged(recovered=recovered, completed=completed, resumed_in_30_s=recovered < 30)


@case("F5", "PostgreSQL is killed (-9) and started again")
async def killed_postgres(ground: Ground) -> Verdict:
    campaign = await under_way(ground, "f5")
    recovered = await ground.kill("PostgreSQL") + await campaign.moves()
    completed = await campaign.over() == "completed"
    return await campaign.judged(uncertain=UNDER_WAY, recovered=recovered, completed=completed)


@case("F5", "PostgreSQL does not answer for a while")
async def frozen_postgres(ground: Ground) -> Verdict:
    campaign = await under_way(ground, "f5b")
    missed = await ground.freeze("PostgreSQL", ground.scale.outage_seconds / 2)
    recovered = await campaign.moves()
    completed = await campaign.over() == "completed"
    return await campaign.judged(uncertain=UNDER_WAY, recovered=recovered, completed=completed, it_was_missed=missed)


async def under_way(ground: Ground, group: str) -> Campaign:
    """A campaign of which so much is left that it outlasts an outage."""
    ground.slow_down(ground.scale.rate_for_long_damage)
    campaign = await launched(ground, group)
    (moment,) = ground.moments(1, len(campaign.people) // 4)
    await campaign.arrivals(moment)
    return campaign
