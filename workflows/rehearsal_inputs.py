"""What the workflow of a rehearsal is handed, and hands on."""

from datetime import datetime

from pydantic import BaseModel

from workflows.journey_inputs import CohortInput


class RehearsalInput(BaseModel):
    """Contacts that go through an automation at once, as if it were for real."""

    cohort: CohortInput
    starts_at: datetime
    script: list[datetime] = []  # the moments at which something is acted; what that is, its activity knows
    acted: int = 0  # so many of them, by the run before
