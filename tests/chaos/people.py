"""People who press buttons at the wrong moment, and all at once."""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from time import time
from uuid import UUID

import httpx

from tests.chaos.campaign import UNDER_WAY, Campaign, Verdict, drafted, launched, wording
from tests.chaos.campaign import people as everybody
from tests.chaos.cases import case
from tests.chaos.ground import Ground
from workflows.campaigns import campaign_workflow_id
from workflows.connection import connect

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"}
READERS = 500
IN_HAND = 60  # requests with a key each, when the API is killed
AT_ONCE = 20  # requests of the people who read and leave


@case("F9", "a campaign is launched 100 times at once")
async def launched_by_everybody(ground: Ground) -> Verdict:
    campaign = await drafted(ground, "f9", ground.scale.messages_in_passing)
    launches = await asyncio.gather(*(ground.http.post(f"{campaign.path}/launch") for _ in range(100)))
    answers = Counter(each.status_code for each in launches)
    completed = await campaign.over() == "completed"
    temporal = await connect(ground.up.state["temporal_address"])
    runs = await temporal.count_workflows(f"WorkflowId = '{campaign_workflow_id(UUID(campaign.id))}'")
    return await campaign.judged(
        completed=completed, launched_once=answers == {202: 1, 409: 99}, run_once=runs.count == 1
    )


@case("F14", "a campaign is paused, resumed and cancelled")
async def paused_and_cancelled(ground: Ground) -> Verdict:
    ground.slow_down(ground.scale.rate)
    campaign = await launched(ground, "f14")
    first, second = ground.moments(2, len(campaign.people))
    await campaign.arrivals(first)
    await campaign.ask("POST", "/pause")
    paused = time()
    await ground.lasts(4)
    too_late = [each for each in campaign.received if each.at > paused + 2]
    in_flight = [each for each in campaign.received if each.at > paused]
    await campaign.ask("POST", "/resume")
    recovered = await campaign.moves()
    await campaign.arrivals(second)
    await campaign.ask("POST", "/cancel")
    cancelled = time()
    ended = await campaign.over() == "cancelled"
    await ground.lasts(3)
    too_late += [each for each in campaign.received if each.at > cancelled + 2]
    in_flight += [each for each in campaign.received if each.at > cancelled]
    skipped = await campaign.told("skipped")
    return await campaign.judged(
        skipped=campaign.people,
        recovered=recovered,
        ended=ended,
        skipped_is_what_was_cancelled={each["reason"] for each in skipped.values()} == {"cancelled"},
        nothing_leaves_2_s_after_the_answer=not too_late,
        only_what_was_in_flight_leaves_after_it=len(in_flight) <= 2 * UNDER_WAY,
    )


