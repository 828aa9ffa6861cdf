"""What arrived? Read from what the SMTP server itself wrote down, never from Carillon."""

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html import unescape

from examples.stage import Stage


@dataclass(frozen=True)
class Letter:
    """A message as its reader's mail program understands it."""

    recipient: str
    subject: str
    html: str
    unsubscribe: str  # where one click unsubscribes (RFC 8058)

    @property
    def pixel(self) -> str:
        return self._addresses("src", "/t/o/")[0]

    @property
    def links(self) -> list[str]:
        return self._addresses("href", "/t/c/")

    def _addresses(self, attribute: str, path: str) -> list[str]:
        found = re.findall(rf'{attribute}="([^"]+{path}[^"]+)"', self.html)
        return list(dict.fromkeys(map(unescape, found)))


class Inbox:
    """Everybody's inbox: all that the SMTP server took."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def message_ids(self) -> list[str]:
        return [line.split()[1] for line in self._record()]

    @property
    def recipients(self) -> list[str]:
        return [line.split(maxsplit=2)[2] for line in self._record()]

    @property
    def last_arrival(self) -> float:
        """Unix time."""
        return float(self._record()[-1].split()[0])

    def letters(self, most: int) -> list[Letter]:
        """The first that arrived."""
        return [_read(file.read_bytes()) for file in sorted(self.stage.letters.iterdir())[:most]]

    def _record(self) -> list[str]:
        return self.stage.record.read_text().splitlines()


def _read(content: bytes) -> Letter:
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(("html",))
    assert body is not None and message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    return Letter(
        recipient=str(message["To"]),
        subject=str(message["Subject"]),
        html=str(body.get_content()),
        unsubscribe=str(message["List-Unsubscribe"]).strip("<> "),
    )
