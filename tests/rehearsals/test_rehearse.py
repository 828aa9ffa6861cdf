"""What a rehearsal runs, what it keeps away from, and what it is bounded by."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client

from database.engine import Connection, Database, after_commit
from database.rehearsals import named, unrecorded
from marketing.accounts import AccountSettings
from marketing.rehearsal_scripts import act
from marketing.rehearsals import Timeline
from marketing.tracking import RecipientLinks, Tokens
from pytest_carillon import Rehearse
from rehearsals.rehearse import Play, Stage, StandsStill, TooLong, rehearse
from tests.audience import EMAIL, people
from tests.conftest import PATIENCE, PUBLIC_URL, SECRET_KEY, TestAccount
from tests.delivering import change_account, execute
from workflows.journey import Contact, Journey, automation, on_request

SEND: dict[str, Any] = {"id": "letter", "type": "send", "channel": "email", "content": EMAIL}
ANNA = "anna@example.com"


def declared(*steps: dict[str, Any], **terms: Any) -> dict[str, Any]:
    return {"trigger": {"type": "api"}, "steps": list(steps), **terms}


# -- steps -----------------------------------------------------------------------------------------------------------


async def test_every_kind_of_step_is_taken_and_told(rehearse: Rehearse) -> None:
    campaign = {"name": "For one", "content": {"email": EMAIL}}
    steps: list[dict[str, Any]] = [
        {"type": "send", "template": "letter"},
        {"type": "wait", "duration": "2 hours"},
        {"type": "wait_until", "at": "09:00"},
        {"type": "wait_for", "event": "visit", "where": {"field": "properties.page", "is": "/"}, "within": "1 day"},
        {"type": "branch", "if": {"field": "tags", "contains": "vip"}, "else": [{"type": "tag", "add": ["vip"]}]},
        {"type": "split", "variants": {"a": {"weight": 1}, "b": {"weight": 1}}},
        {"type": "add_to", "segment": "Some"},
        {"type": "remove_from", "segment": "Some"},
        {"type": "update_contact", "changes": {"country": "FR"}},
        {"type": "webhook", "url": "https://hooks.example.com/", "data": {"a": 1}},
        {"type": "create_campaign", "campaign": campaign, "launch": False},
        {"type": "notify", "text": "{{ contact.email }} is through"},
        {"type": "activity", "name": "score", "input": 5},
        {"type": "exit", "reason": "done"},
    ]
    visit = {"event": "visit", "at": "1 day", "properties": {"page": "/"}}
    contacts: list[dict[str, Any]] = [{"email": ANNA}, {"email": "boris@example.com", "tags": ["vip"]}]
    timeline = await rehearse(
        declared(*steps), contacts=contacts, script=[{**visit, "contact": ANNA}], activities={"score": lambda n: n + 1}
    )
    kinds = [each.kind for each in timeline[ANNA].happenings if each.kind not in ("entered", "act", "left")]
    assert kinds == [
        *("send", "wait", "wait_until", "wait_for", "branch", "tag", "split", "add_to", "remove_from"),
        *("update_contact", "webhook", "create_campaign", "notify", "activity"),
    ]
    outcomes = {each.kind: each.outcome for each in timeline[ANNA].happenings}
    assert (outcomes["wait_for"], outcomes["branch"]) == ("happened", "no")
    assert {each.kind: each.outcome for each in timeline["boris@example.com"].happenings}[
        "wait_for"
    ] == "did not happen"
    assert all(each.why in ("", "done") for contact in timeline for each in contact.happenings), str(timeline)
    assert (timeline[ANNA].state, timeline[ANNA].reason) == ("exited", "done")


async def test_whoever_fails_fails_alone_and_says_why(rehearse: Rehearse) -> None:
    template = {"letter": {"html": "{% if contact.first_name == 'Boris' %}{{ 1 | divided_by: 0 }}{% endif %}Hello"}}
    contacts = [{"email": ANNA}, {"email": "boris@example.com", "first_name": "Boris"}]
    timeline = await rehearse(
        declared({"type": "send", "template": "letter"}, {"type": "webhook", "url": "http://a:b@example.com/"}),
        contacts=contacts,
        templates=template,
    )
    assert timeline[ANNA].sent == ["letter"] and timeline["boris@example.com"].skipped[0][0] == "letter"
    assert {each.state for each in timeline} == {"failed"}
    assert "password" in timeline[ANNA].happenings[-1].why


async def test_clicks_and_openings_count_where_they_are_asked_for(rehearse: Rehearse) -> None:
    @automation("engaging", trigger=on_request())
    async def engaging(_: Contact, journey: Journey) -> None:
        await journey.send("first")
        await journey.wait("2 days")
        seen = await journey.engagement()
        await journey.send("clicked" if seen.clicked else "opened" if seen.opened else "neither")

    contacts = [{"email": f"{name}@example.com"} for name in ("anna", "boris", "carla")]
    script = ["anna@example.com clicks first on day 1", "boris@example.com opens after 3 hours"]
    timeline = await rehearse(engaging, contacts=contacts, script=script)
    assert [each.sent[-1] for each in timeline] == ["clicked", "opened", "neither"]


async def test_they_enter_when_it_is_said_as_a_moment_or_as_text(rehearse: Rehearse) -> None:
    step = declared({"type": "tag", "add": ["a"]})
    said, moment = "2100-03-27T09:00:00+01:00", datetime(2100, 3, 27, 8, tzinfo=UTC)
    assert {(await rehearse(step, starts_at=starts_at)).starts_at for starts_at in (said, moment)} == {moment}
    for wrong in ("2100-03-27T09:00:00", datetime(2100, 3, 27), "soon"):  # noqa: DTZ001  # which is what is wrong
        with pytest.raises(ValueError, match="starts_at takes a moment"):
            await rehearse(step, starts_at=wrong)


async def test_a_goal_and_an_exit_condition_end_a_pass(rehearse: Rehearse) -> None:
    terms = {
        "goal": {"event": "upgrade"},
        "exit_on": [{"event": "refund"}, {"if": {"event": "visit", "count": {"at_least": 2}}}],
    }
    contacts = [{"email": f"{name}@example.com"} for name in ("anna", "boris", "carla", "dora")]
    script = [
        *("anna@example.com does upgrade on day 2", "boris@example.com does refund on day 3"),
        *("carla@example.com does visit on day 1", "carla@example.com does visit on day 4"),
    ]
    timeline = await rehearse(
        declared({"type": "wait", "duration": "9 days"}, **terms), contacts=contacts, script=script
    )
    assert timeline.summary.ended == {"exited: goal": 1, "exited: exit": 2, "completed": 1}
    left = [(each.happenings[-1].at - timeline.starts_at).days for each in timeline]
    assert left == [2, 3, 4, 9]


async def test_long_journeys_go_on_in_another_run_of_their_workflow(
    account: TestAccount, database: Database, temporal: Client
) -> None:
    steps = [
        step
        for number in range(12)
        for step in (
            {"id": f"wait-{number}", "type": "wait", "duration": "1 day"},
            {**SEND, "id": f"letter-{number}"},
        )
    ]
    both = await people(account, 2)
    short = await played(stage(database, temporal), account, *steps, script=9, contacts=both)
    long = await played(replace(stage(database, temporal), most_events=60), account, *steps, script=9, contacts=both)
    assert [each.sent for each in long] == [each.sent for each in short] == [[f"letter-{n}" for n in range(12)]] * 2
    assert [outline(each) for each in long] == [outline(each) for each in short]


def outline(contact: Any) -> list[tuple[str, str, str]]:
    return [(each.kind, each.step, each.outcome) for each in contact.happenings]


# -- real contacts ---------------------------------------------------------------------------------------------------


def stage(database: Database, temporal: Client) -> Stage:
    return Stage(database, temporal, RecipientLinks(PUBLIC_URL, Tokens(SECRET_KEY)), most_seconds=PATIENCE)


async def played(
    on: Stage, account: TestAccount, *steps: dict[str, Any], script: int = 0, contacts: list[UUID] | None = None
) -> Timeline:
    those = contacts or await people(account, 2)

    async def prepare(tx: Connection, now: datetime) -> Play:
        players = sorted(await named(tx, those, []), key=lambda each: those.index(each.id))
        acts = [(act(f"does visit on day {day}"), None) for day in range(1, script + 1)]
        return Play(name="Rehearsed", definition={"steps": list(steps)}, players=players, starts_at=now, script=acts)

    return await rehearse(on, account.id, prepare)


async def test_quiet_hours_and_caps_hold_as_they_do_in_earnest(
    account: TestAccount, database: Database, temporal: Client
) -> None:
    now = datetime.now(UTC)
    quiet = {"start": f"{now - timedelta(hours=1):%H:%M}", "end": f"{now + timedelta(hours=2):%H:%M}"}
    settings = AccountSettings.model_validate(
        {"name": "A", "quiet_hours": quiet, "frequency_caps": {"email": {"messages": 1, "hours": 24}}}
    )
    await change_account(account, quiet_hours=settings.quiet_hours, frequency_caps=settings.frequency_caps)
    timeline = await played(stage(database, temporal), account, SEND, {**SEND, "id": "second"})
    (first, second) = (each for each in timeline.contacts[0].happenings if each.kind == "send")
    assert first.outcome == "sent" and first.until and first.until - first.at > timedelta(hours=1)
    assert second.outcome == "skipped" and "as many messages as the account allows" in second.why


async def test_whoever_takes_too_long_is_given_up_and_leaves_nothing_at_work(
    account: TestAccount, database: Database, temporal: Client
) -> None:
    steps = [{"id": f"wait-{number}", "type": "wait", "duration": "1 day"} for number in range(150)]
    both, began = await people(account, 2), []

    async def prepare(tx: Connection, now: datetime) -> Play:
        began.append((await tx.execute(text("SELECT now()"))).scalar_one())
        return Play("Long", {"steps": steps}, await named(tx, both, []), starts_at=now)

    with pytest.raises(TooLong, match="not over after 1 s"):
        await rehearse(replace(stage(database, temporal), most_seconds=1), account.id, prepare)
    async with account.transaction() as tx:
        open_ones = text("SELECT count(*) FROM pg_stat_activity WHERE xact_start = ANY (CAST(:began AS timestamptz[]))")
        assert (await tx.execute(open_ones, {"began": began})).scalar_one() == 0
        assert (await tx.execute(text("SELECT count(*) FROM automations"))).scalar_one() == 0


async def test_what_can_never_come_to_its_end_is_given_up_at_once_and_says_why(
    account: TestAccount, database: Database, temporal: Client
) -> None:
    (zoe,) = await people(account, 1)

    async def prepare(tx: Connection, now: datetime) -> Play:
        return Play("Lost", {"steps": []}, await named(tx, [zoe], []), starts_at=now, code="in-no-file")

    with pytest.raises(StandsStill, match="can't go on: No file has the automation 'in-no-file' in version 1"):
        await rehearse(stage(database, temporal), account.id, prepare)  # it would else be too long, minutes later


async def test_an_account_that_is_inside_already_can_be_rehearsed_and_goes_on_untouched(
    account: TestAccount, database: Database, temporal: Client
) -> None:
    (contact,) = await people(account, 1)
    await execute(
        account,
        "INSERT INTO enrollments (account_id, source_id, contact_id, cause) VALUES (:a, uuidv7(), :c, 'event:1')",
        a=account.id,
        c=contact,
    )
    timeline = await played(stage(database, temporal), account, SEND, contacts=[contact])
    assert timeline.summary.sent == {"letter": 1}
    async with account.transaction() as tx:
        assert (await tx.execute(text("SELECT state FROM enrollments"))).scalars().all() == ["pending"]


# -- one transaction -------------------------------------------------------------------------------------------------


@pytest.fixture
async def one(database: Database) -> AsyncIterator[Database]:
    async with unrecorded(database, 30) as one:
        yield one


async def test_what_fails_takes_its_own_part_back_and_no_other(one: Database, account: TestAccount) -> None:
    insert = text("INSERT INTO contacts (account_id, email) VALUES (:account_id, :email)")
    told: list[str] = []
    async with one.transaction(account.id) as tx:
        await tx.execute(insert, {"account_id": account.id, "email": ANNA})
        after_commit(tx, lambda: told.append("committed"))

    async def fail() -> None:
        async with one.transaction(account.id) as tx:
            await tx.execute(insert, {"account_id": account.id, "email": "boris@example.com"})
            await tx.execute(insert, {"account_id": account.id, "email": ANNA})

    with pytest.raises(DBAPIError):
        await fail()
    async with one.transaction(account.id) as tx:
        assert (await tx.execute(text("SELECT email FROM contacts"))).scalars().all() == [ANNA]
    assert not told
    async with account.transaction() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM contacts"))).scalar_one() == 0


async def test_it_sees_one_account_at_a_time(one: Database, account: TestAccount, other_account: TestAccount) -> None:
    await people(account, 1)
    count = text("SELECT count(*) FROM contacts")
    for each, seen in ((account.id, 1), (other_account.id, 0), (None, 0), (account.id, 1)):
        async with one.transaction(each) as tx:
            assert (await tx.execute(count)).scalar_one() == seen


async def test_those_who_come_together_have_their_turns(one: Database, account: TestAccount) -> None:
    async def add(number: int) -> int:
        async with one.transaction(account.id) as tx:
            await tx.execute(
                text("INSERT INTO contacts (account_id, email) VALUES (:account_id, :email)"),
                {"account_id": account.id, "email": f"{number}@example.com"},
            )
            return int((await tx.execute(text("SELECT count(*) FROM contacts"))).scalar_one())

    assert sorted(await asyncio.gather(*map(add, range(20)))) == list(range(1, 21))


async def test_it_gives_way_to_whoever_is_real(one: Database, account: TestAccount) -> None:
    (contact,) = await people(account, 1)
    change = text("UPDATE contacts SET first_name = 'B' WHERE id = :id")
    async with account.transaction() as real:
        await real.execute(change, {"id": contact})
        with pytest.raises(DBAPIError, match="lock timeout"):
            async with one.transaction(account.id) as tx:
                await tx.execute(change, {"id": contact})
        await real.execute(change, {"id": contact})
