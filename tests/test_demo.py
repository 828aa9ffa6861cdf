"""`carillon demo`, typed as people type it: every figure reconciles, and nothing is left behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from examples.demo import Demo
from examples.reckoning import Claim
from examples.stage import Stage

pytestmark = pytest.mark.long
CLI = Path(__file__).parent.parent / "cli.py"
ROW = re.compile(r"^ (\S.*?) {2,}([\d,]+) +([\d,]+) {2,}(\S.*?) {2,}(agrees|DIFFERS)", re.MULTILINE)


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Somewhere where settings of the user's own must do no harm."""
    (folder / ".env").write_text("CARILLON_DATABASE_URL=postgresql://127.0.0.1:1/theirs\n")
    command = [sys.executable, str(CLI), "demo"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, start_new_session=True
    ) as running:
        yield running


def test_every_figure_reconciles_with_what_a_witness_counted(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, said
    rows = ROW.findall(said)
    figures = {figure: int(told.replace(",", "")) for figure, told, _, _, _ in rows}
    assert all(told == counted and verdict == "agrees" for _, told, counted, _, verdict in rows), said
    assert f"All {len(rows)} figures reconcile" in said
    assert (figures["rows in the file"], figures["rows rejected"]) == (1000, 20)
    assert figures["planned"] == figures["rows taken"] == 980
    assert figures["sent"] + figures["skipped"] == 980
    assert figures["sent"] > 900 and figures["skipped"] > 0
    assert {
        figures[each]
        for each in ("sent twice", "failed", "uncertain", "pending", "arrived while paused", "sent after opting out")
    } == {0}
    assert figures["in the segment"] == figures["reach of the segment"] == 3
    rehearsed = [figures[f"letters of who {does}"] for does in ("clicks", "leaves", "rests")]
    assert rehearsed == [2, 2, 3] and figures["rehearsed and arrived"] == figures["figures it changed"] == 0
    assert all(figures[each] > 0 for each in ("opened, by people", "clicked, by people", "unsubscribed"))


def test_ctrl_c_ends_everything_that_was_started(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        assert running.stdout
        next(line for line in running.stdout if "Temporal UI" in line)
        started = psutil.Process(running.pid).children(recursive=True)
        folders = {Path(each.cmdline()[each.cmdline().index("--data-dir") + 1]) for each in started if is_up(each)}
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
    assert len(started) > 5 and len(folders) == 1
    assert not any(process.is_running() for process in started)
    assert not any(folder.exists() for folder in folders)


def is_up(process: psutil.Process) -> bool:
    return "--data-dir" in process.cmdline()


@pytest.mark.parametrize(("counted", "status"), [(5, 0), (4, 1)])
def test_one_figure_that_differs_is_told_and_makes_the_demo_fail(counted: int, status: int, tmp_path: Path) -> None:
    heard = StringIO()
    demo = Demo(Console(file=heard))
    demo.stage = Stage("http://api.test", "http://ui.test", "key", tmp_path, tmp_path)
    demo.claims = [Claim("sent", 5, counted, "the SMTP server"), Claim("failed", 0, 0, "the list of recipients")]
    demo.reckon("some-campaign")
    assert demo.status == status
    assert ("1 of 2 figures do not reconcile: sent" in heard.getvalue()) == bool(status)
