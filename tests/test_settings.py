"""Settings: each is told in docs/settings.md, and survives the way to a child process."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"


def documented() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `(CARILLON_\w+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows), "a setting is told twice"
    return {name: (default, meaning) for name, default, meaning in rows}


def told(default: object) -> str:
    if default is None:
        return "unset"
    return f"`{default.get_secret_value() if isinstance(default, SecretStr) else default}`"


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    assert documented() == {
        f"CARILLON_{name.upper()}": (told(field.default), field.description)
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
