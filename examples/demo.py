"""`carillon demo`: a real campaign, from a contact list to the inbox, and each figure beside what a witness counted."""

import asyncio
import csv
import io
import json
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from database.embedded import CannotStart, make_data_dir
from examples.client import Answer, Client, WentWrong
from examples.inbox import Inbox
from examples.readers import Readers
from examples.reckoning import Claim, reckoning
from examples.stage import WORKERS, Stage, set_up
from marketing.rehearsals import Timeline

CONTACTS = Path(__file__).with_name("contacts.csv")
CAMPAIGN = Path(__file__).with_name("broadcast.json")
ACCOUNT = {
    "name": "Example Outfitters",
    "sender_domains": ["example.com"],
    "default_timezone": "Europe/Paris",
    "postal_address": "1 Example Street, 75001 Paris, France",
}

# Machines click too: the scanner of a mail gateway is in no segment.
SEGMENT = {
    "name": "Clicked and stayed",
    "criteria": {
        "all": [
            {"event": "message.clicked", "within": "1 day"},
            {"field": "subscriptions.email", "is": "subscribed"},
        ]
    },
}
SETTLED_WITHIN_SECONDS = 10.0

# An automation that nobody has met yet, and its letters.
WELCOME = Path(__file__).with_name("welcome.json")
LETTERS = {
    "welcome": 'Welcome, {{ contact.first_name | default: "friend" }}',
    "showcase": "What there is to see",
    "re-engagement": "Shall we stay in touch?",
}
LETTER = (
    '<p><a href="https://shop.example.com/">Have a look</a></p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)

PAUSE_AT = 0.4  # of the messages sent
PAUSE_SECONDS = 2.0
DECLINERS = 5  # leave while the campaign is paused, before their message was sent
READERS = 12
OUTCOMES = ("sent", "skipped", "failed", "uncertain")
ENDED = ("completed", "failed", "cancelled")
INTERRUPTED = 130


def play(*, keep: bool) -> int:
    """Run the demo. What was started ends with it, or at SIGINT, SIGTERM or SIGHUP.

    Args:
        keep: leave everything running at the end, until Ctrl-C.

    Returns:
        0 if every figure reconciles, 1 if not, 130 if it was interrupted.
    """
    return asyncio.run(_play(Demo(Console(highlight=False)), keep))


async def _play(demo: "Demo", keep: bool) -> int:
    asked_to_stop = asyncio.Event()
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(stop_signal, asked_to_stop.set)
    story = asyncio.create_task(demo.tell(keep))
    asking = asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait([story, asking], return_when=asyncio.FIRST_COMPLETED)
    asking.cancel()
    story.cancel()
    await asyncio.wait([story])
    if not story.cancelled():
        story.result()
    return demo.status


class Demo:
    """The story, told while it happens. `status` is what the command exits with."""

    stage: Stage
    inbox: Inbox
    api: Client

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = monotonic()
        self.status = INTERRUPTED
        self.steps = 0
        self.claims: list[Claim] = []
        self.decliners: set[str] = set()

    async def tell(self, keep: bool) -> None:
        folder = make_data_dir(None)
        with ExitStack() as clearing:
            clearing.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                self.step(f"Start PostgreSQL, Temporal, the API, {WORKERS} workers and an SMTP server")
                await self.tell_in(folder, keep)
            except asyncio.CancelledError:
                self.say("Everything was ended.")
                raise
            except WentWrong as error:
                self.status = 1
                self.say(f"The demo can't go on: {error}")
            except CannotStart:
                clearing.pop_all()  # the message names a log in there
                raise

    async def tell_in(self, folder: Path, keep: bool) -> None:
        async with set_up(folder) as self.stage:
            self.say(f"API: {self.stage.api_url}/docs   Temporal UI: {self.stage.temporal_ui_url}")
            self.inbox = Inbox(self.stage)
            async with Client(self.stage.api_url, self.stage.api_key) as self.api:
                await self.story()
            if keep:
                self.say(f"Everything keeps running until Ctrl-C. API key: {self.stage.api_key}")
                letter = folder / "letter.html"
                letter.write_text(self.inbox.letters(1)[0].html)
                self.say(f"A message as it arrived: {letter.as_uri()}")
                await asyncio.Event().wait()
            self.say("All of it ends now; `carillon demo --keep` leaves it running, to look around.")

    async def story(self) -> None:
        await self.import_contacts()
        campaign, reach = await self.draft()
        segment = await self.ask_who_belongs()
        await self.deliver(campaign, reach)
        readers = await self.let_people_read(campaign)
        await self.see_who_belongs(segment, readers)
        await self.rehearse(campaign, readers)
        self.reckon(campaign)

    # -- the steps ---------------------------------------------------------------------------------------------------

    async def import_contacts(self) -> None:
        self.step(f"Import {CONTACTS.name}")
        await self.api.call("PUT", "/api/account", json=ACCOUNT)
        headers = {"Content-Type": "text/csv"}
        accepted = await self.api.call("POST", "/api/contacts/import", content=CONTACTS.read_bytes(), headers=headers)
        path = f"/api/contacts/import/{accepted['id']}"
        with self.bars("imported") as bars:
            async for seen in self.api.looks(path):
                bars.update(bars.task_ids[0], completed=100 * seen["progress"], total=100)
                if seen["status"] == "failed":
                    raise WentWrong(f"the import failed: {seen['problem']}")
                if seen["status"] == "completed":
                    break
        counts = seen["counts"]
        listed = (await self.api.fetch("GET", f"{path}/rejects")).text.lstrip("\ufeff")
        rejects = list(csv.reader(io.StringIO(listed, newline="")))[1:]
        self.say(", ".join(f"{n:,} {what}" for what, n in counts.items()))
        for line, reason, *_ in rejects[:3]:
            self.say(f"line {line} rejected: {reason}")
        with CONTACTS.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = sum(any(row) for row in csv.reader(file)) - 1
        taken = counts["added"] + counts["updated"] + counts["unchanged"] + counts["duplicates"]
        self.claim("rows in the file", counts["rows"], rows, "Python's csv module")
        self.claim("rows rejected", counts["rejected"], len(rejects), "the list of rejects")
        self.claim("rows taken", taken, rows - len(rejects), "subtraction")

    async def draft(self) -> tuple[str, Answer]:
        self.step(f"Draft {CAMPAIGN.name} and check it")
        campaign = str((await self.api.call("POST", "/api/campaigns", json=json.loads(CAMPAIGN.read_bytes())))["id"])
        path = f"/api/campaigns/{campaign}"
        validation = await self.api.call("POST", f"{path}/validate")
        reach = await self.api.call("POST", f"{path}/reach")
        preview = await self.api.call("POST", f"{path}/preview", json={"sample": 3})
        verdict = "launchable" if validation["launchable"] else "not launchable"
        self.say(f"validate: {verdict}, {len(validation['problems'])} problems")
        for problem in validation["problems"]:
            self.say(f"  {problem['severity']}: {problem['message']}")
        skipped = "".join(f", {n:,} not ({reason})" for reason, n in reach["skipped"].items())
        self.say(f"reach: {reach['total']:,} people, {reach['sendable']:,} may be written to{skipped}")
        for each in preview["previews"]:
            self.say(f"preview: “{each['subject']}” to {each['email']}")
        return campaign, reach

    async def ask_who_belongs(self) -> str:
        self.step("Make a segment of those who will click and stay")
        made = await self.api.call("POST", "/api/segments", json=SEGMENT)
        path = f"/api/segments/{made['id']}"
        async for seen in self.api.looks(path):
            if seen["state"] == "ready":
                break
        self.say(f"“{seen['name']}”: {seen['description']} {seen['size']:,} so far.")
        self.claim("in the segment at first", seen["size"], 0, "nobody has a message")
        return path

    async def deliver(self, campaign: str, reach: Answer) -> None:
        self.step("Launch it, pause it on the way, and resume it")
        path = f"/api/campaigns/{campaign}"
        await self.api.call("POST", f"{path}/launch")
        self.say(f"In Temporal: {self.workflow_page(campaign)}")
        looks = crooked = 0
        with self.bars(*OUTCOMES, "arrived") as bars:
            async for stats in self.api.looks(f"{path}/stats"):
                looks += 1
                crooked += stats["planned"] != added_up(stats)
                arrived = len(self.inbox.message_ids)
                for task, n in zip(bars.task_ids, [*(stats[each] for each in OUTCOMES), arrived], strict=True):
                    bars.update(task, completed=n, total=reach["total"])
                if not self.decliners and stats["sent"] >= PAUSE_AT * reach["sendable"]:
                    await self.pause_and_resume(path)
                if stats["planned"] and not stats["pending"]:
                    break
        async for seen in self.api.looks(path):
            if seen["status"] in ENDED:
                break
        if seen["status"] != "completed":
            raise WentWrong(f"the campaign {seen['status']}: {seen['status_reason']}")
        stats = await self.api.call("GET", f"{path}/stats")
        ids = self.inbox.message_ids
        skipped = sum(reach["skipped"].values()) + len(self.decliners)
        unsettled = await self.api.recipients(path, "planned") + await self.api.recipients(path, "sending")
        self.claim("planned", stats["planned"], reach["total"], "reach")
        self.claim("sent", stats["sent"], len(ids), "the SMTP server")
        self.claim("sent twice", 0, len(ids) - len(set(ids)), "the SMTP server")
        self.claim("sent after opting out", 0, len(self.decliners & set(self.inbox.recipients)), "the SMTP server")
        self.claim("skipped", stats["skipped"], skipped, "reach, and the pause")
        self.claim("failed", stats["failed"], len(await self.api.recipients(path, "failed")), "the list of recipients")
        self.claim(
            "uncertain", stats["uncertain"], len(await self.api.recipients(path, "uncertain")), "the list of recipients"
        )
        self.claim("pending", stats["pending"], len(unsettled), "the list of recipients")
        self.claim("planned, by its parts", stats["planned"], added_up(stats), "addition")
        self.claim("wrong sums on the way", 0, crooked, f"{looks} looks")

    async def pause_and_resume(self, path: str) -> None:
        """Nothing may leave in between; whoever leaves in between may not be written to."""
        await self.api.call("POST", f"{path}/pause", json={"reason": "A second look at the first ones"})
        answered, at = time(), len(self.inbox.message_ids)
        async for page in self.api.looks(f"{path}/recipients?state=sending"):
            if not page["items"]:
                break
        held, took = len(self.inbox.message_ids), max(self.inbox.last_arrival - answered, 0)
        for each in (await self.api.recipients(path, "planned"))[:DECLINERS]:
            leave = {"subscriptions": [{"channel": "email", "status": "unsubscribed"}]}
            await self.api.call("PATCH", f"/api/contacts/{each['contact_id']}", json=leave)
            self.decliners.add(each["email"])
        await asyncio.sleep(PAUSE_SECONDS)
        still = len(self.inbox.message_ids)
        self.say(f"paused at {at:,}; {held - at:,} in flight still arrived, the last {took:.1f} s after the answer")
        self.say(f"{PAUSE_SECONDS:g} s later, still paused: {still:,}")
        self.say(f"{len(self.decliners)} people whose message had not left unsubscribed in the pause")
        self.claim("arrived while paused", 0, still - held, "the SMTP server")
        await self.api.call("POST", f"{path}/resume")

    async def let_people_read(self, campaign: str) -> Readers:
        self.step("Let some of the recipients open, click and unsubscribe")
        async with Readers() as readers:
            led_to = await readers.read(self.inbox.letters(READERS))
        stats = await self.api.call("GET", f"/api/campaigns/{campaign}/stats")
        source = CAMPAIGN.read_text()
        self.say(
            f"{readers.opened} opened, {readers.clicked} clicked, {readers.unsubscribed} unsubscribed in one click"
        )
        self.claim("opened, by people", stats["opened"]["unique"], readers.opened, "the readers")
        self.claim("clicked, by people", stats["clicked"]["unique"], readers.clicked, "the readers")
        self.claim("clicked, by machines", stats["clicked"]["machine"], readers.scanned, "a link scanner")
        self.claim("clicks led elsewhere", 0, sum(url not in source for url in led_to), "the readers")
        self.claim("unsubscribed", stats["unsubscribed"]["unique"], readers.unsubscribed, "the readers")
        return readers

    async def see_who_belongs(self, path: str, readers: Readers) -> None:
        """Entering and leaving is followed, not computed when somebody asks."""
        self.step("See who belongs to the segment now")
        stayed, began = readers.clickers - readers.leavers, monotonic()
        async for page in self.api.looks(f"{path}/members"):
            members = {member["contact"]["email"] for member in page["items"]}
            if members == stayed or monotonic() - began > SETTLED_WITHIN_SECONDS:
                break
        self.say(f"{len(members)} clicked and stayed, in the segment {monotonic() - began:.1f} s later")
        self.claim("in the segment", len(members), len(stayed), "the readers")
        self.claim("in it by mistake", 0, len(members - stayed), "the readers")
        performance = await self.api.call("GET", f"{path}/performance")
        self.claim("messages to its members", performance["messages"], len(stayed), "the SMTP server")
        self.claim("clicks of its members", performance["clicks"], len(stayed), "the readers")
        audience = {"segments": [path.rpartition("/")[2]]}
        follow_up = json.loads(CAMPAIGN.read_bytes()) | {"name": "A second look", "audience": audience}
        drafted = await self.api.call("POST", "/api/campaigns", json=follow_up)
        reach = await self.api.call("POST", f"/api/campaigns/{drafted['id']}/reach")
        self.say(f"a campaign for this segment would reach {reach['sendable']:,} of {reach['total']:,}")
        self.claim("reach of the segment", reach["total"], len(stayed), "the readers")

    async def rehearse(self, campaign: str, readers: Readers) -> None:
        """Four days in a few seconds: one clicks, one leaves, one does nothing."""
        self.step(f"Rehearse {WELCOME.name} with three of the recipients")
        for name, subject in LETTERS.items():
            sender = {"from_name": ACCOUNT["name"], "from_email": "letters@example.com"}
            letter = {"name": name, "subject": subject, "html": LETTER, **sender}
            await self.api.call("POST", "/api/templates", json=letter)
        made = await self.api.call("POST", "/api/automations", json=json.loads(WELCOME.read_bytes()))
        reached = [each["email"] for each in await self.api.recipients(f"/api/campaigns/{campaign}", "sent")]
        clicks, leaves, neither = [each for each in reached if each not in readers.leavers][:3]
        stats, arrived = f"/api/campaigns/{campaign}/stats", len(self.inbox.message_ids)
        before = await self.api.call("GET", stats)
        wanted = {
            "contacts": [clicks, leaves, neither],
            "script": [f"{clicks} clicks showcase on day 2", f"{leaves} unsubscribes after 30 hours"],
        }
        told = await self.api.call("POST", f"/api/automations/{made['id']}/rehearse", json=wanted)
        timeline = Timeline.model_validate(told)
        for line in timeline.told().splitlines():
            self.say(line)
        got = {who: timeline[who].sent for who in (clicks, leaves, neither)}
        self.claim("letters of who clicks", len(got[clicks]), 2, "the script")
        self.claim("letters of who leaves", len(got[leaves]), 2, "the script")
        self.claim("letters of who rests", len(got[neither]), len(LETTERS), "the script")
        self.claim("rehearsed and arrived", 0, len(self.inbox.message_ids) - arrived, "the SMTP server")
        after = await self.api.call("GET", stats)
        changed = [name for name in before if before[name] != after[name]]
        self.claim("figures it changed", 0, len(changed), "the campaign's figures")

    def reckon(self, campaign: str) -> None:
        self.step("Compare the figures with those who saw it happen")
        self.console.print(reckoning(self.claims))
        differing = [claim.figure for claim in self.claims if not claim.holds]
        self.status = 1 if differing else 0
        if differing:
            self.say(f"{len(differing)} of {len(self.claims)} figures do not reconcile: {', '.join(differing)}")
        else:
            self.say(f"All {len(self.claims)} figures reconcile, {monotonic() - self.began:.0f} s after the start.")
        self.say(f"Campaign: {self.stage.api_url}/api/campaigns/{campaign}/stats")
        self.say(f"API docs: {self.stage.api_url}/docs")
        self.say(f"Temporal: {self.workflow_page(campaign)}")

    # -- telling -----------------------------------------------------------------------------------------------------

    def step(self, title: str) -> None:
        self.steps += 1
        self.console.print(f"\n[bold]{self.steps}. {title}[/]  [dim]{monotonic() - self.began:.0f} s[/]")

    def say(self, words: str) -> None:
        self.console.print(f"   {words}", markup=False, soft_wrap=True)

    def bars(self, *names: str) -> Progress:
        columns = (TextColumn("   {task.description:>10}"), BarColumn(36), TextColumn("{task.completed:>5,.0f}"))
        bars = Progress(*columns, console=self.console)
        for name in names:
            bars.add_task(name, total=None)
        return bars

    def workflow_page(self, campaign: str) -> str:
        return f"{self.stage.temporal_ui_url}/namespaces/default/workflows/campaign-{campaign}"

    def claim(self, figure: str, told: int, counted: int, witness: str) -> None:
        self.claims.append(Claim(figure, told, counted, witness))


def added_up(stats: Answer) -> int:
    return int(stats["pending"] + sum(stats[outcome] for outcome in OUTCOMES))
