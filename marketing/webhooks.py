"""How does a receiver of our webhooks know that they are ours, and which of them it has had before?

As Standard Webhooks (https://www.standardwebhooks.com) has it, so that its libraries read them: `webhook-id` is the
same however often a call is repeated, `webhook-timestamp` is when this repetition left, and `webhook-signature` seals
both with the body.
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping
from hashlib import blake2b, sha256
from uuid import UUID

from pydantic import JsonValue


class WebhookSecrets:
    """Each account's own secret, made of the installation's: nothing is stored, and nobody's can be told from
    another's."""

    def __init__(self, secret_key: bytes) -> None:
        self._key = blake2b(secret_key, person=b"carillon webhook").digest()

    def of(self, account_id: UUID) -> bytes:
        return blake2b(account_id.bytes, key=self._key, digest_size=32).digest()

    def spelled(self, account_id: UUID) -> str:
        """As the receivers' libraries want it: `whsec_` and base64."""
        return f"whsec_{b64encode(self.of(account_id)).decode()}"


def signed(secret: bytes, call_id: str, at: int, body: bytes) -> Mapping[str, str]:
    """The headers that say which call this is, when it left (Unix seconds), and that it is ours."""
    seal = hmac.digest(secret, f"{call_id}.{at}.".encode() + body, sha256)
    return {
        "webhook-id": call_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{b64encode(seal).decode()}",
    }


def call_id(enrollment_id: UUID, call: int) -> str:
    """The same for every repetition of one contact's step."""
    return f"{enrollment_id}-{call}"


def payload(
    *,
    kind: str,
    source_id: UUID,
    enrollment_id: UUID,
    step: str,
    moment: str,
    contact: Mapping[str, object],
    event: Mapping[str, object],
    data: JsonValue,
) -> dict[str, object]:
    """What a webhook says: whose step it is, who the contact is, what its pass began with, and the author's own
    `data`."""
    return {
        "type": "journey.webhook",
        "timestamp": moment,
        kind: str(source_id),
        "enrollment": str(enrollment_id),
        "step": step,
        "contact": contact,
        "event": event,
        "data": data,
    }
