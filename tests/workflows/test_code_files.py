"""Are the files of authors read once and for all, and is what is wrong with them told with file and line?"""

import asyncio
from pathlib import Path
from textwrap import dedent
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from tests.recorded import walked
from tests.workflows.passes import Asked, PassWorkflow
from workflows.code import NotLoaded, automation_function
from workflows.code_files import READY_MADE, CannotLoad, folders, load

HEAD = """\
from workflows.journey import Contact, Journey, automation, on_event

SUBSCRIBED = on_event("contact.subscribed")

"""
FUNCTION = "async def a(contact, journey)"
AUTOMATION = HEAD + "@automation({terms})\n{function}:\n    pass\n"
HELLO = """\
@automation("{name}", version={version}, trigger=SUBSCRIBED)
async def hello(contact: Contact, journey: Journey) -> None:
    await journey.send("{template}")
"""


def write(folder: Path, name: str, source: str) -> Path:
    file = folder / name
    file.write_text(dedent(source))
    return file


def hello(folder: Path, file: str = "hello.py", name: str = "hello", version: int = 1, template: str = "hello") -> Path:
    return write(folder, file, HEAD + HELLO.format(name=name, version=version, template=template))


def problem(folder: Path) -> str:
    with pytest.raises(CannotLoad) as refused:
        load([folder])
    return str(refused.value)


async def steps(name: str, version: int = 1) -> list[str]:
    taken, _ = await walked(automation_function(name, version))
    return [step.step for step in taken]


async def test_what_a_folder_has_is_found_with_its_place(tmp_path: Path) -> None:
    file = hello(tmp_path)
    (found,) = load([tmp_path]).automations.values()
    assert (found.name, found.version, found.place) == ("hello", 1, f"{file}:5")
    assert found.definition.code == "hello" and found.definition.trigger is not None
    assert await steps("hello") == ["send:hello"]


def test_a_version_is_a_number_from_1_on(tmp_path: Path) -> None:
    file = hello(tmp_path, version=0)
    assert problem(tmp_path) == f"{file}:5: version: takes a whole number from 1 on."


async def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    hello(tmp_path, "one.py", version=1, template="first")
    hello(tmp_path, "two.py", version=2, template="second")
    loaded = load([tmp_path])
    assert loaded.newest("hello") is loaded.automations["hello", 2]
    assert loaded.newest("nobody") is None
    assert [await steps("hello", version) for version in (1, 2)] == [["send:first"], ["send:second"]]


async def test_several_folders_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        hello(tmp_path / name, name=name, template=name)
    load([tmp_path / "a", tmp_path / "b"])
    assert [await steps(name) for name in "ab"] == [["send:a"], ["send:b"]]


async def test_files_share_what_they_import_from_each_other(tmp_path: Path) -> None:
    write(tmp_path, "words.py", 'GREETING = "good-morning"\n')
    write(
        tmp_path,
        "hello.py",
        "from .words import GREETING\n"
        + HEAD
        + HELLO.replace('"{template}"', "GREETING").format(name="hello", version=1),
    )
    load([tmp_path])
    assert await steps("hello") == ["send:good-morning"]


async def test_an_automation_that_others_import_is_there_once(tmp_path: Path) -> None:
    hello(tmp_path)
    write(tmp_path, "other.py", "from .hello import hello\n")
    assert len(load([tmp_path]).automations) == 1


async def test_a_file_that_changes_later_changes_nothing(tmp_path: Path) -> None:
    hello(tmp_path, template="before")
    load([tmp_path])
    hello(tmp_path, template="after")
    assert await steps("hello") == ["send:before"]
    load([tmp_path])
    assert await steps("hello") == ["send:after"]


def test_activities_are_known_by_their_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        "score.py",
        """
        from temporalio import activity

        @activity.defn
        async def score(contact_id: str) -> int:
            return 3

        @activity.defn(name="rank")
        def ranked(contact_id: str) -> int:
            return 1
        """,
    )
    write(tmp_path, "user.py", "from .score import score\n")
    assert sorted(load([tmp_path]).activities) == ["rank", "score"]


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("def broken(:\n", 1, "invalid syntax"),
        ("import math\n\nx = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found\n", 1, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def f():\n    raise ValueError('no')\n\nf()\n", 2, "ValueError: no"),
        (AUTOMATION.format(terms="'a', trigger=SUBSCRIBED", function="def a(contact, journey)"), 5, "as `async def a("),
        (AUTOMATION.format(terms="'a', trigger=SUBSCRIBED", function="async def a(contact)"), 5, "as `async def a("),
        (AUTOMATION.format(terms="'a b', trigger=SUBSCRIBED", function=FUNCTION), 5, "code: "),
        (AUTOMATION.format(terms="'a', trigger=on_event('')", function=FUNCTION), 5, "trigger.event: "),
        (AUTOMATION.format(terms="'a', trigger=SUBSCRIBED, time_limit='soon'", function=FUNCTION), 5, "time_limit: "),
        (f"import time\n{HEAD}{HELLO.format(name='a', version=1, template='a')}    time.time()\n", 9, "journey.now"),
        (f"{HEAD}{HELLO.format(name='a', version=1, template='a')}    await journey.wait('20 s')\n", 8, "a minute at"),
        (f"{HEAD}{HELLO.format(name='a', version=1, template='a')}    journey.wait('1 day')\n", 8, "`await journey."),
        ("a = '\\0" + "'\n\0", None, "null bytes"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, source: str, line: int | None, said: str) -> None:
    file = write(tmp_path, "wrong.py", source)
    told = problem(tmp_path)
    assert told.startswith(f"{file}:{line}: " if line else f"{file}: ")
    assert said in told


def test_what_the_sandbox_cannot_import_is_refused_before_anybody_is_inside(tmp_path: Path) -> None:
    file = write(tmp_path, "heavy.py", "import math\n\nimport phonenumbers\n")
    told = problem(tmp_path)
    assert told.startswith(f"{file}:3: the sandbox of workflows refuses what this does (threading.Lock")
    assert "into the activity" in told
    write(
        tmp_path,
        "heavy.py",
        "from temporalio import workflow\n\nwith workflow.unsafe.imports_passed_through():\n    import phonenumbers\n",
    )
    load([tmp_path])


def test_all_that_is_wrong_with_the_texts_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "def (:\n")
    write(tmp_path, "b.py", "import time\nx = time.time()\ny = time.time()\n")
    assert [line.rpartition("/")[2].partition(": ")[0] for line in problem(tmp_path).splitlines()] == [
        "a.py:1",
        "b.py:2",
        "b.py:3",
    ]


