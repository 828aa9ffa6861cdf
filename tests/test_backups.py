"""`carillon backup` and `restore`: what is lost, doubled or left in doubt? Exactly what docs/reliability.md says."""

import asyncio
import os
import re
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import backups
from channels.outbox import Outbox
from channels.sink import Sink
from database import reconciliation
from database.embedded import CannotStart
from database.engine import Database
from database.migrate import migrate
from database.reconciliation import Held
from local_stack import EmbeddedPostgres
from marketing.campaigns import CampaignState
from marketing.schedules import Schedule
from tests.audience import EMAIL, people
from tests.broadcast import Broadcast, broadcast
from tests.conftest import new_account
from tests.database.test_events import facts, ledger
from tests.delivering import execute, freeze
from tests.dripping import dripping
from tests.experimenting import experiment
from tests.journeys import steps
from tests.test_up import carillon, refusal
from tests.up import Up, folder

pytestmark = pytest.mark.long
MESSAGES = 400
KEY = "car_of_the_operator_herself"
Answer = dict[str, Any]


class Operator:
    """Whoever asks the API of a stack."""

    def __init__(self, up: Up) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        self.http = httpx.AsyncClient(base_url=up.state["api_url"], headers=headers, timeout=60)

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        answer = await self.http.request(method, path, **request)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        found: Answer = answer.json()
        return found

    async def until(self, path: str, **wanted: object) -> Answer:
        async with asyncio.timeout(90):
            while True:
                found = await self.ask("GET", path)
                if wanted.items() <= found.items():
                    return found
                await asyncio.sleep(0.1)

    async def import_people(self, group: str, count: int) -> None:
        rows = "".join(f"{group}-{n}@example.org,{group}\n" for n in range(count))
        started = await self.ask(
            "POST",
            "/api/contacts/import",
            params={"subscribe": "email", "consent": "at the counter"},
            content=f"email,tags\n{rows}",
            headers={"Content-Type": "text/csv"},
        )
        await self.until(f"/api/contacts/import/{started['id']}", status="completed")

    async def launched(self, group: str, **changes: Any) -> str:
        draft = {"name": group, "content": {"email": EMAIL}, "audience": {"tags": {"any": [group]}}, **changes}
        path = f"/api/campaigns/{(await self.ask('POST', '/api/campaigns', json=draft))['id']}"
        await self.ask("POST", f"{path}/launch")
        return path

    async def uncertain(self) -> list[Answer]:
        found: list[Answer] = []
        page: Answer = {"next_cursor": ""}
        while (cursor := page["next_cursor"]) is not None:
            params = {"state": "uncertain", "limit": "500"} | ({"cursor": cursor} if cursor else {})
            page = await self.ask("GET", "/api/deliveries", params=params)
            found += page["items"]
        return found


def quiet(done: int, total: int | None) -> None:
    """Nobody looks at how far it has come."""


@asynccontextmanager
async def up_with(data_dir: Path, sink: Sink) -> AsyncIterator[Up]:
    env = {"CARILLON_API_KEY": KEY, "CARILLON_SMTP_URL": sink.url, "CARILLON_LEASE_SECONDS": "10"}
    up = await asyncio.to_thread(lambda: Up(data_dir, "--workers", "1", **env))
    try:
        yield up
    finally:
        await asyncio.to_thread(up.__exit__)


async def arrivals(sink: Sink, count: int) -> None:
    while sink.count < count:
        await sink.next_arrival()


def at(sink: Sink, group: str) -> Counter[str]:
    """Message-IDs that the sink took for these people, and how often."""
    return Counter(each.message_id for each in sink.received if each.recipient.startswith(f"{group}-"))


@pytest.fixture
def aside() -> Iterator[Path]:
    with folder() as made:
        yield made


