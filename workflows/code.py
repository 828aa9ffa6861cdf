"""Which function is an automation that is written in Python?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_json
from temporalio import workflow
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError
from temporalio.workflow import SandboxImportNotificationPolicy

from marketing.automations import AutomationDefinition
from workflows.code_rules import OUTSIDE, why_refused
from workflows.journey import AutomationCode, Contact, Journey, Way


class NotLoaded(Exception):
    """The cohort waits: Temporal tries its workflow task again and again, until a worker has the code."""


class Refused(Exception):
    """What a pass did would differ when it is run again. That of this contact fails."""


@dataclass(frozen=True)
class Written:
    """An automation, and where it is written."""

    name: str
    version: int
    definition: AutomationDefinition
    function: Way
    file: Path
    line: int
    steps: Sequence[tuple[str, BaseModel]] = ()  # those that the text says all of, each with its place

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Loaded:
    """What a process found at its start: it keeps to that, whatever becomes of the files."""

    automations: Mapping[tuple[str, int], Written]
    activities: Mapping[str, Callable[..., Any]]

    def newest(self, name: str) -> Written | None:
        """The automation of that name with the highest version."""
        versions = [version for each, version in self.automations if each == name]
        return self.automations[name, max(versions)] if versions else None

    def naming(self, field: str, name: str, id: UUID | None) -> list[tuple[str, int]]:
        """The automations, and their versions, in which steps have this name in such a field, or the id anywhere."""
        said = [f'"{field}":{to_json(name).decode()}', *([str(id)] if id else [])]
        return [
            key
            for key, written in self.automations.items()
            if any(each in step.model_dump_json(by_alias=True) for _, step in written.steps for each in said)
        ]


_KNOWN: dict[tuple[str, int], Way] = {}
_WATCHED: set[str] = set()


def know(written: Written) -> None:
    """From now on passes run this function, from a copy of its module that the sandbox of their workflow watches."""
    _KNOWN[written.name, written.version] = written.function
    _WATCHED.add(written.function.__module__)


def forget(module: str) -> None:
    """Passes do not find what a module had, which is about to be read again."""
    for key in [key for key, function in _KNOWN.items() if function.__module__ == module]:
        del _KNOWN[key]


def know_function(function: Way) -> AutomationCode:
    """The same for one that is in no file of automations, such as that of a test: the sandbox does not watch it. Of
    several of the same name the last counts."""
    code: AutomationCode = function.automation  # type: ignore[attr-defined]  # what the decorator leaves
    _KNOWN[code.name, code.version] = function
    return code


def automation_function(name: str, version: int) -> Way:
    """The function of an automation, for a pass.

    Raises:
        NotLoaded: no file that was read at the start has it.
    """
    function = _KNOWN.get((name, version))
    if function is None:
        raise NotLoaded(
            f"No file has the automation {name!r} in version {version}, which these contacts are in. Put it back "
            "beside the newer ones, or cancel their passes. They wait until then."
        )
    if function.__module__ not in _WATCHED:
        return function
    return partial(_watched, getattr(copy_of(function.__module__), function.__name__))


def copy_of(module: str) -> ModuleType:
    """Within the sandbox of a workflow, a copy of its own; it shares what cohorts know of journeys."""
    with workflow.unsafe.imports_passed_through():
        import workflows.journey  # noqa: F401  # whose `Exit` is the one that is caught
    with workflow.unsafe.sandbox_import_notification_policy(SandboxImportNotificationPolicy.SILENT):
        return __import__(module, fromlist=["*"])


async def _watched(function: Way, contact: Contact, journey: Journey) -> None:
    try:
        await function(contact, journey)
    except RestrictedWorkflowAccessError as error:
        name = error.qualified_name.removesuffix(".__call__")
        raise Refused(f"`{name}` is refused in an automation: {why_refused(name) or OUTSIDE}") from error
