"""Does the table say what was aimed at, and whether it was reached?"""

import io

import pytest
from rich.console import Console

from bench.table import Aim, Row, table

LEAST, MOST = Aim("at least", 3000), Aim("at most", 1.1, of="ratio")


def row(figure: float, reference: float, *aims: Aim) -> Row:
    return Row("messages", figure, "ready-made", reference, "messages/s", aims)


@pytest.mark.parametrize(
    ("made", "reached"),
    [
        (row(3000, 4000, LEAST), True),
        (row(2999, 4000, LEAST), False),
        (row(11, 10, MOST), True),
        (row(11.1, 10, MOST), False),
        (row(3000, 4000, LEAST, MOST), True),
        (row(5000, 4000, LEAST, MOST), False),
        (row(5000, 4000), None),
    ],
)
def test_all_aims_of_a_row_are_to_be_reached(made: Row, reached: bool | None) -> None:
    assert made.reached is reached


def test_a_row_is_told_with_its_ratio_and_aims() -> None:
    assert row(3500, 5000, LEAST, Aim("at least", 0.6, of="ratio")).facts() == {
        "what": "messages",
        "figure": 3500,
        "beside": "ready-made",
        "reference": 5000,
        "unit": "messages/s",
        "ratio": 0.7,
        "aims": ["≥ 3,000", "≥ 60%"],
        "reached": True,
    }


def test_the_table_shows_each_row() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(table("Carillon", [row(2999, 4000, LEAST), row(3500.4, 2.5)], "Also elsewhere"))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split("│") for line in console.file.getvalue().splitlines() if "ready-made" in line]
    assert [[cell.strip() for cell in line[1:-1]] for line in lines] == [
        ["messages", "2,999", "ready-made", "4,000", "0.75", "messages/s", "≥ 3,000  missed"],
        ["messages", "3,500", "ready-made", "2.50", "1,400", "messages/s", ""],
    ]
