# SPDX-License-Identifier: Apache-2.0
"""Kernel settings of the node's network namespace (/proc/sys/net)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_ROOT: Final = Path("/proc/sys/net")


def get(key: str) -> str | None:
    """The value of a key such as "ipv4/ip_forward"; None when this kernel has no such key."""
    try:
        return (_ROOT / key).read_text().strip()
    except FileNotFoundError:
        return None


def put(key: str, value: str) -> bool:
    """Set a key if it exists and differs; whether it was changed."""
    if get(key) in (None, value):
        return False
    (_ROOT / key).write_text(value)
    return True


def forward_packets(uplink: str) -> None:
    """The node is its pods' router.

    With forwarding on, the kernel takes no router advertisements any more unless accept_ra is 2: a node that has its
    own default route from them would lose it.
    """
    put("ipv4/ip_forward", "1")
    if get(f"ipv6/conf/{uplink}/accept_ra") == "1":
        put(f"ipv6/conf/{uplink}/accept_ra", "2")
    put("ipv6/conf/all/forwarding", "1")


def own_ports() -> tuple[int, int] | None:
    """First and last port that the node's own connections have on its side; None where the kernel does not tell."""
    words = (get("ipv4/ip_local_port_range") or "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else None
