"""Does the table say what was aimed at, and which of it was reached?"""

import io
import json

import pytest
from rich.console import Console

from bench.__main__ import RESULTS
from bench.table import Aim, Row, on_the_page, table

LEAST, MOST = Aim("at least", 3000), Aim("at most", 1.1, of="ratio")


def row(figure: float, reference: float, *aims: Aim) -> Row:
    return Row("messages", figure, "ready-made", reference, "messages/s", aims)


@pytest.mark.parametrize(
    ("made", "reached"),
    [
        (row(3000, 4000, LEAST), [True]),
        (row(2999, 4000, LEAST), [False]),
        (row(11, 10, MOST), [True]),
        (row(11.1, 10, MOST), [False]),
        (row(3000, 4000, LEAST, MOST), [True, True]),
        (row(5000, 4000, LEAST, MOST), [True, False]),
        (row(5000, 4000), []),
    ],
)
def test_each_aim_of_a_row_is_reached_or_missed_by_itself(made: Row, reached: list[bool]) -> None:
    assert [aim["reached"] for aim in made.facts()["aims"]] == reached


def test_a_row_is_told_with_its_ratio_and_aims() -> None:
    assert row(3500, 5000, LEAST, Aim("at least", 0.6, of="ratio")).facts() == {
        "what": "messages",
        "figure": 3500,
        "beside": "ready-made",
        "reference": 5000,
        "unit": "messages/s",
        "ratio": 0.7,
        "aims": [{"aim": "≥ 3,000", "reached": True}, {"aim": "≥ 60%", "reached": True}],
    }


def test_the_table_shows_each_row() -> None:
    console = Console(file=io.StringIO(), width=200)
    rows = [row(2999, 4000, LEAST), row(3500.4, 2.5), row(5000, 4000, LEAST, MOST)]
    console.print(table("Carillon", rows, "Also elsewhere"))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split("│") for line in console.file.getvalue().splitlines() if "ready-made" in line]
    assert [[cell.strip() for cell in line[1:-1]] for line in lines] == [
        ["messages", "2,999", "ready-made", "4,000", "0.75", "messages/s", "≥ 3,000 missed"],
        ["messages", "3,500", "ready-made", "2.50", "1,400", "messages/s", ""],
        ["messages", "5,000", "ready-made", "4,000", "1.25", "messages/s", "≥ 3,000 ✓, ≤ 110% missed"],
    ]


def test_the_page_tells_which_aim_is_reached_and_which_is_missed() -> None:
    kept = json.loads(RESULTS.read_text()) | {"rows": [row(5000, 4000, LEAST, MOST).facts(), row(1, 2).facts()]}
    _, _, *rows = on_the_page(kept).partition("| measured")[2].splitlines()
    assert rows == [
        "| messages | 5,000 | ready-made | 4,000 | 1.25 | messages/s | ≥ 3,000: reached, ≤ 110%: **missed** |",
        "| messages | 1.00 | ready-made | 2.00 | 0.50 | messages/s |  |",
    ]
