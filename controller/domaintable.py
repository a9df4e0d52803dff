# SPDX-License-Identifier: Apache-2.0
"""Which addresses names have, as the DNS told, and until when: a bounded table.

Of one name at most MOST_ADDRESSES are kept, those that count longest. When there are more than MOST_NAMES names, one of
the pattern that takes the most has to go, of these the one that was seen least recently: who makes up names under a
wildcard drives out names under that wildcard, and nobody's else.

Times are of any clock that goes on evenly. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sdn.model.address import Address
from sdn.policy.resolution import MOST_ADDRESSES, MOST_NAMES


@dataclass(slots=True)
class Life:
    """Of one address of one name: until when it counts; until when the store says so; when to look at it again."""

    until: float
    stored: float = 0.0
    look: float = 0.0


@dataclass(slots=True)
class Domain:
    """A name: the pattern that takes it, and its addresses."""

    pattern: str
    lives: dict[Address, Life] = field(default_factory=dict)


class DomainTable:
    """See the module."""

    def __init__(self, most_names: int = MOST_NAMES, most_addresses: int = MOST_ADDRESSES) -> None:
        self._most_names = most_names
        self._most_addresses = most_addresses
        self._domains: dict[str, Domain] = {}
        #: By pattern the names that it takes, those seen last at the end.
        self._by_pattern: dict[str, dict[str, None]] = {}

    def get(self, name: str) -> Domain | None:
        return self._domains.get(name)

    def items(self) -> list[tuple[str, Domain]]:
        """All names, as they are now."""
        return list(self._domains.items())

    def put(self, name: str, pattern: str, addresses: Collection[Address], until: float) -> list[str]:
        """A name was seen with these addresses, which count until then. Gives the names that had to go for it."""
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = Domain(pattern)
        self.file(name, pattern)
        for address in addresses:
            life = domain.lives.get(address)
            if life is None:
                domain.lives[address] = Life(until)
            else:
                life.until = max(life.until, until)
        if len(domain.lives) > self._most_addresses:
            last = sorted(domain.lives.items(), key=lambda item: item[1].until, reverse=True)
            domain.lives = dict(last[: self._most_addresses])
        gone = []
        while len(self._domains) > self._most_names:
            crowd = max(self._by_pattern.values(), key=len)
            gone.append(next(iter(crowd)))
            self.remove(gone[-1])
        return gone

    def file(self, name: str, pattern: str) -> None:
        """A name is taken by this pattern, and was seen last of all."""
        domain = self._domains[name]
        self._unfile(name, domain.pattern)
        domain.pattern = pattern
        self._by_pattern.setdefault(pattern, {})[name] = None

    def remove(self, name: str) -> None:
        """A name is forgotten."""
        domain = self._domains.pop(name, None)
        if domain is not None:
            self._unfile(name, domain.pattern)

    def _unfile(self, name: str, pattern: str) -> None:
        same = self._by_pattern.get(pattern)
        if same is not None:
            same.pop(name, None)
            if not same:
                del self._by_pattern[pattern]
