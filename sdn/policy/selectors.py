# SPDX-License-Identifier: Apache-2.0
"""Label selectors in one canonical form, and both ways to look them up fast.

A :data:`Selector` is a plain tuple, equal for selectors that say the same, which hashes as fast as Python can. Among
thousands of selectors :class:`Filing` finds those that take some labels, and among thousands of labelled things
:class:`Catalog` finds those that a selector may take: both look under one label that the selector asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from sdn.model.labels import Operator
from sdn.model.selector import LabelSelectorRequirement, LabelSelectorSpec

Thing = TypeVar("Thing")

#: Selectors remembered in canonical form. Most policies of a cluster share few.
_REMEMBERED: Final = 65_536


class Need(NamedTuple):
    """One condition on one label; ``values`` ascend."""

    key: str
    operator: Operator
    values: tuple[str, ...]


#: Conditions that all must hold, in one order; none: everything is taken.
Selector: TypeAlias = tuple[Need, ...]
EVERYTHING: Final[Selector] = ()


def plain(selector: Selector) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """A selector in plain values, which look the same in every version of this program."""
    return tuple(map(tuple, selector))  # type: ignore[arg-type]


def selector_of(spec: LabelSelectorSpec) -> Selector:
    """What an object's selector means."""
    return _selector(frozenset(spec.match_labels.items()), spec.match_expressions)


@lru_cache(maxsize=_REMEMBERED)
def _selector(
    labels: frozenset[tuple[str, str]], expressions: tuple[LabelSelectorRequirement, ...]
) -> Selector:
    spec = LabelSelectorSpec(match_labels=dict(labels), match_expressions=expressions)
    return tuple(
        Need(one.key, one.operator, tuple(sorted(one.values))) for one in spec.selector().requirements
    )


def fits(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a selector takes something with these labels."""
    for key, operator, values in selector:
        value = labels.get(key)
        if operator == "in":
            holds = value in values
        elif operator == "notin":
            holds = value not in values
        else:
            holds = (value is None) == (operator == "absent")
        if not holds:
            return False
    return True


def _needed(selector: Selector) -> tuple[int, tuple[object, ...]]:
    """Which need of a selector to file it under, and the labels one of which what it takes must have: pairs, or a key
    alone. (-1, (None,)): it needs no label.
    """
    best, under = -1, (None,)  # type: tuple[int, tuple[object, ...]]
    for position, (key, operator, values) in enumerate(selector):
        if operator == "in" and (under == (None,) or isinstance(under[0], str) or len(values) < len(under)):
            best, under = position, tuple((key, value) for value in values)
        elif operator == "exists" and under == (None,):
            best, under = position, (key,)
    return best, under


class Filing(Generic[Thing]):
    """Things that have a selector, filed under a label that it needs."""

    __slots__ = ("_filed",)

    def __init__(self) -> None:
        self._filed: dict[object, list[tuple[Selector, Thing]]] = {}

    def add(self, selector: Selector, thing: Thing) -> None:
        position, under = _needed(selector)
        # Whatever is found under its label meets this need already.
        entry = (selector[:position] + selector[position + 1 :] if position >= 0 else selector, thing)
        for label in under:
            self._filed.setdefault(label, []).append(entry)

    def remove(self, selector: Selector, thing: Thing) -> None:
        for label in _needed(selector)[1]:
            left = [entry for entry in self._filed[label] if entry[1] is not thing]
            if left:
                self._filed[label] = left
            else:
                del self._filed[label]

    def fitting(self, labels: Mapping[str, str]) -> Iterator[Thing]:
        """Everything whose selector takes these labels, once each."""
        filed = self._filed
        if not filed:
            return
        for label in (None, *labels, *labels.items()):
            for rest, thing in filed.get(label, ()):
                if not rest or fits(rest, labels):
                    yield thing


class Catalog(Generic[Thing]):
    """Things that have labels, by label and by key."""

    __slots__ = ("_by",)

    def __init__(self) -> None:
        self._by: dict[object, set[Thing]] = {}

    def add(self, labels: Mapping[str, str], thing: Thing) -> None:
        for label in (*labels, *labels.items()):
            self._by.setdefault(label, set()).add(thing)

    def remove(self, labels: Mapping[str, str], thing: Thing) -> None:
        for label in (*labels, *labels.items()):
            things = self._by[label]
            things.discard(thing)
            if not things:
                del self._by[label]

    def near(self, selector: Selector) -> Collection[Thing] | None:
        """Those that may fit a selector, once each; None: any may, since it needs no label."""
        under = _needed(selector)[1]
        if under == (None,):
            return None
        if len(under) == 1:
            return self._by.get(under[0], ())
        return {thing for label in under for thing in self._by.get(label, ())}
