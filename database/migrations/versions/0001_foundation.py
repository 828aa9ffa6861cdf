"""Accounts, contacts, content, campaigns and the delivery ledger."""

from alembic import op

from database.schema import metadata
from database.security import FUNCTIONS, create_role, row_security

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
    op.execute(create_role())
    op.execute(FUNCTIONS)
    for table in metadata.sorted_tables:
        op.execute(row_security(table))
