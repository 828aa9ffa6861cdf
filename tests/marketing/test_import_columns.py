"""What does each column of a contact file hold?"""

from pathlib import Path

import pytest

from marketing.contact_files import FileForm
from marketing.import_columns import CHANNELS, FACTS, FIELDS, ImportPlan, Unreadable, column_field, plan_for
from marketing.imports import ImportCounts

# The header rows that the exports of four products begin with.
MAILCHIMP = (
    "Email Address,First Name,Last Name,Address,Phone Number,Birthday,MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,"
    "CONFIRM_IP,LATITUDE,LONGITUDE,GMTOFF,DSTOFF,TIMEZONE,CC,REGION,LAST_CHANGED,LEID,EUID,NOTES,TAGS"
)
HUBSPOT = (
    "Record ID,First Name,Last Name,Email,Phone Number,Mobile Phone Number,Contact owner,Lead Status,"
    "Marketing contact status,Unsubscribed from all email,Create Date,Country/Region,City,Preferred language,Time Zone"
)
SHOPIFY = (
    "Customer ID,First Name,Last Name,Email,Accepts Email Marketing,Default Address Company,Default Address City,"
    "Default Address Country Code,Default Address Phone,Phone,Accepts SMS Marketing,Total Spent,Total Orders,Note,Tags"
)
KLAVIYO = (
    "Email,Klaviyo ID,First Name,Last Name,Phone Number,Address,City,Country,Zip Code,Source,Email Marketing Consent,"
    "SMS Marketing Consent"
)


def plan(header: str, **mapped: str) -> ImportPlan:
    return plan_for(header.split(","), FileForm(), {name.replace("_", " "): field for name, field in mapped.items()})


@pytest.mark.parametrize(
    ("header", "source", "known"),
    [
        (
            MAILCHIMP,
            "mailchimp",
            "email first_name last_name phone email_joined consent_where consent_at consent_where timezone country"
            " tags",
        ),
        (
            HUBSPOT,
            "hubspot",
            "external_id first_name last_name email phone email_status email_refused country locale timezone",
        ),
        (
            SHOPIFY,
            "shopify",
            "external_id first_name last_name email email_status country phone sms_status tags",
        ),
        (KLAVIYO, "klaviyo", "email external_id first_name last_name phone country email_status sms_status"),
    ],
)
def test_exports_are_recognised_by_their_header(header: str, source: str, known: str) -> None:
    found = plan(header)
    assert found.source == source
    assert " ".join(field for field in found.fields if not field.startswith("attributes.")) == known


@pytest.mark.parametrize("header", ["E-Mail", "e_mail address", " EMAIL ", "Courriel", "Email*"])
def test_spelling_case_and_punctuation_of_a_header_do_not_matter(header: str) -> None:
    assert plan(header).fields == ["email"]


def test_unknown_columns_become_attributes_in_snake_case() -> None:
    found = plan("Email,Loyalty Points,Loyalty points,,Total Spent,Город")
    assert found.fields[1:] == [
        "attributes.loyalty_points",
        "attributes.loyalty_points_2",
        "attributes.column_4",
        "attributes.total_spent:number",
        "attributes.город",
    ]


def test_a_second_column_of_the_same_kind_is_kept_as_an_attribute() -> None:
    assert plan("Email,Phone,Mobile").fields == ["email", "phone", "attributes.mobile"]


def test_what_was_mapped_comes_before_what_was_recognised() -> None:
    found = plan("Email,Work Email,Points", Work_Email="email", Points="attributes.points:number")
    assert found.fields == ["attributes.email", "email", "attributes.points:number"]


def test_a_file_without_anybody_in_it_is_unreadable_and_says_how_to_go_on() -> None:
    with pytest.raises(Unreadable, match="map=Login=email"):
        plan("Login,First Name")
    with pytest.raises(Unreadable, match="no column 'Mail'"):
        plan("Login,First Name", Mail="email")


@pytest.mark.parametrize("target", ["emial", "attributes.", "attributes.a.b", "attributes.a:date", "id", ""])
def test_a_column_cannot_become_something_that_is_no_field(target: str) -> None:
    with pytest.raises(ValueError, match="is no field"):
        column_field(target)


def test_the_manual_names_every_field_and_every_count() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "contacts.md").read_text()
    named = [field for field in FIELDS if not field.startswith(CHANNELS) or field == "email"]
    assert [name for name in (*named, *ImportCounts.model_fields) if f"`{name}`" not in manual] == []
    assert [fact for fact in FACTS if f"_{fact}`" not in manual] == []
