"""In a rehearsal contacts do what the script says, on the same ways as real ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from temporalio import activity

from activities.journey_inputs import CohortRef
from database import rehearsals, subscriptions, tracking
from database.engine import Database
from database.rehearsals import Planned, Player
from database.subscriptions import Proof
from marketing.hits import Hit
from marketing.machines import Action
from marketing.rehearsal_scripts import OPENED, UNSUBSCRIBED, Act
from marketing.tracking import Leaving

_NO_MESSAGE = UUID(int=0)


class ActOut(CohortRef):
    """What the script says for one of its moments. What that is stays in this process: histories name nobody."""

    number: int
    now: datetime


@dataclass(frozen=True)
class Part:
    """What one contact is to do at a moment."""

    player: Player
    enrollment_id: UUID
    act: Act


@dataclass(frozen=True)
class Acted:
    """What a contact did, or why it could not."""

    player: Player
    at: datetime
    act: Act
    problem: str = ""


@dataclass
class Rehearsals:
    """
    Args:
        script: who does what, moment by moment.
        names: how the messages may be called that a call of a pass has sent: by pass and call.
        acted: filled with what was done.
    """

    database: Database
    script: Sequence[Sequence[Part]]
    names: Mapping[tuple[UUID, int], Collection[str]]
    acted: list[Acted] = field(default_factory=list)

    @activity.defn
    async def act_out(self, input: ActOut) -> None:
        for part in self.script[input.number]:
            problem = await self._act(input, part)
            self.acted.append(Acted(part.player, input.now, part.act, problem))

    async def _act(self, input: ActOut, part: Part) -> str:
        async with self.database.transaction(input.account_id) as tx:
            planned = await rehearsals.planned(tx, input.source_id)
            got = [each for each in planned if each.enrollment_id == part.enrollment_id and each.state == "sent"]
            if part.act.event == UNSUBSCRIBED:
                bearer = Leaving(input.account_id, part.player.id, got[-1].id if got else _NO_MESSAGE)
                if (recipient := await subscriptions.read(tx, bearer)) is None:
                    return "there is no such contact any more"
                wanted = recipient.standing.leaving(everything=False)
                proof = Proof(at=input.now, how="rehearsal", where="", user_agent="")
                await subscriptions.change(tx, bearer, recipient.standing, wanted, proof)
                return ""
            if not part.act.touches:
                about = {"properties": part.act.properties, "value": part.act.value, "currency": part.act.currency}
                await rehearsals.happen(tx, input.account_id, part.player.id, part.act.event, at=input.now, **about)
                return ""
        return await self._touch(input, part.act, got)

    async def _touch(self, input: ActOut, act: Act, got: Sequence[Planned]) -> str:
        """Open a message or click in it."""
        those = [
            each for each in got if act.message is None or act.message in self.names[each.enrollment_id, each.call]
        ]
        if not those:
            return f"{act.message or 'a message'} was not sent to this contact until then"
        url = str(act.properties.get("url", "https://example.com/"))
        action = Action.OPEN if act.event == OPENED else Action.CLICK
        hit = Hit(action, those[-1].id, input.now, url=url if action is Action.CLICK else None)
        await tracking.store(self.database, input.account_id, [hit])
        return ""
