"""What does a row of a contact file say, and of whom?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.contact_files import FileForm, Position, read_records
from marketing.import_columns import Claim, plan_for
from marketing.import_rows import Batch, Person, RowReader, guarded, read_batch
from marketing.imports import ImportCounts, ImportOptions


def batch_of(content: str | bytes, **options: Any) -> Batch:
    raw = content.encode() if isinstance(content, str) else content
    (header, *rows), _ = read_records(raw, FileForm(), Position(), final=True)
    asked = ImportOptions(**options)
    return read_batch(rows, RowReader(plan_for(header.cells, FileForm(), asked.columns), asked))


def person_of(content: str, **options: Any) -> Person:
    batch = batch_of(content, **options)
    assert batch.rejects == []
    (person,) = batch.people.values()
    return person


def reason_of(content: str | bytes, **options: Any) -> str:
    batch = batch_of(content, **options)
    assert batch.people == {}
    (reject,) = batch.rejects
    return reject.reason


def test_a_row_becomes_a_person_in_normal_form() -> None:
    person = person_of(
        "Email,Phone,First Name,Country,Language,TZ,Points,Tags\n"
        'Zoe@EXAMPLE.com,06 12 34 56 78," Zoë ",France,fr_FR,europe/paris,7,"""VIP"",""Paris"""\n',
        columns={"Points": "attributes.points:number"},
        tags=["imported"],
    )
    assert (person.key, person.email, person.phone) == ("zoe@example.com", "zoe@example.com", "+33612345678")
    assert (person.first_name, person.country, person.locale, person.timezone) == ("Zoë", "FR", "fr-FR", "Europe/Paris")
    assert person.attributes == {"points": 7}
    assert person.tags == ["imported", "VIP", "Paris"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Email\nann@example", "Email: The part after the @-sign is not valid. It should have a period."),
        ("Email\nann.example.com", "Email: An email address must have an @-sign."),
        ("Email,A\na@example.com", "The row has 1 cells where the header has 2."),
        ("Email,A\na@example.com,b,c", "The row has 3 cells where the header has 2."),
        ("Email,A\na@example.com,\0", "The row holds a NUL character"),
        ("Email,A\na@example.com,\x07", "The row holds control characters"),
        (b"Email,A\na@example.com,Jos\xe9", "The row is not valid text in the encoding of the file"),
        ('Email,A\na@example.com,"open', "The row has a quotation mark that is never closed"),
        ("Email,A\n,b", "The row has no e-mail address, phone number or external id"),
        ("Email,Phone\na@example.com,12", "Phone: '12' is no phone number; write it with its country"),
        ("Email,Timezone\na@example.com,Mars/Olympus", "Timezone: 'Mars/Olympus' is no IANA time zone"),
        ("Email,Country\na@example.com,Atlantis", "Country: 'Atlantis' is no country we know"),
        ("Email,Status\na@example.com,perhaps", "Status: 'perhaps' says neither subscribed nor unsubscribed"),
        ("Email,Total Spent\na@example.com,much", "Total Spent: 'much' is no number"),
        ("Email,OPTIN_TIME\na@example.com,0001-01-01T00:00:00+14:00", "OPTIN_TIME: '0001-01-01T00:00:00+14:00' is no"),
        ("Email,OPTIN_TIME\na@example.com,9999-12-31T23:59:59-12:00", "OPTIN_TIME: '9999-12-31T23:59:59-12:00' is no"),
        ("Email,First Name\na@example.com," + "x" * 251, "First Name: is longer than 250 characters"),
        ("Email,Notes\na@example.com," + "x" * 40_000, "The columns kept as attributes hold more than 32 KiB"),
        ("Email,Notes\na@example.com," + "x" * 200_000, "The row is longer than 128 KiB"),
    ],
)
def test_a_row_that_cannot_be_taken_says_why(content: str | bytes, reason: str) -> None:
    assert reason_of(content).startswith(reason)


def test_blank_lines_are_no_rows_and_empty_cells_too_many_do_no_harm() -> None:
    batch = batch_of("Email,A\n\n,\n  ,\t\na@example.com,b,,\n")
    assert (batch.rows, list(batch.people), batch.rejects) == (1, ["a@example.com"], [])


@pytest.mark.parametrize(
    ("header", "cells", "claim"),
    [
        ("Status", "Subscribed", Claim.SUBSCRIBED),
        ("Accepts Email Marketing", "yes", Claim.SUBSCRIBED),
        ("Accepts Email Marketing", "no", Claim.UNSUBSCRIBED),
        ("Email Marketing Consent", "NEVER_SUBSCRIBED", Claim.NEVER),
        ("Marketing contact status", "Non-marketing contact", Claim.NEVER),
        ("Marketing contact status,Unsubscribed from all email", "Marketing contact,true", Claim.UNSUBSCRIBED),
        ("Marketing contact status,Unsubscribed from all email", "Marketing contact,false", Claim.SUBSCRIBED),
        ("OPTIN_TIME", "2024-01-02 03:04:05", Claim.SUBSCRIBED),
        ("OPTIN_TIME,UNSUB_TIME", "2024-01-02 03:04:05,2025-01-01 00:00:00", Claim.UNSUBSCRIBED),
        ("OPTIN_TIME,CLEAN_TIME", "2024-01-02 03:04:05,2025-01-01 00:00:00", Claim.CLEANED),
        ("OPTIN_TIME", "", None),
        ("City", "Paris", None),
    ],
)
def test_the_status_columns_of_exports_say_who_may_be_written_to(header: str, cells: str, claim: Claim | None) -> None:
    assert person_of(f"Email,{header}\na@example.com,{cells}\n").email_claim == claim


def test_a_statement_of_consent_holds_for_those_of_whom_the_file_says_nothing() -> None:
    batch = batch_of(
        "Email,Status\na@example.com,\nb@example.com,unsubscribed\nc@example.com,never subscribed\n",
        subscribe=["email", "sms"],
        consent="agreed at the till",
    )
    assert [each.email_claim for each in batch.people.values()] == [
        Claim.SUBSCRIBED,
        Claim.UNSUBSCRIBED,
        Claim.NEVER,
    ]
    assert {each.sms_claim for each in batch.people.values()} == {None}  # they have no phone number
    with pytest.raises(ValueError, match="consent="):
        ImportOptions(subscribe=["email"])


def test_the_proof_of_consent_is_kept() -> None:
    person = person_of("Email,OPTIN_TIME,OPTIN_IP\na@example.com,2024-01-02 03:04:05,192.0.2.7\n")
    assert (person.consent_at, person.consent_where) == ("2024-01-02T03:04:05+00:00", "192.0.2.7")


def test_a_later_row_about_the_same_person_corrects_the_earlier_one() -> None:
    batch = batch_of(
        "Email,First Name,City,Status,Tags\n"
        "Ann@example.com,Ann,Paris,unsubscribed,a\nann@EXAMPLE.com,,Lyon,subscribed,b\nbob@example.com,Bob,,,\n"
    )
    ann, bob = batch.people.values()
    assert (batch.rows, batch.duplicates, bob.first_name) == (3, 1, "Bob")
    assert (ann.first_name, ann.attributes, ann.tags) == ("Ann", {"city": "Lyon"}, ["a", "b"])
    assert ann.email_claim == Claim.UNSUBSCRIBED  # a refusal is never overruled


def test_two_people_cannot_share_a_phone_number() -> None:
    batch = batch_of("Email,Phone\na@example.com,+33612345678\nb@example.com,+33 6 12 34 56 78\n")
    assert list(batch.people) == ["a@example.com"]
    assert [each.reason for each in batch.rejects] == ["Its phone is that of another person in this file"]


def test_formulas_are_kept_as_they_are_and_defused_on_the_way_out() -> None:
    assert person_of('Email,Note\na@example.com,"=1+1"\n').attributes == {"note": "=1+1"}
    assert [guarded(cell) for cell in ("=1+1", "+33", "-1", "@x", "\t=1", "plain")] == [
        *("'=1+1", "'+33", "'-1", "'@x", "'\t=1", "plain")
    ]
    given_back = person_of("Carillon line,Carillon reason,Email,Note\n7,because,a@example.com,'=1+1\n")
    assert given_back.attributes == {"note": "=1+1"}


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=12), max_size=6))
def test_no_row_whatever_is_in_it_stops_an_import(cells: list[str]) -> None:
    header = ["Email", "Phone", "External ID", "Country", "Status", "Total Spent"]
    text = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    batch = batch_of(",".join(header).encode() + b"\n" + text.encode("utf-8", "surrogatepass"))
    assert batch.rows == len(batch.people) + len(batch.rejects) + batch.duplicates
    assert all("\0" not in each.raw for each in batch.rejects)


def test_counts_add_up() -> None:
    assert ImportCounts(rows=2, added=1) + ImportCounts(rows=3, rejected=1) == ImportCounts(rows=5, added=1, rejected=1)
