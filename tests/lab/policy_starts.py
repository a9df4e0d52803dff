# SPDX-License-Identifier: Apache-2.0
"""A pod's life, watched from before its first millisecond until after its last one.

The runtime's calls, one by one, so that there is time between them to look: a socket that sees every frame is in the
pod's network namespace before the CNI plugin is executed, hence before there is an interface. As soon as there is one,
somebody inside speaks to everybody, with the address that the pod is about to get. Agents give addresses in turn, so
that address is known beforehand, and intruders send to it all the time.
"""

from __future__ import annotations

import ipaddress
import itertools
import secrets
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from agent import ipam
from sdn.lab import namespaces
from sdn.lab.errors import CniError
from sdn.lab.lab import Lab
from sdn.lab.spec import FAR_V4, FAR_V6
from sdn.lab.state import PodRecord
from tests.lab import accounts
from tests.lab.policy_flood import GATEWAY_MAC, MARK, Flood, Intruder, Target
from tests.lab.policy_frames import INSIDE, KINDS, LONE, OUTSIDE, mark_of, packets

_SOL_PACKET, _PACKET_IGNORE_OUTGOING, _SO_RCVBUFFORCE = 263, 23, 33
_ETH_P_ALL, _ICMPV6 = 0x0003, 58
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
#: Types of ICMPv6 that neighbours speak of themselves with (RFC 4861), on the link only.
_NEIGHBOUR_TYPES = range(133, 138)
_SPOKEN = "SPOKEN"
_PAUSE = 0.0005
#: A node's own interface of its switch.
_GATEWAY = "sdn-gw0"
#: (who, IP version, kind of packet)
Seen = Counter[tuple[str, int, str]]


class Ears:
    """Sees every frame that arrives in a namespace, also by interfaces that come later."""

    def __init__(self, netns: str, interface: str = "") -> None:
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 25)
        self._socket.setblocking(False)
        if interface:
            self._socket.bind((interface, _ETH_P_ALL))

    def heard(self) -> list[bytes]:
        """IP packets since the last call, as frames; what a namespace tells itself is left out."""
        found = []
        while True:
            try:
                frame, where = self._socket.recvfrom(65535)
            except BlockingIOError:
                return found
            if where[0] != "lo" and where[1] in _ETHERTYPE.values():
                found.append(frame)

    def missed(self) -> int:
        """Frames for which there was no room, since the last call (PACKET_STATISTICS)."""
        return int.from_bytes(self._socket.getsockopt(_SOL_PACKET, 6, 8)[4:8], "little")

    def close(self) -> None:
        self._socket.close()


def source_of(frame: bytes) -> str:
    packed = frame[26:30] if frame[12:14] == b"\x08\x00" else frame[22:38]
    return str(ipaddress.ip_address(packed))


def version_of(frame: bytes) -> int:
    return 4 if frame[12:14] == b"\x08\x00" else 6


def _of_neighbours(frame: bytes) -> bool:
    return version_of(frame) == 6 and frame[20] == _ICMPV6 and frame[54] in _NEIGHBOUR_TYPES


class Mouth(threading.Thread):
    """Speaks inside a namespace, in turn of all that is given, from when there is an interface that is up."""

    def __init__(self, netns: str, frames: Sequence[Iterator[bytes]]) -> None:
        super().__init__()
        self._frames = itertools.cycle(frames)
        self._ended = threading.Event()
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setblocking(False)
        #: When the first frame went out, and how many did.
        self.began: float | None = None
        self.spoken = 0

    def run(self) -> None:
        while not self._ended.wait(_PAUSE):
            # There is no interface yet, it is down, or it is gone.
            with suppress(OSError):
                self._socket.sendto(next(next(self._frames)), ("eth0", 0))
                if self.began is None:
                    self.began = time.monotonic()
                self.spoken += 1

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._socket.close()


@dataclass
class Life:
    """What was seen of one pod."""

    number: int
    group: str
    addresses: tuple[str, ...] = ()
    #: Whether these were known beforehand.
    aimed: bool = False
    #: Packets of intruders that arrived.
    intruders: Seen = field(default_factory=Counter)
    #: Other packets that arrived: sources.
    strangers: Counter[str] = field(default_factory=Counter)
    #: Packets of this pod that arrived somewhere.
    escaped: Seen = field(default_factory=Counter)
    spoken: int = 0
    #: Packets that each intruder sent to its address.
    flooded: Mapping[str, int] = field(default_factory=dict)
    #: Seconds from when the interface was up until ADD was answered, and that ADD took.
    early: float = 0.0
    seconds: float = 0.0
    #: The code of a failed ADD.
    failed: int | None = None


