# SPDX-License-Identifier: Apache-2.0
"""Intruders who never cease: a process that sends packets of every kind to an address that a pod is about to get.

    python -m tests.lab.policy_flood     the plan, then where to aim, as lines of JSON on stdin, until its end

A pod's packets are written to its interface as frames, so that nobody has to answer for an address that is nobody's
yet. A machine's go through its own stack, which knows the way to all pods.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sdn.lab import namespaces
from tests.lab.ordered import Ordered
from tests.lab.policy_frames import INSIDE, KINDS, OUTSIDE, packets
from tests.lab.service_sockets import family_of

MARK = "INTRUDER"
GATEWAY_MAC = "0a:58:00:00:00:01"
#: Seconds between two looks at what is due; what could not be sent in so many is not made up for.
_TICK, _BEHIND = 0.004, 0.05
#: Through what, what, and to whom where that is not in it.
Sending = tuple[socket.socket, bytes, tuple[Any, ...]]
_ETHERTYPE = {socket.AF_INET: 0x0800, socket.AF_INET6: 0x86DD}


@dataclass(frozen=True)
class Intruder:
    """Who sends. With a `mac`: a pod, on `node`."""

    name: str
    netns: str
    addresses: tuple[str, ...]
    node: str = ""
    mac: str = ""
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True)
class Target:
    """A pod that is there, or is about to be."""

    addresses: tuple[str, ...]
    mac: str
    node: str


class Flood(Ordered):
    """The process, for the time of a `with` block. `rate`: packets a second, of each intruder."""

    def __init__(self, intruders: Sequence[Intruder], rate: int) -> None:
        super().__init__("-m", "tests.lab.policy_flood")
        try:
            self.order({"intruders": [asdict(one) for one in intruders], "rate": rate})
        except BaseException:
            self.end()
            raise

    def aim(self, *targets: Target) -> dict[str, int]:
        """From now on at these; how many packets each intruder has sent to the former ones."""
        return self.order({"aim": [asdict(one) for one in targets]})


class _Mouth:
    """Through which one intruder sends."""

    def __init__(self, intruder: Intruder) -> None:
        self.intruder = intruder
        self._channels: dict[int, socket.socket] = {}
        with namespaces.entered(intruder.netns):
            if intruder.mac:
                channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                channel.bind(("eth0", 0))
                self._channels = dict.fromkeys(_ETHERTYPE, channel)
            else:
                self._channels = {
                    family: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                    for family in _ETHERTYPE
                }
        for channel in self._channels.values():
            channel.setblocking(False)
        self._sends: Iterator[Sending] = iter(())
        self.sent = 0

    def aim(self, targets: Sequence[Target]) -> None:
        """Every kind of packet in turn, of both families, to all of them."""
        self._sends = _in_turn([self._at(target, index) for target in targets for index in range(2)])
        self.sent = 0

    def _at(self, target: Target, index: int) -> Iterator[Sending]:
        source, destination = self.intruder.addresses[index], target.addresses[index]
        family = family_of(source)
        channel = self._channels[family]
        next_hop = target.mac if target.node == self.intruder.node else GATEWAY_MAC
        header = _raw(next_hop) + _raw(self.intruder.mac) + _ETHERTYPE[family].to_bytes(2, "big")
        mark, kinds = f"{MARK}|{self.intruder.name}", self.intruder.kinds
        for packet in packets(source, destination, OUTSIDE, INSIDE, mark, kinds):
            if self.intruder.mac:
                yield channel, header + packet, ()
            else:
                yield channel, packet, (destination, 0)

    def send(self, count: int) -> None:
        for channel, data, where in itertools.islice(self._sends, count):
            try:
                if where:
                    channel.sendto(data, where)
                else:
                    channel.send(data)
            except OSError:  # a full buffer, or no route for a moment: not counted as sent
                continue
            self.sent += 1


def _in_turn(endless: Sequence[Iterator[Sending]]) -> Iterator[Sending]:
    while endless:
        yield from map(next, endless)


def _raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    mouths = [_Mouth(Intruder(**fields)) for fields in plan["intruders"]]
    print("{}", flush=True)
    os.set_blocking(0, False)
    orders, due = b"", time.monotonic()
    while True:
        try:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, orders = (orders + data).split(b"\n")
            for line in lines:
                sent = Counter({mouth.intruder.name: mouth.sent for mouth in mouths})
                targets = [Target(**fields) for fields in json.loads(line)["aim"]]
                for mouth in mouths:
                    mouth.aim(targets)
                print(json.dumps(sent), flush=True)
        except BlockingIOError:
            pass
        now = time.monotonic()
        due = max(due, now - _BEHIND)
        count = int((now - due) * plan["rate"])
        due += count / plan["rate"]
        for mouth in mouths:
            mouth.send(count)
        time.sleep(_TICK)


if __name__ == "__main__":
    main()
