"""The page tells what the newest kept run has measured."""

import json

from bench.__main__ import BEGIN, END, PAGE, RESULTS
from bench.table import on_the_page


def test_the_page_has_the_figures_that_are_kept() -> None:
    results = json.loads(RESULTS.read_text())
    assert f"{BEGIN}\n{on_the_page(results)}{END}" in PAGE.read_text()


def test_every_figure_stands_beside_a_reference_from_the_same_run() -> None:
    results = json.loads(RESULTS.read_text())
    assert results["versions"].keys() >= {"python", "postgresql", "temporal-server"}
    assert results["rows"]
    for row in results["rows"]:
        assert row["beside"]
        assert row["reference"] > 0
        assert row["ratio"] == row["figure"] / row["reference"]
