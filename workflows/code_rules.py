"""What must the code of an automation not do? Read from its text, before any of it runs."""

import ast
import builtins
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

# A pass is run again from its start whenever a worker takes it over, and must then come to where it stood.
_CLOCK = "take `journey.now`, which is the same whenever the pass is run again"
_WAITING = "wait with `await journey.wait(…)`, which outlives every restart"
_CHANCE = "use `journey.split({…})`, which is the same for a contact every time"
OUTSIDE = "do it in a function under `@activity.defn`, called with `await journey.activity(…)`"
_TOGETHER = "wait for several at once with `asyncio.gather(…)`"
_DEADLINE = "`journey.wait_for(…, within=…)` has the deadline"
_CANCELLED = "whoever leaves is told so by an exception that code must let through: write `except Exception`"
_OWN = "what a pass remembers must be its own: keep it in local variables"
_RUN = "a pass outlives the run of its workflow: ask `contact` and `journey` instead"

_REFUSED = {
    **dict.fromkeys(["datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"], _CLOCK),
    **dict.fromkeys(["datetime.date.today", "time"], _CLOCK),
    **dict.fromkeys(["time.sleep", "asyncio.sleep"], _WAITING),
    **dict.fromkeys(["random", "secrets", "uuid.uuid1", "uuid.uuid4", "uuid.uuid7", "hash", "id"], _CHANCE),
    **dict.fromkeys(["asyncio.wait", "asyncio.as_completed"], _TOGETHER),
    **dict.fromkeys(["asyncio.wait_for", "asyncio.timeout", "asyncio.timeout_at"], _DEADLINE),
    "temporalio.workflow": _RUN,
    "temporalio.workflow.logger": "`…/executions` tells of each step; what else is to be logged, log in an activity",
    **dict.fromkeys(
        [
            *("open", "input", "breakpoint", "os", "shutil", "tempfile", "glob", "pathlib.Path"),
            *("socket", "ssl", "select", "http.client", "urllib.request", "smtplib", "imaplib", "ftplib"),
            *("httpx", "requests", "aiohttp", "urllib3", "boto3", "sqlalchemy", "psycopg", "sqlite3", "redis"),
            *("subprocess", "threading", "multiprocessing", "concurrent", "signal"),
            *("asyncio.to_thread", "asyncio.open_connection", "asyncio.create_subprocess_exec"),
        ],
        OUTSIDE,
    ),
}
_CANCELS = ("BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError")
_ALLOWED = ("random.Random", "temporalio.workflow.unsafe.imports_passed_through")
# Loaded anew for each cohort, because the sandbox must see what they do: 0.1 s and more for one of these.
_HEAVY = ("httpx", "requests", "aiohttp", "urllib3", "boto3", "sqlalchemy", "psycopg", "redis")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Broken(NamedTuple):
    """A line that breaks a rule, and what to write instead."""

    line: int
    text: str


def broken_rules(tree: ast.Module) -> list[Broken]:
    """What the parts of a module do that run in passes, and must not. What only activities reach may do anything."""
    meanings = meanings_in(tree)
    sets = _names_of_sets(tree)
    checked = _WithoutActivities(meanings).visit(deepcopy(tree))
    roots = _in_passes(checked, meanings)
    found = {broken for root in roots for broken in (*_broken(root, meanings), *_gone_through(root, sets))}
    shared = _shared(tree)
    for root in named_by(_automations(checked, meanings), checked, meanings):
        found |= set(_kept_in(root, shared))
    return sorted(found)


def dotted(node: ast.AST, meanings: dict[str, str]) -> str:
    """What a name stands for, such as `datetime.datetime.now` for `dt.now`; empty if it is none that was imported."""
    if isinstance(node, ast.Attribute):
        start = dotted(node.value, meanings)
        return f"{start}.{node.attr}" if start else ""
    return meanings.get(node.id, "") if isinstance(node, ast.Name) else ""


def why_refused(name: str) -> str:
    """Why a name is refused: what the longest part of it that a rule is about says."""
    parts = name.split(".")
    if _is(name, _ALLOWED):
        return ""
    beginnings = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((_REFUSED[each] for each in beginnings if each in _REFUSED), "")


