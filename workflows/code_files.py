"""Reads the automations that are written in Python, checks them and keeps them as they were."""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec, spec_from_file_location
from inspect import iscoroutinefunction, signature
from pathlib import Path
from traceback import walk_tb
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from pydantic import ValidationError
from temporalio import activity
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError, SandboxRestrictions
from temporalio.worker.workflow_sandbox._importer import Importer
from temporalio.worker.workflow_sandbox._restrictions import RestrictionContext

from marketing.automations import AutomationDefinition
from workflows.code import Loaded, Written, copy_of, forget, know
from workflows.code_rules import broken_rules
from workflows.code_steps import known_steps, wrong_steps
from workflows.journey import AutomationCode

ENTRY_POINTS = "carillon.automations"
READY_MADE = Path(__file__).parents[1] / "automations"


class CannotLoad(Exception):
    """What is wrong with files of automations: a line each, with file and line."""


class _Module(NamedTuple):
    tree: ast.Module
    code: CodeType
    file: Path


class _Files(MetaPathFinder, Loader):
    """Imports what was read at the start: into this process, and anew into the sandbox of each run. A file that is
    changed afterwards changes nothing before the next start."""

    def __init__(self) -> None:
        self.modules: dict[str, _Module] = {}
        self.packages: dict[str, Path] = {}

    def find_spec(self, name: str, _: Sequence[str] | None, __: ModuleType | None = None) -> ModuleSpec | None:
        if name in self.packages:
            package = ModuleSpec(name, None, is_package=True)
            package.submodule_search_locations = []  # all of it was read already
            return package
        found = self.modules.get(name)
        return spec_from_file_location(name, found.file, loader=self) if found else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.modules[module.__name__].code, vars(module))


_FILES = _Files()


def folders(setting: Sequence[Path]) -> list[Path]:
    """Those that are set, or else the one that comes with Carillon; and those of installed packages.

    Raises:
        CannotLoad: an entry point names what is not installed.
    """
    return [*(setting or [READY_MADE]), *(_installed(entry.value) for entry in entry_points(group=ENTRY_POINTS))]


def _installed(package: str) -> Path:
    """The folder of a package, which is not imported for it."""
    try:
        spec = find_spec(package)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise CannotLoad(f"the entry point {ENTRY_POINTS} names {package!r}, which is no package that is installed")
    return Path(next(iter(spec.submodule_search_locations)))


def load(folders: Iterable[Path]) -> Loaded:
    """Read, check and import the files of these folders.

    Raises:
        CannotLoad: with a line for each problem, which says where.
    """
    if _FILES not in sys.meta_path:
        sys.meta_path.insert(0, _FILES)
    names = [name for folder in folders for name in _read(folder.absolute())]
    automations: dict[tuple[str, int], Written] = {}
    activities: dict[str, Callable[..., Any]] = {}
    for name in names:
        module = _imported(name)
        _try_in_sandbox(name)
        for written in _automations(module):
            key = written.name, written.version
            if other := automations.get(key):
                raise CannotLoad(f"{written.place}: {key[0]!r} in version {key[1]} is in {other.place} already")
            automations[key] = written
        for called, function in _activities(module):
            if activities.setdefault(called, function) is not function:
                raise CannotLoad(f"{_FILES.modules[name].file}: there is another activity {called!r} already")
    for written in automations.values():
        know(written)
    return Loaded(automations, activities)


def _read(folder: Path) -> list[str]:
    """Check what the files say and make modules of them; gives the names of these."""
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix == ".py" and file.name != "__init__.py")
    except OSError as error:
        raise CannotLoad(f"{folder} can't be read: {error.strerror}. CARILLON_AUTOMATIONS names it") from None
    package = next((name for name, known in _FILES.packages.items() if known == folder), "")
    package = package or f"carillon_automations_{len(_FILES.packages) + 1}"
    _FILES.packages[package] = folder
    for name in [name for name in _FILES.modules if name.startswith(f"{package}.")]:
        del _FILES.modules[name]
        sys.modules.pop(name, None)
        forget(name)
    problems: list[str] = []
    for file in files:
        try:
            tree = ast.parse(file.read_bytes(), str(file))
            code = compile(tree, str(file), "exec")
        except (SyntaxError, ValueError, OSError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            problems.append(f"{file}{line}: {error.msg if isinstance(error, SyntaxError) else error}")
            continue
        problems += [f"{file}:{line}: {text}" for line, text in sorted([*broken_rules(tree), *wrong_steps(tree)])]
        _FILES.modules[f"{package}.{file.stem}"] = _Module(tree, code, file)
    if problems:
        raise CannotLoad("\n".join(problems))
    return [f"{package}.{file.stem}" for file in files]


def _imported(name: str) -> ModuleType:
    try:
        return __import__(name, fromlist=["*"])
    except Exception as error:  # whatever an author's file raises
        raise CannotLoad(f"{_place(error, name)}: {type(error).__name__}: {error}") from error


def _try_in_sandbox(name: str) -> None:
    """As each cohort will: what fails only there would hold up its contacts for ever. Temporal has no public way."""
    context = RestrictionContext()
    context.is_runtime = True
    try:
        with Importer(SandboxRestrictions.default, context).applied():
            copy_of(name)
    except Exception as error:
        what = error.qualified_name if isinstance(error, RestrictedWorkflowAccessError) else error
        advice = "into the activity that needs it, or under `with workflow.unsafe.imports_passed_through():`"
        told = f"the sandbox of workflows refuses what this does ({what}). If it is an import, move it {advice}"
        raise CannotLoad(f"{_place(error, name)}: {told}") from error


def _place(error: Exception, name: str) -> str:
    """The file and line of an author that an error came from, while a module was imported."""
    ours = {str(module.file) for module in _FILES.modules.values()}
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    file, line = next((each for each in reversed(lines) if each[0] in ours), (_FILES.modules[name].file, 1))
    return f"{file}:{line}"


def _automations(module: ModuleType) -> Iterator[Written]:
    for function in vars(module).values():
        code = getattr(function, "automation", None)
        if not isinstance(code, AutomationCode) or function.__module__ != module.__name__:
            continue
        tree, _, file = _FILES.modules[module.__name__]
        line = function.__code__.co_firstlineno
        if not iscoroutinefunction(function) or len(signature(function).parameters) != 2:
            raise CannotLoad(f"{file}:{line}: write it as `async def {function.__name__}(contact, journey)`")
        if type(code.version) is not int or not 1 <= code.version < 2**31:
            raise CannotLoad(f"{file}:{line}: version: takes a whole number from 1 on.")
        terms = {each.name: getattr(code, each.name) for each in fields(code) if each.name != "version"}
        try:
            definition = AutomationDefinition.model_validate(terms | {"code": code.name})
        except ValidationError as error:
            raise CannotLoad("\n".join(f"{file}:{line}: {problem}" for problem in _problems(error))) from None
        steps = [(f"{file.name}:{line}", step) for line, step in known_steps(tree, function.__name__)]
        yield Written(code.name, code.version, definition, function, file, line, steps)


def _problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_input=False):
        yield f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"


def _activities(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    for function in vars(module).values():
        # What `@activity.defn` leaves behind has no public way to be asked for.
        if (definition := activity._Definition.from_callable(function)) and definition.name:
            yield definition.name, function
