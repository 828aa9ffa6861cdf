"""Steps that reach beyond the contact: each answers for each caller, and happens once for each call of a pass."""

import asyncio
from collections.abc import AsyncIterator
from threading import Event
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.journey_inputs import CANCELLED, Answer, Failures, Left
from activities.outward import Outward
from channels.public_network import PublicNetwork, networks
from channels.webhooks import Webhooks
from database import campaigns, notifications
from database.engine import Database
from marketing.notifications import Notification
from marketing.webhooks import WebhookSecrets, signed
from tests.audience import EMAIL
from tests.conftest import SECRET_KEY, TestAccount
from tests.enrolled import NOW, enrolled
from tests.servers import Request, said, serving

SECRETS = WebhookSecrets(SECRET_KEY)


@pytest.fixture
async def webhooks() -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(PublicNetwork(networks("127.0.0.1")))
    yield webhooks
    await webhooks.close()


@pytest.fixture
def outward(database: Database, webhooks: Webhooks) -> Outward:
    return Outward(database, webhooks, SECRETS)


async def told(account: TestAccount) -> list[Notification]:
    async with account.transaction() as tx:
        return await notifications.page(tx, kind=None, source_id=None, after=None, limit=100)


# -- webhooks --------------------------------------------------------------------------------------------------------


async def test_a_webhook_tells_of_each_contact_once_for_each_call_and_a_repetition_can_be_told(
    account: TestAccount, outward: Outward
) -> None:
    inside = await enrolled(account, 3, trigger={"order": 17})
    async with serving(said(204)) as server:
        step = inside.step({"url": f"{server.url}/hook", "data": {"list": "vip"}})
        for _ in range(2):  # the worker was killed before its answers were on record
            assert await ActivityEnvironment().run(outward.webhook, step) == [Answer()] * 3
        await ActivityEnvironment().run(outward.webhook, step.model_copy(update={"callers": step.callers[:1]}))
        again = inside.step(step.args, members=[0], call=5)
        await ActivityEnvironment().run(outward.webhook, again)
    bodies = [orjson.loads(each.body) for each in server.requests]
    assert {UUID(body["contact"]["id"]) for body in bodies} == set(inside.contacts)
    assert all(body["event"] == {"order": 17} and body["data"] == {"list": "vip"} for body in bodies)
    assert all(UUID(body["automation"]) == inside.automation_id and body["step"] == "a-step" for body in bodies)
    ids = [each.headers["webhook-id"] for each in server.requests]
    assert sorted(ids[:3]) == sorted(ids[3:6]) and ids[6] in ids[:3] and ids[7] not in ids[:6]
    for each in server.requests:
        at = int(each.headers["webhook-timestamp"])
        seal = signed(SECRETS.of(account.id), each.headers["webhook-id"], at, each.body)
        assert each.headers["webhook-signature"] == seal["webhook-signature"]


async def test_each_caller_of_a_webhook_is_answered_by_itself(account: TestAccount, outward: Outward) -> None:
    inside = await enrolled(account, 3)
    answers = dict(zip(map(str, inside.contacts), (200, 503, 404), strict=True))

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await said(answers[orjson.loads(request.body)["contact"]["id"]])(request, writer)

    async with serving(answer) as server:
        first, second, third = await ActivityEnvironment().run(outward.webhook, inside.step({"url": server.url}))
    assert (first, second) == (Answer(), Answer(error="503"))
    assert (third.error, third.final) == ("404", True)


async def test_a_webhook_to_an_address_within_fails_for_good(account: TestAccount, database: Database) -> None:
    inside = await enrolled(account, 1)
    within = Outward(database, Webhooks(PublicNetwork()), SECRETS)
    async with serving(said(200)) as server:
        (answer,) = await ActivityEnvironment().run(within.webhook, inside.step({"url": server.url}))
    assert answer.final and "not for everybody" in answer.error
    assert server.connections == 0


async def test_no_step_begins_for_whoever_has_left_nor_while_the_automation_is_held(
    account: TestAccount, outward: Outward
) -> None:
    inside = await enrolled(account, 2)
    async with serving(said(200)) as server:
        step = inside.step({"url": server.url})
        await inside.set_state("paused")
        assert await ActivityEnvironment().run(outward.webhook, step) == [Answer(held=True)] * 2
        assert server.connections == 0
        await inside.set_state("active")
        async with account.transaction() as tx:
            gone = text("UPDATE contacts SET deleted_at = now() WHERE id = :id")
            await tx.execute(gone, {"id": inside.contacts[1]})
        assert await ActivityEnvironment().run(outward.webhook, step) == [Answer(), Answer(leave="contact_deleted")]
        async with account.transaction() as tx:
            await tx.execute(text("UPDATE enrollments SET state = 'exited', reason = 'unsubscribed', left_at = now()"))
        assert await ActivityEnvironment().run(outward.webhook, inside.step(step.args, members=[0])) == [
            Answer(leave="unsubscribed")
        ]
        await inside.set_state("draft")
        assert await ActivityEnvironment().run(outward.webhook, step) == [CANCELLED] * 2
        assert len(server.requests) == 1


