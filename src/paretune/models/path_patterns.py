"""Whether the path of a layer fits a regular expression, in bounded work: `re` may go back and forth without end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from re import _compiler, _parser  # type: ignore[attr-defined]  # a parser of our own would read patterns otherwise
from typing import Any, Final

from paretune.core.errors import AdapterError
from paretune.core.limits import MAX_PATTERN, MAX_PATTERN_STEPS
from paretune.core.user_calls import shown

Ends = Callable[[str, set[int]], set[int]]  # of a part of a pattern: a path, where it may start -> where it may end
PLAIN: Final = frozenset({"ANY", "AT", "FAILURE", "IN", "LITERAL", "NOT_LITERAL"})  # what fits in one way alone


class PathPattern:
    r"""A regular expression that follows all ways to fit at once, so that no nesting of repeats multiplies its work.

    Args:
        text: As `re` reads it.

    Raises:
        AdapterError: If it cannot be read, is too long, or has a part that only going back can match: a reference to a
            group, an atomic group, a possessive repeat.

    Source:
        Thompson 1968, Regular Expression Search Algorithm.

    Example:
        >>> pattern = PathPattern(r"(([a-z]+)+\.)+(q|v)_proj")
        >>> pattern.fits("model.layers.v_proj"), pattern.fits("model." * 20 + "k_proj")
        (True, False)
    """

    def __init__(self, text: str) -> None:
        self._text, self._steps = text, 0
        if len(text) > MAX_PATTERN:
            raise AdapterError(f"a pattern of layers must have at most {MAX_PATTERN:,} characters, got {len(text):,}.")
        try:
            tree = _parser.parse(text)
            self._ends = self._sequence(tree, tree.state.flags)
        except (re.error, RecursionError, OverflowError) as error:
            raise AdapterError(f"a pattern of layers must be readable, got {shown(text)}: {error}.") from error

    def fits(self, path: str) -> bool:
        """Tell whether the whole path fits.

        Raises:
            AdapterError: If this, with the paths before it, takes too many steps.
        """
        try:
            return len(path) in self._ends(path, {0})
        except RecursionError as error:
            raise AdapterError(f"a pattern of layers must be less nested, got {shown(self._text)}.") from error

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_PATTERN_STEPS:
            raise AdapterError(
                f"a pattern of layers must be matched in at most {MAX_PATTERN_STEPS:,} steps, got {shown(self._text)}. "
                "Name the layers in a list."
            )

    def _sequence(self, tree: Any, flags: int) -> Ends:
        parts: list[Ends] = []
        plain: list[Any] = []
        for node in tree:
            if str(node[0]) in PLAIN:
                plain.append(node)
                continue
            parts += [*self._plain(tree, plain, flags), self._part(str(node[0]), node[1], flags)]
            plain = []
        parts += self._plain(tree, plain, flags)

        def ends(path: str, at: set[int]) -> set[int]:
            for part in parts:
                at = part(path, at) if at else at
            return at

        return ends

    def _plain(self, tree: Any, nodes: Sequence[Any], flags: int) -> Iterable[Ends]:
        if nodes:
            fits = _compiler.compile(_parser.SubPattern(tree.state, list(nodes)), flags)

            def ends(path: str, at: set[int]) -> set[int]:
                self._count(len(at))
                return {found.end() for start in at if (found := fits.match(path, start)) is not None}

            yield ends

    def _part(self, name: str, of: Any, flags: int) -> Ends:
        if name == "SUBPATTERN":
            _, more, less, tree = of
            return self._sequence(tree, (flags | more) & ~less)
        if name == "BRANCH":
            ways = [self._sequence(tree, flags) for tree in of[1]]
            return lambda path, at: set().union(*(way(path, at) for way in ways))
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(of[0], of[1], self._sequence(of[2], flags))
        if name in ("ASSERT", "ASSERT_NOT"):
            direction, tree = of
            inner, back = self._sequence(tree, flags), tree.getwidth()[0] if direction < 0 else 0
            wanted = name == "ASSERT"

            def ends(path: str, at: set[int]) -> set[int]:
                self._count(len(at))
                found = {each: each >= back and inner(path, {each - back}) for each in at}
                return {each for each, way in found.items() if bool(way and (not back or each in way)) == wanted}

            return ends
        raise AdapterError(f"a pattern of layers must have no {name.lower()}, got {shown(self._text)}.")

    def _repeat(self, low: int, high: int, inner: Ends) -> Ends:
        def ends(path: str, at: set[int]) -> set[int]:
            for _ in range(low):
                self._count(1)
                before, at = at, inner(path, at)
                if at == before or not at:  # and so they stay
                    break
            found, new = set(at), at
            for _ in range(high - low) if high is not _parser.MAXREPEAT else count():
                self._count(1)
                new = inner(path, new) - found
                if not new:
                    break
                found |= new
            return found

        return ends
