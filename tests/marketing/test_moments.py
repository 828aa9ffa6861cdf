"""Which moments do we keep?"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.moments import FIRST_YEAR, LAST_YEAR, kept_moment

ZONES = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)


@given(st.datetimes(timezones=st.none() | ZONES))
def test_any_moment_is_kept_as_it_is_or_refused(moment: datetime) -> None:
    try:
        kept = kept_moment(moment)
    except ValueError:
        kept = None
    if kept is None:
        assert not FIRST_YEAR < moment.year < LAST_YEAR
    else:
        assert kept == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        assert (kept.tzinfo, FIRST_YEAR <= kept.year <= LAST_YEAR) == (UTC, True)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1899-12-31T23:59:59Z"])
def test_the_ends_of_time_are_refused(moment: str) -> None:
    with pytest.raises(ValueError, match="1900 to 2200"):
        kept_moment(datetime.fromisoformat(moment))
