"""What becomes of each message of a journey, whatever the provider says, and however often it is asked for?"""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from activities.journey_inputs import CANCELLED, Answer, StepCall
from channels.base import Deferred, Message, Rejected, Unavailable, Uncertain
from channels.outbox import Outbox
from database import automations, campaigns, cohorts, templates
from marketing.accounts import FrequencyCap, QuietHours
from marketing.automations import AutomationState
from marketing.templates import TemplateDefinition
from tests.audience import EMAIL
from tests.broadcast import broadcast
from tests.conftest import PUBLIC_URL, TestAccount
from tests.delivering import Provider, change_account, execute
from tests.enrolled import NOW
from tests.journeys import SENT, Steps, steps
from tests.unreliable import UnreliableDatabase

# -- once ------------------------------------------------------------------------------------------------------------


async def test_a_message_that_is_asked_for_again_is_sent_once_and_answered_alike(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 120, outbox)
    first = await taken.send()
    assert first == [SENT] * 120
    assert await taken.send() == first
    assert len(outbox.messages) == len({each.to for each in outbox.messages}) == 120
    assert await taken.ledger() == {"sent": 120}
    assert await taken.figures() == {"planned": 120, "sent": 120}


async def test_the_same_step_passed_again_sends_again(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    await taken.send(call=0)
    assert await taken.send(call=3) == [SENT] * 2
    assert len(outbox.messages) == 4
    assert await taken.figures() == {"planned": 4, "sent": 4}


async def test_two_attempts_at_the_same_time_send_each_message_once(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 300, outbox)
    both = await asyncio.gather(taken.send(), taken.send())
    assert len(outbox.messages) == 300
    assert await taken.figures() == {"planned": 300, "sent": 300}
    assert all(answer == SENT or answer.later for answers in both for answer in answers)
    assert await taken.send() == [SENT] * 300


async def test_whatever_is_lost_on_the_way_to_the_database_nothing_is_sent_twice(
    account: TestAccount, database_url: str
) -> None:
    outbox = Outbox()
    database = UnreliableDatabase(database_url, random.Random(5), 0.3)
    taken = await steps(account, 200, outbox, database=database)
    answers: list[Answer] = []
    while not answers or any(answer.later for answer in answers):
        try:
            answers = await taken.send()
        except SQLAlchemyError:
            continue  # as Temporal would
    await database.close()
    assert database.lost > 10
    assert answers == [SENT] * 200
    assert len(outbox.messages) == 200
    assert await taken.figures() == {"planned": 200, "sent": 200}


async def test_what_a_lost_worker_had_in_hand_is_uncertain_and_the_contact_goes_on(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 3, outbox)
    await taken.send()
    hold = (
        "UPDATE deliveries SET state = 'sending', lease = uuidv7(), finished_at = NULL,"
        " lease_until = clock_timestamp() + CAST(:left AS interval) WHERE campaign_id = :id"
    )
    await execute(account, hold, id=taken.inside.automation_id, left="1 hour")
    for answer in await taken.send():
        assert answer.later and timedelta(minutes=50) < answer.later - NOW < timedelta(minutes=61)
    await execute(account, hold, id=taken.inside.automation_id, left="-1 second")
    assert await taken.send() == [Answer(value={"state": "uncertain", "reason": "worker_lost"})] * 3
    assert len(outbox.messages) == 3


# -- what the provider says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (Rejected("550 no such user", suppress=True), Answer(value={"state": "failed", "reason": "rejected"})),
        (Uncertain("lost"), Answer(value={"state": "uncertain", "reason": "connection_lost"})),
        (Deferred("451 later"), Answer(later=NOW + timedelta(minutes=1))),
    ],
)
async def test_the_answer_tells_what_the_provider_said(account: TestAccount, said: Exception, answer: Answer) -> None:
    taken = await steps(account, 2, Provider(said))
    for told in await taken.send():
        assert told.value == answer.value
        if answer.later:
            assert told.later and answer.later <= told.later < answer.later + timedelta(seconds=30)
    assert sum((await taken.ledger()).values()) == 2


