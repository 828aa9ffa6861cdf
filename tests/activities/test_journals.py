"""Are long journals of cohorts there for the next run, and gone with the cohort?"""

import pytest
from sqlalchemy.exc import NoResultFound

from activities.journals import Journals
from activities.journey_inputs import JournalPart, NoteInput
from channels.outbox import Outbox
from tests.conftest import TestAccount
from tests.enrolled import NOW
from tests.journeys import steps


async def test_a_part_is_read_as_it_was_kept_last_until_the_cohort_is_over(account: TestAccount) -> None:
    taken = await steps(account, 1, Outbox())
    of = {"account_id": account.id, "source_id": taken.inside.automation_id, "cohort": 1}
    kept = Journals(account.database)
    for content in ("of a run that nobody knows of", "packed"):
        await kept.keep_journal(JournalPart(**of, part=0, content=content))
    await kept.keep_journal(JournalPart(**of, part=1, content="more"))
    assert [await kept.read_journal(JournalPart(**of, part=each)) for each in (0, 1)] == ["packed", "more"]
    await taken.journeys.note(NoteInput(**of, version=1, ended=True, now=NOW))
    with pytest.raises(NoResultFound):
        await kept.read_journal(JournalPart(**of, part=0))
