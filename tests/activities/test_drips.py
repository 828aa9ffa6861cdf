"""The audience of a drip enters at once, its messages are those of the launch, and it is over when nobody is left."""

import re
from datetime import UTC, datetime

from sqlalchemy import event, text
from temporalio.testing import ActivityEnvironment

from activities.drips import Drips, DripStanding
from activities.journeys import Journeys
from channels.base import Rejected
from channels.outbox import Outbox
from database import drips
from database.engine import Database
from database.links import LAST_NUMBER
from marketing.campaigns import Audience, CampaignState
from marketing.tracking import Tokens
from tests.audience import people
from tests.conftest import SECRET_KEY, TestAccount
from tests.delivering import LINKS, Provider, execute
from tests.dripping import NOW, Dripping, dripping, message


async def enroll(drip: Dripping) -> int:
    return await ActivityEnvironment().run(Drips(drip.account.database).enroll_audience, drip.input())


async def close(drip: Dripping) -> DripStanding:
    return await ActivityEnvironment().run(Drips(drip.account.database).close_drip, drip.input())


async def test_the_audience_enters_once(account: TestAccount) -> None:
    await people(account, 7)
    drip = await dripping(account)
    assert await enroll(drip) == 7
    await people(account, 1, name="late")
    assert await enroll(drip) == 0
    assert await drip.enrollments() == {"pending": 7}


async def test_however_many_they_are_they_enter_in_one_statement(account: TestAccount, database: Database) -> None:
    await people(account, 2_500)
    drip = await dripping(account)
    many_times: list[object] = []  # of each statement that enrolls, whether it was one for many rows

    def hear(*told: object) -> None:
        if "INTO enrollments" in str(told[2]):
            many_times.append(told[5])

    event.listen(database.engine.sync_engine, "before_cursor_execute", hear)
    try:
        async with account.transaction() as tx:
            audience = Audience(everyone=True)
            assert await drips.enroll_audience(tx, account.id, drip.id, audience, now=NOW) == 2_500
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", hear)
    assert many_times == [False]


async def test_what_is_sent_was_frozen_with_its_links_numbered_once_for_all_messages(account: TestAccount) -> None:
    await people(account, 3)
    drip = await dripping(account)
    await enroll(drip)
    await drip.form_cohort()
    outbox = Outbox()
    journeys = Journeys(account.database, {"email": outbox}, LINKS)
    for number in (1, 2):
        answers = await ActivityEnvironment().run(journeys.send, drip.step(number, 3, call=number))
        assert [each.value for each in answers] == [{"state": "sent"}] * 3
    assert [each.subject for each in outbox.messages] == ["Message 1"] * 3 + ["Message 2"] * 3
    assert outbox.messages[0].headers["Feedback-ID"].split(":")[1] == "drip"
    async with account.transaction() as tx:
        query = text("SELECT url FROM links WHERE campaign_id = :id ORDER BY number")
        urls = list((await tx.execute(query, {"id": drip.id})).scalars())
    shop = "https://shop.example.com"
    assert urls == [f"{shop}/autumn", f"{shop}/sale", f"{shop}/1", f"{shop}/2"]
    stats = await drip.stats()
    assert (stats.planned, stats.sent, stats.pending) == (6, 6, 0)
    assert {name: each.sent for name, each in stats.per_message.items()} == {"message-1": 3, "message-2": 3}