async def test_a_greylisted_message_leaves_when_it_is_asked_for_later(account: TestAccount) -> None:
    provider = Provider(Deferred("451 later"))
    taken = await steps(account, 2, provider)
    (later, _) = [each.later for each in await taken.send()]
    assert later

    async def accept(_: Message) -> None: ...

    provider.answer = accept
    assert all(each.later for each in await taken.send(now=NOW + timedelta(seconds=5)))
    assert len(provider.asked) == 2
    assert await taken.send(now=later) == [SENT] * 2
    assert await taken.figures() == {"planned": 2, "sent": 2}


async def test_while_a_provider_is_away_it_is_asked_ever_less_often(account: TestAccount) -> None:
    taken = await steps(account, 60, Provider(Unavailable("connection refused")))
    soon = await taken.send(now=datetime.now(UTC))
    assert all(each.later for each in soon)
    assert await taken.ledger() == {"planned": 60}
    an_hour_on = datetime.now(UTC) + timedelta(hours=1)
    late = await taken.send(now=an_hour_on)
    assert all(each.later and each.later >= an_hour_on + timedelta(minutes=10) for each in late)


# -- who may get it --------------------------------------------------------------------------------------------------


async def test_whoever_has_unsubscribed_or_is_deleted_leaves_and_others_who_may_not_be_written_to_go_on(
    account: TestAccount,
) -> None:
    taken = await steps(account, 6, Outbox())
    _, left, deleted, silent, nowhere, dead = taken.inside.contacts
    await execute(account, "UPDATE subscriptions SET status = 'unsubscribed' WHERE contact_id = :id", id=left)
    await execute(account, "UPDATE contacts SET deleted_at = now() WHERE id = :id", id=deleted)
    await execute(account, "DELETE FROM subscriptions WHERE contact_id = :id", id=silent)
    await execute(account, "UPDATE contacts SET email = NULL, phone = '+33612345678' WHERE id = :id", id=nowhere)
    await execute(
        account,
        "INSERT INTO suppressions (account_id, channel, address, reason)"
        " SELECT account_id, 'email', lower(email), 'complaint' FROM contacts WHERE id = :id",
        id=dead,
    )
    expected = [
        SENT,
        Answer(leave="unsubscribed"),
        Answer(leave="contact_deleted"),
        *(Answer(value={"state": "skipped", "reason": why}) for why in ("no_consent", "no_address", "suppressed")),
    ]
    assert await taken.send() == expected
    assert await taken.figures() == {
        "planned": 6,
        "sent": 1,
        **{
            f"skipped:{why}": 1 for why in ("unsubscribed", "contact_deleted", "no_consent", "no_address", "suppressed")
        },
    }


async def test_whom_one_channel_cannot_reach_another_may(account: TestAccount) -> None:

    async def accept(_: Message) -> None: ...

    email, other = Outbox(), Provider(accept)
    taken = await steps(account, 2, {"email": email, "sms": other})
    _, away = taken.inside.contacts
    await execute(account, "UPDATE contacts SET email = NULL, phone = '+33612345678' WHERE id = :id", id=away)
    await execute(
        account,
        "INSERT INTO subscriptions (account_id, contact_id, channel, status) VALUES (:a, :id, 'sms', 'subscribed')",
        a=account.id,
        id=away,
    )
    for _ in range(2):
        assert await taken.send(content=EMAIL, fallback="sms") == [SENT] * 2
    assert len(email.messages) == 1
    assert other.asked == ["+33612345678"]
    assert await taken.ledger() == {"sent": 2, "skipped:no_address": 1}


