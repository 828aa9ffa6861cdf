"""What do all tables share, and which columns do many of them have?"""

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

Moment = TIMESTAMP(timezone=True)
NOW = text("now()")


def own_id() -> Column[Any]:
    return Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("uuidv7()"))


def account_id() -> Column[Any]:
    return Column("account_id", UUID(as_uuid=True), ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False)


def json(name: str, default: str = "{}") -> Column[Any]:
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))


def one_of(name: str, *values: str, default: str | None = None) -> Column[Any]:
    """A text that is one of these."""
    among = ", ".join(f"'{value}'" for value in values)
    return Column(
        name, Text, CheckConstraint(f"{name} IN ({among})", name=name), nullable=False, server_default=default
    )


def created_at() -> Column[Any]:
    return Column("created_at", Moment, nullable=False, server_default=NOW)


def updated_at() -> Column[Any]:
    return Column("updated_at", Moment, nullable=False, server_default=NOW)
