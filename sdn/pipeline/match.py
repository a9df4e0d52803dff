# SPDX-License-Identifier: Apache-2.0
"""A match: what a packet must look like for a flow to take it.

A match is a value: a tuple of terms (field, value, mask) in the registry's order, each field at most once,
with every prerequisite present. Two matches that mean the same are therefore equal, hash alike and encode to
the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from sdn.pipeline.fields import FIELDS, Field

#: (field, value, mask); mask None means every bit must be equal.
Term = tuple[Field, int, int | None]


@dataclass(frozen=True, slots=True)
class Match:
    """An ordered, complete match. Build it with :func:`match`, not by hand."""

    terms: tuple[Term, ...] = ()

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms)

    def get(self, name: str) -> tuple[int, int | None] | None:
        """Value and mask of the named field, or None when the match does not look at it."""
        for field, value, mask in self.terms:
            if field.name == name:
                return value, mask
        return None

    def with_value(self, field: Field, value: int) -> Match:
        """The same match with another exact value of a field that it looks at: for many matches of one shape.

        KeyError when it does not look at the field.
        """
        for place, term in enumerate(self.terms):
            if term[0] is field:
                return Match((*self.terms[:place], (field, value, None), *self.terms[place + 1 :]))
        raise KeyError(field.name)

    def __str__(self) -> str:
        parts = []
        for field, value, mask in self.terms:
            text = f"{field.name}={field.format(value)}"
            if mask is not None:
                text += f"/{format_mask(field, mask)}"
            parts.append(text)
        return ",".join(parts)


def format_mask(field: Field, mask: int) -> str:
    """A mask as text: a prefix length where it is one (addresses), else in the field's own form."""
    if field.kind in ("ipv4", "ipv6"):
        ones = mask.bit_count()
        if mask == field.all_ones ^ (field.all_ones >> ones):
            return str(ones)
    return field.format(mask)


def match(**values: int | str) -> Match:
    """A match from field names (ovs-fields(7)) and values, as integers or as text with an optional mask.

    Prerequisites that have only one form are added (``ip_dst`` brings ``eth_type=0x0800``); where there are
    two (a TCP port may ride on IPv4 or IPv6) the caller says which by giving ``eth_type`` or an address. A
    zero mask matches anything and is left out. Raises ValueError naming the field.

    >>> str(match(ip_dst="10.0.0.0/8"))
    'eth_type=0x800,ip_dst=10.0.0.0/8'
    """
    terms: list[Term] = []
    shape: list[tuple[Field, int | None]] = []
    for name, raw in values.items():
        field = FIELDS.get(name)
        if field is None:
            raise ValueError(f"unknown field {name!r}")
        value, mask = field.parse(raw)
        if mask != 0:
            terms.append((field, value, mask))
            shape.append((field, value if name in _DECIDING else None))
    implied, order = _complete(tuple(shape))
    terms.extend(implied)
    return Match(tuple([terms[place] for place in order]))


#: The fields whose values decide which others a packet has; none of them takes a mask.
_DECIDING = frozenset(
    name for field in FIELDS.values() for alternative in field.prerequisites for name, _ in alternative
)


@functools.lru_cache(maxsize=4096)
def _complete(shape: tuple[tuple[Field, int | None], ...]) -> tuple[tuple[Term, ...], tuple[int, ...]]:
    """What fields, and the values of those that decide, imply: the terms to add, and the order of all terms.

    There are few shapes and many matches, so each shape is thought about once.
    """
    values = {field.name: value for field, value in shape}
    for field, _ in shape:
        _require(values, field)
    given = [field for field, _ in shape]
    added = [FIELDS[name] for name in values if FIELDS[name] not in given]
    implied = tuple((field, value, None) for field in added if (value := values[field.name]) is not None)
    fields = [*given, *added]
    return implied, tuple(sorted(range(len(fields)), key=lambda place: fields[place].order))


def _require(values: dict[str, int | None], field: Field) -> None:
    """Add what ``field`` needs, or say why it cannot be matched."""
    possible = [alternative for alternative in field.prerequisites if _compatible(values, alternative)]
    if not possible:
        raise ValueError(f"field {field.name} cannot occur together with {', '.join(values)}")
    if len(possible) > 1:
        wanted = " or ".join(",".join(f"{name}={value:#x}" for name, value in option) for option in possible)
        raise ValueError(f"field {field.name} needs {wanted}: say which")
    for name, value in possible[0]:
        values.setdefault(name, value)


def _compatible(values: dict[str, int | None], alternative: tuple[tuple[str, int], ...]) -> bool:
    """Whether nothing said so far, nor anything that it needs in turn, contradicts the alternative."""
    implied = {name: value for name, value in values.items() if value is not None}
    for name in values:
        if len(FIELDS[name].prerequisites) == 1:
            for needed, value in FIELDS[name].prerequisites[0]:
                implied.setdefault(needed, value)
    return all(implied.get(name, value) == value for name, value in alternative)