# -- notifications ---------------------------------------------------------------------------------------------------


async def test_what_is_the_same_for_many_contacts_is_told_once_however_often_it_is_tried(
    account: TestAccount, database: Database, webhooks: Webhooks
) -> None:
    asked: list[UUID] = []

    async def tell(account_id: UUID) -> None:
        asked.append(account_id)

    outward = Outward(database, webhooks, SECRETS, tell=tell)
    inside = await enrolled(account, 3, trigger={"order": 17})
    same = inside.step({"text": "Order {{ event.order }}\nhas been   left"})
    for _ in range(2):
        assert await ActivityEnvironment().run(outward.notify, same) == [Answer()] * 3
    await ActivityEnvironment().run(outward.notify, inside.step({"text": "{{ contact.first_name }}"}, call=1))
    texts = [each.text for each in await told(account)]
    one = inside.contacts[0]
    assert f"Order 17 has been left (3 contacts, such as {one})" in texts
    assert sorted(texts)[1:] == [f"Person {n + 1} (contact {id})" for n, id in enumerate(inside.contacts)]
    assert len(texts) == 4
    assert asked == [account.id] * 3


async def test_a_notification_that_cannot_be_written_fails_for_good(account: TestAccount, outward: Outward) -> None:
    inside = await enrolled(account, 1)
    (answer,) = await ActivityEnvironment().run(outward.notify, inside.step({"text": "{{ 1 | nosuch }}"}))
    assert answer.final and "nosuch" in answer.error
    assert await told(account) == []


async def test_failed_passes_are_reported_by_what_went_wrong(account: TestAccount, outward: Outward) -> None:
    inside = await enrolled(account, 3)
    failures = Failures(
        account_id=account.id,
        source_id=inside.automation_id,
        cohort=1,
        version=1,
        left=[
            Left(members=[0, 2], state="failed", at=NOW, problem="hook: 404"),
            Left(members=[1], state="failed", at=NOW, problem="hook: 401"),
        ],
        now=NOW,
    )
    for _ in range(2):
        await ActivityEnvironment().run(outward.report_failures, failures)
    assert sorted((each.kind, each.source_id, each.text) for each in await told(account)) == [
        ("failed", inside.automation_id, f"hook: 401 (contact {inside.contacts[1]})"),
        ("failed", inside.automation_id, f"hook: 404 (2 contacts, such as {inside.contacts[0]})"),
    ]


# -- campaigns -------------------------------------------------------------------------------------------------------


async def test_a_campaign_is_made_and_launched_once_for_each_call(account: TestAccount, outward: Outward) -> None:
    inside = await enrolled(account, 2)
    step = inside.step({"campaign": {"name": "Sorry", "content": {"email": EMAIL}}, "launch": True})
    first = await ActivityEnvironment().run(outward.create_campaign, step)
    assert await ActivityEnvironment().run(outward.create_campaign, step) == first
    async with account.transaction() as tx:
        made = [await campaigns.read(tx, UUID(answer.value)) for answer in first]
        everything = await campaigns.page(tx, campaigns.CampaignFilter(), after=None, limit=10)
    assert len(everything) == 2
    for campaign, contact in zip(made, inside.contacts, strict=True):
        assert campaign and campaign.state == "running" and campaign.launched_at is not None
        assert campaign.definition.audience and campaign.definition.audience.contact_ids == [contact]


async def test_a_campaign_that_cannot_be_launched_says_why_and_is_not_made(
    account: TestAccount, outward: Outward
) -> None:
    inside = await enrolled(account, 1)
    definition = {"name": "Sorry", "content": {"email": {**EMAIL, "from_email": "news@elsewhere.example.org"}}}
    (answer,) = await ActivityEnvironment().run(outward.create_campaign, inside.step({"campaign": definition}))
    assert answer.final and "elsewhere.example.org is no sender domain" in answer.error
    (draft,) = await ActivityEnvironment().run(
        outward.create_campaign, inside.step({"campaign": definition, "launch": False})
    )
    async with account.transaction() as tx:
        (only,) = await campaigns.page(tx, campaigns.CampaignFilter(), after=None, limit=10)
    assert (str(only.id), only.state) == (draft.value, "draft")


