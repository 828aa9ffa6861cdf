"""Is the example what it says it is?"""

from pathlib import Path

from marketing.contact_files import Position, read_header, read_records
from marketing.import_columns import plan_for
from marketing.import_rows import RowReader, read_batch
from marketing.imports import ImportOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "contacts.csv"
RESERVED = (".test", "example.com", "example.org")


def test_the_example_has_a_thousand_rows_of_which_twenty_are_bad_each_in_its_own_way() -> None:
    content = EXAMPLE.read_bytes()
    cells, form, start = read_header(content, "utf-8", final=True)
    plan = plan_for(cells, form, {})
    assert plan.source == "mailchimp"
    records, end = read_records(content[start.offset :], form, start, final=True)
    assert end == Position(offset=len(content), line=len(content.splitlines()) + 1)
    batch = read_batch(records, RowReader(plan, ImportOptions()))
    assert (batch.rows, len(batch.people), batch.duplicates) == (1000, 980, 0)
    assert len({reject.reason for reject in batch.rejects}) == 20
    assert all(person.email and person.email.endswith(RESERVED) for person in batch.people.values())
    assert sum(person.email_claim is None for person in batch.people.values()) == 15
    assert len({person.timezone for person in batch.people.values()}) > 30
    assert len({person.locale for person in batch.people.values()}) > 20
