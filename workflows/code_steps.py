"""Could the steps be taken that the code of an automation asks for? Read from its text, as far as that says them."""

import ast
import builtins
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from inspect import signature
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import from_json, to_json

from marketing.kinds import told
from marketing.segment_names import Duration
from marketing.segment_nodes import Node
from marketing.steps import KINDS, STEP_TYPES, Activity, Weight
from workflows.code_loops import never_ends
from workflows.code_rules import Broken, decorated, dotted, meanings_in, named_by
from workflows.journey import Journey, time_for_activity

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_ATTRIBUTES = ("contact", "entered_at", "trigger")  # of journeys, that are no steps
_AUTOMATION = "workflows.journey.automation"
_UNKNOWN = ...  # is nothing that a step takes


class _Engagement(Node):
    since: Duration | None = None


class _Split(Node):
    shares: Annotated[dict[str, Weight], Field(min_length=1)]  # by names of the author's own


def _short(within: str | None) -> str | None:
    if within is not None:
        time_for_activity(within)
    return within


class _Activity(Activity):
    within: Annotated[Duration | None, AfterValidator(_short)] = None


# The others are those of the declarative form, which has all of their arguments.
_MODELS: Mapping[str, type[BaseModel]] = {
    **{kind: model for kind, model in zip(KINDS, STEP_TYPES, strict=True) if kind != "exit"},
    "matches": next(model for kind, model in zip(KINDS, STEP_TYPES, strict=True) if kind == "branch"),
    "engagement": _Engagement,
    "split": _Split,
    "activity": _Activity,
}


def arguments(call: ast.Call, kind: str, value: Callable[[ast.expr], Any]) -> dict[str, Any]:
    """What a call hands to a step of journeys, by name; `value` tells what each of them is.

    Raises:
        TypeError: the step does not take them.
    """
    given = [value(each) for each in call.args]
    named = {each.arg: value(each.value) for each in call.keywords if each.arg}
    open_ended = len(named) < len(call.keywords) or any(isinstance(each, ast.Starred) for each in call.args)
    takes = signature(getattr(Journey, kind))
    bound = (takes.bind_partial if open_ended else takes.bind)(None, *given, **named)
    return {name: each for name, each in bound.arguments.items() if name not in ("self", "step")}


class Known(NamedTuple):
    """A step that the text says all of, and its line; as the declarative form has it, where `matches` is a `branch`."""

    line: int
    step: BaseModel


def wrong_steps(tree: ast.Module) -> list[Broken]:
    """The steps of a module that would fail whenever a contact came to them, and those that nobody waits for."""
    return sorted(set(_Reader(tree).wrong(tree, frozenset())))


