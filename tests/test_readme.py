"""The README is short, its campaign works as written, and what it names is there."""

import re
import shlex
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client

from cli import app
from workflows.imports import import_workflow_id

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"^```sh\n(.+?)^```$", README, re.MULTILINE | re.DOTALL)
CURL = next(block for block in SHELL if "curl" in block)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP = {
    *(
        "automations",
        "workflows",
        "activities",
        "api",
        "marketing",
        "database",
        "channels",
        "tests",
        "examples",
        "bench",
        "docs",
    ),
    *("worker.py", "settings.py", "cli.py", "local_stack.py", "pyproject.toml", "requirements.lock", "Makefile"),
    *("docker-compose.yml", "Dockerfile", "README.md", "CHANGELOG.md"),
}


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_every_target_of_make_that_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert named >= {"demo", "test", "up", "check", "bench"}
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_every_command_that_it_names_exists() -> None:
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    known |= {group.name or "" for group in app.registered_groups}
    assert set(re.findall(r"`(?:\.venv/bin/)?carillon ([a-z]+)", README)) <= known


def test_the_tree_is_the_repository() -> None:
    assert {path.name for path in ROOT.iterdir()} >= TOP
    tree = README.partition("## The tree")[2].partition("\n## ")[0]
    for name in TOP - {"pyproject.toml", "requirements.lock", "Makefile", "docker-compose.yml", "Dockerfile"}:
        assert re.search(rf"`{re.escape(name)}/?`", tree) or name.endswith(".md"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    linked = [page.parent / link for link in re.findall(r"\]\((?!https?://)([^)#]+)", text)]
    folders = "|".join(re.escape(name) for name in TOP if "." not in name and name != "Makefile")
    named = [ROOT / path for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text)]
    assert [path for path in (*linked, *named) if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text())
    leading = [(page.parent / path if path else page, anchor) for path, anchor in links]
    lost = [(to.name, anchor) for to, anchor in leading if not to.exists() or (anchor and anchor not in anchors(to))]
    assert lost == []


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "# What's `new`, and *why*?\n```sh\n# no heading\n```\n## [A link](b.md): 60 %\n### Again\n## Again\n"
    )
    assert anchors(tmp_path / "page.md") == {"whats-new-and-why", "a-link-60-", "again", "again-1"}


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to them, as GitHub does it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = set[str]()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        told = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", told).replace(" ", "-")
        found.add(next(each for n in count() if (each := f"{name}-{n}" if n else name) not in found))
    return found


async def test_its_campaign_goes_out_as_written(api: httpx.AsyncClient, temporal: Client, worker: None) -> None:
    campaign = ""
    asked = re.findall(r"\bask ([\w/$]+)((?: +(?:'[^']*'|-[-\w]+|@?[\w/.]+))*)", CURL)
    assert len(asked) == 10
    for path, arguments in asked:
        method, request = curl(shlex.split(arguments))
        answer = await api.request(method, f"/api/{path}".replace("$ID", campaign), **request)
        assert answer.is_success, (path, answer.text)
        if (method, path) == ("POST", "campaigns"):
            campaign = answer.json()["id"]
        if (method, path) == ("POST", "contacts/import"):
            await temporal.get_workflow_handle(import_workflow_id(UUID(answer.json()["id"]))).result()
        if path.endswith("reach"):
            assert answer.json()["total"] == 980
    assert answer.json()["planned"] == 980
    assert (await api.post(f"/api/campaigns/{campaign}/cancel")).is_success


def curl(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """What curl would make of them."""
    method, request = "GET", dict[str, Any]()
    options = iter(arguments)
    for option in options:
        value = next(options)
        if option == "-X":
            method = value
        elif option == "-H":
            request["headers"] = dict([value.split(": ")])
        elif option == "--json":
            method, request["headers"] = "POST" if method == "GET" else method, {"Content-Type": "application/json"}
            request["content"] = value
        else:
            assert option == "--data-binary"
            method, request["content"] = "POST", (ROOT / value.removeprefix("@")).read_bytes()
    return method, request
