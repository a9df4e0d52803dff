# SPDX-License-Identifier: Apache-2.0
"""Ranges of addresses as single integers, and what an ipBlock leaves when its exceptions are cut out.

A *code* is a range in one integer: its first address, its prefix length and its family. Codes hash and compare much
faster than :class:`sdn.model.address.Range`, of which there are hundreds of thousands in a large cluster.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from sdn.model.address import Address, Range
from sdn.policy.aligned import aligned

_LENGTH_BITS: Final = 9
_REMEMBERED: Final = 65_536


def code_of(address: Address) -> int:
    """The range that holds one address alone."""
    if address.version == 4:
        return address.value << _LENGTH_BITS | 32 << 1
    return address.value << _LENGTH_BITS | 128 << 1 | 1


def range_of(code: int) -> Range:
    """The range behind a code."""
    return Range(6 if code & 1 else 4, code >> _LENGTH_BITS, code >> 1 & 0xFF)


def _code(version: int, network: int, length: int) -> int:
    return network << _LENGTH_BITS | length << 1 | (version == 6)


#: Every address of both families.
ANYWHERE: Final = frozenset((_code(4, 0, 0), _code(6, 0, 0)))
#: No address.
NOWHERE: Final[frozenset[int]] = frozenset()


def blocks(cidrs: Iterable[tuple[str, tuple[str, ...]]]) -> frozenset[int]:
    """The fewest ranges that together hold what is in any of the CIDRs and not in that one's exceptions."""
    given = tuple(cidrs)
    if len(given) == 1 and not given[0][1]:
        return _block(given[0][0])
    return _blocks(frozenset(given))


@lru_cache(maxsize=_REMEMBERED)
def _block(cidr: str) -> frozenset[int]:
    network = ipaddress.ip_network(cidr, strict=False)
    return frozenset((_code(network.version, int(network.network_address), network.prefixlen),))


@lru_cache(maxsize=_REMEMBERED)
def _blocks(cidrs: frozenset[tuple[str, tuple[str, ...]]]) -> frozenset[int]:
    spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for cidr, exceptions in cidrs:
        version, first, last = _span(cidr)
        for hole in sorted(_span(one) for one in exceptions):
            if hole[0] != version or hole[2] < first or hole[1] > last:
                continue
            if hole[1] > first:
                spans[version].append((first, hole[1] - 1))
            first = max(first, hole[2] + 1)
        if first <= last:
            spans[version].append((first, last))
    return frozenset(code for version, each in spans.items() for code in _cover(version, each))


def _span(cidr: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(cidr, strict=False)
    return network.version, int(network.network_address), int(network.broadcast_address)


def _cover(version: int, spans: list[tuple[int, int]]) -> list[int]:
    """The fewest CIDRs that hold exactly the addresses of these spans."""
    bits = 32 if version == 4 else 128
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return [_code(version, *block) for first, last in merged for block in aligned(first, last, bits)]


def holds(codes: frozenset[int], lengths: tuple[tuple[int, ...], tuple[int, ...]], address: int) -> bool:
    """Whether one of the ranges holds the address with this code; ``lengths`` is :func:`lengths_of` the ranges."""
    family = address & 1
    bits = 128 if family else 32
    value = address >> _LENGTH_BITS
    for length in lengths[family]:
        shift = bits - length
        if (value >> shift << shift) << _LENGTH_BITS | length << 1 | family in codes:
            return True
    return False


def lengths_of(codes: frozenset[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The prefix lengths that occur among ranges, of IPv4 and of IPv6."""
    of_four = sorted({code >> 1 & 0xFF for code in codes if not code & 1})
    of_six = sorted({code >> 1 & 0xFF for code in codes if code & 1})
    return tuple(of_four), tuple(of_six)
