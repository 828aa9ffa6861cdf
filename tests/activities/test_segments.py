"""Is what changes settled, whatever goes wrong meanwhile, and what time changes when its turn comes?"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.inputs import FollowInput, Recomputed, SegmentRef, SweepInput
from activities.segments import POLL_SECONDS, Segments
from database import memberships, touches
from tests.audience import people
from tests.belonging import change, follow, happened, members, reconciled, segment, told
from tests.conftest import TestAccount

FAR = datetime(2100, 1, 1, tzinfo=UTC)


async def refresh(account: TestAccount, segment_id: UUID, *, slice: int = 5_000) -> Recomputed:
    ref = SegmentRef(account_id=account.id, segment_id=segment_id)
    found: Recomputed = await ActivityEnvironment().run(Segments(account.database, slice=slice).refresh, ref)
    return found


async def sweep(account: TestAccount, *, nightly: bool = False) -> Recomputed:
    input = SweepInput(nightly=nightly, now=datetime.now(UTC))
    found: Recomputed = await ActivityEnvironment().run(Segments(account.database).sweep, input)
    return found


async def standing(account: TestAccount, segment_id: UUID) -> tuple[str, str]:
    async with account.transaction() as tx:
        row = await tx.execute(text("SELECT state, problem FROM segments WHERE id = :id"), {"id": segment_id})
        state, problem = row.one()
    return state, problem


async def break_(account: TestAccount, segment_id: UUID, criteria: str = '{"nonsense": true}') -> None:
    """As if a version to come had written it."""
    async with account.transaction() as tx:
        statement = text("UPDATE segments SET criteria = CAST(:criteria AS jsonb) WHERE id = :id")
        await tx.execute(statement, {"id": segment_id, "criteria": criteria})


async def test_changes_are_settled_as_they_come_until_the_worker_stops(account: TestAccount) -> None:
    a, b = await people(account, 2)
    some = await segment(account)
    env = ActivityEnvironment()
    input = FollowInput(lane=0, lanes=1, until=FAR)
    following = asyncio.create_task(env.run(Segments(account.database).follow_changes, input))
    for contact in (a, b):
        await change(account, [contact], "country = 'FR'")
        while contact not in await members(account, some):
            assert not following.done()
    env.worker_shutdown()
    with pytest.raises(ApplicationError, match="The worker stops"):
        await asyncio.wait_for(following, timeout=POLL_SECONDS)
    assert await reconciled(account, some)


async def test_following_ends_at_its_moment(account: TestAccount) -> None:
    until = datetime.now(UTC) + timedelta(milliseconds=1)
    await ActivityEnvironment().run(
        Segments(account.database).follow_changes, FollowInput(lane=0, lanes=1, until=until)
    )
    assert datetime.now(UTC) >= until


async def test_a_look_that_is_not_answered_has_the_activity_begin_anew(account: TestAccount) -> None:
    input = FollowInput(lane=0, lanes=1, until=FAR)
    async with account.transaction() as tx:
        await tx.execute(text("LOCK TABLE contact_touches IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(TimeoutError):
            await ActivityEnvironment().run(Segments(account.database, look_seconds=0.05).follow_changes, input)


async def test_segments_of_segments_follow_each_other(account: TestAccount) -> None:
    a, b = await people(account, 2)
    inner = await segment(account)
    middle = await segment(account, {"all": [{"segment": str(inner)}, {"field": "tags", "contains": "vip"}]})
    outer = await segment(account, {"not": {"segment": str(middle)}})
    await refresh(account, outer)
    assert await members(account, outer) == {a, b}
    await change(account, [a], "country = 'FR', tags = '{vip}'")
    await follow(account)
    assert [await members(account, each) for each in (inner, middle, outer)] == [{a}, {a}, {b}]
    await change(account, [a], "country = NULL")
    await follow(account)
    assert [await members(account, each) for each in (inner, middle, outer)] == [set(), set(), {a, b}]
    for each in (inner, middle, outer):
        assert await reconciled(account, each)


async def test_what_enters_may_itself_be_asked_for(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    await segment(account)
    told_of = await segment(account, {"event": "segment.entered"})
    await change(account, [a], "country = 'FR'")
    await follow(account)
    assert await members(account, told_of) == {a}


async def test_who_is_killed_before_a_turn_is_over_leaves_nothing_undone_and_nothing_twice(
    account: TestAccount,
) -> None:
    ids = await people(account, 20)
    some, other = await segment(account), await segment(account, {"event": "purchase"})
    await happened(account, "purchase", *ids)
    await change(account, ids, "country = 'FR'")
    async with account.transaction() as tx:  # what a worker did that was killed before it could forget them
        await memberships.settle(tx, min(some, other), ids, now=datetime.now(UTC))
    await follow(account)
    for each in (some, other):
        assert await members(account, each) == set(ids)
        assert set((await told(account, each)).values()) == {1}
        assert await reconciled(account, each)


async def test_two_workers_on_the_same_lane_do_no_harm(account: TestAccount) -> None:
    ids = await people(account, 50)
    some = await segment(account)
    for n in range(6):
        await change(account, ids[n:], "country = 'FR'" if n % 2 == 0 else "country = 'DE'")
        workers = (Segments(account.database).take_turn(account.id) for _ in range(3))
        await asyncio.gather(*workers, change(account, ids[: n + 1], "country = 'FR'"))
    await follow(account)
    async with account.transaction() as tx:
        french = set((await tx.execute(text("SELECT id FROM contacts WHERE country = 'FR'"))).scalars())
    assert await members(account, some) == french
    assert await reconciled(account, some)


async def test_a_segment_that_fails_stops_no_other_and_is_made_up_for_later(account: TestAccount) -> None:
    a, b = await people(account, 2)
    broken, sound = sorted([await segment(account), await segment(account)])
    await break_(account, broken)
    await change(account, [a], "country = 'FR'")
    with capture_logs() as lines:
        await follow(account)
    assert [line["segment_id"] for line in lines] == [str(broken)]
    assert await members(account, sound) == {a}
    state, problem = await standing(account, broken)
    assert "could not be worked out" in problem and state == "ready"
    await break_(account, broken, '{"field": "country", "is": "FR"}')
    await change(account, [b], "country = 'FR'")
    await follow(account)
    assert await members(account, broken) == set()  # left to the sweep
    await sweep(account)
    assert await members(account, broken) == set()  # whose time has not come
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE segments SET retry_at = now() WHERE id = :id"), {"id": broken})
    await sweep(account)
    assert await members(account, broken) == {a, b}
    assert await standing(account, broken) == ("ready", "")
    await change(account, [a], "country = NULL")
    await follow(account)
    assert await members(account, broken) == {b}
    assert await reconciled(account, broken)


async def test_a_segment_that_takes_too_long_says_so(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    some = await segment(account)
    await change(account, [a], "country = 'FR'")
    with capture_logs() as lines:
        async with account.transaction() as tx:
            await tx.execute(text("SELECT FROM segments WHERE id = :id FOR UPDATE"), {"id": some})
            turn = asyncio.create_task(Segments(account.database, settling_seconds=0.1).take_turn(account.id))
            await asyncio.wait([turn], timeout=0.3)
        await turn
    assert [line["segment_id"] for line in lines] == [str(some)]
    assert "in time" in (await standing(account, some))[1]


async def test_all_members_of_a_new_segment_enter_in_slices(account: TestAccount) -> None:
    ids = await people(account, 25)
    await change(account, ids, "country = 'FR'")
    some = await segment(account)
    assert await refresh(account, some, slice=10) == Recomputed(segments=1, entered=25)
    assert await refresh(account, some) == Recomputed(segments=1)
    assert await members(account, some) == set(ids)
    assert await reconciled(account, some)


async def test_what_was_changed_but_not_committed_when_a_segment_was_made_is_not_missed(account: TestAccount) -> None:
    a, b = await people(account, 2)
    await change(account, [b], "country = 'FR'")
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE contacts SET country = 'FR' WHERE id = :id"), {"id": a})  # nobody looks
        some = await segment(account)
        refreshing = asyncio.create_task(refresh(account, some))
        while await members(account, some) != {b}:
            assert not refreshing.done()
    assert (await refreshing).entered == 2
    assert await members(account, some) == {a, b}
    assert await reconciled(account, some)


async def test_a_refresh_and_changes_at_the_same_time_agree(account: TestAccount) -> None:
    ids = await people(account, 60)
    await change(account, ids[:40], "country = 'FR'")
    some = await segment(account)
    await asyncio.gather(
        refresh(account, some),
        change(account, ids[:10], "country = 'DE'"),
        refresh(account, some),
        change(account, ids[50:], "country = 'FR'"),
        Segments(account.database).take_turn(account.id),
    )
    await follow(account)
    assert await members(account, some) == set(ids[10:40] + ids[50:])
    assert await reconciled(account, some)


async def test_what_time_changes_is_found_by_the_sweep(account: TestAccount) -> None:
    a, b = await people(account, 2)
    criteria: dict[str, Any] = {"event": "purchase", "within": "1 minute"}
    recent, idle = await segment(account, criteria), await segment(account, {"not": criteria})
    ago = datetime.now(UTC) - timedelta(seconds=61)
    await happened(account, "purchase", a, occurred_at=ago)
    await happened(account, "purchase", b)
    for each, contacts in ((recent, [a, b]), (idle, [])):
        async with account.transaction() as tx:
            await memberships.settle(tx, each, contacts, now=ago + timedelta(seconds=1))
    await sweep(account)
    assert (await members(account, recent), await members(account, idle)) == ({b}, {a})
    await sweep(account, nightly=True)
    for each in (recent, idle):
        assert await reconciled(account, each)


async def test_the_sweep_makes_up_for_a_refresh_that_was_never_started(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    await change(account, [a], "country = 'FR'")
    some = await segment(account)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE segments SET state = 'building', settled_at = NULL"))
    await sweep(account)
    assert await standing(account, some) == ("ready", "")
    assert await members(account, some) == {a}


async def test_by_night_drift_is_told_and_corrected(account: TestAccount) -> None:
    a, b, c = await people(account, 3)
    some = await segment(account)
    await change(account, [a, b], "country = 'FR'")
    await follow(account)
    async with account.transaction() as tx:  # as no program of ours would
        await tx.execute(text("UPDATE contacts SET country = 'FR' WHERE id = :id"), {"id": c})
        await tx.execute(text("UPDATE contacts SET country = NULL WHERE id = :id"), {"id": a})
        await tx.execute(text("DELETE FROM contact_touches"))
    await sweep(account)
    assert await members(account, some) == {a, b}  # time does not change who belongs to it
    for _ in range(2):
        await sweep(account, nightly=True)
        assert await members(account, some) == {b, c}
        async with account.transaction() as tx:
            query = text("SELECT sum(drift) FROM segment_hours WHERE segment_id = :id")
            assert (await tx.execute(query, {"id": some})).scalar_one() == 2
    assert await reconciled(account, some)


@pytest.mark.parametrize("wrong_by", [7, -1])
async def test_a_size_that_is_wrong_is_corrected_by_the_next_recompute(account: TestAccount, wrong_by: int) -> None:
    ids = await people(account, 3)
    some = await segment(account)
    await change(account, ids, "country = 'FR'")
    await follow(account)
    async with account.transaction() as tx:  # as no program of ours would
        for table, column in (("segments", "id"), ("segment_hours", "segment_id")):
            wrong = text(f"UPDATE {table} SET size = size + :by WHERE {column} = :id")
            await tx.execute(wrong, {"by": wrong_by, "id": some})
    assert not await reconciled(account, some)
    for expected in ([wrong_by], []):
        with capture_logs() as lines:
            assert await refresh(account, some) == Recomputed(segments=1)
        assert [line["by"] for line in lines if line["segment_id"] == str(some)] == expected
        assert await reconciled(account, some)


async def test_an_import_of_thousands_starves_nobody(account: TestAccount, other_account: TestAccount) -> None:
    some, theirs = await segment(account), await segment(other_account)
    await people(account, 3_000, subscribed=False)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE contacts SET country = 'FR'"))
    (zoe,), (ben,) = await people(account, 1, name="zoe"), await people(other_account, 1)
    await change(account, [zoe], "country = 'FR'")
    await change(other_account, [ben], "country = 'FR'")
    for each in (account, other_account):  # one turn each
        await Segments(account.database).take_turn(each.id)
    assert zoe in await members(account, some) and await members(other_account, theirs) == {ben}
    assert len(await members(account, some)) < 3_000
    await follow(account)
    assert len(await members(account, some)) == 3_000 + 1
    assert account.id not in await touches.accounts(account.database, 0, 1)


async def lines(account: TestAccount) -> set[tuple[bool, str]]:
    """What waits: whether in bulk, and what was touched."""
    async with account.transaction() as tx:
        rows = await tx.execute(text("SELECT DISTINCT bulk, unnest(subjects) AS subject FROM contact_touches"))
        return {(row.bulk, row.subject) for row in rows}


async def test_what_follows_from_a_change_waits_in_the_line_of_its_cause(account: TestAccount) -> None:
    ids = await people(account, 25)
    inner = await segment(account)
    outer = await segment(account, {"segment": str(inner)})
    joined = await segment(account, {"event": "segment.entered"})
    caused = {f"segment:{inner}", "event:segment.entered"}
    segments = Segments(account.database, turn=10)  # fewer than what is taken for many
    await change(account, ids, "country = 'FR'")
    await segments.take_turn(account.id)
    assert await lines(account) == {(True, each) for each in {"contact.country", *caused}}
    await follow(account)
    (zoe,) = await people(account, 1, name="zoe")
    await change(account, [zoe], "country = 'FR'")
    await segments.take_turn(account.id)
    assert await lines(account) == {(False, each) for each in caused}
    await follow(account)
    for each in (inner, outer, joined):
        assert await members(account, each) == {zoe, *ids}
        assert await reconciled(account, each)


async def test_one_event_does_not_wait_for_lists_that_were_told_before(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    some = await segment(account, {"event": "purchase"})
    crowd = [{"contact": {"external_id": f"crm-{n}"}, "name": "purchase"} for n in range(600)]
    zoe, ben = ({"contact": {"external_id": name}, "name": "purchase"} for name in ("zoe", "ben"))
    told_of = [
        crowd[:300],
        zoe,
        crowd[300:],
        ben,
    ]  # at the same time: the singles share a transaction with nobody's list
    answers = await asyncio.gather(*(api.post("/api/events", json=each) for each in told_of))
    assert {answer.status_code for answer in answers} == {201}
    async with account.transaction() as tx:
        query = text("SELECT external_id, id FROM contacts WHERE external_id IN ('zoe', 'ben')")
        found = {row.external_id: row.id for row in await tx.execute(query)}
    await Segments(account.database, turn=10).take_turn(account.id)
    inside = await members(account, some)
    assert len(inside) == 2 + 10 and inside >= {found["zoe"], found["ben"]}


async def test_an_account_with_many_segments_gives_way_and_goes_on_where_it_stood(account: TestAccount) -> None:
    ids = await people(account, 30)
    some = [await segment(account) for _ in range(3)]
    segments = Segments(account.database, turn_seconds=0)
    await change(account, ids, "country = 'FR'")
    for settled in (1, 2, 3):  # one of them each turn
        assert await lines(account) == {(True, "contact.country")}
        await segments.take_turn(account.id)
        assert sorted([len(await members(account, each)) for each in some]) == [0] * (3 - settled) + [30] * settled
    assert await lines(account) == set()
    assert all([await reconciled(account, each) for each in some])
