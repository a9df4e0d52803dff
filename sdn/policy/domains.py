# SPDX-License-Identifier: Apache-2.0
"""Domains: the addresses that the DNS gave for names, by the patterns with which rules name them as peers.

A pattern is a name, or ``*.`` and the end of names (see :func:`sdn.policy.matching.domain_matches`). Case and a dot at
the end mean nothing.
"""

from __future__ import annotations

from sdn.model.address import Address
from sdn.policy.addresses import AddressBook
from sdn.policy.groups import Collected
from sdn.policy.journal import Journal
from sdn.policy.matching import domain_matches
from sdn.policy.named import look_again
from sdn.policy.networks import code_of, range_of
from sdn.policy.resolution import plain


class Domain(Collected):
    """The addresses of the names that a pattern takes."""

    __slots__ = ("pattern",)

    def __init__(self, pattern: str, book: AddressBook) -> None:
        super().__init__(("domain name", pattern), book)
        self.pattern = pattern


class Domains:
    """See the module."""

    def __init__(self, book: AddressBook, journal: Journal) -> None:
        self._book = book
        self._journal = journal
        self._addresses: dict[str, frozenset[int]] = {}
        self._patterns: dict[str, Domain] = {}

    def put(self, name: str, addresses: frozenset[Address]) -> None:
        """These are the addresses of a name now; without any it is forgotten."""
        name = plain(name)
        new = frozenset(map(code_of, addresses))
        old = self._addresses.pop(name, frozenset())
        if new:
            self._addresses[name] = new
        for pattern in (name, *_wildcards(name)):
            domain = self._patterns.get(pattern)
            if domain is None:
                continue
            for code in old ^ new:
                self._journal.note_source(domain, code)
            for code in new - old:
                domain.add(code)
            for code in old - new:
                domain.remove(code)
            look_again(domain.named, old ^ new)

    def known(self) -> dict[str, frozenset[Address]]:
        """All names, with their addresses."""
        return {
            name: frozenset(Address(one.version, one.network) for one in map(range_of, codes))
            for name, codes in self._addresses.items()
        }

    def domain(self, pattern: str) -> Domain:
        """What a pattern takes; it is made when nobody needed it before."""
        domain = self._patterns.get(pattern)
        if domain is None:
            domain = self._patterns[pattern] = Domain(pattern, self._book)
            names = self._addresses if pattern.startswith("*.") else (pattern,)
            for name in names:
                if domain_matches(pattern, name):
                    for code in self._addresses.get(name, ()):
                        domain.add(code)
        return domain

    def release(self, domain: Domain) -> None:
        """When somebody may have been the last to need a pattern."""
        if not domain.used and self._patterns.get(domain.pattern) is domain:
            del self._patterns[domain.pattern]
            domain.forget_all()


def _wildcards(name: str) -> list[str]:
    """The patterns with ``*.`` that take a name."""
    labels = name.split(".")
    return ["*." + ".".join(labels[start:]) for start in range(1, len(labels))]
