"""How does a file of any size become records, a window of bytes at a time?"""

import csv
import io
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketing.contact_files import (
    BOM,
    OPEN_QUOTE,
    TOO_LONG,
    EncodingVotes,
    FileForm,
    NoHeader,
    Position,
    Record,
    likely_delimiter,
    read_header,
    read_records,
)

LONGEST = 24
# What breaks readers of CSV: quotes in every place, line ends of every kind, letters of several bytes, NUL.
PIECES = st.sampled_from(
    ['"', '""', ",", ";", "\n", "\r", "\r\n", '"\n', ',"', '",', "a", "é", "語", " ", "\0", "\u2028", "\x0b", "x" * 30]
)
FILES = st.lists(PIECES, max_size=60).map("".join)


def in_windows(content: bytes, form: FileForm, sizes: list[int], longest: int) -> list[Record]:
    """All records, with windows of these sizes, over and over."""
    found: list[Record] = []
    position = Position()
    for turn in range(10_000):
        end = position.offset + sizes[turn % len(sizes)]
        final = end >= len(content)
        records, position = read_records(content[position.offset : end], form, position, final=final, longest=longest)
        found += records
        if final:
            return found
    raise AssertionError("no end in sight")


def by_csv(content: str, delimiter: str, longest: int) -> list[tuple[int, list[str] | None]]:
    """What csv makes of the whole: the line and cells of each record, None for the cells of an overlong one."""
    lines = io.StringIO(content, newline="").readlines()
    reader = csv.reader(lines, delimiter=delimiter)
    found: list[tuple[int, list[str] | None]] = []
    before = 0
    for cells in reader:
        size = len("".join(lines[before : reader.line_num]).encode())
        found.append((before + 1, cells if size <= longest else None))
        before = reader.line_num
    return found


@settings(max_examples=2000)
@given(
    FILES,
    st.lists(st.integers(LONGEST + 2, 120), min_size=1, max_size=4),
    st.sampled_from([LONGEST, 10_000]),
    st.sampled_from(",;"),
)
@example('"' + "x" * 100 + '"\r\na,b\r\n', [LONGEST + 2], LONGEST, ",")
@example("a,b\r" * 30, [LONGEST + 2], LONGEST, ",")
@example('a,"' + "\n" * 70 + '"\nb', [LONGEST + 3], LONGEST, ",")
def test_records_are_those_of_csv_on_the_whole_wherever_windows_end(
    content: str, sizes: list[int], longest: int, delimiter: str
) -> None:
    if longest > LONGEST:
        sizes = [size + longest for size in sizes]
    records = in_windows(content.encode(), FileForm(delimiter=delimiter), sizes, longest)
    expected = by_csv(content, delimiter, longest)
    assert [(each.line, None if each.problem == TOO_LONG else each.cells) for each in records] == expected


@settings(max_examples=300)
@example([("", "\ufffd")], 200)
@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=20), st.integers(200, 300))
def test_what_csv_writes_comes_back(rows: list[tuple[str, str]], size: int) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(rows)
    records = in_windows(written.getvalue().encode(), FileForm(), [size], 190)
    assert [each.cells for each in records] == [list(row) for row in rows]


def test_a_quotation_mark_that_is_never_closed_is_told() -> None:
    records = in_windows(b'a,b\n"c,d\ne,f\n', FileForm(), [1000], 500)
    assert [(each.line, each.problem) for each in records] == [(1, ""), (2, OPEN_QUOTE)]


def test_bytes_that_cannot_be_decoded_spoil_their_own_record_only() -> None:
    records = in_windows(b"a\nb\xff\nc\xc3\xa9\n", FileForm(), [1000], 500)
    assert [each.cells for each in records] == [["a"], ["b\udcff"], ["cé"]]


def test_a_cell_of_ten_megabytes_costs_no_more_memory_than_a_window() -> None:
    window = 1 << 18
    cell = b'a,"' + b"x" * (window - 3)
    tracemalloc.start()
    records, position = read_records(cell, FileForm(), Position(), final=False)
    for turn in range(1, 40):
        middle, position = read_records(b"y" * window, FileForm(), position, final=False)
        assert middle == []
        assert position.offset == window * (turn + 1)
    last, position = read_records(b'",z\nb,c\n', FileForm(), position, final=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(each.line, each.problem) for each in records + last] == [(1, TOO_LONG), (2, "")]
    assert last[0].cells == ["b", "c"]
    assert peak < 8 * window


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("a,b", ","), ("a;b;c,d", ";"), ("a\tb", "\t"), ("a|b", "|"), ("email", ","), ('"a;b;c",d', ","), ("", ",")],
)
def test_the_separator_is_the_one_that_separates_most(header: str, delimiter: str) -> None:
    assert likely_delimiter(header) == delimiter


@pytest.mark.parametrize(
    ("lines", "encoding"),
    [
        ([b"plain"], "utf-8"),
        (["Zoë".encode(), b"Ana", b"Jos\xe9"], "utf-8"),
        (["Zoë".encode("cp1252"), "José".encode("cp1252"), "Ñ".encode()], "cp1252"),
        ([b"Jos\xe9"], "cp1252"),
    ],
)
def test_the_majority_of_lines_decides_on_the_encoding(lines: list[bytes], encoding: str) -> None:
    content = b"\n".join(lines)
    for size in (1, 3, 1000):
        votes = EncodingVotes()
        for at in range(0, len(content), size):
            votes.add(content[at : at + size])
        assert votes.result() == encoding


@pytest.mark.parametrize(
    ("content", "header", "delimiter", "rest"),
    [
        (b"Email,Name\na,b\n", ["Email", "Name"], ",", b"a,b\n"),
        (BOM + b"Email;Name\r\na;b", ["Email", "Name"], ";", b"a;b"),
        (BOM + b"sep=|\r\nEmail|Name\r\na|b", ["Email", "Name"], "|", b"a|b"),
        (b"\n , \nEmail\tName\ra\tb", ["Email", "Name"], "\t", b"a\tb"),
        (b'Email,"Full\nname"\na,b', ["Email", "Full\nname"], ",", b"a,b"),
        ("Email,Città\na,b".encode("cp1252"), ["Email", "Città"], ",", b"a,b"),
        (b"Email", ["Email"], ",", b""),
    ],
)
def test_rows_begin_behind_the_header(content: bytes, header: list[str], delimiter: str, rest: bytes) -> None:
    cells, form, position = read_header(content, "cp1252" if b"\xe0" in content else "utf-8", final=True)
    assert (cells, form.delimiter, content[position.offset :]) == (header, delimiter, rest)
    assert position.line == len(content[: position.offset].splitlines()) + 1


@pytest.mark.parametrize("content", [b"", BOM, b"\n,,\n", b"sep=;\n", b'"' + b"x" * 200_000])
def test_a_file_without_a_header_is_refused(content: bytes) -> None:
    with pytest.raises(NoHeader):
        read_header(content, "utf-8", final=True)