async def test_a_fallback_that_this_worker_does_not_have_is_passed_over(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    await execute(account, "DELETE FROM subscriptions WHERE contact_id = :id", id=taken.inside.contacts[0])
    assert await taken.send(content=EMAIL, fallback="whatsapp") == [
        Answer(value={"state": "skipped", "reason": "no_consent"})
    ]
    (refused,) = await taken.send(content=EMAIL, channel="sms", call=1)
    assert "no channel sms" in refused.error


async def test_over_the_cap_it_is_skipped_and_in_quiet_hours_it_waits(account: TestAccount) -> None:
    await change_account(account, frequency_caps={"email": FrequencyCap(messages=1, hours=24)})
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    assert await taken.send() == [SENT] * 2
    assert await taken.send(call=1) == [Answer(value={"state": "skipped", "reason": "frequency_cap"})] * 2
    night = QuietHours(start=NOW.time().replace(hour=11), end=NOW.time().replace(hour=15))
    await change_account(account, frequency_caps={}, quiet_hours=night)
    morning = NOW.replace(hour=15)
    assert await taken.send(call=2) == [Answer(later=morning)] * 2
    assert await taken.send(call=2, now=morning) == [SENT] * 2
    assert len(outbox.messages) == 4


async def test_a_paused_source_holds_and_a_deleted_one_lets_go(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    await taken.inside.set_state("paused")
    assert await taken.send() == [Answer(held=True)] * 2
    await taken.inside.set_state("active")
    await execute(account, "UPDATE automations SET deleted_at = now() WHERE id = :id", id=taken.inside.automation_id)
    assert await taken.send() == [CANCELLED] * 2
    assert not outbox.messages


async def test_whoever_was_inside_at_a_cancel_gets_nothing_though_it_is_active_again(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 3, outbox)
    source = taken.inside.automation_id
    query = "INSERT INTO cohorts (account_id, source_id, number, version, members) VALUES (:a, :id, :number, 1, 1)"
    await execute(account, query, a=account.id, id=source, number=1)
    place = "UPDATE enrollments SET state = :state, cohort = :cohort, member = :member WHERE contact_id = :id"
    *_, waiting = taken.inside.contacts
    await execute(account, place, id=waiting, state="pending", cohort=None, member=None)
    async with account.transaction() as tx:
        await automations.cancel(tx, account.id, source, "Wrong price", now=NOW)
        await automations.move(tx, source, AutomationState.ACTIVE)
    assert await taken.send(members=[0, 1]) == [CANCELLED] * 2
    tag = taken.inside.step({"add": ["vip"]}, members=[0, 1])
    assert await taken.take("tag", tag) == [CANCELLED] * 2
    assert not outbox.messages
    async with account.transaction() as tx:
        found = await tx.execute(text("SELECT state, reason FROM enrollments WHERE contact_id = :id"), {"id": waiting})
        assert found.one() == ("cancelled", "Wrong price")
        figures = await tx.execute(text("SELECT name, n FROM step_counters"))
        assert figures.all() == [("cancelled", 1)]
        assert await cohorts.form(tx, account.id, source, "automation", None, joins=True, limit=9, now=NOW) is None
    await execute(account, query, a=account.id, id=source, number=2)
    await execute(account, place, id=taken.inside.contacts[0], state="active", cohort=2, member=0)
    assert await taken.take(
        "send", taken.inside.step({"content": EMAIL}, members=[0]).model_copy(update={"cohort": 2})
    ) == [SENT]


async def test_a_pause_in_the_midst_of_it_holds_within_a_set(account: TestAccount) -> None:
    taken = await steps(account, 200, None)

    async def pause(_: Message) -> None:
        await taken.inside.set_state("paused")

    provider = Provider(pause)
    taken.journeys.sendings.channels = {"email": provider}
    answers = await taken.send()
    assert len(provider.asked) == 50
    assert answers.count(SENT) == 50
    assert answers.count(Answer(held=True)) == 150


async def test_whoever_has_left_gets_nothing(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    await execute(
        account,
        "UPDATE enrollments SET state = 'exited', reason = 'goal', left_at = now() WHERE contact_id = :id",
        id=taken.inside.contacts[0],
    )
    assert await taken.send() == [Answer(leave="goal"), SENT]
    assert len(outbox.messages) == 1


async def test_whoever_is_over_on_record_leaves_as_it_is_there(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox())
    query = "UPDATE enrollments SET state = :state, reason = :reason, left_at = now() WHERE contact_id = :id"
    cancelled, failed = taken.inside.contacts
    await execute(account, query, state="cancelled", reason="sold out", id=cancelled)
    await execute(account, query, state="failed", reason=None, id=failed)
    assert await taken.send() == [
        Answer(leave="sold out", left_as="cancelled"),
        Answer(leave="", left_as="failed"),
    ]


async def test_whoever_meets_the_exit_criteria_leaves_before_the_message(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 3, outbox)
    await execute(
        account,
        "INSERT INTO automation_versions (account_id, automation_id, version, definition)"
        " VALUES (:a, :id, 1, CAST(:definition AS jsonb))",
        a=account.id,
        id=taken.inside.automation_id,
        definition='{"exit_on": [{"event": "purchase"}, {"if": {"field": "tags", "contains": "vip"}}]}',
    )
    await execute(account, "UPDATE contacts SET tags = '{vip}' WHERE id = :id", id=taken.inside.contacts[1])
    assert await taken.send() == [SENT, Answer(leave="exit"), SENT]
    assert len(outbox.messages) == 2


async def test_exit_criteria_of_a_new_version_hold_for_those_who_are_inside(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 3, outbox)
    tags = ("vip", "regular")
    vip, regular = (orjson.dumps({"exit_on": [{"if": {"field": "tags", "contains": tag}}]}).decode() for tag in tags)
    query = """
        WITH newer AS (UPDATE automations SET version = 2 WHERE id = :id)
        INSERT INTO automation_versions (account_id, automation_id, version, definition)
        VALUES (:a, :id, 1, CAST(:vip AS jsonb)), (:a, :id, 2, CAST(:regular AS jsonb))
    """
    await execute(account, query, a=account.id, id=taken.inside.automation_id, vip=vip, regular=regular)
    for contact, tag in zip(taken.inside.contacts, tags, strict=False):
        await execute(account, "UPDATE contacts SET tags = ARRAY[:tag] WHERE id = :id", id=contact, tag=tag)
    assert await taken.send() == [SENT, Answer(leave="exit"), SENT]
    assert len(outbox.messages) == 2


async def test_a_message_that_can_not_be_written_fails_the_step_for_good(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    await execute(
        account,
        """UPDATE contacts SET attributes = '{"share": 2}' WHERE id = :id""",
        id=taken.inside.contacts[0],
    )
    html = "<p>{{ 10 | divided_by: contact.share }} <a href='{{ unsubscribe_url }}'>Unsubscribe</a></p>"
    for _ in range(2):
        fine, failed = await taken.send(content=EMAIL | {"html": html})
        assert fine == SENT
        assert failed.final
        assert failed.error == "The message can't be written: html, line 1: divided_by: can't divide by 0"
    assert await taken.ledger() == {"sent": 1, "failed:render": 1}


# -- what it says ----------------------------------------------------------------------------------------------------


async def test_a_message_knows_what_the_journey_began_with_and_its_source(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox, trigger={"order": {"number": 17}})
    html = "<p>{{ event.order.number }} of {{ campaign.id }}</p><a href='{{ unsubscribe_url }}'>Unsubscribe</a>"
    await taken.send(content=EMAIL | {"subject": "Order {{ event.order.number }}", "html": html})
    for message in outbox.messages:
        assert message.subject == "Order 17"
        assert message.html and f"17 of {taken.inside.automation_id}" in message.html
        assert ":automation::" in message.headers["Feedback-ID"]


async def test_a_template_is_read_as_it_stands_at_that_moment_by_its_name_or_id(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 1, outbox)
    body = {"html": EMAIL["html"], "from_email": "news@example.com"}
    async with account.transaction() as tx:
        first = TemplateDefinition(name="Welcome", subject="One", **body)
        made = await templates.create(tx, account.id, first)
    assert await taken.send(template="Welcome") == [SENT]
    async with account.transaction() as tx:
        await templates.replace(tx, account.id, made.summary.id, first.model_copy(update={"subject": "Two"}))
    assert await taken.send(template=str(made.summary.id), call=1) == [SENT]
    assert [each.subject for each in outbox.messages] == ["One", "Two"]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"template": "Nowhere"}, "no template “Nowhere”"),
        ({"content": EMAIL | {"html": "{% for %}"}}, "html"),
        ({"content": {"nonsense": 1}}, "nonsense"),
    ],
)
async def test_what_can_never_be_sent_says_why(account: TestAccount, args: dict[str, Any], problem: str) -> None:
    taken = await steps(account, 2, Outbox())
    for answer in await taken.send(**args):
        assert answer.final and problem in answer.error
    assert await taken.ledger() == {}


