"""An `Idempotency-Key` tells whose it is, and whether its request has had an effect."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("ALTER TABLE idempotency_keys ADD COLUMN token uuid NOT NULL DEFAULT uuidv7()")
    op.execute("ALTER TABLE idempotency_keys ADD COLUMN effective boolean NOT NULL DEFAULT false")
    # Of those without an answer nobody knows: better not carried out again.
    op.execute("UPDATE idempotency_keys SET effective = true")