# -- code of an author's own -----------------------------------------------------------------------------------------


async def score(points: int, contact_id: UUID) -> dict[str, UUID | int]:
    return {"contact": contact_id, "points": points + 1}


def slow(text: str) -> str:
    if text == "never":
        raise ApplicationError("not for this one", non_retryable=True)
    if text == "later":
        raise ConnectionError("away")
    return text * 2


async def test_an_authors_own_function_is_called_for_each_contact(
    account: TestAccount, database: Database, webhooks: Webhooks
) -> None:
    inside = await enrolled(account, 2)
    outward = Outward(database, webhooks, SECRETS, authors={"score": score, "slow": slow})

    async def perform(name: str, *arguments: object) -> list[Answer]:
        step = inside.step({"name": name, "arguments": list(arguments)})
        return await ActivityEnvironment().run(outward.perform, step)

    scored = await perform("score", 4)
    assert [each.value for each in scored] == [{"contact": str(id), "points": 5} for id in inside.contacts]
    (given, _) = await perform("score", 4, str(inside.contacts[1]))  # written in Python, with what it takes
    assert given.value == {"contact": str(inside.contacts[1]), "points": 5}
    assert [each.value for each in await perform("slow", "ab")] == ["abab"] * 2
    assert (await perform("slow", "never"))[0] == Answer(error="not for this one", final=True)
    assert (await perform("score", "many"))[0].final
    assert (await perform("slow", "x" * 1000))[0].final
    (unknown, _) = await perform("nosuch")
    assert "score, slow" in unknown.error and not unknown.final


async def weighed(contact_id: UUID, factor: int, *, step: int = 1) -> int:
    return factor + step


async def test_who_the_contact_is_takes_no_argument_away(
    account: TestAccount, database: Database, webhooks: Webhooks
) -> None:
    inside = await enrolled(account, 1)
    outward = Outward(database, webhooks, SECRETS, authors={"weighed": weighed})

    async def perform(*arguments: object) -> Answer:
        step = inside.step({"name": "weighed", "arguments": list(arguments)})
        (answer,) = await ActivityEnvironment().run(outward.perform, step)
        return answer

    assert await perform(2) == Answer(value=3)
    assert await perform(str(inside.contacts[0]), 2) == Answer(value=3)
    many = await perform("many")
    assert many.error.startswith("weighed does not take this: factor: Input should be a valid integer") and many.final
    assert (await perform()).error == "weighed does not take this: missing a required argument: 'contact_id'"


async def test_an_error_in_code_of_an_authors_own_tells_its_kind_and_place_and_nobodys_name(
    account: TestAccount, database: Database, webhooks: Webhooks
) -> None:
    def refused() -> None:
        raise ConnectionError("no way: zoe@example.com Zoe Smithson +33 6 12 34 56 78")

    inside = await enrolled(account, 1)
    outward = Outward(database, webhooks, SECRETS, authors={"refused": refused})
    step = inside.step({"name": "refused", "arguments": []})
    (answer,) = await ActivityEnvironment().run(outward.perform, step)
    line = refused.__code__.co_firstlineno + 1
    assert answer == Answer(error=f"ConnectionError (test_outward.py:{line})")


async def test_a_function_that_hangs_fails_for_its_contact_alone(
    account: TestAccount, database: Database, webhooks: Webhooks
) -> None:
    go_on = Event()
    inside = await enrolled(account, 4)
    first, second = inside.contacts[:2]

    async def hangs(contact_id: UUID) -> str:
        if contact_id == first:
            await asyncio.Event().wait()
        return await asyncio.to_thread(hangs_in_a_thread, contact_id) if contact_id == second else "here"

    def hangs_in_a_thread(contact_id: UUID) -> str:
        if contact_id == second:
            go_on.wait()
        return "here"

    outward = Outward(database, webhooks, SECRETS, authors={"hangs": hangs, "blocks": hangs_in_a_thread})
    for name, hanging in (("hangs", {0, 1}), ("blocks", {1})):
        step = inside.step({"name": name, "arguments": [], "seconds": 1})
        answers = await ActivityEnvironment().run(outward.perform, step)
        problem = Answer(error=f"{name} has not answered within 1 seconds.")
        assert answers == [problem if each in hanging else Answer(value="here") for each in range(4)]
    go_on.set()
