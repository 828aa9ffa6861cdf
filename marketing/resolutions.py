"""What does an operator decide about messages of which nobody knows whether they arrived?"""

from enum import StrEnum

from marketing.campaigns import CampaignState

# On a message that is `sent` because a person said so.
ACCEPTED_BY_HAND = "accepted_by_hand"


class Action(StrEnum):
    """Take the message as sent, or send it again."""

    ACCEPT = "accept"
    RESEND = "resend"


# Where a message that is put back will be sent: a cancelled or failed campaign sends nothing any more.
RESENDING = frozenset({CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.COMPLETED})


def why_not(
    action: Action,
    state: str | None,
    campaign: CampaignState | None,
    *,
    deleted: bool,
    of_a_journey: bool = False,
    stopped: bool = False,
) -> str:
    """Why a delivery was left as it is; `state` is None if there is no such delivery.

    Args:
        stopped: the campaign is an experiment that somebody has ended: what is put back would be skipped.
    """
    if state is None:
        return "There is no such delivery."
    if state != "uncertain":
        return f"It is not uncertain: {state}."
    if action is Action.RESEND and of_a_journey:
        return "Its contact has gone on since: accept it, or write to the contact anew."
    if action is Action.RESEND and deleted:
        return "Its campaign was deleted and sends nothing any more: accept it."
    if action is Action.RESEND and campaign not in RESENDING:
        return f"Its campaign is {campaign} and sends nothing any more: accept it, or write to the contact anew."
    if action is Action.RESEND and stopped:
        return "Its experiment was stopped and sends nothing any more: accept it, or write to the contact anew."
    return "Somebody else resolved it at this very moment. Ask again."
