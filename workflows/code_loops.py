"""Does a loop in the code of an automation go on for ever, and nobody else's code meanwhile? Read from its text."""

import ast
from collections.abc import Iterator, Mapping, Set

_OWN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)  # do not run where they are written
_WAYS_OUT = (
    *(ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom),
    *(ast.Break, ast.Return, ast.Raise, ast.Assert),
)


def never_ends(loop: ast.While, journeys: Set[str], meanings: Mapping[str, str]) -> bool:
    """Whether what it asks for changes only while something is awaited, and nothing is; of what is not certain it is
    not said.

    Args:
        journeys: the names that stand for the journey there.
        meanings: of the names that are imported, and of Python's own.
    """
    if isinstance(loop.test, ast.Constant) and not loop.test.value:
        return False
    for node in _within(loop.test):
        match node:
            case ast.Name(name) if name not in {*journeys, "contact"} and meanings.get(name, ".").startswith("."):
                return False  # another name, or something of the author's own
            case ast.Await() | ast.NamedExpr() | ast.Attribute(attr="trigger"):
                return False
    return not any(_may_lead_out(node, journeys, meanings) for part in loop.body for node in _within(part))


def _may_lead_out(node: ast.AST, journeys: Set[str], meanings: Mapping[str, str]) -> bool:
    match node:
        case ast.Name(name, ast.Store()):
            return name in {*journeys, "contact"}
        case ast.Call(ast.Name(name)):
            return name == "next" or meanings.get(name) != name  # Python's own, but for that, ends no loop
        case ast.Call(ast.Attribute(ast.Name(name))):
            return name in journeys or name in meanings
        case ast.Call():
            return True
    return isinstance(node, _WAYS_OUT)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, _OWN):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _within(child)
