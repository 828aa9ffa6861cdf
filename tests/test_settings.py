"""Settings: each is told in docs/settings.md, and survives the way to a child process."""

import re
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from channels.smtp import SmtpChannel
from settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"


def documented() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `((?:CARILLON|OTEL)_\w+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows), "a setting is told twice"
    return {name: (default, meaning) for name, default, meaning in rows}


def told(default: object) -> str:
    if default is None:
        return "unset"
    return f"`{default.get_secret_value() if isinstance(default, SecretStr) else default}`"


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    assert documented() == {
        Settings.variable(name): (told(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }


def test_a_child_process_reads_the_settings_that_its_parent_had(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Settings(
        _env_file=None,
        database_url="postgresql://carillon@/carillon?host=%2Ftmp%2Fa%20b",
        temporal_tls=True,
        data_dir=Path("/tmp/a b"),
        secret_key=SecretStr("s" * 40),
        worker_metrics_port=9000,
        otel_exporter_otlp_endpoint="http://127.0.0.1:4318",
    )
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == parent


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_API_KEY", "")
    assert Settings(_env_file=None).api_key is None


def test_secrets_are_not_shown_when_settings_are_printed() -> None:
    shown = repr(
        Settings(
            _env_file=None,
            api_key=SecretStr("car_x" * 9),
            secret_key=SecretStr("y" * 40),
            smtp_url=SecretStr("smtp://a:zzz@b"),
            temporal_api_key=SecretStr("tttt"),
        )
    )
    assert not re.search("car_x|yyyy|zzz|tttt", shown)


def test_a_short_secret_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 32"):
        Settings(_env_file=None, secret_key=SecretStr("short"))


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "database_url": [
            "postgresql://carillon@/carillon?host=%2Ftmp%2Fa",
            "postgres://u:p%40ss@db.example.com:5432/name",
            "postgresql://u:p@[::1]:5432/name?sslmode=require",
            "postgresql:///name",
        ],
        "smtp_url": [
            "smtp://127.0.0.1:1025",
            "smtp+starttls://user:p%40ss@relay.example.com:587",
            "smtps://me@example.com:pass@relay.example.com/",
            "smtp://[::1]:25",
        ],
        "public_url": ["http://127.0.0.1:8000", "https://mail.example.com/", "https://example.com/mail"],
        "api_key": ["car_" + "x" * 40, "!~" * 10],
        "log_level": ["debug", "INFO"],
        "otel_exporter_otlp_endpoint": ["http://127.0.0.1:4318", "https://traces.example.com/otlp/"],
        "traces_message_share": ["0", "0.25", "1"],
    }.items(),
)
def test_what_makes_sense_is_taken(name: str, values: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for value in values:
        monkeypatch.setenv(Settings.variable(name), value)
        Settings(_env_file=None)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "database_url": ["nonsense", "postgresql+psycopg://u:s3cret@h/d", "POSTGRESQL://u:s3cret@h/d", " postgres://h"],
        "migration_database_url": ["mysql://u:s3cret@h/d", "postgres://u:s3cret/s3cret@h", "postgres://u:p@s3cret@h"],
        "smtp_url": [
            "ftp://foo",
            "foo:25",
            "smtp://:25",
            "smtp://u:s3cret@h:70000",
            "smtp://u:s3cret@h?x",
            "smtp://[zz]",
        ],
        "public_url": [
            "nonsense",
            "ftp://h",
            "https:///x",
            "http://h/?a=b",
            "http://h/#a",
            "http://a b",
            "https://h\n",
        ],
        "api_key": ["s3cret", "s3cret with a space in it", "s3crét-with-an-accent-in-it"],
        "log_level": ["loud"],
        "log_format": ["xml"],
        "metrics_token": ["s3cret"],
        "otel_exporter_otlp_endpoint": ["127.0.0.1:4318", "grpc://h", "http://h/?a=s3cret"],
        "traces_message_share": ["-0.1", "1.5"],
    }.items(),
)
def test_what_makes_no_sense_is_refused_at_once_and_not_repeated(
    name: str, values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in values:
        monkeypatch.setenv(Settings.variable(name), value)
        with pytest.raises(ValidationError) as refused:
            Settings(_env_file=None)
        assert [Settings.variable(str(*problem["loc"])) for problem in refused.value.errors()] == [
            Settings.variable(name)
        ]
        assert value not in str(refused.value) and "s3cret" not in str(refused.value)


# What an operator may type for a password without a thought for the URL around it.
PASSWORDS = st.text("s/?#@:%[]&= ,\\é0", max_size=8)


@settings(max_examples=500)
@given(PASSWORDS, st.sampled_from(["", ":5432"]))
def test_a_password_that_is_taken_for_postgresql_ends_where_every_reader_says(password: str, port: str) -> None:
    url = f"postgresql://user:{password}@db.example.com{port}/name"
    try:
        Settings(_env_file=None, database_url=url)
        read = conninfo_to_dict(url)
    except (ValidationError, psycopg.ProgrammingError):  # Neither is repeated to anybody.
        return
    assert (read["host"], make_url(url).host) == ("db.example.com", "db.example.com")


@settings(max_examples=500)
@given(PASSWORDS, st.sampled_from(["", ":25", ":70000"]))
def test_an_smtp_url_that_is_taken_is_one_for_the_channel_too(password: str, port: str) -> None:
    url = f"smtp://user:{password}@relay.example.com{port}"
    try:
        Settings(_env_file=None, smtp_url=SecretStr(url))
    except ValidationError:
        return
    SmtpChannel(url)
