"""How does a database become the one that this version needs, and who may log in to it?"""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from database.engine import APPLICATION_ROLE

# Any number that nobody else takes: two processes that migrate at once wait for each other.
_LOCK = 0x0CA7_1110


def migrate(url: str, login_url: str | None = None) -> None:
    """Bring the database to the newest revision; nothing happens if it is there already.

    Args:
        url: `postgresql://…` of the role that shall own the tables.
        login_url: that of API and workers. If it names another role, this is made, with its password, unless it is
            there already or the owner may make none; and it may act as the application's.
    """
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 10})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            login = make_url(login_url) if login_url else None
            if login and login.username and login.username != make_url(url).username:
                driver = connection.connection.driver_connection
                assert isinstance(driver, psycopg.Connection)
                _let_in(driver, login.username, login.password)
    finally:
        engine.dispose()


def _let_in(owner: psycopg.Connection, login: str, password: str | None) -> None:
    """A login that has no rights, not even those of the application's role, before it acts as that."""
    name, application = sql.Identifier(login), sql.Identifier(APPLICATION_ROLE)
    makes_roles = owner.execute(
        "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if not owner.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login]).fetchone() and makes_roles == (True,):
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(name))
        if password:  # as a hash, which may stand in the server's log
            hashed = owner.pgconn.encrypt_password(password.encode(), login.encode(), b"scram-sha-256")
            owner.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, hashed.decode()))
    found = owner.execute(
        "SELECT 1 FROM pg_roles WHERE rolname = %s AND NOT pg_has_role(oid, %s, 'SET')", [login, APPLICATION_ROLE]
    ).fetchone()
    if found:
        grant = sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE")
        owner.execute(grant.format(application, name))