async def test_after_a_restore_nothing_is_lost_or_sent_twice_by_itself_and_the_relays_log_settles_the_rest(
    aside: Path,
) -> None:
    file, restored_dir = aside / "carillon.backup", aside / "restored"
    async with Sink(keep_contents=10_000) as sink:
        # A running campaign, with a backup made in the middle and more sent after it. Then everything is lost.
        with folder() as lost:
            async with up_with(lost, sink) as first:
                operator = Operator(first)
                await operator.ask("PUT", "/api/account", json={"name": "Example", "sender_domains": ["example.com"]})
                await operator.import_people("early", 20)
                await operator.import_people("running", MESSAGES)
                early = await operator.launched("early")
                await operator.until(early, status="completed")
                soon = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M}"
                scheduled = await operator.launched("early", schedule={"send_at": soon})
                running = await operator.launched("running", rate_limit_per_second=40)
                await arrivals(sink, 20 + MESSAGES // 8)
                await backups.back_up(lost, file, quiet)
                known_at_backup = at(sink, "running").total()
                await arrivals(sink, 20 + known_at_backup + MESSAGES // 8)
                await asyncio.to_thread(first.cut_power)
            secret_key = (lost / "secret_key").read_text()
        sent_before = at(sink, "running")
        assert known_at_backup < sent_before.total() < MESSAGES

        done = await asyncio.to_thread(carillon, "restore", str(file), "--data-dir", str(restored_dir))
        assert done.returncode == 0, done
        doubts = re.search(r"paused now: 1\. Messages that may have left since, uncertain now: (\d+)\.", done.stdout)
        assert doubts, done.stdout
        assert file.stat().st_mode & 0o777 == (restored_dir / "secret_key").stat().st_mode & 0o777 == 0o600
        assert (restored_dir / "secret_key").read_text() == secret_key

        async with up_with(restored_dir, sink) as second:
            operator = Operator(second)
            # Nothing leaves by itself; what is due was made uncertain, all of it, and says why.
            found = await operator.until(running, status="completed")
            assert found["status_reason"].startswith("The record was restored from a backup of ")
            stats = await operator.ask("GET", f"{running}/stats")
            uncertain = await operator.uncertain()
            assert (stats["planned"], stats["pending"], stats["uncertain"]) == (MESSAGES, 0, len(uncertain))
            assert len(uncertain) == int(doubts[1]) == MESSAGES - stats["sent"]
            assert {each["reason"] for each in uncertain} == {"restored"}
            assert at(sink, "running") == sent_before
            # Lost 0: who is told to be sent was sent to. Twice 0. And all that left after the backup is in doubt.
            doubtful = {each["message_id"]: each["delivery_id"] for each in uncertain}
            assert len(sent_before.keys() - doubtful.keys()) == stats["sent"]
            assert (await operator.ask("GET", scheduled))["status"] == "scheduled"

            # The relay's log knows which of them left.
            left = [delivery for message, delivery in doubtful.items() if message in sent_before]
            assert len(left) == sent_before.total() - stats["sent"] > 0
            accepted = {"action": "accept", "delivery_ids": left}
            assert (await operator.ask("POST", "/api/deliveries/resolve", json=accepted))["resolved"] == len(left)
            rest = {"action": "resend", "campaign_id": running.rpartition("/")[2], "reason": "restored"}
            await operator.ask("POST", "/api/deliveries/resolve", json=rest)
            stats = await operator.until(f"{running}/stats", uncertain=0, pending=0)
            assert (stats["sent"], stats["accepted"], stats["uncertain"]) == (MESSAGES, len(left), 0)
            assert at(sink, "running").total() == len(at(sink, "running")) == MESSAGES
            assert at(sink, "early").total() == 20

            # Links in what had left before the loss still work.
            link = re.search(rb"https?://[^/\s]+(/u/[\w.=-]+)", sink.contents[0].replace(b"=\r\n", b""))
            assert link
            assert (await operator.http.get(link[1].decode())).status_code == 200


async def test_only_what_may_have_been_sent_since_is_held() -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    async with EmbeddedPostgres(durable=False) as postgres:
        await asyncio.to_thread(migrate, postgres.url)
        database = Database(postgres.url)
        account = await new_account(database)
        await people(account, 6)

        async def campaign(
            state: CampaignState = CampaignState.RUNNING, *, begun: bool = True, **plan: Any
        ) -> Broadcast:
            made = await broadcast(account, **plan)
            if begun:
                await freeze(made, now=now)
            await execute(account, "UPDATE campaigns SET state = :state WHERE id = :id", state=state, id=made.id)
            return made

        running = await campaign()
        states = (
            "SET state = CASE n WHEN 1 THEN 'sent' WHEN 2 THEN 'sending' ELSE state END,"
            " not_before = CASE n WHEN 3 THEN not_before + interval '1 second' ELSE not_before END"
            " FROM (SELECT id AS row, row_number() OVER () AS n FROM deliveries WHERE campaign_id = :id) AS numbered"
            " WHERE id = row"
        )
        await execute(account, f"UPDATE deliveries {states}", id=running.id)
        await execute(
            account,
            "INSERT INTO counters VALUES (:a, :id, :now, 'email', '', '', 'sent', 1)",
            a=account.id,
            id=running.id,
            now=now,
        )
        paused, cancelled = await campaign(CampaignState.PAUSED), await campaign(CampaignState.CANCELLED)
        to_come, passed = [
            await campaign(CampaignState.SCHEDULED, begun=False, schedule=Schedule(send_at=moment.replace(tzinfo=None)))
            for moment in (now + timedelta(seconds=1), now)
        ]
        starting = await campaign(begun=False)
        automation = await steps(account, 2, Outbox(), name="inside")
        await automation.send(now=now)
        under_way = "UPDATE deliveries SET state = 'sending' WHERE campaign_id = :id"
        await execute(account, under_way, id=automation.inside.automation_id)

        course, ended = await dripping(account), await dripping(account)
        await execute(account, "UPDATE campaigns SET state = 'cancelled' WHERE id = :id", id=ended.id)

        compared = await experiment(account, test_fraction=1, holdout=0.5)
        await freeze(compared, now=now)
        variants = list((await compared.variants()).values())

        held = await reconciliation.hold(database, "Why.", now=now)
        assert sorted(held, key=lambda each: each.campaign_id) == [
            Held(running.id, True, 4),
            Held(paused.id, True, 6),
            Held(passed.id, False, 0),
            Held(starting.id, False, 0),
            Held(automation.inside.automation_id, True, 2),
            Held(course.id, True, 0),
            Held(compared.id, True, len(variants) - variants.count("holdout")),
        ]
        state, why = await course.state()
        assert state is CampaignState.PAUSED and why.startswith("Why.")
        assert (await ended.state())[0] is CampaignState.CANCELLED
        assert await automation.ledger() == {"uncertain:restored": 2}
        assert await running.ledger() == {"sent": 1, "planned": 1, "uncertain:restored": 4}
        assert (await running.stats()).reconciles
        assert await facts(running) == [each for each in await ledger(running) if each[2] == "message.uncertain"]
        for each in (running, paused):
            assert await each.state() == (CampaignState.PAUSED, "Why.")
        for each in (passed, starting):
            assert await each.state() == (
                CampaignState.PAUSED,
                "Why. If this campaign began after it, resuming sends everything twice: then cancel it.",
            )
        assert await cancelled.state() == (CampaignState.CANCELLED, "")
        assert (await to_come.state())[0] is CampaignState.SCHEDULED
        assert sum(each.messages for each in await reconciliation.hold(database, "Why.", now=now)) == 0
        await database.close()


async def test_a_restore_touches_nothing_that_is_there_and_tells_what_is_wrong_in_one_line(aside: Path) -> None:
    full, wrong, nothing, fresh = [aside / name for name in ("full", "wrong", "nothing", "fresh")]
    full.mkdir()
    (full / "a file").touch()
    wrong.write_text("PK, but not quite")
    for doing, said in (
        (backups.restore(wrong, fresh, quiet), f"{wrong} is no backup of Carillon, or it is damaged"),
        (backups.restore(nothing, fresh, quiet), f"{nothing} can't be used: No such file or directory"),
        (
            backups.restore(wrong, full, quiet),
            f"{full} holds something already: move it away, or name another --data-dir",
        ),
        (backups.back_up(fresh, nothing, quiet), f"{fresh} holds no record: name the --data-dir of `carillon up`"),
        (backups.back_up(fresh, wrong, quiet), f"{wrong} is there already: a backup never replaces one"),
        (
            backups.back_up(fresh, full / "no" / "one", quiet),
            f"{full}/no/one can't be written: No such file or directory",
        ),
    ):
        with pytest.raises(CannotStart) as refused:
            await doing
        assert str(refused.value) == said
    assert sorted(os.listdir(aside)) == ["full", "logs", "up.lock", "wrong"]
    url = "postgresql://carillon@127.0.0.1/carillon"
    own = await asyncio.to_thread(refusal, "backup", str(nothing), CARILLON_DATABASE_URL=url)
    assert own.startswith("carillon: Back up your own PostgreSQL by its own means")


async def test_a_damaged_backup_leaves_nothing_behind(aside: Path) -> None:
    data_dir, file = aside / "data", aside / "a.backup"
    async with EmbeddedPostgres(data_dir, durable=False) as postgres:
        await asyncio.to_thread(migrate, postgres.url)
    assert await backups.reconcile(data_dir) == []
    await backups.back_up(data_dir, file, quiet)
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes(100) + whole[middle + 100 :]):
        file.write_bytes(damaged)
        with pytest.raises(CannotStart):
            await backups.restore(file, aside / "fresh", quiet)
        assert sorted(os.listdir(aside)) == ["a.backup", "data", "logs", "up.lock"]


@pytest.mark.parametrize("about", ["[]", '{"format": 1}', '{"format": 1, "moment": 5}', "{", "\x00"])
async def test_a_backup_that_tells_nonsense_of_itself_is_damaged(aside: Path, about: str) -> None:
    file = aside / "a.backup"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(backups.ABOUT, about)
    with pytest.raises(CannotStart, match="is no backup of Carillon, or it is damaged"):
        await backups.restore(file, aside / "fresh", quiet)
    assert sorted(os.listdir(aside)) == ["a.backup", "logs", "up.lock"]


async def test_reconciling_waits_until_nobody_else_is_at_work() -> None:
    async with EmbeddedPostgres(durable=False) as postgres:
        await asyncio.to_thread(migrate, postgres.url)
        database = Database(postgres.url)
        account = await new_account(database)
        await people(account, 3)
        sent = await broadcast(account)
        await freeze(sent)
        await execute(account, "UPDATE deliveries SET not_before = now()")
        with pytest.raises(CannotStart, match="connected to the database: end every API and worker first"):
            await backups.hold(postgres.url, backups.EARLIER)
        await database.close()
        done = await asyncio.to_thread(carillon, "reconcile", "--yes", CARILLON_DATABASE_URL=postgres.url)
        assert "paused now: 1. Messages that may have left since, uncertain now: 3." in done.stdout
