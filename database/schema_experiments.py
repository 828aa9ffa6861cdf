"""The tables of experiments: how each stands, who saw which variant, and who did what it is about.

A source is what compares: a campaign of kind `experiment`, whose step is '', or an automation with a step `split`.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from database.columns import Moment, account_id, created_at, json, metadata, one_of

experiments = Table(
    "experiments",
    metadata,
    Column("campaign_id", UUID(as_uuid=True), ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True),
    account_id(),
    one_of("state", "testing", "asking", "decided", "stopped", default="testing"),
    Column("rest_shard", Integer),  # the first shard of those who wait for the winner; known once they are planned
    Column("winner", Text),
    Column(
        "decided_by",
        Text,
        CheckConstraint("decided_by IN ('significance', 'time', 'fallback', 'person', 'bandit')", name="decided_by"),
    ),
    Column("reason", Text, nullable=False, server_default=""),  # why, in a sentence
    Column("decision", JSONB(none_as_null=True)),  # the whole analysis at that moment
    Column("test_began_at", Moment),
    Column("test_sent_at", Moment),  # when nothing of the test was left to send
    Column("decided_at", Moment),
    Column("folded_until", Moment),  # what came in until then is among the conversions
    created_at(),
)

# Of a bandit: what share of a shard each variant got, and what was known then.
allocations = Table(
    "allocations",
    metadata,
    account_id(),
    Column("campaign_id", UUID(as_uuid=True), ForeignKey("campaigns.id", ondelete="CASCADE"), nullable=False),
    Column("shard", Integer, nullable=False),
    json("weights"),  # {"A": 0.7, "B": 0.3}
    json("seen"),  # {"A": {"recipients": 1000, "successes": 31}}
    Column("seed", BigInteger, nullable=False),
    Column("allocated_at", Moment, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("campaign_id", "shard"),
)

# Who came by a journey's split first, and where it led. Of campaigns the ledger is that record. No foreign keys:
# checked row by row.
exposures = Table(
    "exposures",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("variant", Text, nullable=False),
    Column("exposed_at", Moment, nullable=False),
    PrimaryKeyConstraint("source_id", "step", "contact_id"),
)

# Who did what an experiment is about, how often and for how much. Computed anew from that contact's events each time.
conversions = Table(
    "conversions",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("source_id", UUID(as_uuid=True), nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("variant", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("revenue", Numeric, nullable=False, server_default=text("0")),
    Column("currencies", ARRAY(Text), nullable=False, server_default=text("'{}'")),  # of that revenue
    Column("first_at", Moment, nullable=False),
    PrimaryKeyConstraint("source_id", "step", "contact_id"),
    postgresql_with={"fillfactor": 70},
)
