"""A step that an author has written is taken when it is awaited: what is it until then, and if it never is?"""

import sys
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from pathlib import Path
from types import CoroutineType
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")
Word = TypeVar("Word", bound=Callable[..., Coroutine[Any, Any, Any]])


class Step(Coroutine[Any, Any, T]):
    """What every word of a journey gives: the step is taken when this is awaited, and says no more before."""

    __slots__ = ("_at", "_author", "_code", "_untaken")

    def __init__(self, code: Coroutine[Any, Any, T], untaken: "dict[Step[Any], None]") -> None:
        self._code, self._untaken = code, untaken
        untaken[self] = None
        caller = sys._getframe(2)  # of the word
        self._author, self._at = caller.f_code, caller.f_lasti

    def __await__(self) -> Generator[Any, Any, T]:
        self._untaken.pop(self, None)
        return self._code.__await__()

    def send(self, value: Any, /) -> Any:
        self._untaken.pop(self, None)
        return self._code.send(value)

    def throw(self, *error: Any) -> Any:
        self._untaken.pop(self, None)  # a task that is cancelled before it begins: its author knows of it
        return self._code.throw(*error)

    def close(self) -> None:
        self._code.close()

    def __bool__(self) -> bool:
        raise TypeError(self.forgotten)

    def __eq__(self, other: object) -> bool:
        raise TypeError(self.forgotten)

    __hash__ = object.__hash__

    @property
    def forgotten(self) -> str:
        word = cast("CoroutineType[Any, Any, T]", self._code).__name__
        line = next(line for start, end, line in self._author.co_lines() if start <= self._at < end)
        there = f"{Path(self._author.co_filename).name}:{line}"
        return f"`journey.{word}(…)` ({there}) was not awaited: write `await journey.{word}(…)`"


class _Journey(Protocol):
    untaken: "dict[Step[Any], None]"  # in order


def step_word(function: Word) -> Word:
    """A word of journeys, which gives a `Step`."""

    @wraps(function)
    def said(self: _Journey, *args: Any, **kwargs: Any) -> Step[Any]:
        return Step(function(self, *args, **kwargs), self.untaken)

    return cast(Word, said)
