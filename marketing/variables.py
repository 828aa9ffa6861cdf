"""Which variables does a template use, and what stands in where one is missing?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from liquid import BoundTemplate, ConditionalBlockNode, Expression, Node, RenderContext
from liquid.builtin.expressions import FilteredExpression, Path
from liquid.builtin.tags.case_tag import CaseNode, MultiExpressionBlockNode
from liquid.builtin.tags.for_tag import ForNode
from liquid.builtin.tags.if_tag import IfNode
from liquid.builtin.tags.tablerow_tag import TablerowNode
from liquid.builtin.tags.unless_tag import UnlessNode
from pydantic import BaseModel

CONTACT_FIELDS = frozenset(
    ("id", "email", "phone", "first_name", "last_name", "country", "locale", "timezone", "external_id", "tags")
)
KNOWN = {
    "account": frozenset(("name", "postal_address")),
    "campaign": frozenset(("id", "name")),
    "unsubscribe_url": frozenset[str](),
    "preferences_url": frozenset[str](),
    "now": frozenset[str](),
}


class Variable(BaseModel, frozen=True):
    """`contact.first_name`, or `contact.attributes.plan` (however it was written). Read without a fallback or with."""

    path: str
    has_fallback: bool

    @property
    def attribute(self) -> str | None:
        """The name of the contact's attribute, if it is one."""
        names = self.path.split(".")
        return names[2] if names[:2] == ["contact", "attributes"] and len(names) > 2 else None

    @property
    def field(self) -> str | None:
        """The name of the contact's own field, if it is one."""
        names = self.path.split(".")
        return names[1] if names[0] == "contact" and len(names) > 1 and names[1] in CONTACT_FIELDS else None

    @property
    def is_known(self) -> bool:
        """It is one that every render has. An attribute is not: only the audience tells."""
        names = self.path.split(".")
        if names[0] == "contact":
            return self.field is not None or self.path in ("contact", "contact.attributes")
        allowed = KNOWN.get(names[0])
        return allowed is not None and (len(names) == 1 or names[1] in allowed)


def variables(template: BoundTemplate) -> list[Variable]:
    """Every variable that a template reads and doesn't make itself, once, in the order of its first use."""
    reader = _Reader(RenderContext(template))
    reader.read(template.nodes, own=frozenset(), asked=frozenset())
    return [Variable(path=path, has_fallback=has_fallback) for path, has_fallback in reader.found.items()]


# What these read may be missing: nothing is printed then, and what is inside them has been asked for.
_CONDITIONS = (IfNode, UnlessNode, CaseNode, ConditionalBlockNode, MultiExpressionBlockNode)
_LOOPS = (ForNode, TablerowNode)


@dataclass
class _Reader:
    """Walks a template, knowing which names are its own and which paths the conditions around have asked for."""

    context: RenderContext
    found: dict[str, bool] = field(default_factory=dict)
    assigned: set[str] = field(default_factory=set)

    def read(self, nodes: Iterable[Node], own: frozenset[str], asked: frozenset[str]) -> None:
        for node in nodes:
            inner = asked
            for expression in node.expressions():
                self._note(expression, own, asked, isinstance(node, (*_CONDITIONS, *_LOOPS)))
                if isinstance(node, _CONDITIONS):
                    inner |= {path.removesuffix(".size") for path in _paths(expression)}
            self.assigned |= set(map(str, node.template_scope()))
            self.read(node.children(self.context), own | set(map(str, node.block_scope())), inner)

    def _note(self, expression: Expression, own: frozenset[str], asked: frozenset[str], covered: bool) -> None:
        children = list(expression.children())
        if isinstance(expression, FilteredExpression):
            has_default = any(one.name == "default" for one in expression.filters or ())
            self._note(expression.left, own, asked, covered or has_default)
            children = children[1:]
        elif isinstance(expression, Path) and str(expression.path[0]) not in own | self.assigned:
            path = _dotted(expression)
            covered = covered or any(path == one or path.startswith(f"{one}.") for one in asked)
            self.found[path] = self.found.get(path, True) and covered
        for child in children:
            self._note(child, own, asked, covered)


def _paths(expression: Expression) -> Iterator[str]:
    if isinstance(expression, Path):
        yield _dotted(expression)
    for child in expression.children():
        yield from _paths(child)


def _dotted(path: Path) -> str:
    """`contact.plan`, `contact["plan"]` and `contact.attributes.plan` are one. Ends where it depends on data."""
    names = [str(name) for name in takewhile(lambda name: isinstance(name, str), path.path)]
    if names[0:1] == ["contact"] and len(names) > 1 and names[1] not in (*CONTACT_FIELDS, "attributes"):
        names.insert(1, "attributes")
    return ".".join(names)
