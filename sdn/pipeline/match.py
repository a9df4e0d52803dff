# SPDX-License-Identifier: Apache-2.0
"""A match: what a packet must look like for a flow to take it.
 A match is a value: a tuple of terms (field, value, mask) in the registry's order, each field at most once,
with every prerequisite present. Two matches that mean the same are therefore equal, hash alike and encode to
the same bytes.
"""

from __future__ import annotations

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
    terms: dict[str, Term] = {}
    for name, raw in values.items():
        field = FIELDS.get(name)
        if field is None:
            raise ValueError(f"unknown field {name!r}")
        value, mask = field.parse(raw)
        if mask != 0:
            terms[name] = (field, value, mask)
    for name in list(terms):
        _require(terms, FIELDS[name])
    return Match(tuple(sorted(terms.values(), key=lambda term: term[0].order)))


def _require(terms: dict[str, Term], field: Field) -> None:
    """Add what ``field`` needs, or say why it cannot be matched."""
    possible = [alternative for alternative in field.prerequisites if _compatible(terms, alternative)]
    if not possible:
        raise ValueError(f"field {field.name} cannot occur together with {Match(tuple(terms.values()))}")
    if len(possible) > 1:
        wanted = " or ".join(",".join(f"{name}={value:#x}" for name, value in option) for option in possible)
        raise ValueError(f"field {field.name} needs {wanted}: say which")
    for name, value in possible[0]:
        terms.setdefault(name, (FIELDS[name], value, None))


def _compatible(terms: dict[str, Term], alternative: tuple[tuple[str, int], ...]) -> bool:
    """Whether nothing said so far, nor anything that it needs in turn, contradicts the alternative."""
    implied = {name: value for name, (_, value, mask) in terms.items() if mask is None}
    for field, _, _ in list(terms.values()):
        if len(field.prerequisites) == 1:
            for name, value in field.prerequisites[0]:
                implied.setdefault(name, value)
    return all(implied.get(name, value) == value for name, value in alternative)
