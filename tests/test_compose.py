"""The production shape: docker-compose.yml agrees with the Dockerfile, the settings and the documentation."""

import asyncio
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cli import app
from database.embedded import postgres_binaries
from database.engine import Database
from database.keys import ensure_first_owner
from database.migrate import migrate
from local_stack import EmbeddedPostgres, EmbeddedTemporal
from settings import Settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GUIDE = (ROOT / "docs" / "deployment.md").read_text()
README = (ROOT / "README.md").read_text()
STEPS = {"temporal-schema", "temporal-namespace", "migrate"}
OURS = {"migrate", "api", "worker"}


def environment(service: str) -> dict[str, str]:
    values: dict[str, str] = SERVICES[service].get("environment", {})
    return values


def published_ports() -> dict[str, str]:
    """Service to `host:port` on the host; each is bound to this machine alone."""
    ports = {}
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            host, outside, _inside = port.split(":")
            assert host == "127.0.0.1", f"{name} is open to the world"
            ports[name] = f"{host}:{outside}"
    return ports


def test_the_parts_of_the_production_shape_are_all_there() -> None:
    assert SERVICES.keys() == {"postgres", "temporal", "temporal-ui", "mailpit", "api", "worker", *STEPS}


@pytest.mark.parametrize("service", sorted(SERVICES.keys() - STEPS))
def test_what_keeps_running_is_checked_and_comes_back(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", sorted(STEPS))
def test_a_step_is_awaited_by_somebody(service: str) -> None:
    waits = [dict(other.get("depends_on", {})).get(service, {}).get("condition") for other in SERVICES.values()]
    assert "service_completed_successfully" in waits


def test_what_a_service_waits_for_exists_and_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for other, wait in service.get("depends_on", {}).items():
            ends = wait["condition"] == "service_completed_successfully"
            assert ends == (other in STEPS)


def test_images_are_pinned_and_documented() -> None:
    for name, service in SERVICES.items():
        image = service["image"]
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.]*", image), f"{name}: {image} names no version"
        assert f"| `{name}` | `{image}` |" in GUIDE


def test_our_image_is_built_from_the_dockerfile_and_has_the_version_of_the_project() -> None:
    for name in OURS:
        assert SERVICES[name]["build"] == "."
        assert SERVICES[name]["image"] == f"carillon:{PROJECT['project']['version']}"


def test_the_image_installs_the_lock_file_and_every_part_of_the_project() -> None:
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    copied = set(re.findall(r"[\w.]+", " ".join(re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE))))
    packaged = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    assert packaged | {"pyproject.toml", "README.md", "requirements.lock"} <= copied


def test_the_image_runs_as_nobody_special_on_a_python_that_the_project_supports() -> None:
    assert re.search(r"^USER carillon$", DOCKERFILE, re.MULTILINE)
    minor = int(PROJECT["project"]["requires-python"].removeprefix(">=3."))
    assert all(int(found) >= minor for found in re.findall(r"^FROM python:3\.(\d+)-slim", DOCKERFILE, re.MULTILINE))


def test_our_services_run_commands_that_exist() -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert {SERVICES[name]["command"][0] for name in OURS} == OURS
    assert known >= OURS


def test_the_ports_of_the_api_agree_everywhere() -> None:
    port = SERVICES["api"]["command"][-1]
    assert f"EXPOSE {port}" in DOCKERFILE
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]
    assert Settings.model_fields["public_url"].default == f"http://127.0.0.1:{port}"


def test_the_worker_is_asked_where_it_serves_its_metrics() -> None:
    port = environment("worker")["CARILLON_WORKER_METRICS_PORT"]
    assert f"127.0.0.1:{port}/metrics" in SERVICES["worker"]["healthcheck"]["test"][-1]


def test_published_ports_are_those_of_the_documentation() -> None:
    for name, address in published_ports().items():
        assert re.search(rf"^\| `{name}` .*`http://{address}` \|$", GUIDE, re.MULTILINE)
    relay = urlsplit(Settings.model_fields["smtp_url"].default.get_secret_value()).netloc
    told = set(re.findall(r"127\.0\.0\.1:\d+", GUIDE + README))
    assert told <= {*published_ports().values(), relay}


