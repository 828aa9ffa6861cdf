"""The page on channels keeps up with the code."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "channels.md").read_text()


def test_every_file_of_channels_is_on_the_page() -> None:
    files = {path.name for path in (ROOT / "channels").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`channels/{name}`" not in PAGE} == set()


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = [part.split(")")[0] for part in PAGE.split("](")[1:]]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
