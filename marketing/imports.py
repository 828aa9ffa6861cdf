"""What is asked of an import, and what became of its rows?"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from marketing.accounts import ChannelName
from marketing.contacts import Tags, normal_country
from marketing.import_columns import column_field
from marketing.text import Printable


class ImportState(StrEnum):
    """`receiving → waiting → reading → merging → completed`, or `failed`."""

    RECEIVING = "receiving"  # the upload is under way
    WAITING = "waiting"
    READING = "reading"  # the rows into the staging table
    MERGING = "merging"  # the people from there into the contacts
    COMPLETED = "completed"
    FAILED = "failed"


class ImportCounts(BaseModel):
    """What became of the rows. When all is done, `rows = added + updated + unchanged + rejected + duplicates`."""

    rows: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    duplicates: int = Field(0, description="About someone whom an earlier row is about, and laid over that row.")
    protected: int = Field(
        0, description="Contacts who unsubscribed or bounced here and stay so, though the file says subscribed."
    )

    @property
    def merged(self) -> int:
        """People who are among the contacts now."""
        return self.added + self.updated + self.unchanged

    def __add__(self, more: "ImportCounts") -> "ImportCounts":
        return ImportCounts(**{name: getattr(self, name) + getattr(more, name) for name in ImportCounts.model_fields})


class ImportOptions(BaseModel):
    """What the file does not say by itself."""

    model_config = ConfigDict(extra="forbid")

    filename: Printable = Field("", max_length=255)
    columns: dict[Printable, Annotated[str, AfterValidator(column_field)]] = {}
    tags: Tags = []
    subscribe: list[ChannelName] = []
    consent: Printable = Field("", max_length=500)
    default_region: Annotated[Printable, AfterValidator(normal_country)] | None = None

    @model_validator(mode="after")
    def _consent_is_told(self) -> Self:
        if self.subscribe and not self.consent.strip():
            raise ValueError("Say how these people agreed to be written to: consent=…")
        return self


class Import(BaseModel):
    """An import as it is read."""

    id: UUID
    status: ImportState
    problem: str = Field("", description="Why it failed, and what to do.")
    filename: str
    source: str = Field("", description="The product whose export this is, if we know it by its header.")
    progress: float = Field(description="0 to 1: half of the way is reading, half is merging.")
    counts: ImportCounts
    created_at: datetime
    finished_at: datetime | None
