"""The tables of segments: who belongs, and what changed for whom."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from database.columns import NOW, Moment, account_id, created_at, metadata, one_of, own_id, updated_at

segments = Table(
    "segments",
    metadata,
    own_id(),
    account_id(),
    Column("name", Text, nullable=False),
    one_of("kind", "static", "dynamic"),
    Column("description", Text, nullable=False, server_default=""),
    Column("criteria", JSONB(none_as_null=True)),  # null in static ones
    Column("depends_on_time", Boolean, nullable=False, server_default=text("false")),
    one_of("state", "building", "ready", default="building"),
    # Why its members could not be settled, how often in a row, and when that is tried again. Until then what changes
    # passes it by: it is recomputed as a whole.
    Column("problem", Text, nullable=False, server_default=""),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("retry_at", Moment),
    Column("size", BigInteger, nullable=False, server_default=text("0")),  # its rows in segment_members
    Column("settled_at", Moment),  # when all its members were last computed
    created_at(),
    updated_at(),
    Column("deleted_at", Moment),
    Index(None, "account_id", "id"),
    postgresql_with={"fillfactor": 50},
)

# What a segment looks at: 'contact' (that there is one), 'contact.country', 'subscriptions', 'suppressions',
# 'event:purchase', 'segment:<id>'. What changes there is put into `contact_touches` by triggers.
segment_subjects = Table(
    "segment_subjects",
    metadata,
    account_id(),
    Column("subject", Text, nullable=False),
    Column("segment_id", UUID(as_uuid=True), ForeignKey("segments.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("account_id", "subject", "segment_id"),
    Index(None, "segment_id"),
)

# No foreign keys: checked row by row, and that a contact is gone is settled like any other change.
segment_members = Table(
    "segment_members",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("segment_id", UUID(as_uuid=True), nullable=False),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("entered_at", Moment, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("segment_id", "contact_id"),
    Index(None, "contact_id"),
)

# The queue of what changed for whom, emptied as memberships are settled.
contact_touches = Table(
    "contact_touches",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("subjects", ARRAY(Text), nullable=False),
    Column("bulk", Boolean, nullable=False, server_default=text("false")),  # it came with many others
    Column("touched_at", Moment, nullable=False, server_default=text("clock_timestamp()")),
    Index("contact_touches_account_id_bulk_id_idx", "account_id", "bulk", "id"),
    # Rows live for a second: clean up after every thousand, not after a share of what there once was.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_insert_threshold": -1,
        "autovacuum_vacuum_cost_delay": 0,
    },
)

segment_hours = Table(
    "segment_hours",
    metadata,
    account_id(),
    Column("segment_id", UUID(as_uuid=True), ForeignKey("segments.id", ondelete="CASCADE"), nullable=False),
    Column("hour", Moment, nullable=False),
    Column("entered", BigInteger, nullable=False, server_default=text("0")),
    Column("left_out", BigInteger, nullable=False, server_default=text("0")),  # how many left
    Column("size", BigInteger, nullable=False, server_default=text("0")),  # at the end of the hour, or so far
    Column("drift", BigInteger, nullable=False, server_default=text("0")),  # of them, found by the nightly recompute
    PrimaryKeyConstraint("segment_id", "hour"),
    postgresql_with={"fillfactor": 50},
)
