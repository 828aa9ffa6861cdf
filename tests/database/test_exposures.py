"""Who came by a split, and which way it led each: once, however often they pass or it is told."""

from datetime import timedelta

from channels.outbox import Outbox
from tests.conftest import TestAccount
from tests.database.test_enrollments import LATER, note, rows, told
from tests.enrolled import NOW
from tests.journeys import steps

SEEN = "SELECT step, variant, exposed_at, contact_id FROM exposures ORDER BY contact_id, step"


async def test_where_a_split_leads_is_on_record_for_each(account: TestAccount) -> None:
    taken = await steps(account, 3, Outbox())
    for _ in range(2):
        await told(
            taken,
            note(0, 2, step="which", kind="split", left_at=LATER, outcome="a"),
            note(1, step="which", kind="split", left_at=NOW, outcome="b"),
            note(1, step="wait-1", call=1),
        )
    who = taken.inside.contacts
    assert sorted(await rows(account, SEEN)) == sorted(
        [("which", "a", LATER, who[0]), ("which", "a", LATER, who[2]), ("which", "b", NOW, who[1])]
    )


async def test_of_somebody_who_passes_again_the_first_time_counts(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    again = note(0, step="which", kind="split", call=3, left_at=NOW + timedelta(days=9), outcome="a")
    await told(taken, note(0, step="which", kind="split", left_at=LATER, outcome="a"), again)
    await told(taken, again, note(0, step="other", kind="split", call=4, left_at=LATER, outcome="b"))
    (who,) = taken.inside.contacts
    assert await rows(account, SEEN) == [("other", "b", LATER, who), ("which", "a", LATER, who)]


async def test_nobody_sees_the_exposures_of_another_account(account: TestAccount, other_account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    await told(taken, note(0, step="which", kind="split", left_at=LATER, outcome="a"))
    assert await rows(account, "SELECT variant FROM exposures") == [("a",)]
    assert await rows(other_account, "SELECT variant FROM exposures") == []