def meanings_in(tree: ast.Module) -> dict[str, str]:
    """What the names that are imported stand for, and those of Python's own that nothing else has taken."""
    taken = {node.name for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)}
    taken |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    taken |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    meanings = {name: name for name in dir(builtins) if name not in taken}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                whole = each.name if each.asname else each.name.partition(".")[0]
                meanings[each.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            meanings |= {each.asname or each.name: f"{_origin(node)}.{each.name}" for each in node.names}
    return meanings


def _origin(node: ast.ImportFrom) -> str:
    return "." * node.level + (node.module or "")


class _WithoutActivities(ast.NodeTransformer):
    """Takes out the activities, wherever they are, and what only type checkers read."""

    def __init__(self, meanings: dict[str, str]) -> None:
        self.meanings = meanings

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if decorated(node, "temporalio.activity.defn", self.meanings) else self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # which is made of the same

    def visit_If(self, node: ast.If) -> ast.AST:
        if dotted(node.test, self.meanings) == "typing.TYPE_CHECKING":
            node.body = []
        return self.generic_visit(node)


def _in_passes(tree: ast.Module, meanings: dict[str, str]) -> list[ast.stmt]:
    """The top-level statements that run where passes do: all that is no definition, the automations, and what these
    name in turn, but for activities."""
    code = [node for node in tree.body if not isinstance(node, _DEFINITIONS)]
    return named_by([*code, *_automations(tree, meanings)], tree, meanings)


def _automations(tree: ast.Module, meanings: dict[str, str]) -> list[ast.stmt]:
    return [node for node in tree.body if decorated(node, "workflows.journey.automation", meanings)]


def named_by(statements: Sequence[ast.stmt], tree: ast.Module, meanings: dict[str, str]) -> list[ast.stmt]:
    """These, and the definitions of the module that they name in turn, but for activities."""
    by_name = {node.name: node for node in tree.body if isinstance(node, _DEFINITIONS)}
    activities = {name for name, node in by_name.items() if decorated(node, "temporalio.activity.defn", meanings)}
    waiting = list(statements)
    reached: list[ast.stmt] = []
    while waiting:
        node = waiting.pop()
        if node in reached:
            continue
        reached.append(node)
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - activities
        waiting += [by_name[name] for name in names & by_name.keys()]
    return reached


def decorated(node: ast.stmt, decorator: str, meanings: dict[str, str]) -> bool:
    """Whether a definition is under the decorator of this name, such as `workflows.journey.automation`."""
    decorators = node.decorator_list if isinstance(node, _DEFINITIONS) else []
    return any(dotted(each.func if isinstance(each, ast.Call) else each, meanings) == decorator for each in decorators)


def _broken(node: ast.AST, meanings: dict[str, str]) -> Iterator[Broken]:
    match node:
        case ast.Import(names=names):
            yield from (_too_heavy(node, each.name) for each in names if _is(each.name, _HEAVY))
        case ast.ImportFrom() if _is(_origin(node), _HEAVY):
            yield _too_heavy(node, _origin(node))
        case ast.Global(names=names):
            yield Broken(node.lineno, f"`global {', '.join(names)}`: {_OWN}")
        case ast.ExceptHandler(type=caught, body=body) if _keeps(caught, body, meanings):
            yield Broken(node.lineno, _CANCELLED)
        case ast.Call(func=what, args=[*kinds]) if dotted(what, meanings) == "contextlib.suppress" and any(
            dotted(each, meanings) in _CANCELS for each in kinds
        ):
            yield Broken(node.lineno, _CANCELLED)
        case ast.With(items=items) if any(_passed_through(item, meanings) for item in items):
            return  # the author knows what is in there
        case ast.Call(ast.Name("getattr"), [of, ast.Constant(str(part)), *_]) if start := dotted(of, meanings):
            if why := why_refused(f"{start}.{part}"):
                yield Broken(node.lineno, f"`{start}.{part}` is refused here: {why}")
        case ast.Attribute(ast.Call(ast.Name("type")), "now" | "utcnow" | "today"):
            yield Broken(node.lineno, f"`{ast.unparse(node)}` is refused here: {_CLOCK}")
        case ast.Attribute() | ast.Name(ctx=ast.Load()) if name := dotted(node, meanings):
            if why := why_refused(name):
                yield Broken(node.lineno, f"`{name}` is refused here: {why}")
            return
    for child in ast.iter_child_nodes(node):
        yield from _broken(child, meanings)


def _keeps(caught: ast.expr | None, body: list[ast.stmt], meanings: dict[str, str]) -> bool:
    """Whether an `except` catches that a contact leaves, and does not raise it again."""
    if _raises(body):
        return False
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(each is None or dotted(each, meanings) in _CANCELS for each in kinds)


def _raises(body: list[ast.stmt]) -> bool:
    """Whether it ends by raising something, whichever way it goes."""
    match body:
        case [*_, ast.Raise()]:
            return True
        case [*_, ast.If(_, then, otherwise)]:
            return _raises(then) and _raises(otherwise)
        case [*_, ast.With(_, within) | ast.AsyncWith(_, within)]:
            return _raises(within)
    return False


def _is(name: str, some: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in some)


def _too_heavy(node: ast.stmt, name: str) -> Broken:
    return Broken(node.lineno, f"`{name}` would be loaded for each cohort: import it inside the activity that needs it")


def _passed_through(item: ast.withitem, meanings: dict[str, str]) -> bool:
    call = item.context_expr
    return isinstance(call, ast.Call) and dotted(call.func, meanings) == _ALLOWED[1]


# -- what passes share -------------------------------------------------------------------------------------------------

_CHANGING = ("append", "extend", "insert", "add", "discard", "remove", "pop", "popitem", "clear")


def _shared(tree: ast.Module) -> frozenset[str]:
    """The names that stand for one list, dict or set throughout a module."""
    named = Counter(each.arg for each in ast.walk(tree) if isinstance(each, ast.arg))
    named += Counter(each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and _is_stored(each))
    found = set()
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value):
                if named[name] == 1 and isinstance(value, ast.List | ast.Dict | ast.Set):
                    found.add(name)
    return frozenset(found)


