"""Openings and clicks on a real PostgreSQL: who was it, is it the first, and do the figures agree with the record?"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from database import tracking
from marketing.hits import Hit
from marketing.machines import Action, Sign
from tests.conftest import TestAccount
from tests.sent import LINKS, SentMessage, sent_messages

SENT_AT = datetime(2026, 11, 20, 9, 59, 50, tzinfo=UTC)
OPEN, CLICK = Action.OPEN, Action.CLICK


def after(seconds: float) -> datetime:
    return SENT_AT + timedelta(seconds=seconds)


async def store(message: SentMessage, *hits: Hit) -> list[str | None]:
    return await tracking.store(message.account.database, message.account.id, hits)


async def figures(message: SentMessage) -> dict[str, int]:
    """What the counters say, without zeros."""
    async with message.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT name, sum(n)::int FROM counters WHERE campaign_id = :id GROUP BY name"),
            {"id": message.campaign_id},
        )
        return {name: n for name, n in rows if n}


async def figures_from_the_record(campaign_id: UUID, account: TestAccount) -> dict[tuple[str, datetime], int]:
    """What the counters should say, counted row by row."""
    async with account.transaction() as tx:
        counted = await tx.execute(
            text("""
                SELECT substr(name, 9) || CASE WHEN machine THEN '_machine' ELSE '' END,
                       date_trunc('hour', occurred_at), count(*)::int
                FROM events WHERE campaign_id = :id GROUP BY 1, 2
                UNION ALL SELECT 'opened_unique', date_trunc('hour', opened_at), count(*)::int
                FROM deliveries WHERE campaign_id = :id AND opened_at IS NOT NULL GROUP BY 2
                UNION ALL SELECT 'clicked_unique', date_trunc('hour', clicked_at), count(*)::int
                FROM deliveries WHERE campaign_id = :id AND clicked_at IS NOT NULL GROUP BY 2
            """),
            {"id": campaign_id},
        )
        return {(name, hour): n for name, hour, n in counted}


async def hourly_figures(campaign_id: UUID, account: TestAccount) -> dict[tuple[str, datetime], int]:
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT name, hour, n::int FROM counters WHERE campaign_id = :id"), {"id": campaign_id}
        )
        return {(name, hour): n for name, hour, n in rows if n}


async def first_moments(message: SentMessage) -> tuple[datetime | None, datetime | None]:
    async with message.account.transaction() as tx:
        row = await tx.execute(
            text("SELECT opened_at, clicked_at FROM deliveries WHERE id = :id"), {"id": message.delivery_id}
        )
        opened_at, clicked_at = row.one()
        return opened_at, clicked_at


@pytest.fixture
async def message(account: TestAccount) -> SentMessage:
    return (await sent_messages(account, sent_at=SENT_AT))[0]


async def test_openings_count_each_and_their_reader_once(message: SentMessage) -> None:
    opening = Hit(OPEN, message.delivery_id, after(60))
    assert await store(message, opening, opening._replace(at=after(61))) == ["", ""]
    await store(message, opening._replace(at=after(4_000)))
    assert await figures(message) == {"opened": 3, "opened_unique": 1}
    assert await first_moments(message) == (after(60), None)


async def test_a_click_leads_to_the_stored_address(message: SentMessage) -> None:
    click = Hit(CLICK, message.delivery_id, after(60), link=2)
    assert await store(message, click) == [LINKS[1]]


async def test_a_click_proves_an_opening_that_no_pixel_told_of(message: SentMessage) -> None:
    await store(message, Hit(CLICK, message.delivery_id, after(60), link=1))
    assert await figures(message) == {"opened": 1, "opened_unique": 1, "clicked": 1, "clicked_unique": 1}
    assert await first_moments(message) == (after(60), after(60))
    await store(message, Hit(CLICK, message.delivery_id, after(90), link=1))
    assert await figures(message) == {"opened": 1, "opened_unique": 1, "clicked": 2, "clicked_unique": 1}


async def test_a_click_after_an_opening_implies_none(message: SentMessage) -> None:
    await store(message, Hit(OPEN, message.delivery_id, after(50)), Hit(CLICK, message.delivery_id, after(60), link=1))
    assert await figures(message) == {"opened": 1, "opened_unique": 1, "clicked": 1, "clicked_unique": 1}


async def test_machines_are_kept_but_counted_apart(message: SentMessage) -> None:
    await store(
        message,
        Hit(OPEN, message.delivery_id, after(60), Sign.PRIVACY_PROXY),
        Hit(CLICK, message.delivery_id, after(70), Sign.HEAD, link=1),
        Hit(CLICK, message.delivery_id, after(1), link=1),
    )
    assert await figures(message) == {"opened_machine": 1, "clicked_machine": 2}
    assert await first_moments(message) == (None, None)


async def test_unknown_deliveries_and_links_lead_nowhere_and_store_nothing(message: SentMessage) -> None:
    unknown = UUID("01a1c000-0000-7000-8000-00000000dddd")
    hits = [
        Hit(OPEN, unknown, after(60)),
        Hit(CLICK, unknown, after(60), link=1),
        Hit(CLICK, unknown, after(60), link=1, url="https://example.com/"),
        Hit(CLICK, message.delivery_id, after(60), link=99),
    ]
    assert await store(message, *hits) == [None] * 4
    assert await figures(message) == {}


async def test_another_accounts_delivery_is_unknown(message: SentMessage, other_account: TestAccount) -> None:
    hit = Hit(OPEN, message.delivery_id, after(60))
    assert await tracking.store(other_account.database, other_account.id, [hit]) == [None]
    assert await figures(message) == {}


async def test_the_first_click_of_a_burst_is_found_out_by_the_second(message: SentMessage) -> None:
    await store(message, Hit(CLICK, message.delivery_id, after(60), link=1))
    await store(message, Hit(CLICK, message.delivery_id, after(60.2), link=2))
    assert await figures(message) == {"opened_machine": 1, "clicked_machine": 2}
    assert await first_moments(message) == (None, None)


async def test_a_reader_who_comes_after_a_burst_counts(message: SentMessage) -> None:
    await store(message, Hit(CLICK, message.delivery_id, after(60), link=1))
    await store(
        message,
        Hit(CLICK, message.delivery_id, after(60.2), link=2),
        Hit(CLICK, message.delivery_id, after(900), link=2),
    )
    assert await first_moments(message) == (after(900), after(900))
    told = await figures(message)
    assert (told["opened"], told["opened_unique"], told["clicked"], told["clicked_unique"]) == (1, 1, 1, 1)


async def test_ten_links_at_once_are_a_machine_however_they_arrive(account: TestAccount) -> None:
    message, split = await sent_messages(account, 2, sent_at=SENT_AT)
    urls = [f"https://example.com/{n}" for n in range(10)]
    ten = [Hit(CLICK, message.delivery_id, after(60 + n / 10), link=n, url=url) for n, url in enumerate(urls)]
    await store(message, *ten)
    await asyncio.gather(*(store(split, hit._replace(delivery_id=split.delivery_id)) for hit in ten))
    told = await figures(message)
    assert told["clicked_machine"] == 20
    assert told.keys() <= {"clicked_machine", "opened_machine"}


async def test_groups_on_the_same_deliveries_do_not_deadlock(account: TestAccount) -> None:
    messages = await sent_messages(account, 20, sent_at=SENT_AT)
    forwards = [Hit(OPEN, message.delivery_id, after(60)) for message in messages]
    await asyncio.gather(*(store(messages[0], *(forwards if n % 2 else forwards[::-1])) for n in range(12)))
    assert await figures(messages[0]) == {"opened": 240, "opened_unique": 20}


moments = st.one_of(st.integers(0, 20_000), st.integers(3_598_000, 3_602_000))  # around the sending, and an hour later
random_hits = st.lists(
    st.tuples(st.sampled_from([OPEN, CLICK]), st.integers(0, 1), moments, st.integers(1, 3), st.booleans()), max_size=12
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(random_hits, max_size=4))
async def test_the_figures_always_agree_with_the_record(
    account: TestAccount, groups: list[list[tuple[Action, int, int, int, bool]]]
) -> None:
    messages = await sent_messages(account, 2, sent_at=SENT_AT)
    for group in groups:
        hits = [
            Hit(action, messages[who].delivery_id, after(ms / 1000), Sign.AGENT if machine else None, link)
            for action, who, ms, link, machine in group
        ]
        assert None not in await store(messages[0], *hits)
    campaign_id = messages[0].campaign_id
    assert await hourly_figures(campaign_id, account) == await figures_from_the_record(campaign_id, account)
    told = Counter(await figures(messages[0]))
    assert told["opened"] >= told["opened_unique"] >= told["clicked_unique"]
    assert told["clicked"] >= told["clicked_unique"]
