"""Is what the code of an automation must not do found where it is written, and nothing else?"""

import ast
from textwrap import dedent

import pytest

from workflows.code_rules import broken_rules

HEAD = "from workflows.journey import automation\n"


def broken(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in broken_rules(ast.parse(dedent(source)))]


def in_pass(line: str, imports: str = "") -> list[tuple[int, str]]:
    """What is wrong with a line within an automation, which is line 6."""
    source = f"{HEAD}{imports or 'import math'}\n\n@automation('a')\nasync def a(contact, journey):\n    {line}\n"
    return broken(source)


@pytest.mark.parametrize(
    ("imports", "line", "name", "instead"),
    [
        ("from datetime import datetime", "datetime.now()", "datetime.datetime.now", "journey.now"),
        ("import datetime as dt", "x = dt.datetime.utcnow()", "datetime.datetime.utcnow", "journey.now"),
        ("from datetime import date as day", "day.today()", "datetime.date.today", "journey.now"),
        ("import time", "t = time.monotonic()", "time.monotonic", "journey.now"),
        ("import asyncio", "await getattr(asyncio, 'sleep')(3)", "asyncio.sleep", "journey.wait"),
        ("", "type(journey.now).now()", "type(journey.now).now", "journey.now"),
        ("import time", "time.sleep(3)", "time.sleep", "journey.wait"),
        ("from asyncio import sleep", "await sleep(3)", "asyncio.sleep", "journey.wait"),
        ("import random", "random.choice([1, 2])", "random.choice", "journey.split"),
        ("from random import shuffle", "f = shuffle", "random.shuffle", "journey.split"),
        ("from uuid import uuid4", "uuid4()", "uuid.uuid4", "journey.split"),
        ("", "hash(contact.id)", "hash", "journey.split"),
        ("import os", "os.environ['HOME']", "os.environ", "journey.activity"),
        ("", "open('list.txt').read()", "open", "journey.activity"),
        ("from pathlib import Path", "Path('list.txt').read_text()", "pathlib.Path", "journey.activity"),
        ("import urllib.request", "urllib.request.urlopen('http://example.com')", "urllib.request", "journey.activity"),
        ("import socket", "socket.create_connection(('example.com', 80))", "socket", "journey.activity"),
        ("import asyncio", "await asyncio.wait([])", "asyncio.wait", "asyncio.gather"),
        ("import asyncio", "await asyncio.wait_for(journey.wait('1 day'), 3)", "asyncio.wait_for", "within="),
        ("from temporalio import workflow", "workflow.now()", "temporalio.workflow.now", "ask `contact`"),
        (
            "from temporalio import workflow",
            "workflow.logger.info('a')",
            "temporalio.workflow.logger",
            "in an activity",
        ),
    ],
)
def test_what_would_differ_in_a_second_run_is_refused(imports: str, line: str, name: str, instead: str) -> None:
    ((number, text),) = in_pass(line, imports)
    assert number == 6
    assert name in text and instead in text


@pytest.mark.parametrize(
    ("imports", "line"),
    [
        ("from datetime import timedelta", "await journey.wait(timedelta(days=1))"),
        ("from datetime import time", "await journey.wait_until(time(9))"),
        ("import asyncio", "await asyncio.gather(journey.send('a'), journey.tag('b'))"),
        ("from random import Random", "Random(contact.id.int).choice([1, 2])"),
        ("", "contact.id"),
        ("", "for id in sorted({3, 1}): await journey.tag(str(id))"),
        ("", "open = 3; open + 1"),
        ("from temporalio import activity, workflow", "pass"),
    ],
)
def test_what_is_the_same_in_every_run_is_left_alone(imports: str, line: str) -> None:
    assert in_pass(line, imports) == []


@pytest.mark.parametrize("caught", ["", " BaseException", " (ValueError, asyncio.CancelledError)"])
def test_whoever_leaves_is_let_go(caught: str) -> None:
    ((number, text),) = in_pass(f"try: pass\n    except{caught}: pass", "import asyncio")
    assert number == 7 and "write `except Exception`" in text
    assert not in_pass(f"try: pass\n    except{caught}: raise", "import asyncio")
    assert not in_pass("try: pass\n    except (Exception, ValueError): pass")


def test_whoever_lets_it_through_whichever_way_it_goes_may_catch_it() -> None:
    source = """\
    import asyncio

    try:
        pass
    except asyncio.CancelledError:
        if 1 > 0:
            raise
        else:
            raise ValueError
    """
    assert broken(source) == []
    assert [line for line, _ in broken(source.replace("raise ValueError", "pass"))] == [5]


def test_leaving_is_not_suppressed() -> None:
    ((_, text),) = in_pass("with suppress(BaseException): pass", "from contextlib import suppress")
    assert "write `except Exception`" in text
    assert not in_pass("with suppress(Exception): pass", "from contextlib import suppress")


def test_what_a_pass_remembers_is_its_own() -> None:
    ((_, text),) = in_pass("global seen; seen = 1")
    assert "global seen" in text and "local variables" in text


