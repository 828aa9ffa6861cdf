"""Where are the members of a cohort, and what became of them? What is noted twice counts once."""

from datetime import timedelta
from typing import Any

from sqlalchemy import text

from activities.journey_inputs import Caller, Left, Note, NoteInput
from channels.outbox import Outbox
from marketing.accounts import QuietHours
from tests.conftest import TestAccount
from tests.delivering import change_account
from tests.enrolled import NOW
from tests.journeys import Steps, steps
from tests.telemetry.test_metrics import Change

LATER = NOW + timedelta(minutes=10)


async def told(taken: Steps, *notes: Note, left: list[Left] | None = None, ended: bool = False) -> None:
    input = NoteInput(
        account_id=taken.inside.account.id,
        source_id=taken.inside.automation_id,
        cohort=1,
        version=1,
        notes=list(notes),
        left=left or [],
        ended=ended,
        now=LATER,
    )
    await taken.journeys.note(input)


def note(*members: int, call: int = 0, step: str = "wait-1", kind: str = "wait", **more: Any) -> Note:
    callers = [Caller(member=member, call=call) for member in members]
    return Note(callers=callers, step=step, kind=kind, **({"entered_at": NOW} | more))


async def rows(account: TestAccount, query: str) -> list[tuple[Any, ...]]:
    async with account.transaction() as tx:
        return [tuple(row) for row in await tx.execute(text(query))]


async def figures(account: TestAccount) -> dict[str, tuple[int, float]]:
    found = await rows(account, "SELECT step || ' ' || name, n, seconds FROM step_counters")
    return {name: (n, seconds) for name, n, seconds in found}


async def test_a_step_begins_and_ends_once_however_often_that_is_told(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox())
    for _ in range(2):
        await told(taken, note(0, 1, 2, due_at=LATER))
    assert await rows(account, "SELECT member, step, step_at, due_at FROM enrollments ORDER BY member") == [
        (member, "wait-1", NOW, LATER) for member in range(3)
    ]
    assert await figures(account) == {"wait-1 entered": (3, 0.0)}
    for _ in range(2):
        await told(taken, note(0, 1, left_at=LATER, outcome="over"), note(2, left_at=LATER, error="It broke."))
    assert await rows(account, "SELECT left_at, outcome, error FROM enrollment_steps ORDER BY enrollment_id") == [
        (LATER, "over", None),
        (LATER, "over", None),
        (LATER, "", "It broke."),
    ]
    assert await figures(account) == {
        "wait-1 entered": (3, 0.0),
        "wait-1 done": (2, 1200.0),
        "wait-1 failed": (1, 600.0),
    }


async def test_a_step_that_is_broken_off_is_not_done(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox())
    await told(taken, note(0, 1, due_at=LATER))
    for _ in range(2):
        await told(taken, note(0, left_at=LATER, outcome="goal", broken_off=True), note(1, left_at=LATER))
    assert await figures(account) == {
        "wait-1 entered": (2, 0.0),
        "wait-1 broken_off": (1, 600.0),
        "wait-1 done": (1, 600.0),
    }


