# SPDX-License-Identifier: Apache-2.0
"""Addresses of controllers: how they are written, and in which order a node goes through them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

_CONTROLLER: Final = re.compile(r"unix:/.+|(\[[0-9a-fA-F:.]+\]|[^\[\]:]+):[0-9]{1,5}")
#: How a controller that does not own a node says who does: "Node X is CONTROLLER's at ADDRESS".
_ELSEWHERE: Final = re.compile(r"'s at (\S+?)\.?$")


def is_controller(text: str) -> bool:
    """Whether this is HOST:PORT, [IPv6]:PORT or unix:/PATH."""
    return _CONTROLLER.fullmatch(text) is not None


def spread(node: str, controllers: Iterable[str]) -> list[str]:
    """The controllers, each once, in an order that is always the same for a node and another one for the next: of many
    nodes equally many begin with each, and one that goes is replaced by all the others alike.
    """

    def place(controller: str) -> bytes:
        return hashlib.blake2b(f"{node}\0{controller}".encode(), digest_size=8).digest()

    return sorted(set(controllers), key=place)


def elsewhere(details: str | None) -> str:
    """The address that a controller's refusal names as the owner's; empty: it names none."""
    found = _ELSEWHERE.search(details or "")
    return found[1] if found is not None and is_controller(found[1]) else ""