@case("D1", "people unsubscribe while a campaign runs")
async def unsubscribing(ground: Ground) -> Verdict:
    people = await everybody(ground, "d1", ground.scale.messages_in_passing)
    leaving = ground.chance.sample(people, len(people) // 20)
    _, letters = await _written_to(ground, "d1", people, leaving)
    campaign = await launched(ground, "d1", people, rate_limit_per_second=min(len(people) // 10, 1_000))
    (moment,) = ground.moments(1, len(people) // 2)
    await campaign.arrivals(moment)
    acknowledged: dict[str, float] = {}
    leaving_now = asyncio.Semaphore(AT_ONCE)

    async def leave(person: str, http: httpx.AsyncClient) -> None:
        async with leaving_now:
            answer = await http.post(letters[person].unsubscribe, data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 200
        acknowledged[person] = time()

    async with httpx.AsyncClient(timeout=30) as http:
        await asyncio.gather(*(leave(person, http) for person in leaving))
    completed = await campaign.over() == "completed"
    late = [each.at - acknowledged[each.recipient] for each in campaign.received if each.recipient in acknowledged]
    skipped = await campaign.told("skipped")
    return await campaign.judged(
        skipped=acknowledged,
        completed=completed,
        some_were_in_time=len(skipped) > 0,
        nobody_else_is_skipped=skipped.keys() <= acknowledged.keys(),
        it_holds_within_1_s=max(late) <= 1,
        only_what_was_in_flight_leaves_after_it=sum(each > 0 for each in late) <= UNDER_WAY,
    )


@case("D5", "the API is killed (-9) while people open, click and unsubscribe")
async def killed_while_tracking(ground: Ground) -> Verdict:
    """What was acknowledged is on record; and whoever was told to be unsubscribed gets no more mail."""
    people = await everybody(ground, "d5", READERS)
    first, letters = await _written_to(ground, "d5", people, people)
    opened, clicked, left = set[str](), set[str](), set[str]()

    async def read(person: str, http: httpx.AsyncClient) -> None:
        letter = letters[person]
        for done, request in (
            (opened, http.build_request("GET", letter.pixel)),
            (clicked, http.build_request("GET", letter.link)),
            (left, http.build_request("POST", letter.unsubscribe, data={"List-Unsubscribe": "One-Click"})),
        ):
            try:
                answer = await http.send(request)
            except httpx.TransportError:
                continue
            if answer.status_code in (200, 302):
                done.add(person)

    reading = asyncio.Semaphore(AT_ONCE)

    async def in_turn(person: str, http: httpx.AsyncClient) -> None:
        async with reading:
            await read(person, http)

    async with httpx.AsyncClient(timeout=30, headers=BROWSER) as http:
        for part in range(3):
            some = people[part::3]
            under_way = [asyncio.create_task(in_turn(person, http)) for person in some]
            await asyncio.wait(under_way[: ground.chance.randrange(20, len(some) // 2)])
            await ground.kill("API")
            await asyncio.wait(under_way)
    on_record = {what: await first.events(f"message.{what}") for what in ("opened", "clicked")}
    told = await first.told("sent")
    campaign = await launched(ground, "d5", people)
    await campaign.over()
    again = {each.recipient for each in campaign.received}
    return await campaign.judged(
        skipped=people,  # all of them pressed the button, whether they got an answer or not
        many_were_heard=len(clicked) > READERS // 4,
        acknowledged_opens_are_on_record=all(told[person]["delivery_id"] in on_record["opened"] for person in opened),
        acknowledged_clicks_are_on_record=all(
            told[person]["delivery_id"] in on_record["clicked"] for person in clicked
        ),
        who_was_told_to_be_unsubscribed_is=not again & left,
    )


@case("D16", "one Idempotency-Key is sent by many at once, while the API is killed (-9)")
async def impatient_program(ground: Ground) -> Verdict:
    """A program that got no answer asks again, with the same key: one campaign is made, and launched once."""
    people = await everybody(ground, "d16", READERS)
    draft = wording("d16")

    async def insist(path: str, key: str, body: object) -> httpx.Response:
        while True:
            try:
                answer = await ground.http.post(path, json=body, headers={"Idempotency-Key": key})
                if answer.status_code not in (409, 503):  # still at work on it, or nobody is
                    return answer
            except httpx.TransportError:
                pass
            await ground.lasts(0.05)

    asked = [asyncio.create_task(insist("/api/campaigns", "make it", draft)) for _ in range(30)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await ground.kill("API")
    made = {answer.json()["id"] for answer in await asyncio.gather(*asked)}
    another = await insist("/api/campaigns", "make it", {**draft, "name": "Another"})
    campaign = Campaign(ground, min(made), "d16", people)
    launches = [asyncio.create_task(insist(f"{campaign.path}/launch", "go", None)) for _ in range(30)]
    await asyncio.wait(launches, return_when=asyncio.FIRST_COMPLETED)
    await ground.kill("API")
    answers = {answer.status_code for answer in await asyncio.gather(*launches)}
    completed = await campaign.over() == "completed"
    listed = await ground.ask("GET", "/api/campaigns", params={"search": draft["name"]})
    verdict = await campaign.judged(
        completed=completed,
        made_once=len(made) == 1 == len(listed["items"]),
        everybody_got_the_same_answer=answers == {202},
        the_same_key_for_something_else_is_refused=another.status_code == 422,
    )
    silent, claims = await _killed_with_many_in_hand(ground)
    return verdict.and_also(f"{silent} of {IN_HAND} keys had an effect and no answer", **claims)


async def _killed_with_many_in_hand(ground: Ground) -> tuple[int, dict[str, bool]]:
    """Each key makes a campaign of its own, and the API dies in the midst of them.

    Returns:
        how many died between their effect and the keeping of their answer, and what must hold.
    """
    names = [f"Number {number:03}" for number in range(IN_HAND)]

    async def make(name: str) -> httpx.Response | None:
        draft = wording("d16") | {"name": name}
        try:
            return await ground.http.post("/api/campaigns", json=draft, headers={"Idempotency-Key": name})
        except httpx.TransportError:
            return None

    async def ids() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in names}
        async for each in ground.pages("/api/campaigns", {"search": "Number "}):
            found[each["name"]].append(each["id"])
        return found

    await asyncio.gather(*(ground.ask("GET", "/api/account") for _ in names))  # each has a connection now
    asked = [asyncio.create_task(make(name)) for name in names]
    for _ in range(ground.chance.randrange(1, IN_HAND // 4)):
        await asyncio.wait([each for each in asked if not each.done()], return_when=asyncio.FIRST_COMPLETED)
    await ground.kill("API")
    heard = dict(zip(names, [_made(answer) for answer in await asyncio.gather(*asked)], strict=True))
    before = await ids()
    again = {name: _made(await make(name)) for name in names}
    after = await ids()
    silent = [name for name in names if before[name] and not again[name]]
    return len(silent), {
        "the_api_died_with_many_in_hand": sum(each is None for each in heard.values()) > 1,
        "a_key_has_one_effect_at_the_most": all(len(each) <= 1 for each in after.values()),
        "what_is_told_is_done": all(not told or before[name] == [told] for name, told in heard.items()),
        "and_told_alike_again": all(not told or again[name] == told for name, told in heard.items()),
        "what_is_told_again_is_done": all(not told or after[name] == [told] for name, told in again.items()),
        "what_is_refused_is_not_done_now": all(told or after[name] == before[name] for name, told in again.items()),
    }


def _made(answer: httpx.Response | None) -> str | None:
    """The campaign that was made, if the answer tells of one."""
    if answer is None or answer.status_code == 409:
        return None
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@dataclass(frozen=True)
class Letter:
    """Where its pixel, its link and its one-click unsubscribing lead to."""

    pixel: str
    link: str
    unsubscribe: str


async def _written_to(
    ground: Ground, group: str, people: list[str], readers: list[str]
) -> tuple[Campaign, dict[str, Letter]]:
    """Send everybody a first message; those of the readers."""
    ground.sink.letters_to.update(readers)
    campaign = await launched(ground, group, people)
    await campaign.over()
    ground.sink.letters_to.clear()
    return campaign, {person: _read(ground.sink.letters.pop(person)) for person in readers}


def _read(content: bytes) -> Letter:
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(("html",))
    assert body is not None
    html = str(body.get_content())
    pixel, link = (re.search(f'"([^"]+/t/{kind}/[^"]+)"', html) for kind in "oc")
    assert pixel and link
    return Letter(unescape(pixel[1]), unescape(link[1]), str(message["List-Unsubscribe"]).strip("<> "))
