"""A line for each fault, at the end of the run."""

import pytest

told: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if told:
        terminalreporter.section("what became of each fault")
        for line in told:
            terminalreporter.write_line(line)