def test_two_of_the_same_name_and_version_are_one_too_many(tmp_path: Path) -> None:
    first, second = hello(tmp_path, "first.py"), hello(tmp_path, "second.py")
    assert problem(tmp_path) == f"{second}:5: 'hello' in version 1 is in {first}:5 already"


def test_two_activities_of_the_same_name_are_one_too_many(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, f"{name}.py", "from temporalio import activity\n@activity.defn\nasync def score(): ...\n")
    assert problem(tmp_path) == f"{tmp_path / 'b.py'}: there is another activity 'score' already"


def test_a_folder_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    told = problem(tmp_path / "gone")
    assert str(tmp_path / "gone") in told and "CARILLON_AUTOMATIONS" in told


# -- which folders -----------------------------------------------------------------------------------------------------


def installed(site: Path, package: str) -> None:
    """As if a distribution were installed there whose entry point names this package."""
    about = site / "theirs-1.0.dist-info"
    about.mkdir()
    write(about, "METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    write(about, "entry_points.txt", f"[carillon.automations]\ntheirs = {package}\n")


def test_without_a_setting_those_that_come_with_carillon_are_taken(tmp_path: Path) -> None:
    assert folders([]) == [READY_MADE]
    assert folders([tmp_path]) == [tmp_path]


def test_installed_packages_add_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_automations").mkdir()
    hello(tmp_path / "their_automations", name="theirs")
    monkeypatch.syspath_prepend(tmp_path)
    installed(tmp_path, "their_automations")
    found = folders([])
    assert found == [READY_MADE, tmp_path / "their_automations"]
    assert ("theirs", 1) in load(found).automations


@pytest.mark.parametrize("value", ["nowhere_to_be_found", "nowhere.to.be.found", "pathlib"])
def test_an_entry_point_without_a_package_says_so(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, value)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CannotLoad, match=f"names '{value}'"):
        folders([])


# -- in the sandbox ----------------------------------------------------------------------------------------------------


async def run(temporal: Client, name: str, version: int = 1) -> "WorkflowHandle[PassWorkflow, str]":
    return await temporal.start_workflow(
        PassWorkflow.run, Asked(name=name, version=version), id=f"pass-{uuid4()}", task_queue="passes"
    )


async def test_a_pass_runs_a_copy_of_its_own_which_the_sandbox_watches(tmp_path: Path, temporal: Client) -> None:
    write(
        tmp_path,
        "watched.py",
        HEAD
        + """\
from importlib import import_module

COUNT = []

@automation("counts", trigger=SUBSCRIBED)
async def counts(contact, journey):
    COUNT[:] = [*COUNT, 1]
    await journey.tag(f"{len(COUNT)}")

@automation("leaves", trigger=SUBSCRIBED)
async def leaves(contact, journey):
    journey.exit("enough")

@automation("hidden-clock", trigger=SUBSCRIBED)
async def hidden_clock(contact, journey):
    import_module("datetime")
    getattr(__import__("datetime").datetime, "now")()

@automation("hidden-chance", trigger=SUBSCRIBED)
async def hidden_chance(contact, journey):
    __import__("random").random()
""",
    )
    load([tmp_path])
    async with Worker(temporal, task_queue="passes", workflows=[PassWorkflow]):
        runs = [await run(temporal, name) for name in ("counts", "counts", "leaves", "hidden-clock", "hidden-chance")]
        first, second, leaving, clock, chance = await asyncio.gather(*(each.result() for each in runs))
    assert first == second == "tag:1"
    assert leaving == "left: enough"  # it raises what cohorts catch
    assert clock.startswith("Refused: `datetime.datetime.now`")
    assert chance.startswith("Refused: `random.random`")


async def test_who_is_in_a_version_that_no_file_has_waits_until_it_is_back(tmp_path: Path, temporal: Client) -> None:
    hello(tmp_path, name="gone", version=1)
    async with Worker(temporal, task_queue="passes", workflows=[PassWorkflow]):
        waiting = await run(temporal, "gone")
        async for event in waiting.fetch_history_events(wait_new_event=True):
            if event.HasField("workflow_task_failed_event_attributes"):
                assert "No file has the automation 'gone' in version 1" in str(
                    event.workflow_task_failed_event_attributes.failure.message
                )
                break
        load([tmp_path])
        assert await waiting.result() == "send:hello"


def test_outside_of_workflows_it_is_not_found_either() -> None:
    with pytest.raises(NotLoaded, match="version 7"):
        automation_function("nobody", 7)