def known_steps(tree: ast.Module, automation: str) -> list[Known]:
    """The steps in the function of an automation, and in those of its module that this names in turn."""
    reader = _Reader(tree)
    for _ in reader.wrong(tree, frozenset()):
        """What is wrong was told already."""
    function = [node for node in tree.body if isinstance(node, ast.AsyncFunctionDef) and node.name == automation]
    within = [range(node.lineno, (node.end_lineno or 0) + 1) for node in named_by(function, tree, reader.meanings)]
    return [each for each in reader.known if any(each.line in lines for lines in within)]


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self.known: list[Known] = []
        self.meanings = meanings_in(tree)
        self.loaded = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and _is_loaded(each)}
        self.constants = _constants(tree)
        self.async_functions = {each.name for each in tree.body if isinstance(each, ast.AsyncFunctionDef)}

    def wrong(self, node: ast.AST, journeys: frozenset[str]) -> Iterator[Broken]:
        """Within a part of the text in which these names stand for the journey."""
        if isinstance(node, _FUNCTIONS):
            taken = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            journeys = journeys - taken | self.journeys(node)
        for each in self.let_fall(node):
            if isinstance(each, ast.Call) and self.is_awaitable(each, journeys):
                what = ast.unparse(each.func)
                yield Broken(each.lineno, f"`{what}(…)` does nothing until it is awaited: write `await {what}(…)`")
        match node:
            case ast.Call(ast.Attribute(ast.Name(name) as journey, kind)) if name in journeys:
                named = next((self.value(each.value) for each in node.keywords if each.arg == "step"), "")
                if named is not _UNKNOWN and not isinstance(named, str):
                    yield Broken(node.lineno, f"`{journey.id}.{kind}(…)`: step: takes text.")
                if not hasattr(Journey, kind) and kind not in _ATTRIBUTES:
                    yield Broken(node.lineno, f"`{journey.id}.{kind}`: a journey has no such step")
                elif kind in _MODELS:
                    yield from (
                        Broken(node.lineno, f"`{journey.id}.{kind}(…)`: {why}") for why in self.why_wrong(node, kind)
                    )
            case ast.While(test=test) if never_ends(node, journeys, self.meanings):
                yield Broken(node.lineno, f"`while {ast.unparse(test)}` never ends: await a step in it, or `break`")
        for child in ast.iter_child_nodes(node):
            yield from self.wrong(child, journeys)

    def journeys(self, function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
        """Those parameters of a function that are the journey: by their type, or without one by their name, if the
        function can take steps."""
        by_name = isinstance(function, ast.AsyncFunctionDef)
        found = {
            each.arg
            for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            if (by_name and each.arg == "journey" if each.annotation is None else self.is_journey(each.annotation))
        }
        if isinstance(function, ast.AsyncFunctionDef) and decorated(function, _AUTOMATION, self.meanings):
            found |= {each.arg for each in function.args.args[1:2]}
        return found

    def is_journey(self, annotation: ast.expr) -> bool:
        said = annotation.value if isinstance(annotation, ast.Constant) else dotted(annotation, self.meanings)
        return said in ("Journey", "workflows.journey.Journey")

    # -- steps that nobody waits for ---------------------------------------------------------------------------------

    def let_fall(self, node: ast.AST) -> Iterator[ast.expr]:
        """The expressions of which no more is asked than whether they are there, or not even that."""
        match node:
            case ast.Expr(each) | ast.Attribute(each) | ast.Subscript(each) | ast.Match(each):
                yield each
            case ast.Assign([ast.Name(name)], each) if name not in self.loaded:
                yield each
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
                yield from _parts(test)
            case ast.comprehension(ifs=tests):
                yield from (part for test in tests for part in _parts(test))
            case ast.UnaryOp(ast.Not(), operand):
                yield from _parts(operand)
            case ast.Compare(left, comparators=others):
                yield from (left, *others)

    def is_awaitable(self, call: ast.Call, journeys: frozenset[str]) -> bool:
        match call.func:
            case ast.Attribute(ast.Name(name), kind) if name in journeys:
                return hasattr(getattr(Journey, kind, None), "__wrapped__")  # which steps have, and `exit` has not
            case ast.Name(name) if name in self.async_functions:
                return True
        return dotted(call.func, self.meanings) == "asyncio.gather"

    # -- steps that would fail ---------------------------------------------------------------------------------------

    def why_wrong(self, call: ast.Call, kind: str) -> Iterator[str]:
        """What the declarative form would say of it. Of what is not written here nothing is said."""
        try:
            args = arguments(call, kind, self.value)
        except TypeError as error:
            yield f"{error}."
            return
        if any(isinstance(each, ast.Starred) for each in call.args) or None in {each.arg for each in call.keywords}:
            return
        if kind == "wait" and (why := _why_no_wait(args)):
            yield why
        if kind == "activity" and (name := dotted(call.args[0], self.meanings) if call.args else "") in dir(builtins):
            yield f"`{name}` is no function under `@activity.defn`."
        if not (args := _declared(kind, args)):
            return
        try:
            self.known.append(Known(call.lineno, _MODELS[kind].model_validate(args)))
        except ValidationError as error:
            for each in error.errors(include_url=False, include_input=False):
                first, *rest = each["loc"] or ("",)
                if args.get(str(first)) is not _UNKNOWN:
                    place = ".".join(map(str, ["criteria" if kind == "matches" else first, *rest]))
                    yield f"{place}: {told(each)}" if place else told(each)

    def value(self, node: ast.expr) -> Any:
        """As it travels, if it is written in this file."""
        try:
            return from_json(to_json(ast.literal_eval(_Spelled(self.constants).visit(deepcopy(node)))))
        except (ValueError, TypeError):
            return _UNKNOWN


def _declared(kind: str, args: dict[str, Any]) -> dict[str, Any]:
    """As the declarative form has them; nothing if it has none such."""
    match kind:
        case "wait":
            return {"type": kind, "duration": args["duration"]} if args.get("duration") is not None else {}
        case "wait_until" if args.get("zone") is None:
            return {"type": kind, **{name: each for name, each in args.items() if name != "zone"}}
        case "tag":
            given = args.get("add", ())
            return {"type": kind, **args, "add": _UNKNOWN if _UNKNOWN in given else list(given)}
        case "matches":
            return {"type": "branch", "if": args["criteria"]}
        case "activity":
            within = {"within": args["within"]} if "within" in args else {}
            return {"type": kind, "name": args["function"], **within}
        case "split" | "engagement":
            return args or {"since": None}
    return {"type": kind, **args}


def _why_no_wait(args: Mapping[str, Any]) -> str:
    if not args:
        return 'say how long, such as `wait("3 days")`.'
    if all(isinstance(each, int | float) and each < 0 for each in args.values()):
        return "nobody can wait for less than no time."
    return ""


def _parts(test: ast.expr) -> Iterator[ast.expr]:
    if isinstance(test, ast.BoolOp):
        yield from (part for each in test.values for part in _parts(each))
    else:
        yield test


class _Spelled(ast.NodeTransformer):
    """Writes what names stand for in their place."""

    def __init__(self, constants: Mapping[str, ast.expr]) -> None:
        self.constants = constants

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.constants.get(node.id, node)


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What names stand for throughout a module."""
    taken = Counter(each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and not _is_loaded(each))
    taken += Counter(each.arg for each in ast.walk(tree) if isinstance(each, ast.arg))
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value) if value:
                if taken[name] == 1:
                    found[name] = _Spelled(found).visit(deepcopy(value))
    return found


def _is_loaded(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)