@pytest.mark.parametrize(
    "line",
    [
        "for x in {'a', 'b'}: pass",
        "[x for x in set('ab')]",
        "for x in frozenset('ab'): pass",
        "names = {'a', 'b'}\n    for x in names: pass",
        "for x in {'a'} | OTHERS: pass",
        "for x in {'a'}.union('b'): pass",
        "await journey.tag(*{'a', 'b'})",
        "for n, x in enumerate({'a', 'b'}): pass",
        "first = next(iter(set('ab')))",
        "', '.join({'a', 'b'})",
        "{'a', 'b'}.pop()",
        "[await journey.tag(x) for x in {'a', 'b'}]",
        "any(await journey.matches(x) for x in {'a', 'b'})",
    ],
)
def test_sets_are_not_gone_through(line: str) -> None:
    ((_, text),) = set(in_pass(line))
    assert "sorted" in text


@pytest.mark.parametrize(
    "line",
    [
        "for x in sorted({'a', 'b'}): pass",
        "if 'a' in {'a', 'b'}: pass",
        "names = {'a'}\n    if 'a' in names: pass",
        "names = {'a'}\n    names = sorted(names)\n    for x in names: pass",
        "for x in dict.fromkeys('ab'): pass",
        "for x in {'a': 1}: pass",
        "total = sum(len(x) for x in {'a', 'b'})",
        "stack = []\n    stack.pop()",
    ],
)
def test_sets_may_be_asked_and_sorted(line: str) -> None:
    assert in_pass(line) == []


def test_an_activity_may_do_anything_and_so_may_what_only_it_reaches() -> None:
    assert not broken(
        HEAD
        + """
from temporalio import activity
import random

@activity.defn
async def drawn(contact):
    import httpx
    return lots()

def lots():
    return random.random()

@automation("a")
async def a(contact, journey):
    await journey.activity(drawn)
"""
    )


def test_sets_that_are_added_to_or_come_of_keys_are_sets() -> None:
    for line in (
        "some = {'a'}; some |= {'b'}; list(some)",
        "list({}.keys() & {'a': 1}.keys())",
        "dict.fromkeys({1, 2})",
    ):
        ((_, text),) = in_pass(line)
        assert "a set has another order" in text
    assert in_pass("flags = 1; flags |= 2; list(flags)") == []


@pytest.mark.parametrize("line", ["SEEN.append(contact.id)", "COUNT['n'] += 1", "x = NAMES.pop()"])
def test_what_a_module_has_is_not_changed_by_passes(line: str) -> None:
    ((number, text),) = in_pass(line, "SEEN: list[str] = []; COUNT = {'n': 0}; NAMES = ['a']")
    assert number == 6 and "keep it in local variables" in text
    assert in_pass(line, "SEEN = COUNT = NAMES = None; SEEN = []; COUNT = {}; NAMES = []") == []
    assert broken("NAMES = []\n\ndef known(name):\n    NAMES.append(name)\n\nknown('a')\n") == []
    assert in_pass("seen = [contact.id]; seen.append(NAMES[0]); NAMES.index('a')", "NAMES = ['a']") == []


def test_what_only_type_checkers_read_is_left_alone() -> None:
    source = """\
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        import httpx
    else:
        import requests
    """
    assert [line for line, _ in broken(source)] == [6]


def test_an_activity_in_a_class_may_do_anything() -> None:
    source = """\
    import random
    from temporalio import activity
    from workflows.journey import automation

    class Scores:
        @activity.defn
        async def fetch(self):
            return [random.random() for each in {1, 2}]

        def guess(self):
            return random.random()

    @automation("a")
    async def a(contact, journey):
        await journey.activity(Scores.fetch)
    """
    assert [line for line, _ in broken(source)] == [11]


def test_what_an_automation_reaches_is_looked_at_too() -> None:
    source = (
        HEAD
        + """
import random

class Chance:
    def draw(self):
        return random.random()

def lots():
    return Chance().draw()

@automation("a")
async def a(contact, journey):
    lots()
"""
    )
    assert [line for line, _ in broken(source)] == [7]


def test_what_is_done_on_import_is_looked_at_too() -> None:
    assert broken("import time\nSTARTED = time.time()\n")[0][0] == 2


def test_what_is_slow_to_load_is_imported_by_who_needs_it() -> None:
    ((line, text), (other, _)) = broken("import httpx\nfrom sqlalchemy.orm import Session\n")
    assert (line, other) == (1, 2)
    assert "inside the activity" in text


def test_what_the_author_passes_through_is_his_own_affair() -> None:
    assert not broken(
        "from temporalio import workflow\nwith workflow.unsafe.imports_passed_through():\n    import httpx\n"
    )


def test_each_line_is_told_in_the_order_of_the_file() -> None:
    source = "import os, time\nA = os.name\nB = time.time()\nC = [os.sep, os.sep]\n"
    assert [line for line, _ in broken(source)] == [2, 3, 4]
