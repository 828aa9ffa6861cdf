"""How does a database become the one that this version needs?"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

# Any number that nobody else takes: two processes that migrate at once wait for each other.
_LOCK = 0x0CA7_1110


def migrate(url: str) -> None:
    """Bring the database to the newest revision; nothing happens if it is there already.

    Args:
        url: `postgresql://…` of the role that shall own the tables.
    """
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 10})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
