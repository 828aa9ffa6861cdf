"""Which ways do declared steps have?"""

from collections.abc import Mapping, Sequence
from typing import Any

from marketing.flows import Block, Do, Flow, Fork, Leave
from marketing.segment_sentences import Names
from marketing.step_sentences import said


def flow(steps: Sequence[Mapping[str, Any]], names: Names) -> Flow:
    """The way through steps as they are stored, in JSON."""
    return tuple(_block(step, names) for step in steps)


def _block(step: Mapping[str, Any], names: Names) -> Block:
    label = said(step["type"], step, names)
    match step["type"]:
        case "exit":
            return Leave(label)
        case "branch" | "wait_for":
            yes, no = (flow(step.get(way, ()), names) for way in ("then", "else"))
            return Fork(label, (("yes", yes), ("no", no)), asks=True)
        case "split":
            variants = step["variants"]
            shares = shares_said({name: variant["weight"] for name, variant in variants.items()})
            ways = ((shares[name], flow(variant.get("steps", ()), names)) for name, variant in variants.items())
            return Fork(label, tuple(ways), asks=True)
    return Do(label)


def shares_said(weights: Mapping[str, int]) -> dict[str, str]:
    """Each name with its share: `a: 25 %`."""
    total = sum(weights.values())
    return {name: f"{name}: {100 * weight / total:.4g} %" for name, weight in weights.items()}
