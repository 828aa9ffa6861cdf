"""How much is waiting, over all accounts? In numbers alone."""

from dataclasses import dataclass

from sqlalchemy import text

from database.engine import Connection


@dataclass(frozen=True)
class Backlog:
    """What the installation as a whole still has to do."""

    messages: dict[tuple[str, str], int]  # not finished, by channel and the state of their campaign
    oldest_due: dict[str, float]  # seconds, by channel; without a channel that has nothing due
    imports: int
    touches: int  # changes that are not settled in segments
    oldest_touch: float  # seconds; 0 if there is none
    routing: int  # what happened to contacts and is not told to automations
    oldest_routing: float
    oldest_enrollment: float  # seconds that the contact waits to begin who waits longest; 0 if nobody does
    open_cohorts: int


async def read(tx: Connection) -> Backlog:
    """Cheap enough for every scrape: no message is counted, however many there are, and few touches wait."""
    messages = await tx.execute(text("SELECT channel, state, messages FROM backlog()"))
    oldest = await tx.execute(text("SELECT channel, seconds FROM oldest_due()"))
    imports = await tx.execute(text("SELECT imports_waiting()"))
    waiting = (await tx.execute(text("SELECT touches, seconds FROM touches_waiting()"))).one()
    routing = (await tx.execute(text("SELECT touches, seconds FROM journey_touches_waiting()"))).one()
    journeys = (await tx.execute(text("SELECT oldest, cohorts FROM journeys_under_way()"))).one()
    return Backlog(
        messages={(row.channel, row.state): row.messages for row in messages},
        oldest_due={row.channel: row.seconds for row in oldest},
        imports=imports.scalar_one(),
        touches=waiting.touches,
        oldest_touch=waiting.seconds,
        routing=routing.touches,
        oldest_routing=routing.seconds,
        oldest_enrollment=journeys.oldest,
        open_cohorts=journeys.cohorts,
    )
