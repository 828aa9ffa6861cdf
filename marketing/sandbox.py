"""How do we run a stranger's Liquid without letting it take the worker down?

Every render has a budget of steps. A loop pays for its body at each turn, a variable for the length of its value, a
filter for what it will read and write, a buffer for what it is given. Steps instead of a clock: the same template with
the same contact always ends the same way, on any machine. What the top level costs is bounded by the source's length.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import StringIO
from typing import Any, TextIO

from liquid import BoundTemplate, Environment, Expression, Node, RenderContext, Token
from liquid.ast import BlockNode
from liquid.builtin.expressions import FilteredExpression
from liquid.builtin.expressions.filtered import Filter
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags.case_tag import MultiExpressionBlockNode
from liquid.builtin.tags.for_tag import ForNode
from liquid.builtin.tags.tablerow_tag import TablerowNode
from liquid.exceptions import LiquidError, ResourceLimitError
from liquid.tag import Tag
from liquid.undefined import UNDEFINED
from liquid.utils import ReadOnlyChainMap

from marketing import filters
from marketing.markup import NONCHARACTERS, ContentError, line_of, liquid_pieces

# A step takes 100 ns at most, so a render ends within 0.2 s. A table of 1,000 rows of 2 KB has room.
BUDGET = 2_000_000
STEPS_PER_NODE = 10
LONGEST_RANGE = 10_000

_FREE = frozenset({"default"})
_UNCLOSED = re.compile(r"expected tag (end\w+)")


class _Language(Environment):
    def error(self, exc: type[LiquidError] | LiquidError, msg: str | None = None, token: Token | None = None) -> None:
        # At the end of an expression python-liquid doesn't know where it is; the tag around it does.
        if isinstance(exc, LiquidError) and (exc.token is None or exc.token.start_index < 0):
            exc.token = token
        super().error(exc, msg, token)


def environment(*, autoescape: bool = False, tags: tuple[type[Tag], ...] = ()) -> Environment:
    """Liquid as authors may use it: no tag that loads another template, no filter that reads the clock."""
    made = _Language(autoescape=autoescape)
    filters.install(made)
    for name in ("include", "render"):
        del made.tags[name]
    for tag in tags:
        made.add_tag(tag)
    return made


def parse(source: str, language: Environment, part: str) -> BoundTemplate:
    """The template, ready to be rendered within bounds.

    Raises:
        ContentError: it isn't Liquid, or uses a filter or tag that doesn't exist, or in a way that can't work.
    """
    if strange := NONCHARACTERS.search(source):
        message = f"the character U+{ord(strange.group()):04X} is not text"
        raise ContentError(message, part=part, line=line_of(source, strange.start()))
    liquid_pieces(source, part)
    try:
        template = language.from_string(source)
        for found in below(template):
            _bound(found, language)
    except LiquidError as error:
        if isinstance(error.__cause__, RecursionError):
            raise ContentError("an expression is too deeply nested", part=part) from error
        where = error.context()
        unclosed = _UNCLOSED.match(str(error.message))
        message = f"“{{% {unclosed[1]} %}}” is missing" if unclosed else str(error.message)
        raise ContentError(message, part=part, line=where[0] if where else None) from error
    except RecursionError as error:
        raise ContentError("an expression is too deeply nested", part=part) from error
    return template


def below(root: BoundTemplate | Node) -> Iterator[Node | Expression | Filter]:
    """Everything that a template or a node is made of, from the top."""
    if isinstance(root, BoundTemplate):
        for node in root.nodes:
            yield node
            yield from below(node)
        return
    for expression in root.expressions():
        yield from _within(expression)
    for child in root.children(_NOWHERE):
        yield child
        yield from below(child)


def _within(expression: Expression) -> Iterator[Expression | Filter]:
    yield expression
    if isinstance(expression, FilteredExpression):
        yield from expression.filters or ()
    for child in expression.children():
        yield from _within(child)


def _bound(found: Node | Expression | Filter, language: Environment) -> None:
    match found:
        case Filter():
            filters.check(found, language)
        case RangeLiteral():
            # The parser offers no way to name another class; this one has the same layout.
            found.__class__ = BoundedRange
        # Not only loops: `when 1, 1, 1` renders its block once for each value that fits.
        case ForNode() | TablerowNode() | MultiExpressionBlockNode():
            found.block = MeteredBlock(found.block)


class Context(RenderContext):
    """One render: its variables and what is left of its budget."""

    __slots__ = ("left",)

    def __init__(self, template: BoundTemplate, variables: Mapping[str, object], budget: int = BUDGET) -> None:
        super().__init__(template, globals=variables)
        # Without python-liquid's own `now` and `today`, which read the clock.
        self.scope = ReadOnlyChainMap(self.locals, variables, self.counters)
        self.left = budget

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ResourceLimitError("the template does too much work", token=None)

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:
        value = super().get(path, token=token, default=default)
        if isinstance(value, str):
            self.spend(len(value))
        elif isinstance(value, (list, dict, range)):
            self.spend(filters.weight(value))
        return value

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        found = super().filter(name, token)
        return found if name in _FREE else partial(self._metered, name, found)

    def _metered(
        self, name: str, found: Callable[..., object], value: object, /, *arguments: object, **named: object
    ) -> object:
        self.spend(STEPS_PER_NODE + filters.cost(name, value, arguments))
        result = found(value, *arguments, **named)
        self.spend(filters.weight(result))
        return result

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:  # noqa: ARG002 - our own buffers share one budget
        return Buffer(self)


class Buffer(StringIO):
    """What a block writes, paid by the character."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._spend = context.spend

    def write(self, text: str, /) -> int:
        self._spend(len(text))
        return super().write(text)


class MeteredBlock(BlockNode):
    """A body that may be rendered many times, paid at each."""

    __slots__ = ("steps",)

    def __init__(self, block: BlockNode) -> None:
        super().__init__(block.token, block.nodes)
        self.blank = block.blank
        self.steps = STEPS_PER_NODE * (1 + sum(1 for _ in below(block)))

    def render_to_output(self, context: Any, buffer: TextIO) -> int:
        context.spend(self.steps)
        return super().render_to_output(context, buffer)


class BoundedRange(RangeLiteral):
    """`(1..n)`, paid by its length: by itself a range of 10⁹ costs nothing, until something makes a list of it."""

    __slots__ = ()

    def evaluate(self, context: Any) -> range:
        made = super().evaluate(context)
        length = made.stop - made.start  # len() can't tell more than 2⁶³
        if length > LONGEST_RANGE:
            raise ResourceLimitError(f"a range may have {LONGEST_RANGE:,} elements", token=self.token)
        context.spend(length)
        return made


_NOWHERE = RenderContext(BoundTemplate(Environment(), []))