class Starts:
    """Makes pods on one node, each with everybody against it. For the time of a `with` block."""

    def __init__(self, lab: Lab, node: str, intruders: Sequence[Intruder], rate: int) -> None:
        self.lab = lab
        self.node = node
        self.lives: list[Life] = []
        # A switch may hold a fragment for half a minute: what comes late of somebody else's is not taken for ours.
        self._mark = f"{_SPOKEN}{secrets.token_hex(4)}"
        self._machine = lab.spec.node(node)
        self._intruders = intruders
        self._by_address = {address: one.name for one in intruders for address in one.addresses}
        self._own = {self._machine.ipv4, self._machine.ipv6}
        self._ranges = [ipaddress.ip_network(usage.range) for usage in accounts.agent_state(lab, node).ranges]
        self._own |= {str(ipam.gateway(network)) for network in self._ranges}
        self._previous: dict[int, int] = {}
        self._ears = {one.name: Ears(one.netns, _interface(one, lab)) for one in intruders}
        self._flood = Flood(intruders, rate)

    def __enter__(self) -> Starts:
        # Made only to learn whose turn it is.
        first = self.lab.pod_add("turn", "turn", node=self.node)
        self.lab.pod_delete("turn", "turn")
        self._given(first.addresses)
        return self

    def __exit__(self, *_: object) -> None:
        self._flood.end()
        for ears in self._ears.values():
            ears.close()

    def next_addresses(self, count: int = 1) -> list[tuple[str, ...]]:
        """What the next pods will get."""
        used = {
            int(ipaddress.ip_address(address))
            for pod in self.lab.pods()
            if pod.node == self.node
            for address in pod.addresses
        }
        columns = []
        for network in self._ranges:
            previous = self._previous.get(network.version)
            column = []
            for _ in range(count):
                previous = ipam.next_free(*ipam.bounds(network), used, previous)
                column.append(str(ipaddress.ip_address(previous.to_bytes(network.max_prefixlen // 8, "big"))))
            columns.append(column)
        return list(zip(*columns, strict=True))

    def live(
        self,
        namespace: str,
        group: str,
        labels: Mapping[str, str] | None = None,
        seconds: float = 0.0,
        ahead: int = 1,
    ) -> Life:
        """One pod from before its beginning until after its end, `seconds` after ADD was answered. `ahead`: send to so
        many addresses whose turn is next, if it is not sure which of them it will be.
        """
        with self.watched(namespace, group, labels, ahead) as life:
            if life.failed is None:
                time.sleep(seconds)
        return life

    @contextmanager
    def watched(
        self, namespace: str, group: str, labels: Mapping[str, str] | None = None, ahead: int = 1
    ) -> Iterator[Life]:
        """The same; it lives for the time of the `with` block."""
        life = Life(len(self.lives) + 1, group)
        self.lives.append(life)
        expected = self.next_addresses(ahead)
        macs = [ipam.pod_mac(tuple(map(ipaddress.ip_address, addresses))) for addresses in expected]
        self._introduce(expected, macs)
        self._flood.aim(
            *(Target(addresses, mac, self.node) for addresses, mac in zip(expected, macs, strict=True))
        )
        pod = self._record(f"life-{life.number}", namespace, labels or {})
        self.lab.folder.add_pod(pod)
        namespaces.add(pod.netns)
        ears = Ears(pod.netns)
        mouth = Mouth(
            pod.netns,
            [
                frames
                for addresses, mac in zip(expected, macs, strict=True)
                for frames in self._speech(life, addresses, mac)
            ],
        )
        mouth.start()
        try:
            began = time.monotonic()
            try:
                result = self.lab.cni(pod, "ADD")
            except CniError as problem:
                life.failed = problem.code
            else:
                life.addresses = tuple(ip["address"].partition("/")[0] for ip in result["ips"])
                life.aimed = life.addresses in expected
                self._given(life.addresses)
                self.lab.folder.write_pod(msgspec.structs.replace(pod, addresses=life.addresses))
            life.seconds = time.monotonic() - began
            life.early = began + life.seconds - (mouth.began or began + life.seconds)
            yield life
        finally:
            self._remove(pod)
            mouth.end()
            life.spoken = mouth.spoken
            life.flooded = self._flood.aim()
            self._forget(expected)
            self._notice(life, ears)
            ears.close()

    def listen(self) -> None:
        """Look at what has arrived at the intruders."""
        for name, ears in self._ears.items():
            for frame in ears.heard():
                mark = mark_of(frame, self._mark.encode())
                # What comes back as a part of an ICMP error or of an echo was never the pod's own packet.
                if mark is not None:
                    life = self.lives[int(mark[0]) - 1]
                    life.escaped[name, version_of(frame), mark[1]] += 1
            if ears.missed():
                raise AssertionError(f"not all that arrived at {name} could be looked at")

    def _notice(self, life: Life, ears: Ears) -> None:
        for frame in ears.heard():
            source = source_of(frame)
            marked = mark_of(frame, MARK.encode())
            if source in self._by_address or marked is not None:
                name, kind = marked or (self._by_address[source], "unmarked")
                life.intruders[name, version_of(frame), kind] += 1
            elif source not in self._own and not _of_neighbours(frame):
                life.strangers[source] += 1
        if ears.missed():
            raise AssertionError("not all that arrived at the pod could be looked at")
        self.listen()

    def _introduce(self, expected: Sequence[Sequence[str]], macs: Sequence[str]) -> None:
        """Tell the node's kernel, which hands on what comes from outside, the MACs that these addresses will have. By
        itself it asks before there is a pod, and a second later again, when the pod is gone; or it takes the MAC of who
        had the address before.
        """
        self._neighbours(
            f"replace {address} dev {_GATEWAY} lladdr {mac} nud permanent"
            for addresses, mac in zip(expected, macs, strict=True)
            for address in addresses
        ).check_returncode()

    def _forget(self, expected: Sequence[Sequence[str]]) -> None:
        self._neighbours(
            f"delete {address} dev {_GATEWAY}" for addresses in expected for address in addresses
        )

    def _neighbours(self, changes: Iterable[str]) -> subprocess.CompletedProcess[str]:
        lines = "".join(f"neighbour {change}\n" for change in changes)
        return self.lab.run(self.node, "ip", "-force", "-batch", "-", stdin=lines)

    def _given(self, addresses: Sequence[str]) -> None:
        for address in map(ipaddress.ip_address, addresses):
            self._previous[address.version] = int(address)

    def _record(self, name: str, namespace: str, labels: Mapping[str, str]) -> PodRecord:
        return PodRecord(
            name=name,
            namespace=namespace,
            uid=str(uuid.uuid4()),
            node=self.node,
            netns=f"{self.lab.name}-pod-{namespace}-{name}",
            container_id=secrets.token_hex(32),
            labels=dict(labels),
        )

    def _remove(self, pod: PodRecord) -> None:
        """As a runtime does, at the end or after a failed ADD; an agent that cannot be asked finds out by itself."""
        with suppress(CniError):
            self.lab.cni(pod, "DEL")
        namespaces.delete(pod.netns)
        with suppress(CniError):
            self.lab.cni(pod, "DEL", netns="")
        self.lab.folder.remove_pod(pod)

    def _speech(self, life: Life, addresses: Sequence[str], mac: str) -> Iterator[Iterator[bytes]]:
        """Frames to every intruder, also beyond the nodes; each without end."""
        for one in self._intruders:
            for address, destination in zip(addresses, one.addresses, strict=True):
                next_hop = one.mac if one.mac and one.node == self.node else GATEWAY_MAC
                version = ipaddress.ip_address(address).version
                header = bytes.fromhex(f"{next_hop}{mac}".replace(":", ""))
                header += _ETHERTYPE[version].to_bytes(2, "big")
                said = packets(address, destination, INSIDE, OUTSIDE, f"{self._mark}|{life.number}")
                yield map(header.__add__, said)


def intruders_of(lab: Lab, near: PodRecord, far: PodRecord, machine: str) -> list[Intruder]:
    """A pod of the same node, one of another, that node itself, and somebody outside, whom pods can only reach."""
    node = lab.spec.node(machine)
    return [
        Intruder("near pod", near.netns, near.addresses, near.node, near.mac),
        Intruder("far pod", far.netns, far.addresses, far.node, far.mac, (*KINDS, LONE)),
        Intruder("far node", node.netns, (node.ipv4, node.ipv6)),
        Intruder("outside", lab.spec.outside.netns, (FAR_V4, FAR_V6)),
    ]


def _interface(intruder: Intruder, lab: Lab) -> str:
    """Where what is for it arrives."""
    if intruder.mac or intruder.netns == lab.spec.outside.netns:
        return "eth0"
    return _GATEWAY
