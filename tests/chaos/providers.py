"""Mail servers that cut, refuse, put off and hang."""

from collections import Counter
from time import time

from channels.sink import Misdeed, Moment
from tests.chaos.campaign import UNDER_WAY, Campaign, Verdict, drafted, launched
from tests.chaos.cases import case
from tests.chaos.ground import FULL, Ground


@case("P1", "the connection is cut after the final dot in 1 %, `hold`")
async def cut_and_held(ground: Ground) -> Verdict:
    campaign, cut = await _cut_after_the_final_dot(ground, "p1", on_uncertain="hold")
    completed = await campaign.over() == "completed"
    doubtful = (await campaign.told("uncertain")).keys()
    return await campaign.judged(
        uncertain=len(cut), completed=completed, these_and_no_others_are_uncertain=doubtful == cut
    )


@case("P1", "the connection is cut after the final dot in 1 %, `resend`")
async def cut_and_sent_again(ground: Ground) -> Verdict:
    campaign, cut = await _cut_after_the_final_dot(ground, "p1b", on_uncertain="resend")
    await campaign.skip_time()
    completed = await campaign.over() == "completed"
    return await campaign.judged(twice=len(cut), completed=completed)


async def _cut_after_the_final_dot(ground: Ground, group: str, on_uncertain: str) -> tuple[Campaign, set[str]]:
    """The first time that these are written to, the server takes the message and doesn't say so."""
    campaign = await drafted(ground, group, ground.scale.messages_in_passing, on_uncertain=on_uncertain)
    cut = set(ground.chance.sample(campaign.people, len(campaign.people) // 100))
    yet_to_cut = set(cut)

    def policy(moment: Moment) -> Misdeed | None:
        if moment.step == "CONTENT" and moment.recipient in yet_to_cut:
            yet_to_cut.remove(moment.recipient)
            return Misdeed.KEEP_AND_CUT
        return None

    ground.sink.policy = policy
    await campaign.launch()
    return campaign, cut


@case("P2", "the server closes (421) every 2,500 messages")
async def closing_server(ground: Ground) -> Verdict:
    every = 2_500 * ground.scale.messages_in_passing // FULL.messages_in_passing
    undisturbed = await _seconds(await drafted(ground, "p2a", ground.scale.messages_in_passing))
    campaign = await drafted(ground, "p2", ground.scale.messages_in_passing)
    closed = ground.sink.count

    def policy(moment: Moment) -> str | None:
        nonlocal closed
        if moment.step == "MAIL" and moment.in_all >= closed + every:
            closed = moment.in_all
            return "421 4.7.0 That was enough on this connection"
        return None

    ground.sink.policy = policy
    disturbed = await _seconds(campaign)
    completed = await campaign.over() == "completed"
    verdict = await campaign.judged(completed=completed)
    return verdict.and_also(f"{disturbed:.1f} s, undisturbed {undisturbed:.1f} s")


async def _seconds(campaign: Campaign) -> float:
    """From the launch to the last arrival."""
    began = time()
    await campaign.launch()
    await campaign.arrivals(len(campaign.people))
    return campaign.received[-1].at - began


@case("P3", "30 % are greylisted, a few of them for ever")
async def greylisting(ground: Ground) -> Verdict:
    campaign = await drafted(ground, "p3", ground.scale.messages_in_passing)
    later = ground.chance.sample(campaign.people, len(campaign.people) * 3 // 10)
    never = set(later[:5])
    yet_to_refuse = set(later)

    def policy(moment: Moment) -> str | None:
        if moment.step == "RCPT" and moment.recipient in yet_to_refuse:
            yet_to_refuse.difference_update({moment.recipient} - never)
            return "450 4.7.1 Greylisted, come back later"
        return None

    ground.sink.policy = policy
    await campaign.launch()
    await campaign.arrivals(len(campaign.people) - len(later))
    await campaign.skip_time()
    completed = await campaign.over() == "completed"
    failed = await campaign.told("failed")
    return await campaign.judged(
        failed=never,
        completed=completed,
        those_put_off_for_ever_are_given_up=failed.keys() == never,
        and_it_says_why={each["reason"] for each in failed.values()} == {"expired"},
    )


@case("P4", "5 % of the addresses are unknown (550)")
async def unknown_users(ground: Ground) -> Verdict:
    campaign = await drafted(ground, "p4", ground.scale.messages_in_passing)
    unknown = set(ground.chance.sample(campaign.people, len(campaign.people) // 20))
    asked: Counter[str] = Counter()

    def policy(moment: Moment) -> str | None:
        if moment.step == "RCPT" and moment.recipient in unknown:
            asked[moment.recipient] += 1
            return "550 5.1.1 No such user here"
        return None

    ground.sink.policy = policy
    await campaign.launch()
    completed = await campaign.over() == "completed"
    failed = (await campaign.told("failed")).keys()
    verdict = await campaign.judged(
        failed=unknown,
        completed=completed,
        those_and_no_others_failed=failed == unknown,
        tried_once_each=asked == Counter(unknown),
    )
    again = await launched(ground, "p4", campaign.people)
    await again.over()
    suppressed = await again.told("skipped")
    return verdict.and_also(
        never_written_to_again=suppressed.keys() == unknown
        and {each["reason"] for each in suppressed.values()} == {"suppressed"}
    )


@case("P6", "the server hangs now and then, at any step")
async def hanging_server(ground: Ground) -> Verdict:
    campaign = await drafted(ground, "p6", ground.scale.messages_in_passing)
    hung = set(ground.chance.sample(campaign.people, min(len(campaign.people) // 100, 8)))
    step_of = {person: ground.chance.choice(("RCPT", "DATA", "CONTENT")) for person in sorted(hung)}
    yet_to_hang = set(hung)

    def policy(moment: Moment) -> Misdeed | None:
        if moment.recipient in yet_to_hang and moment.step == step_of[moment.recipient]:
            yet_to_hang.remove(moment.recipient)
            return Misdeed.HANG
        return None

    ground.sink.policy = policy
    await campaign.launch()
    completed = await campaign.over() == "completed"
    doubtful = (await campaign.told("uncertain")).keys()
    content_was_under_way = {person for person in hung if step_of[person] == "CONTENT"}
    return await campaign.judged(
        uncertain=len(content_was_under_way),
        completed=completed,
        these_and_no_others_are_uncertain=doubtful == content_was_under_way,
    )


@case("P6", "the server hangs altogether for a while")
async def dead_server(ground: Ground) -> Verdict:
    ground.slow_down(ground.scale.rate_for_long_damage)
    campaign = await launched(ground, "p6b")
    (moment,) = ground.moments(1, len(campaign.people) // 2)
    await campaign.arrivals(moment)
    ground.sink.policy = lambda _: Misdeed.HANG
    await ground.lasts(ground.scale.outage_seconds)
    ground.sink.policy = None
    recovered = await campaign.moves()
    completed = await campaign.over() == "completed"
    return await campaign.judged(uncertain=UNDER_WAY, recovered=recovered, completed=completed)