async def test_links_of_all_steps_are_numbered_once_for_the_source(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 1, outbox)
    await taken.send(step="first")
    other = EMAIL["html"].replace("/autumn", "/winter")
    await taken.send(content=EMAIL | {"html": other}, call=1, step="second")
    async with account.transaction() as tx:
        query = text("SELECT number, url FROM links WHERE campaign_id = :id ORDER BY number")
        rows = (await tx.execute(query, {"id": taken.inside.automation_id})).all()
    assert [row.number for row in rows] == list(range(len(rows)))
    assert len({row.url for row in rows}) == len(rows)
    assert {row.url for row in rows} == {f"https://shop.example.com/{each}" for each in ("autumn", "winter", "sale")}
    for message in outbox.messages:
        assert message.html and f"{PUBLIC_URL}/t/c/" in message.html


async def test_figures_and_events_name_the_step(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox())
    await taken.send(step="welcome")
    async with account.transaction() as tx:
        rows = (
            await tx.execute(
                text("SELECT name, properties FROM events WHERE campaign_id = :id"), {"id": taken.inside.automation_id}
            )
        ).all()
        counted = await tx.execute(
            text("SELECT DISTINCT step FROM counters WHERE campaign_id = :id"), {"id": taken.inside.automation_id}
        )
        assert set(counted.scalars()) == {"welcome"}
    assert [(row.name, row.properties["step"]) for row in rows] == [("message.sent", "welcome")] * 3


