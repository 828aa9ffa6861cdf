"""Which moments do we keep?"""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

# Far inside of what Python and PostgreSQL can tell: at their ends some zone's time can't be told any more.
FIRST_YEAR, LAST_YEAR = 1900, 2200


def kept_moment(moment: datetime) -> datetime:
    """The moment in UTC; without an offset it is UTC's already.

    Raises:
        ValueError: nothing that concerns us happens so early or so late.
    """
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if FIRST_YEAR <= moment.year <= LAST_YEAR:
            return moment
    except OverflowError:
        pass
    raise ValueError(f"the year must be {FIRST_YEAR} to {LAST_YEAR}")


def written(moment: object) -> object:
    """What was given for a moment or a time of day, unless it is a number: nobody knows since when, and in what.

    Raises:
        ValueError: a number.
    """
    if isinstance(moment, int | float) or (isinstance(moment, str) and _NUMBER.fullmatch(moment)):
        raise ValueError("write it as in ISO 8601, such as '2026-11-02T09:30:00Z'")
    return moment


_NUMBER = re.compile(r"\s*[-+]?[0-9.]+\s*")

Moment = Annotated[AwareDatetime, BeforeValidator(written), AfterValidator(kept_moment)]
