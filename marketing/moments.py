"""Which moments do we keep?"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

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


Moment = Annotated[AwareDatetime, AfterValidator(kept_moment)]