# -- drips -----------------------------------------------------------------------------------------------------------


async def drip(account: TestAccount, taken: Steps, **plan: Any) -> UUID:
    """A drip that those who are inside an automation are inside of instead; of two messages."""
    sent = await broadcast(account)
    async with account.transaction() as tx:
        email = (await campaigns.load_plan(tx, sent.id)).email.model_dump(mode="json")
        second = {**email, "prepared": {**email["prepared"], "subject": "Two days later"}}
        frozen = {"messages": {"message-1": email, "message-2": second}, "automation": {}, **plan}
        await tx.execute(
            text("UPDATE campaigns SET kind = 'drip', plan = plan || CAST(:plan AS jsonb) WHERE id = :id"),
            {"id": sent.id, "plan": orjson.dumps(frozen).decode()},
        )
        await tx.execute(text("UPDATE enrollments SET source_id = :id"), {"id": sent.id})
    return sent.id


def of_drip(taken: Steps, source_id: UUID, number: int) -> StepCall:
    step = taken.inside.step({"channel": "email", "template": f"message-{number}"}, call=number)
    return step.model_copy(update={"kind": "drip", "source_id": source_id, "step": f"message-{number}"})


async def test_a_drip_sends_what_was_frozen_and_stops_when_it_is_paused(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    source = await drip(account, taken)
    assert await taken.take("send", of_drip(taken, source, 2)) == [SENT] * 2
    assert {each.subject for each in outbox.messages} == {"Two days later"}
    assert all(":drip::" in each.headers["Feedback-ID"] for each in outbox.messages)
    await execute(account, "UPDATE campaigns SET state = 'paused' WHERE id = :id", id=source)
    assert await taken.take("send", of_drip(taken, source, 1)) == [Answer(held=True)] * 2
    await execute(account, "UPDATE campaigns SET state = 'cancelled' WHERE id = :id", id=source)
    assert await taken.take("send", of_drip(taken, source, 1)) == [CANCELLED] * 2


async def test_a_drips_budget_and_rate_hold(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 30, outbox)
    source = await drip(account, taken, max_messages=20, rate_limit_per_second=100)
    answers = await taken.take("send", of_drip(taken, source, 1))
    assert answers.count(SENT) == len(outbox.messages) == 20
    assert answers.count(Answer(value={"state": "skipped", "reason": "budget"})) == 10


async def test_whoever_meets_a_drips_exit_criteria_leaves_it(account: TestAccount) -> None:
    outbox = Outbox()
    taken = await steps(account, 2, outbox)
    exit_on = [{"if": {"field": "tags", "contains": "vip"}}]
    source = await drip(account, taken, automation={"exit_on": exit_on})
    await execute(account, "UPDATE contacts SET tags = '{vip}' WHERE id = :id", id=taken.inside.contacts[0])
    assert await taken.take("send", of_drip(taken, source, 1)) == [Answer(leave="exit"), SENT]
