"""What does the way of a contact look like? Drawn as Mermaid: https://mermaid.js.org."""

from collections.abc import Iterable
from dataclasses import dataclass, field

LONGEST_LABEL = 200


@dataclass(frozen=True)
class Do:
    """Something is done, or waited for."""

    label: str


@dataclass(frozen=True)
class Fork:
    """One of several ways is gone, each with its answer to the question."""

    question: str
    ways: "tuple[tuple[str, Flow], ...]"
    asks: bool = False  # a step of its own, and not only what one thinks of what is known


@dataclass(frozen=True)
class Loop:
    """The same way again and again."""

    label: str
    body: "Flow"
    endless: bool = False  # left only from within


@dataclass(frozen=True)
class Jump:
    """Out of the innermost loop, or on to its next round."""

    out: bool


@dataclass(frozen=True)
class Leave:
    """The contact leaves."""

    label: str


Block = Do | Fork | Loop | Jump | Leave
Flow = tuple[Block, ...]


def mermaid(entered: str, flow: Flow) -> str:
    """A flowchart from how contacts enter to how they leave."""
    drawing = _Drawing()
    ends = drawing.draw(flow, [_End(drawing.node(f'(["{_safe(entered)}"])'))])
    drawing.connect(ends, '(["Completed"])')
    return "\n".join(["flowchart TD", *(f"    {line}" for line in drawing.lines), ""])


@dataclass(frozen=True)
class _End:
    """What the next arrow comes from, and what is written on it."""

    node: str
    answer: str = ""


@dataclass
class _Drawing:
    lines: list[str] = field(default_factory=list)
    nodes: int = 0
    loops: list[tuple[str, list[_End]]] = field(default_factory=list)  # where each begins, and the ways out of it

    def draw(self, flow: Iterable[Block], ends: list[_End]) -> list[_End]:
        """The blocks one after the other; gives where the way goes on from. What nobody comes to is not drawn."""
        for block in flow:
            if ends:
                ends = self._block(block, ends)
        return ends

    def _block(self, block: Block, ends: list[_End]) -> list[_End]:
        match block:
            case Do(label):
                return [_End(self.connect(ends, f'["{_safe(label)}"]'))]
            case Leave(label):
                self.connect(ends, f'(["{_safe(label)}"])')
                return []
            case Fork(question, ways, _):
                asked = self.connect(ends, f'{{"{_safe(question)}"}}')
                return [end for answer, flow in ways for end in self.draw(flow, [_End(asked, answer)])]
            case Loop(label, body, endless):
                begin = self.connect(ends, f'{{{{"{_safe(label)}"}}}}')
                self.loops.append((begin, []))
                self._arrows(self.draw(body, [_End(begin, "" if endless else "again")]), begin)
                _, ways_out = self.loops.pop()
                return ways_out if endless else [_End(begin, "then"), *ways_out]
            case Jump(out):
                begin, ways_out = self.loops[-1]
                if out:
                    ways_out += ends
                else:
                    self._arrows(ends, begin)
                return []

    def connect(self, ends: list[_End], shape: str) -> str:
        """A node that all these ends lead to; none if nobody comes there."""
        if not ends:
            return ""
        node = self.node(shape)
        self._arrows(ends, node)
        return node

    def node(self, shape: str) -> str:
        self.nodes += 1
        self.lines.append(f"n{self.nodes}{shape}")
        return f"n{self.nodes}"

    def _arrows(self, ends: Iterable[_End], node: str) -> None:
        for end in ends:
            answer = f'|"{_safe(end.answer)}"|' if end.answer else ""
            self.lines.append(f"{end.node} -->{answer} {node}")


def _safe(text: str) -> str:
    """One line that Mermaid takes for words and nothing else."""
    line = " ".join(text.split())
    line = line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…"
    return "".join(_CODES.get(letter, letter) for letter in line).replace("%%", "%#37;")  # which would be a directive


_CODES = {letter: f"#{ord(letter)};" for letter in '#"<>&`\\'}
