# SPDX-License-Identifier: Apache-2.0
"""Whose flow is it: the 64-bit cookie names the feature and the object.

Bits 63..56 hold the feature, bits 55..0 the first 56 bits of BLAKE2b over ``Kind/namespace/name``. The
cookie is a pure function of the object's name: any controller computes the same one without asking another,
and a flow read from a switch is matched to its object by computing the cookies of the objects that exist. Two
objects of a million share one with a chance of one in 100,000; then a listing names both, and nothing else is
affected, since flows are told apart by table, priority and match.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from dataclasses import dataclass

OBJECT_BITS = 56
UNOWNED_COOKIE = 0


class Feature(enum.IntEnum):
    """The part of the pipeline that a flow belongs to. Numbers are on the wire: never renumber, only add."""

    CLASSIFICATION = 1
    SPOOF_GUARD = 2
    ARP_RESPONDER = 3
    ND_RESPONDER = 4
    BRIDGING = 5
    ROUTING = 6
    DELIVERY = 7
    SERVICES = 8
    SESSION_AFFINITY = 9
    POLICY = 10
    HOLDERS = 11


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """The Kubernetes object behind a flow. ``namespace`` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


@functools.lru_cache(maxsize=65536)
def _object_hash(owner: Owner) -> int:
    text = f"{owner.kind}/{owner.namespace}/{owner.name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=OBJECT_BITS // 8).digest(), "big")


def cookie(feature: Feature, owner: Owner) -> int:
    """The cookie of the flows that ``feature`` makes for ``owner``."""
    return feature << OBJECT_BITS | _object_hash(owner)


def feature_of(value: int) -> Feature | None:
    """The feature that a cookie names, or None when it is not one of ours."""
    try:
        return Feature(value >> OBJECT_BITS)
    except ValueError:
        return None