async def test_links_for_which_no_number_is_left_are_followed_all_the_same(account: TestAccount) -> None:
    await people(account, 1)
    drip = await dripping(account)
    await enroll(drip)
    await drip.form_cohort()
    async with account.transaction() as tx:
        await tx.execute(
            text("""
                INSERT INTO links (account_id, campaign_id, number, url)
                SELECT :account, :id, number, 'https://example.com/' || number
                FROM generate_series(0, :last - 1) AS number
            """),
            {"account": account.id, "id": drip.id, "last": LAST_NUMBER},
        )
    outbox = Outbox()
    journeys = Journeys(account.database, {"email": outbox}, LINKS)
    (answer,) = await ActivityEnvironment().run(journeys.send, drip.step(1, 1, call=1))
    assert answer.value == {"state": "sent"}
    async with account.transaction() as tx:
        query = text("SELECT url FROM links WHERE campaign_id = :id AND number >= :last")
        numbered = (await tx.execute(query, {"id": drip.id, "last": LAST_NUMBER})).scalars().all()
    assert numbered == ["https://shop.example.com/autumn"]
    followed = re.findall(r'href="[^"]*/t/c/([^"]+)"', outbox.messages[0].html or "")
    clicks = [Tokens(SECRET_KEY).read_click(token, datetime.now(UTC)) for token in followed]
    assert [each and each.url for each in clicks] == [
        None,
        "https://shop.example.com/sale",
        "https://shop.example.com/1",
    ]


async def test_a_drip_whose_messages_fail_pauses_itself(account: TestAccount) -> None:
    await people(account, 120)
    drip = await dripping(account)
    await enroll(drip)
    await drip.form_cohort()
    journeys = Journeys(account.database, {"email": Provider(Rejected("no"))}, LINKS)
    answers = await ActivityEnvironment().run(journeys.send, drip.step(1, 120, call=0))
    assert (await drip.state())[0] is CampaignState.PAUSED
    assert any(each.held for each in answers)
    stats = await drip.stats()
    assert stats.reconciles and stats.failed >= 100 and stats.pending == 120 - stats.failed


async def test_a_budget_bounds_all_messages_together(account: TestAccount) -> None:
    await people(account, 3)
    drip = await dripping(account, budget={"max_messages": 4})
    await enroll(drip)
    await drip.form_cohort()
    journeys = Journeys(account.database, {"email": Outbox()}, LINKS)
    for number in (1, 2):
        await ActivityEnvironment().run(journeys.send, drip.step(number, 3, call=number))
    stats = await drip.stats()
    assert (stats.sent, stats.skipped_by_reason, stats.pending) == (4, {"budget": 2}, 0)


async def test_a_drip_is_over_when_nobody_is_inside(account: TestAccount) -> None:
    await people(account, 2)
    drip = await dripping(account)
    assert await close(drip) == DripStanding(state="running")  # nobody has entered yet
    await enroll(drip)
    assert not (await close(drip)).over
    await execute(account, "UPDATE enrollments SET state = 'completed', left_at = now()")
    assert await close(drip) == await close(drip) == DripStanding(state="completed", over=True)
    async with account.transaction() as tx:
        left = await tx.execute(text("SELECT count(*) FROM automation_subjects"))
        assert left.scalar_one() == 0


async def test_whoever_may_join_keeps_it_open_until_the_last_day_of_its_calendar(account: TestAccount) -> None:
    await people(account, 1)
    async with account.transaction() as tx:
        made = await tx.execute(
            text(
                "INSERT INTO segments (account_id, name, kind, state) VALUES (:id, 'A', 'static', 'ready') RETURNING id"
            ),
            {"id": account.id},
        )
        segment = str(made.scalar_one())
    daily = {"every": "day", "until": "2126-12-24"}
    drip = await dripping(
        account, audience={"segments": [segment]}, enroll="continuous", calendar=daily, messages=[message(1)]
    )
    assert await enroll(drip) == 0
    assert not (await close(drip)).over
    after = drip.input(NOW.replace(year=2126, month=12, day=26))
    assert (await ActivityEnvironment().run(Drips(account.database).close_drip, after)).over


async def test_a_cancelled_drip_is_closed_when_the_last_has_left(account: TestAccount) -> None:
    await people(account, 1)
    drip = await dripping(account)
    await enroll(drip)
    await execute(account, "UPDATE campaigns SET state = 'cancelled' WHERE id = :id", id=drip.id)
    assert not (await close(drip)).over
    await execute(account, "UPDATE enrollments SET state = 'cancelled', left_at = now()")
    assert await close(drip) == DripStanding(state="cancelled", over=True)