def test_every_carillon_variable_is_a_setting_or_documented() -> None:
    settings = {f"CARILLON_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"CARILLON_\w+", TEXT)) <= settings
    assert set(re.findall(r"CARILLON_[A-Z_]+", DOCKERFILE)) <= settings
    assert set(re.findall(r"CARILLON_[A-Z_]+", GUIDE)) <= settings


def test_every_variable_to_set_is_documented_and_required_unless_it_has_a_default() -> None:
    used = re.findall(r"(?<!\$)\$\{(\w+)(:\?|:-)", TEXT)
    assert len(used) == len(re.findall(r"(?<!\$)\$\{", TEXT))
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", GUIDE, re.MULTILINE))
    assert {name for name, _ in used} == told.keys()
    assert all(told[name].endswith("Required.") == (kind == ":?") for name, kind in used)


def test_no_secret_is_written_in_clear() -> None:
    for name in SERVICES:
        for variable, value in environment(name).items():
            if re.search("PASSWORD|PWD|KEY", variable):
                assert value.startswith("${"), f"{name}: {variable}"
    assert not re.search(r"://\w+:(?!\$)[^@\s]+@", TEXT)


def test_our_services_reach_the_others_by_the_names_that_these_have() -> None:
    for name in OURS:
        assert environment(name)["CARILLON_DATABASE_URL"].endswith("@postgres:5432/carillon")
        assert environment(name)["CARILLON_TEMPORAL_ADDRESS"] == environment("temporal-namespace")["TEMPORAL_ADDRESS"]
        assert environment(name)["CARILLON_SMTP_URL"] == "${CARILLON_SMTP_URL:-smtp://mailpit:1025}"
    assert environment("temporal")["POSTGRES_SEEDS"] == environment("temporal-schema")["SQL_HOST"] == "postgres"


def test_named_volumes_and_configs_are_declared_and_used() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == COMPOSE["volumes"].keys()
    given = {config["source"] for service in SERVICES.values() for config in service.get("configs", [])}
    assert given == COMPOSE["configs"].keys()


def test_the_temporal_server_has_the_settings_and_the_version_of_the_embedded_one() -> None:
    given = yaml.safe_load(COMPOSE["configs"]["temporal"]["content"])
    embedded = EmbeddedTemporal.DYNAMIC_CONFIG
    assert {f"{name}={json.dumps(rules[0]['value'])}" for name, rules in given.items()} == set(embedded)
    said = subprocess.run([EmbeddedTemporal.BINARY, "--version"], check=True, capture_output=True, text=True).stdout
    server, page = re.findall(r"Server ([\d.]+), UI ([\d.]+)", said)[0]
    assert SERVICES["temporal"]["image"] == f"temporalio/server:{server}"
    assert SERVICES["temporal-schema"]["image"] == f"temporalio/admin-tools:{server}"
    assert SERVICES["temporal-ui"]["image"] == f"temporalio/ui:{page}"


async def test_the_script_for_a_fresh_postgres_makes_databases_that_the_migration_accepts() -> None:
    script = COMPOSE["configs"]["databases"]["content"].replace("$$", "$")
    postgres = EmbeddedPostgres(durable=False)
    await postgres.program.start(postgres.cluster.prepare(), identity=postgres.cluster.identity)
    try:
        await postgres.program.until(postgres.cluster.accepts_connections)
        await asyncio.to_thread(
            subprocess.run,
            ["/bin/sh", "-ec", script],
            check=True,
            env={
                "PATH": f"{postgres_binaries(postgres.cluster.identity)}:/usr/bin:/bin",
                "PGHOST": str(postgres.cluster.socket_folder),
                "DATABASE_PASSWORD": 'it\'s "quoted"',
                "TEMPORAL_PASSWORD": "example",
            },
        )
        migrate(postgres.url)
        database = Database(postgres.url)
        assert await ensure_first_owner(database, None)
        await database.close()
    finally:
        await postgres.stop()
