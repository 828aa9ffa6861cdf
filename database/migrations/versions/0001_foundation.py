"""Accounts, contacts, content, campaigns and the delivery ledger."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    # Straight to psycopg: SQLAlchemy would look for parameters in it.
    op.get_bind().connection.cursor().execute(Path(__file__).with_suffix(".sql").read_text())
