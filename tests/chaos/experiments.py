"""What strikes a campaign that compares variants."""

import asyncio
from typing import Any
from uuid import UUID

from marketing.assignment import bucket
from marketing.experiments import Experiment, experiment_key
from tests.chaos.campaign import UNDER_WAY, Verdict, launched
from tests.chaos.cases import case
from tests.chaos.ground import WORKERS, Ground

COMPARED: dict[str, Any] = {
    "variants": [{"name": name, "content": {"email": {"subject": f"{name} says hello"}}} for name in "AB"],
    "test_fraction": 0.5,
    "metric": "click_rate",
    "fallback": "control",
}


@case("F1", "a worker is killed (-9) while variants are compared")
async def killed_worker_of_an_experiment(ground: Ground) -> Verdict:
    """Whoever takes over gives nobody another variant."""
    ground.slow_down(ground.scale.rate)
    campaign = await launched(ground, "f1e", ground.scale.messages_in_passing, kind="experiment", experiment=COMPARED)
    waiting = asyncio.create_task(campaign.skip_time())
    await campaign.arrivals(len(campaign.people) // 8)  # of half of them: the others wait for the winner
    recovered = await ground.kill(ground.chance.choice(WORKERS))
    completed = await campaign.over() == "completed"
    await waiting
    seen = ground.pages(f"/api/campaigns/ab-tests/{campaign.id}/exposures", {})
    variants = {UUID(each["contact_id"]): each["variant"] async for each in seen}
    cells, key = Experiment.model_validate(COMPARED).cells, experiment_key(UUID(campaign.id))
    stats = await campaign.ask("GET", "/stats")
    return await campaign.judged(
        uncertain=UNDER_WAY,
        recovered=recovered,
        completed=completed,
        everybody_has_the_variant_of_the_hash=all(
            cells.of(bucket(key, contact)) == variant for contact, variant in variants.items()
        ),
        both_were_seen=set(variants.values()) == {"A", "B"},
        variants_and_rest_are_the_whole=stats["planned"]
        == sum(each["planned"] for each in stats["per_variant"].values()),
    )
