"""Is the database what the code believes it to be?"""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from database.migrate import migrate
from database.schema import metadata


def test_the_migrations_make_the_schema(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert difference == []


def test_migrating_again_changes_nothing(database_url: str) -> None:
    migrate(database_url)
