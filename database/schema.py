"""The tables, as the migrations have made them; segments, automations and experiments have pages of their own.

Each row carries `account_id`, and row-level security lets the application's role see only the rows of the account that
its transaction named. Ids are UUIDv7, so that the order of ids is the order of creation.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

import database.schema_automations
import database.schema_experiments
import database.schema_segments  # noqa: F401 - with these three, `metadata` has all tables
from database import columns
from database.columns import NOW, Moment, account_id, created_at, json, one_of, own_id, updated_at

metadata = columns.metadata

# -- who we are ------------------------------------------------------------------------------------------------------

accounts = Table(
    "accounts",
    metadata,
    own_id(),
    Column("name", Text, nullable=False),
    Column("sender_domains", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("default_timezone", Text, nullable=False, server_default="UTC"),
    Column("default_locale", Text, nullable=False, server_default="en"),
    Column("postal_address", Text, nullable=False, server_default=""),
    Column("error_threshold", Float, nullable=False, server_default=text("0.05")),
    json("frequency_caps"),  # {"email": {"messages": 3, "hours": 24}}
    Column("quiet_hours", JSONB(none_as_null=True)),  # {"start": "21:00", "end": "08:00"}, in the contact's zone
    json("topics", "[]"),  # [{"key", "name", "description"}]
    Column("create_unknown_contacts", Boolean, nullable=False, server_default=text("true")),  # of whom events tell
    Column("event_retention_days", Integer, nullable=False, server_default=text("730")),
    Column("notification_emails", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    CheckConstraint("event_retention_days BETWEEN 30 AND 3650", name="event_retention_days"),
    created_at(),
    updated_at(),
)

api_keys = Table(
    "api_keys",
    metadata,
    own_id(),
    account_id(),
    Column("name", Text, nullable=False),
    one_of("role", "owner", "editor", "viewer"),
    Column("prefix", Text, nullable=False),  # what people recognise it by
    Column("secret_hash", LargeBinary, nullable=False, unique=True),  # SHA-256 of the whole key
    created_at(),
    Column("revoked_at", Moment),
    Index(None, "account_id", "id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    account_id(),
    Column("api_key_id", UUID(as_uuid=True), ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("request", Text, nullable=False),  # method, path and query
    Column("body_hash", LargeBinary),
    Column("status", SmallInteger),  # of the answer; null while the first request is still at work
    Column("headers", JSONB(none_as_null=True)),
    Column("body", LargeBinary),  # null as well if it holds a secret
    created_at(),  # while it is at work: when it last showed that it lives
    Column("token", UUID(as_uuid=True), nullable=False, server_default=text("uuidv7()")),  # of the request that has it
    Column("effective", Boolean, nullable=False, server_default=text("false")),  # something of it is committed
    PrimaryKeyConstraint("account_id", "api_key_id", "key"),
)

# -- whom we write to ------------------------------------------------------------------------------------------------

contacts = Table(
    "contacts",
    metadata,
    own_id(),
    account_id(),
    Column("email", Text),
    # One person, however the address is spelled. A column, not an index on lower(email): row-level security lets an
    # index be used only with leak-proof operators, which lower() is not.
    Column("email_key", Text, Computed("lower(email)", persisted=True)),
    Column("phone", Text),
    Column("external_id", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("country", Text),
    Column("locale", Text),
    Column("timezone", Text),
    json("attributes"),
    Column("tags", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    created_at(),
    updated_at(),
    Column("deleted_at", Moment),
    Index(None, "account_id", "id"),
    Index("contacts_email_key", "account_id", "email_key", unique=True, postgresql_where=text("deleted_at IS NULL")),
    Index("contacts_phone_key", "account_id", "phone", unique=True, postgresql_where=text("deleted_at IS NULL")),
    Index(
        "contacts_external_id_key",
        "account_id",
        "external_id",
        unique=True,
        postgresql_where=text("deleted_at IS NULL"),
    ),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    # Its contact's account. A foreign key of its own would be checked row by row: a fifth of an import's time.
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("contact_id", UUID(as_uuid=True), ForeignKey("contacts.id", ondelete="CASCADE"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False, server_default=""),  # '' is the channel as a whole
    one_of("status", "subscribed", "unsubscribed", "pending"),
    # The proof of consent, or of its withdrawal: when, how (form, import, one-click, …) and from where (address, page).
    Column("consent_at", Moment),
    Column("consent_how", Text),
    Column("consent_where", Text),
    json("proof"),
    updated_at(),
    PrimaryKeyConstraint("contact_id", "channel", "topic"),
)

suppressions = Table(
    "suppressions",
    metadata,
    account_id(),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),  # lower case; outlives the contact on purpose
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    created_at(),
    PrimaryKeyConstraint("account_id", "channel", "address"),
)

# -- whom we were told of ---------------------------------------------------------------------------------------------

imports = Table(
    "imports",
    metadata,
    own_id(),
    account_id(),
    json("options"),
    Column("state", Text, nullable=False, server_default="receiving"),
    Column("problem", Text, nullable=False, server_default=""),
    Column("size", BigInteger, nullable=False, server_default=text("0")),  # bytes of the file
    Column("plan", JSONB(none_as_null=True)),  # how the file is read
    json("position"),  # where its next row begins
    Column("merged_line", BigInteger, nullable=False, server_default=text("0")),  # its people up to here are merged
    json("counts"),
    created_at(),
    Column("grown_at", Moment, nullable=False, server_default=NOW),  # when the last block of the file came
    Column("finished_at", Moment),
    Index(None, "account_id", "id"),
)

import_blocks = Table(
    "import_blocks",
    metadata,
    account_id(),
    Column("import_id", UUID(as_uuid=True), ForeignKey("imports.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("import_id", "number"),
)

# People as a file tells of them, between reading and merging. No foreign keys: checked row by row, they cost a third.
import_people = Table(
    "import_people",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("import_id", UUID(as_uuid=True), nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("raw", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("email", Text),
    Column("phone", Text),
    Column("external_id", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("country", Text),
    Column("locale", Text),
    Column("timezone", Text),
    json("attributes"),
    Column("tags", ARRAY(Text), nullable=False),
    Column("email_claim", SmallInteger),
    Column("sms_claim", SmallInteger),
    Column("whatsapp_claim", SmallInteger),
    Column("consent_at", Moment),
    Column("consent_where", Text),
    PrimaryKeyConstraint("import_id", "line"),
    UniqueConstraint("import_id", "key"),
    Index("import_people_phone_idx", "import_id", "phone", postgresql_where=text("phone IS NOT NULL")),
    Index(
        "import_people_external_id_idx", "import_id", "external_id", postgresql_where=text("external_id IS NOT NULL")
    ),
)

import_rejects = Table(
    "import_rejects",
    metadata,
    account_id(),
    Column("import_id", UUID(as_uuid=True), ForeignKey("imports.id", ondelete="CASCADE"), nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("raw", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("import_id", "line"),
)

# -- what we say -----------------------------------------------------------------------------------------------------

templates = Table(
    "templates",
    metadata,
    own_id(),
    account_id(),
    Column("name", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),  # the newest
    created_at(),
    updated_at(),
    Column("deleted_at", Moment),
    Index(None, "account_id", "id"),
)

template_versions = Table(
    "template_versions",
    metadata,
    account_id(),
    Column("template_id", UUID(as_uuid=True), ForeignKey("templates.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    json("content"),  # as the author gave it
    created_at(),
    PrimaryKeyConstraint("template_id", "version"),
)

campaigns = Table(
    "campaigns",
    metadata,
    own_id(),
    account_id(),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("channels", ARRAY(Text), nullable=False),
    Column("state", Text, nullable=False, server_default="draft"),
    Column("state_reason", Text, nullable=False, server_default=""),
    json("definition"),  # as the author gave it
    # Frozen at launch: the prepared content and all else that a delivery needs.
    Column("plan", JSONB(none_as_null=True)),
    created_at(),
    updated_at(),
    Column("launched_at", Moment),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("deleted_at", Moment),
    Index(None, "account_id", "id"),
    Index("campaigns_open_idx", "state", postgresql_where=text("finished_at IS NULL AND launched_at IS NOT NULL")),
)

# Here and in the ledger `campaign_id` is the source of a message: a campaign or an automation.
links = Table(
    "links",
    metadata,
    account_id(),
    Column("campaign_id", UUID(as_uuid=True), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("url", Text, nullable=False),
    PrimaryKeyConstraint("campaign_id", "number"),
)

# -- what became of it -----------------------------------------------------------------------------------------------

deliveries = Table(
    "deliveries",
    metadata,
    own_id(),
    # No foreign keys here: checked row by row, they would double the time that freezing an audience takes.
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("campaign_id", UUID(as_uuid=True), nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("contact_id", UUID(as_uuid=True), nullable=False),
    Column("channel", Text, nullable=False),
    Column("variant", Text, nullable=False, server_default=""),
    Column("shard", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default="planned"),
    Column("reason", Text),
    Column("reply", Text),  # the provider's last words
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("not_before", Moment, nullable=False),
    Column("lease", UUID(as_uuid=True)),
    Column("lease_until", Moment),
    Column("leased_at", Moment),  # when it was last taken to be sent; null again if it was put back
    Column("finished_at", Moment),  # when it became sent, skipped, failed or uncertain
    Column("opened_at", Moment),  # first by a person
    Column("clicked_at", Moment),
    Column("unsubscribed_at", Moment),
    Column("enrollment_id", UUID(as_uuid=True)),  # of a journey's message
    Column("call", Integer),  # which of the journey's steps
    # One message per step and channel; of a journey, which may pass a step again, one per call.
    Index(
        "deliveries_source_key",
        *("campaign_id", "contact_id", "step", "channel", "enrollment_id", "call"),
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    Index(
        "deliveries_enrollment_key",
        *("enrollment_id", "call", "channel"),
        unique=True,
        postgresql_where=text("enrollment_id IS NOT NULL"),
    ),
    Index("deliveries_lease_idx", "campaign_id", "shard", "not_before", postgresql_where=text("state = 'planned'")),
    Index("deliveries_sending_idx", "campaign_id", "shard", postgresql_where=text("state = 'sending'")),
    # What an operator has to decide on, of all campaigns.
    Index("deliveries_uncertain_idx", "account_id", "campaign_id", "id", postgresql_where=text("state = 'uncertain'")),
    # Frequency caps and a person's timeline.
    Index("deliveries_contact_idx", "contact_id", "leased_at", postgresql_where=text("leased_at IS NOT NULL")),
    # Rows are updated twice or more: leave room on the page, and clean up long before a fifth of the table is dead.
    postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02},
)

counters = Table(
    "counters",
    metadata,
    account_id(),
    Column("campaign_id", UUID(as_uuid=True), nullable=False),
    Column("hour", Moment, nullable=False),
    Column("channel", Text, nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("variant", Text, nullable=False, server_default=""),
    Column("name", Text, nullable=False),  # 'planned', 'sent', 'skipped:unsubscribed', 'opened_unique', …
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("campaign_id", "hour", "channel", "step", "variant", "name"),
    postgresql_with={"fillfactor": 50},
)

# What changes with every set while a campaign runs: one small row, so that the campaign's own row stays cold.
campaign_meters = Table(
    "campaign_meters",
    metadata,
    account_id(),
    Column("campaign_id", UUID(as_uuid=True), ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True),
    # The rate limit's next free slot.
    Column("next_slot_at", Moment, nullable=False, server_default=text("'-infinity'")),
    Column("leased", BigInteger, nullable=False, server_default=text("0")),  # spent of the budget
    json("recent", "[]"),  # the error window: [[messages, errors], …]
    postgresql_with={"fillfactor": 50},
)

# -- what happened ----------------------------------------------------------------------------------------------------

# One partition per month of ids, the moment of receiving: `occurred_at` may lie long before it, and at most ten
# minutes after it. So what occurred since a moment has ids from `uuidv7_floor(moment - interval '1 hour')` on, and who
# says so looks into the few partitions that can hold it.
events = Table(
    "events",
    metadata,
    own_id(),
    # No foreign key: checked row by row. And each new partition would lock the accounts.
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("name", Text, nullable=False),  # 'message.opened', 'campaign.paused', 'purchase', …
    Column("contact_id", UUID(as_uuid=True)),
    Column("campaign_id", UUID(as_uuid=True)),
    Column("delivery_id", UUID(as_uuid=True)),
    Column("occurred_at", Moment, nullable=False, server_default=NOW),
    Column("machine", Boolean, nullable=False, server_default=text("false")),
    json("properties"),
    Column("value", Numeric),
    Column("currency", Text),
    # Most events say that a message was sent: of its campaign and of itself the ledger tells that better.
    Index(
        "events_campaign_idx",
        "campaign_id",
        "id",
        postgresql_where=text("campaign_id IS NOT NULL AND name <> 'message.sent'"),
    ),
    Index(
        "events_delivery_idx",
        "delivery_id",
        "occurred_at",
        postgresql_where=text("delivery_id IS NOT NULL AND name <> 'message.sent'"),
    ),
    Index("events_contact_idx", "contact_id", "name", "occurred_at", postgresql_where=text("contact_id IS NOT NULL")),
    # With what most segments ask, so that they need not read the events themselves.
    Index(
        "events_name_idx",
        "account_id",
        "name",
        "occurred_at",
        postgresql_include=["contact_id", "machine", "value"],
    ),
    postgresql_partition_by="RANGE (id)",
)

# Which event an idempotency key stands for.
event_keys = Table(
    "event_keys",
    metadata,
    Column("account_id", UUID(as_uuid=True), nullable=False),
    Column("key", Text, nullable=False),
    Column("event_id", UUID(as_uuid=True), nullable=False),
    Column("told", LargeBinary, nullable=False),  # what was told with it, as a hash
    PrimaryKeyConstraint("account_id", "key"),
    Index("event_keys_event_idx", "event_id", postgresql_using="brin"),  # ids come in order
)