async def test_a_step_that_has_ended_is_not_begun_again_by_a_note_that_came_late(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    await told(taken, note(0, call=0, left_at=LATER, outcome="over"), note(0, call=1, step="next", entered_at=LATER))
    await told(taken, note(0, call=0, due_at=LATER))
    assert await rows(account, "SELECT call, left_at FROM enrollment_steps ORDER BY call") == [(0, LATER), (1, None)]
    assert await rows(account, "SELECT step, due_at FROM enrollments") == [("next", None)]
    assert await figures(account) == {
        "wait-1 entered": (1, 0.0),
        "wait-1 done": (1, 600.0),
        "next entered": (1, 0.0),
    }


async def test_of_several_steps_at_once_the_contact_is_in_one_that_has_not_ended(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    await told(taken, note(0, call=0, step="long", due_at=LATER), note(0, call=1, step="short", left_at=LATER))
    assert await rows(account, "SELECT step FROM enrollments") == [("long",)]


async def test_whoever_leaves_is_counted_once_with_what_was_planned_and_waited_for(account: TestAccount) -> None:
    await change_account(account, quiet_hours=QuietHours(start=NOW.time(), end=LATER.time()))
    taken = await steps(account, 4, Outbox())
    await taken.send()  # waits for the end of the quiet hours
    await taken.take("watch", taken.inside.step({"event": "purchase"}, call=1))
    await told(taken, note(0, 1, 2, 3, call=1, step="wait_for:purchase", kind="wait_for"))
    assert await taken.figures() == {"planned": 4}
    left = [
        Left(members=[0], state="exited", at=LATER, reason="goal", converted=True),
        Left(members=[1], state="failed", at=LATER, problem="It broke."),
        Left(members=[2], state="completed", at=LATER),
    ]
    for _ in range(2):
        await told(taken, left=left)
    query = "SELECT state, reason, problem, left_at, converted_at, due_at FROM enrollments ORDER BY member"
    assert await rows(account, query) == [
        ("exited", "goal", None, LATER, LATER, None),
        ("failed", None, "It broke.", LATER, None, None),
        ("completed", None, None, LATER, None, None),
        ("active", None, None, None, None, None),
    ]
    counted = {name.strip(): n for name, (n, _) in (await figures(account)).items() if name.startswith(" ")}
    assert counted == {"exited:goal": 1, "converted": 1, "failed": 1, "completed": 1}
    assert await taken.figures() == {"planned": 4, "skipped:left": 3}
    query = "SELECT member FROM enrollment_waits JOIN enrollments ON enrollments.id = enrollment_id"
    assert await rows(account, query) == [(3,)]
    query = "SELECT member FROM enrollment_steps JOIN enrollments ON enrollments.id = enrollment_id"
    assert await rows(account, f"{query} WHERE enrollment_steps.left_at IS NULL ORDER BY 1") == [(3,)]


async def test_whoever_leaves_has_broken_off_what_was_under_way_and_what_comes_of_it_later_counts_no_more(
    account: TestAccount,
) -> None:
    taken = await steps(account, 4, Outbox())
    await told(taken, note(0, 1, 2, 3, outcome="later"))
    left = [
        Left(members=[0], state="exited", at=LATER, reason="goal", converted=True),
        Left(members=[1], state="timed_out", at=LATER),
        Left(members=[2], state="completed", at=LATER),
    ]
    for _ in range(2):
        await told(taken, left=left)
        await told(taken, note(0, 1, 2, left_at=LATER, outcome="over"))
    assert {name: amount for name, amount in (await figures(account)).items() if name[0] != " "} == {
        "wait-1 entered": (4, 0.0),
        "wait-1 broken_off": (3, 1800.0),
    }
    outcomes = await rows(account, "SELECT outcome, left_at FROM enrollment_steps ORDER BY enrollment_id")
    assert outcomes == [("goal", LATER), ("timed_out", LATER), ("completed", LATER), ("later", None)]


async def test_a_wait_that_is_over_is_forgotten(account: TestAccount) -> None:
    taken = await steps(account, 2, Outbox())
    await taken.take("watch", taken.inside.step({"event": "purchase"}, call=1))
    await told(taken, note(0, call=1, kind="wait_for", left_at=LATER))
    query = "SELECT member FROM enrollment_waits JOIN enrollments ON enrollments.id = enrollment_id"
    assert await rows(account, query) == [(1,)]


async def test_a_cohort_in_which_nobody_is_any_more_has_ended(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    async with account.transaction() as tx:
        query = "INSERT INTO cohorts (account_id, source_id, number, version, members) VALUES (:account, :id, 1, 1, 1)"
        await tx.execute(text(query), {"account": account.id, "id": taken.inside.automation_id})
    for _ in range(2):
        await told(taken, left=[Left(members=[0], state="completed", at=LATER)], ended=True)
    assert await rows(account, "SELECT state, ended_at FROM cohorts") == [("ended", LATER)]


async def test_operators_are_told_of_steps_by_kind_and_of_passes_without_the_authors_reasons(
    account: TestAccount,
) -> None:
    waits, sends = (Change("carillon_steps_total", kind=kind, outcome="done") for kind in ("wait", "send"))
    broken = Change("carillon_steps_total", kind="wait", outcome="failed")
    exited, in_all = Change("carillon_enrollments_total", outcome="exited"), Change("carillon_enrollments_total")
    taken = await steps(account, 3, Outbox())
    entered = in_all()
    for _ in range(2):
        await told(
            taken,
            note(0, 1, left_at=LATER),
            note(2, left_at=LATER, error="It broke."),
            note(0, 1, call=1, step="wait-2", left_at=LATER),
            note(0, call=2, step="send-1", kind="send", left_at=LATER),
            left=[Left(members=[0, 1], state="exited", reason="bought", at=LATER)],
        )
    assert (waits(), sends(), broken()) == (4, 1, 1)
    assert (exited(), in_all() - entered) == (2, 2)
