"""Steps that reach beyond the contact: other programs, the people of the account, campaigns, an author's own code."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

import orjson
from temporalio import activity

from activities import launches
from activities.authors import LONGEST_CALL, Author, answer_of
from activities.heartbeats import beating
from activities.journey_inputs import CANCELLED, Answer, Caller, Failures, StepCall
from activities.launches import NotLaunchable
from channels.base import Rejected, Unavailable
from channels.webhooks import WebhookCall, Webhooks
from database import callers, campaigns, notifications, standings
from database.callers import Person
from database.engine import Database
from marketing.campaigns import Audience, CampaignDefinition, CampaignState
from marketing.contacts import template_view
from marketing.content import ContentError
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind, how_many
from marketing.rendering import RenderError, rendered_line
from marketing.webhooks import WebhookSecrets, call_id, payload

AT_ONCE = 50
# After so many seconds of calls of authors' functions no other one begins: half of what an activity may take.
ENOUGH = 3600
Tell = Callable[[UUID], Awaitable[None]]


async def nobody(account_id: UUID) -> None:
    """Has no e-mails sent."""


@dataclass
class Outward:
    """Does each of these once for each call of a pass, but for those that nobody can take back: a webhook, and what an
    author's own code does, may happen again after a crash.

    Args:
        authors: functions under `@activity.defn` that automations may call, by their names.
        tell: has an account's notifications sent by e-mail, soon.
    """

    database: Database
    webhooks: Webhooks
    secrets: WebhookSecrets
    authors: Mapping[str, Author] = field(default_factory=dict)
    tell: Tell = nobody

    @activity.defn
    async def webhook(self, step: StepCall) -> list[Answer]:
        """Tell another program of each contact."""
        secret = self.secrets.of(step.account_id)

        async def call(caller: Caller, person: Person) -> Answer:
            said = payload(
                kind=step.kind,
                source_id=step.source_id,
                enrollment_id=person.enrollment_id,
                step=step.step,
                moment=step.now.isoformat(),
                contact=template_view(person.contact),
                event=person.trigger,
                data=step.args.get("data"),
            )
            key = call_id(person.enrollment_id, caller.call)
            try:
                await self.webhooks.call(WebhookCall(key, step.args["url"], orjson.dumps(said)), secret)
            except Rejected as error:
                return Answer(error=error.reply, final=True)
            except Unavailable as error:
                return Answer(error=error.reply)
            return Answer()

        return await self._each(step, call)

    @activity.defn
    async def notify(self, step: StepCall) -> list[Answer]:
        """Tell the people of the account; what is the same for many contacts is told once."""
        told: dict[str, list[tuple[Person, int]]] = defaultdict(list)

        async def write(caller: Caller, person: Person) -> Answer:
            variables = {"contact": template_view(person.contact), "event": person.trigger}
            try:
                text = rendered_line(step.args["text"], variables)
            except (ContentError, RenderError) as error:
                return Answer(error=str(error), final=True)
            told[text].append((person, caller.call))
            return Answer()

        answers = await self._each(step, write)
        await self._add(
            step,
            [
                Notification(
                    id=keyed_id(step.now, "notify", of[0][0].enrollment_id, of[0][1]),
                    kind=NotificationKind.NOTE,
                    source_id=step.source_id,
                    text=how_many(text, [person.contact["id"] for person, _ in of]),
                    created_at=step.now,
                    emailed_at=None,
                )
                for text, of in told.items()
            ],
        )
        return answers

    @activity.defn
    async def report_failures(self, failures: Failures) -> None:
        """Tell the people of the account which contacts could not go on, and why."""
        members: dict[str, list[int]] = defaultdict(list)
        for left in failures.left:
            members[left.problem or left.reason or left.state] += left.members
        async with self.database.transaction(failures.account_id) as tx:
            everybody = [member for those in members.values() for member in those]
            people = await callers.people(tx, failures.source_id, failures.cohort, everybody)
        found = []
        for problem, those in members.items():
            contacts = [people[member].contact["id"] for member in those if member in people]
            if contacts:
                found.append(
                    Notification(
                        id=keyed_id(failures.now, "failed", failures.source_id, failures.cohort, sorted(those)),
                        kind=NotificationKind.FAILED,
                        source_id=failures.source_id,
                        text=how_many(problem, contacts),
                        created_at=failures.now,
                        emailed_at=None,
                    )
                )
        await self._add(failures, found)

    @activity.defn
    async def create_campaign(self, step: StepCall) -> list[Answer]:
        """Make a campaign for each contact, or for the audience that it names; answers its id."""
        definition = CampaignDefinition.model_validate(step.args["campaign"])

        async def create(caller: Caller, person: Person) -> Answer:
            own = Audience(contact_ids=[person.contact["id"]])
            wanted = definition.model_copy(update={"audience": definition.audience or own})
            campaign_id = keyed_id(step.now, "campaign", person.enrollment_id, caller.call)
            try:
                async with self.database.transaction(step.account_id) as tx:
                    made = await campaigns.read(tx, campaign_id, lock=True, deleted=True)
                    if made is None:
                        made = await campaigns.create(tx, step.account_id, wanted, id=campaign_id)
                    if step.args.get("launch", True) and made.state is CampaignState.DRAFT:
                        await launches.launch(tx, step.account_id, made, step.now)
            except NotLaunchable as error:
                return Answer(error=str(error), final=True)
            return Answer(value=str(campaign_id))

        return await self._each(step, create, at_once=4)

    @activity.defn
    async def perform(self, step: StepCall) -> list[Answer]:
        """Run an author's own function for each contact, with what the step hands to it."""
        name = step.args["name"]
        function = self.authors.get(name)
        if function is None:
            known = ", ".join(sorted(self.authors)) or "none"
            problem = f"There is no activity {name!r} in this worker; there are: {known}."
            return [Answer(error=problem) for _ in step.callers]  # another worker, or the next version, may have it

        seconds = step.args.get("seconds", LONGEST_CALL)
        rest_at = monotonic() + ENOUGH

        async def run(_: Caller, person: Person) -> Answer:
            if monotonic() > rest_at:  # so long did others take: those who are left are asked for anew
                return Answer(later=step.now)
            return await answer_of(name, function, step.args["arguments"], person.contact["id"], seconds)

        return await self._each(step, run)

    # -- what they share ---------------------------------------------------------------------------------------------

    async def _each(
        self, step: StepCall, take: Callable[[Caller, Person], Awaitable[Answer]], *, at_once: int = AT_ONCE
    ) -> list[Answer]:
        """The step for each caller who is still inside, a few at once; for none while the source is paused."""
        async with self.database.transaction(step.account_id) as tx:
            going = await standings.going(tx, step.kind, step.source_id, step.cohort)
            if going != "on":
                return [Answer(held=True) if going == "paused" else CANCELLED for _ in step.callers]
            people = await callers.people(tx, step.source_id, step.cohort, [each.member for each in step.callers])
        turns = asyncio.Semaphore(at_once)

        async def one(caller: Caller) -> Answer:
            if (person := people.get(caller.member)) is None:
                return Answer(leave="contact_deleted")
            if person.left is not None:
                return Answer.gone(person.state, person.left)
            async with turns:
                return await take(caller, person)

        async with beating():
            return list(await asyncio.gather(*map(one, step.callers)))

    async def _add(self, step: StepCall | Failures, told: list[Notification]) -> None:
        if told:
            async with self.database.transaction(step.account_id) as tx:
                await notifications.add(tx, step.account_id, told)
            await self.tell(step.account_id)
