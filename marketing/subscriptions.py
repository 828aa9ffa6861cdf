"""What did a contact agree to, and what do they mean when they leave, come back or choose?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from marketing.accounts import Topic
from marketing.contacts import SubscriptionStatus

Statuses = Mapping[str, SubscriptionStatus]  # by topic; '' is the channel as a whole
EVERYTHING = ""


@dataclass(frozen=True)
class Standing:
    """What a contact receives on one channel, seen from a message about `topic` ('' if it was about none).

    `before` is what each subscription said before its present status, as far as it is on record.
    """

    channel: str
    topic: str
    topics: Collection[Topic]
    statuses: Statuses
    before: Statuses

    def receives(self, topic: str) -> bool:
        """The rule of `database.eligibility`: neither refused, and the more exact of the two agreed to."""
        whole, exact = self.statuses.get(EVERYTHING), self.statuses.get(topic)
        return "unsubscribed" not in (whole, exact) and (exact or whole) == "subscribed"

    @property
    def has_left(self) -> bool:
        """They refused what the message was about, or everything."""
        return "unsubscribed" in (self.statuses.get(EVERYTHING), self.statuses.get(self.topic))

    @property
    def has_left_everything(self) -> bool:
        return self.statuses.get(EVERYTHING) == "unsubscribed"

    def leaving(self, *, everything: bool) -> Statuses:
        """Leave the message's topic, or the whole channel; a message about no topic stands for the whole channel."""
        return {EVERYTHING if everything else self.topic: "unsubscribed"}

    def returning(self) -> Statuses:
        """Undo: to the message's topic, and to the channel as it was before they left it."""
        wanted: dict[str, SubscriptionStatus] = {self.topic: "subscribed"} if self.topic else {}
        if self.has_left_everything:
            wanted[EVERYTHING] = self.before.get(EVERYTHING, "pending")
        return wanted

    def choosing(self, chosen: Collection[str]) -> Statuses:
        """Receive these topics and no others. Nothing chosen is a refusal of the channel as a whole.

        Who refused everything and now chooses a topic has agreed to that topic alone: the channel becomes `pending`.
        """
        if not self.topics:
            return {EVERYTHING: "subscribed" if EVERYTHING in chosen else "unsubscribed"}
        known = [topic.key for topic in self.topics]
        if not set(known) & set(chosen):
            return self.leaving(everything=True)
        wanted: dict[str, SubscriptionStatus] = {
            key: "subscribed" if key in chosen else "unsubscribed" for key in known
        }
        if self.has_left_everything:
            wanted[EVERYTHING] = "pending"
        return wanted


def masked(address: str) -> str:
    """Enough to know one's own address by, too little for anybody else: `a…@example.com`, `+49…12`."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}…@{domain}" if at else f"{address[:3]}…{address[-2:]}"