def _kept_in(root: ast.AST, shared: frozenset[str]) -> Iterator[Broken]:
    """Where a pass leaves something behind for others, or for itself when it is run again."""
    for node in ast.walk(root):
        match node:
            case ast.Call(ast.Attribute(ast.Name(name), how)) if name in shared and how in _CHANGING:
                yield Broken(node.lineno, f"`{name}.{how}(…)`: {_OWN}")
            case ast.AugAssign(ast.Subscript(ast.Name(name))) if name in shared:
                yield Broken(node.lineno, f"`{name}[…]`: {_OWN}")


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


# -- sets --------------------------------------------------------------------------------------------------------------

_IN_ORDER = ("list", "tuple", "iter", "next", "enumerate", "zip", "map", "filter")
_ANY_ORDER = ("sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len")
_SET_METHODS = ("union", "intersection", "difference", "symmetric_difference", "copy")


def _gone_through(node: ast.AST, sets: frozenset[str]) -> Iterator[Broken]:
    """Where something is taken out of a set, one after the other."""
    match node:
        case ast.Call(ast.Name(name), [ast.GeneratorExp(each, loops)]) if name in _ANY_ORDER:
            if not any(isinstance(part, ast.Await) for part in ast.walk(node)):
                for part in (each, *(part for loop in loops for part in (loop.iter, *loop.ifs))):
                    yield from _gone_through(part, sets)
                return
    match node:
        case ast.For(iter=over) | ast.AsyncFor(iter=over) | ast.comprehension(iter=over) | ast.Starred(over):
            taken = [over]
        case ast.Call(ast.Name(name), given) if name in _IN_ORDER:
            taken = given
        case ast.Call(ast.Attribute(ast.Name("dict"), "fromkeys"), [over, *_]):
            taken = [over]
        case ast.Call(ast.Attribute(ast.Constant(str()), "join"), [over]) | ast.Call(ast.Attribute(over, "pop"), []):
            taken = [over]
        case _:
            taken = []
    for over in taken:
        if _is_set(over, sets):
            yield Broken(over.lineno, "a set has another order in each process: go through a list, or `sorted(…)`")
    for child in ast.iter_child_nodes(node):
        yield from _gone_through(child, sets)


def _is_set(node: ast.AST | None, sets: frozenset[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(ast.Name("set" | "frozenset")):
            return True
        case ast.Name(name):
            return name in sets
        case ast.BinOp(ast.Call(ast.Attribute(attr="keys"), []), ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
            return True
        case ast.BinOp(left, ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right):
            return _is_set(left, sets) or _is_set(right, sets)
        case ast.Call(ast.Attribute(of, method)) if method in _SET_METHODS:
            return _is_set(of, sets)
    return False


def _names_of_sets(tree: ast.Module) -> frozenset[str]:
    """The names that stand for a set wherever a module has them."""
    given: dict[str, list[ast.AST | None]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value):
                given.setdefault(name, []).append(value)
            case ast.arg(name):
                given.setdefault(name, []).append(None)
    stored = Counter(each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and _is_stored(each))
    for node in ast.walk(tree):
        match node:
            case ast.AugAssign(ast.Name(name), ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
                stored[name] -= 1  # a set stays one
    return frozenset(
        name
        for name, values in given.items()
        if stored[name] == len(values) and all(_is_set(value, frozenset()) for value in values)
    )
