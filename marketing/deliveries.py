"""What can become of a delivery, and how many went wrong lately?"""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


class DeliveryState(StrEnum):
    """`planned → sending → sent → delivered | bounced | complained`, or one of the four last."""

    PLANNED = "planned"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class SkipReason(StrEnum):
    """Why a planned message was not sent. Nothing was wrong: we may not, or need not, write."""

    CONTACT_DELETED = "contact_deleted"
    NO_ADDRESS = "no_address"
    NO_CONSENT = "no_consent"
    UNSUBSCRIBED = "unsubscribed"
    SUPPRESSED = "suppressed"
    FREQUENCY_CAP = "frequency_cap"
    BUDGET = "budget"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # the experiment was, before this left
    LEFT = "left"  # the contact has left the journey
    HOLDOUT = "holdout"  # got nothing on purpose, for an experiment to tell what sending brings


class FailReason(StrEnum):
    """Why a message that we wanted to send could not be."""

    REJECTED = "rejected"  # the provider said never (5xx), or the channel did: an address that it can't carry
    EXPIRED = "expired"  # the provider said later (4xx) until we gave up
    RENDER = "render"  # the template failed for this contact


class UncertainReason(StrEnum):
    """Why nobody can know whether a message arrived (RFC 1047)."""

    CONNECTION_LOST = "connection_lost"  # after the message was handed over and before the answer
    WORKER_LOST = "worker_lost"  # the worker ended between taking the message and recording what became of it
    RESTORED = "restored"  # the record was restored from an earlier moment: it may have been sent since then


@dataclass(frozen=True)
class Terms:
    """What a source's messages are about, and what bounds them.

    Args:
        max_messages: its budget.
        resend: what nobody knows the fate of is sent again.
        metered: what it spends, and its errors, are watched.
    """

    topic: str | None
    rate_limit_per_second: float | None = None
    max_messages: int | None = None
    resend: bool = False
    metered: bool = True


# The provider said "later" this many times: 1, 4, 16, 64 minutes, then every 4 hours, about 72 hours in all.
MOST_ATTEMPTS = 21


# With `on_uncertain: resend`: a recipient may get a message this often, and no more.
MOST_SENDINGS = 3


def retry_delay(attempts: int) -> timedelta:
    """How long to wait after this many attempts that the provider put off (1 or more)."""
    return min(timedelta(minutes=4 ** min(attempts - 1, 5)), timedelta(hours=4))


@dataclass
class ErrorWindow:
    """How many of the last `size` messages went wrong, kept per set: `[[messages, errors], …]`, newest last."""

    size: int = 1000
    sets: list[tuple[int, int]] = field(default_factory=list)

    def add(self, messages: int, errors: int) -> None:
        self.sets.append((messages, errors))
        while len(self.sets) > 1 and self.seen - self.sets[0][0] >= self.size:
            del self.sets[0]

    @property
    def seen(self) -> int:
        return sum(messages for messages, _ in self.sets)

    @property
    def rate(self) -> float:
        """Share of errors among the messages seen, 0 to 1."""
        return sum(errors for _, errors in self.sets) / max(self.seen, 1)

    def trips(self, threshold: float) -> bool:
        """More than `threshold` of a full-enough window: with fewer than a tenth seen, a rate says nothing."""
        return self.seen >= self.size // 10 and self.rate > threshold
