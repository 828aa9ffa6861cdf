"""Which ways does the code of an automation have? Read from its text; nothing of it runs."""

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

from marketing.flows import Block, Do, Flow, Fork, Jump, Leave, Loop
from marketing.segment_sentences import Names
from marketing.step_flows import shares_said
from marketing.step_sentences import Expression, Filled, said
from workflows.code_steps import arguments
from workflows.journey import Journey, Way

_QUESTIONS = ("matches", "wait_for", "engagement")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")
_DEEPEST = 5  # functions that call functions


def flow(function: Way, names: Names) -> Flow:
    """The way through an automation, with that through its own functions which it hands its journey to."""
    return _Reader(names).of(function)


def count_steps(flow: Flow) -> int:
    """How many steps are written there."""
    count = 0
    for block in flow:
        match block:
            case Do():
                count += 1
            case Fork(_, ways, asks):
                count += asks + sum(count_steps(way) for _, way in ways)
            case Loop(_, body):
                count += count_steps(body)
    return count


class _Reader:
    def __init__(self, names: Names) -> None:
        self.names = names
        self.journey = "journey"
        self.globals: Mapping[str, Any] = {}
        self.depth = 0

    def of(self, function: Way) -> Flow:
        definition = ast.parse(dedent(inspect.getsource(function))).body[0]
        assert isinstance(definition, ast.AsyncFunctionDef)
        journey = definition.args.args[1].arg
        with self._within(journey, function.__globals__):
            return self.flow(definition.body)

    @contextmanager
    def _within(self, journey: str, names: Mapping[str, Any]) -> Iterator[None]:
        before = self.journey, self.globals
        self.journey, self.globals, self.depth = journey, names, self.depth + 1
        yield
        (self.journey, self.globals), self.depth = before, self.depth - 1

    # -- statements --------------------------------------------------------------------------------------------------

    def flow(self, body: Sequence[ast.stmt]) -> Flow:
        return tuple(block for statement in body for block in self.statement(statement))

    def statement(self, node: ast.stmt) -> Iterator[Block]:
        match node:
            case ast.If(test, then, otherwise):
                yield from self.fork(test, self.flow(then), self.flow(otherwise))
            case ast.Match(subject, cases):
                yield from self.choice(subject, cases)
            case ast.While(test, body, otherwise):
                endless = isinstance(test, ast.Constant) and bool(test.value)
                yield Loop("Again and again" if endless else f"While {self.words(test)}", self.flow(body), endless)
                yield from self.flow(otherwise)
            case ast.For(target, over, body, otherwise) | ast.AsyncFor(target, over, body, otherwise):
                yield Loop(f"For each {ast.unparse(target)} in {ast.unparse(over)}", self.flow(body))
                yield from self.flow(otherwise)
            case ast.Try(body, handlers, otherwise, at_last) | ast.TryStar(body, handlers, otherwise, at_last):
                yield from self.flow(body)
                caught = ((ast.unparse(each.type) if each.type else "anything", each.body) for each in handlers)
                ways = (("no", self.flow(otherwise)), *((name, self.flow(body)) for name, body in caught))
                yield Fork("Did any of it fail?", ways)
                yield from self.flow(at_last)
            case ast.With(_, body) | ast.AsyncWith(_, body):
                yield from self.flow(body)
            case ast.Return(value):
                yield from self.steps(value) if value else ()
                yield Leave("Completed")
            case ast.Raise(error):
                yield Leave(f"Fails: {ast.unparse(error) if error else 'as before'}")
            case ast.Break() | ast.Continue():
                yield Jump(out=isinstance(node, ast.Break))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return
            case _:
                yield from self.steps(node)

    def fork(self, test: ast.expr, then: Flow, otherwise: Flow) -> Iterator[Block]:
        match test:
            case ast.UnaryOp(ast.Not(), operand):
                yield from self.fork(operand, otherwise, then)
            case ast.Await(call) if (step := self.step(call)) and step[0] in _QUESTIONS:
                yield Fork(self.question(*step), (("yes", then), ("no", otherwise)), asks=True)
            case ast.Compare(ast.Await(call), [ast.Eq()], [ast.Constant(str(way))]) if self.is_split(call):
                yield Fork("By chance", ((self.share(call, way), then), ("otherwise", otherwise)), asks=True)
            case _:
                yield from self.steps(test)
                yield Fork(f"{self.words(test)}?", (("yes", then), ("no", otherwise)))

    def choice(self, subject: ast.expr, cases: Sequence[ast.match_case]) -> Iterator[Block]:
        by_chance = subject.value if isinstance(subject, ast.Await) and self.is_split(subject.value) else None
        ways = []
        for case in cases:
            pattern = ast.unparse(case.pattern)
            if by_chance and isinstance(case.pattern, ast.MatchValue):
                pattern = self.share(by_chance, str(self.value(case.pattern.value)))
            guard = f", if {self.words(case.guard)}" if case.guard else ""
            ways.append((f"{pattern}{guard}".removeprefix("_") or "otherwise", self.flow(case.body)))
        if cases[-1].guard or not isinstance(cases[-1].pattern, ast.MatchAs) or cases[-1].pattern.pattern:
            ways.append(("otherwise", ()))
        if not by_chance:
            yield from self.steps(subject)
        yield Fork("By chance" if by_chance else f"{self.words(subject)}?", tuple(ways), asks=bool(by_chance))

    # -- steps -------------------------------------------------------------------------------------------------------

    def steps(self, node: ast.AST) -> Iterator[Block]:
        """The steps within, in the order in which they are taken."""
        for child in ast.iter_child_nodes(node):
            yield from self.steps(child)
        if not isinstance(node, ast.Call):
            return
        if step := self.step(node):
            kind, args = step
            label = self.question(kind, args) if kind in _QUESTIONS else said(kind, args, self.names)
            yield Leave(label) if kind == "exit" else Do(label)
        elif (called := self.called(node)) and self.depth < _DEEPEST:
            yield from self.of(called)

    def step(self, node: ast.AST) -> tuple[str, dict[str, Any]] | None:
        """What a call asks of the journey, with its arguments as the declarative form has them."""
        match node:
            case ast.Call(ast.Attribute(ast.Name(name), kind)) if name == self.journey and hasattr(Journey, kind):
                return kind, _declared(kind, self.arguments(node, kind))
        return None

    def called(self, node: ast.Call) -> Way | None:
        """An author's own function, if it is handed the journey as its second argument."""
        match node:
            case ast.Call(ast.Name(name), [_, ast.Name(journey), *_]) if journey == self.journey:
                function = self.globals.get(name)
                return function if inspect.iscoroutinefunction(function) else None
        return None

    def arguments(self, node: ast.Call, kind: str) -> dict[str, Any]:
        try:
            return arguments(node, kind, self.value)
        except TypeError:  # what Python itself will refuse
            return {}

    def value(self, node: ast.expr) -> Any:
        """What it is, if that is written in this file; or else how it is written."""
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name) if isinstance(self.globals.get(name), str | int | float | dict | list | tuple):
                return self.globals[name]
            case ast.List(parts) | ast.Tuple(parts):
                return [self.value(each) for each in parts]
            case ast.Dict(keys, values) if all(keys):
                return {str(self.value(key)): self.value(each) for key, each in zip(keys, values, strict=True) if key}
            case ast.JoinedStr(parts):
                return Filled("".join(str(self.value(part)) for part in parts))
            case ast.FormattedValue(each):
                known = self.value(each)
                return f"{{{known}}}" if isinstance(known, Expression) else known
            case ast.Call(ast.Name("timedelta"), [], keywords):
                return _lasting({each.arg: self.value(each.value) for each in keywords if each.arg})
        return Expression(ast.unparse(node))

    # -- words -------------------------------------------------------------------------------------------------------

    def question(self, kind: str, args: dict[str, Any]) -> str:
        if kind == "engagement":
            since = args.get("since")
            of_late = "in the last" if isinstance(since, str) and not isinstance(since, Expression) else "since"
            return f"Opened or clicked {of_late} {since}?" if since else "Opened or clicked?"
        return said("branch" if kind == "matches" else kind, args, self.names)

    def words(self, test: ast.expr) -> str:
        match test:
            case ast.UnaryOp(ast.Not(), operand):
                return f"not: {self.words(operand)}"
            case ast.Await(call) if (step := self.step(call)) and step[0] in _QUESTIONS:
                return self.question(*step).removesuffix("?")
        return ast.unparse(test)

    def is_split(self, node: ast.AST) -> bool:
        step = self.step(node)
        return step is not None and step[0] == "split"

    def share(self, call: ast.AST, way: str) -> str:
        _, args = self.step(call) or ("", {})
        shares = args.get("shares")
        told = (
            shares_said(shares) if isinstance(shares, dict) and all(isinstance(n, int) for n in shares.values()) else {}
        )
        return told.get(way, way)


def _declared(kind: str, args: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case "wait" if "duration" not in args:
            return {"duration": _lasting(args)}
        case "matches":
            return {"if": args.get("criteria", {})}
        case "activity":
            return {"name": args.get("function", "")}
    return args


def _lasting(parts: Mapping[str, Any]) -> str:
    """`3 days 12 hours`."""
    told = ((parts[unit], unit) for unit in _UNITS if unit in parts)
    return " ".join(f"{number} {unit.removesuffix('s') if number == 1 else unit}" for number, unit in told)
