"""The tables of automations and drips: what enrolls, who is inside, and how far they are.

A source is what enrolls: an automation, or a campaign of kind `drip`. An enrollment is one contact's pass. A cohort is
a thousand of them that one workflow carries; in it each is a member. A call is one step of one pass.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from database.columns import NOW, Moment, account_id, created_at, json, metadata, one_of, own_id, updated_at

# -- what enrolls ----------------------------------------------------------------------------------------------------

automations = Table(
    "automations",
    metadata,
    own_id(),
    account_id(),
    Column("name", Text, nullable=False),
    one_of("state", "draft", "active", "paused", default="draft"),
    Column("state_reason", Text, nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default=text("1")),  # the newest
    Column("code", Text),  # the name of one that is written in Python
    Column("topic", Text),
    created_at(),
    updated_at(),
    Column("activated_at", Moment),
    Column("deleted_at", Moment),
    Index("automations_name_key", "account_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
    Index(None, "account_id", "id"),
)

automation_versions = Table(
    "automation_versions",
    metadata,
    account_id(),
    Column("automation_id", UUID(as_uuid=True), ForeignKey("automations.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    json("definition"),  # as the author gave it
    created_at(),
    PrimaryKeyConstraint("automation_id", "version"),
)

# What a source looks at, and what for: 'event:purchase', 'segment.entered:<id>', 'tag:vip', 'contact.country',
# 'contact.attributes.plan', 'unsubscribed', 'contact.deleted'.
automation_subjects = Table(
    "automation_subjects",
    metadata,
    account_id(),
    Column("subject", Text, nullable=False),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    one_of("role", "trigger", "goal", "exit", "wait"),
    PrimaryKeyConstraint("account_id", "subject", "source_id", "role"),
    Index(None, "source_id"),
)

# -- who is inside ---------------------------------------------------------------------------------------------------

# No foreign keys here, nor in what hangs on it: checked row by row.
enrollments = Table(
    "enrollments",
    metadata,
    own_id(),
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("pass", Integer, nullable=False, server_default=text("1")),  # the contact's first, second, …
    one_of(
        "state", "pending", "active", "completed", "exited", "failed", "timed_out", "cancelled", default="pending"
    ),  # who is pending has no cohort yet
    Column("cohort", Integer),
    Column("member", SmallInteger),
    Column("step", Text, nullable=False, server_default=""),  # in which it is
    Column("step_at", Moment),  # since when
    Column("due_at", Moment),  # until when, if it waits
    Column("cause", Text, nullable=False),  # 'event:<id>', 'date:2026-11-21', …: told twice, it enrolls once
    Column("event_id", UUID(as_uuid=True)),
    json("trigger"),  # the properties of that event
    Column("reason", Text),  # why it left
    Column("problem", Text),  # what failed
    Column("converted_at", Moment),  # when it reached the goal
    Column("entered_at", Moment, nullable=False, server_default=NOW),
    Column("left_at", Moment),
    Index("enrollments_cause_key", "source_id", "contact_id", "cause", unique=True),
    Index(
        "enrollments_inside_key", "source_id", "contact_id", unique=True, postgresql_where=text("left_at IS NULL")
    ),  # one pass at a time
    Index(
        "enrollments_member_key",
        *("source_id", "cohort", "member"),
        unique=True,
        postgresql_where=text("cohort IS NOT NULL"),
    ),
    Index(None, "source_id", "id"),
    # Not of steps: a pass changes them often, and where no index knows of that, none is written.
    Index(None, "source_id", "state", "id"),
    Index(None, "contact_id", "entered_at"),
    # Updated with each step: leave room on the page, and clean up long before a fifth of the table is dead.
    postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02},
)

enrollment_steps = Table(
    "enrollment_steps",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("enrollment_id", UUID(as_uuid=True), nullable=False),
    Column("call", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entered_at", Moment, nullable=False),
    Column("left_at", Moment),
    Column("outcome", Text, nullable=False, server_default=""),
    Column("error", Text),
    PrimaryKeyConstraint("enrollment_id", "call"),
    postgresql_with={"fillfactor": 70},
)

# Who waits for which event.
enrollment_waits = Table(
    "enrollment_waits",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("enrollment_id", UUID(as_uuid=True), nullable=False),
    Column("call", Integer, nullable=False),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("subject", Text, nullable=False),
    Column("where", JSONB(none_as_null=True)),  # what its properties must be
    Column("since", Moment, nullable=False),  # what occurred earlier does not count
    PrimaryKeyConstraint("enrollment_id", "call", "subject"),
    Index(None, "contact_id", "subject"),
    # Rows come and go: clean up after every few thousand, not after a share of what there once was.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 5000},
)

cohorts = Table(
    "cohorts",
    metadata,
    account_id(),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("number", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("members", Integer, nullable=False),
    one_of("state", "open", "ended", default="open"),
    Column("started_at", Moment, nullable=False, server_default=NOW),
    Column("ended_at", Moment),
    PrimaryKeyConstraint("source_id", "number"),
    Index("cohorts_open_idx", "source_id", "number", postgresql_where=text("state = 'open'")),
)

# What the code of a cohort's members was told, packed, if it is more than one run may hand to the next.
journals = Table(
    "journals",
    metadata,
    account_id(),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("cohort", Integer, nullable=False),
    Column("part", Integer, nullable=False),
    Column("content", Text, nullable=False),
    PrimaryKeyConstraint("source_id", "cohort", "part"),
)

# What happened to whom that some source looks at: put in by triggers, taken out by whoever routes it.
journey_touches = Table(
    "journey_touches",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("subject", Text, nullable=False),
    Column("event_id", UUID(as_uuid=True)),  # of those whose subject is an event, or a segment entered or left
    Column("bulk", Boolean, nullable=False, server_default=text("false")),  # it came with many others
    Column("touched_at", Moment, nullable=False, server_default=text("clock_timestamp()")),
    Index("journey_touches_account_id_bulk_id_idx", "account_id", "bulk", "id"),
    # Rows live for a moment, as in contact_touches.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_insert_threshold": -1,
        "autovacuum_vacuum_cost_delay": 0,
    },
)

# -- figures, and what owners are told -------------------------------------------------------------------------------

# Per step: 'entered', 'done', 'failed'. Per pass, where the step is '': 'enrolled', 'completed', 'exited:<reason>',
# 'failed', 'timed_out', 'cancelled', 'converted', 'refused:<once|inside|entry|exit|runaway|paused|old>'.
step_counters = Table(
    "step_counters",
    metadata,
    account_id(),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("version", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("name", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False, server_default=text("0")),  # that these took together
    PrimaryKeyConstraint("source_id", "version", "day", "step", "name"),
    postgresql_with={"fillfactor": 50},
)

notifications = Table(
    "notifications",
    metadata,
    own_id(),
    account_id(),
    Column("kind", Text, nullable=False),
    Column("source_id", UUID(as_uuid=True)),
    Column("text", Text, nullable=False),
    created_at(),
    Column("emailed_at", Moment),
    Index(None, "account_id", "id"),
)
