"""Is a database noticed that is gone without a word?"""

import psycopg

from database.engine import Database

NOTICED = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "4", "tcp_user_timeout": "30000"}


async def test_no_connection_waits_for_ever_for_a_server_that_is_gone(database: Database) -> None:
    async with database.aside() as aside, database.engine.connect() as pooled:
        driver = (await pooled.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        for each in (aside, driver):
            assert each.info.get_parameters().items() >= NOTICED.items()
