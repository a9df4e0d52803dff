# SPDX-License-Identifier: Apache-2.0
"""Tells the link who answers for a LoadBalancer address from now on.

Whoever held another node's MAC for the address learns the new one at once: by ARP announcements (RFC 5227 section 3: a
request with the address as sender and target) and unsolicited neighbour advertisements with the override flag (RFC 4861
section 7.2.6). Three at take-over, a second apart, then one once in a while for what was lost and for switches that
forget.

Answers to questions are the kernel's (`agent.nodesetup.announcing`); nothing here must be in time.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Collection
from typing import Final

from agent.ipam import Address
from sdn import logs

log: Final = logs.get("agent.services.gratuitous")
_TIMES: Final = 3
_APART_SECONDS: Final = 1.0
_SELDOM_SECONDS: Final = 300.0
_BROADCAST: Final = b"\xff" * 6
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_ALL_NODES: Final = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ETH_ARP, _ETH_IPV6 = 0x0806, 0x86DD
_ADVERTISEMENT: Final = 136
#: Router and override; not solicited. The node is a router, and a change of that flag would make hosts drop it.
_FLAGS: Final = 0xA0000000
_TARGET_LINK_LAYER: Final = 2


def frame(address: Address, mac: bytes) -> bytes:
    """The Ethernet frame that claims an address for a MAC (six bytes)."""
    if address.version == 4:
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        body += mac + address.packed + bytes(6) + address.packed
        return _BROADCAST + mac + struct.pack("!H", _ETH_ARP) + body
    icmp = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _FLAGS) + address.packed
    icmp += struct.pack("!BB", _TARGET_LINK_LAYER, 1) + mac
    checksum = _checksum(address.packed + _ALL_NODES + struct.pack("!IHBB", len(icmp), 0, 0, 58) + icmp)
    icmp = icmp[:2] + struct.pack("!H", checksum) + icmp[4:]
    header = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + address.packed + _ALL_NODES
    return _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_IPV6) + header + icmp


def _checksum(data: bytes) -> int:
    """RFC 1071; `data` has an even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Announcer:
    """What is announced, and when it is said again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._interface = ""
        #: Of each address: how often it was said, and when it is said next (monotonic seconds).
        self._turns: dict[Address, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def serve(self, interface: str, announced: Collection[Address]) -> None:
        """Announce these addresses, and no others from now on."""
        with self._lock:
            self._interface = interface
            kept = {address: turn for address, turn in self._turns.items() if address in announced}
            new = {address: (0, 0.0) for address in announced if address not in kept}
            self._turns = kept | new
        if new:
            self._wake.set()

    def _run(self) -> None:
        pause: float | None = None
        while not self._stop.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stop.is_set():
                return
            with self._lock:
                now = time.monotonic()
                due = [address for address, (_said, at) in self._turns.items() if at <= now]
                interface = self._interface
                try:
                    _send(interface, due)
                except OSError as problem:
                    # The interface is away, as br-phy is while ovs-vswitchd starts anew: said with the next turn.
                    log.debug("not announced", interface=interface, error=str(problem))
                    said = 0
                else:
                    said = 1
                for address in due:
                    count = self._turns[address][0] + said
                    self._turns[address] = (
                        count,
                        now + (_APART_SECONDS if count < _TIMES else _SELDOM_SECONDS),
                    )
                nexts = [at for _said, at in self._turns.values()]
            pause = max(0.0, min(nexts) - time.monotonic()) if nexts else None


def _send(interface: str, addresses: Collection[Address]) -> None:
    if not addresses:
        return
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, 0) as link:
        link.bind((interface, 0))
        mac = link.getsockname()[4]
        for address in addresses:
            link.send(frame(address, mac))
