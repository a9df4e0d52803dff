# SPDX-License-Identifier: Apache-2.0
"""A node in this process: a synchronizer with a real switch, its pods and Services, and packets of its pods."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from os_ken.lib.packet import ethernet, ipv4, ipv6, packet, tcp, udp

from controller import osken
from controller.desired import NODE_PART, encode
from controller.listener import Listener
from controller.listening import listen
from controller.switchboard import Switchboard
from controller.synchronizer import Synchronizer
from controller.verdicts import Verdicts
from sdn.pipeline.compiler import node_flows, pod_flows, service_flows
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import FIRST_POD_PORT, GATEWAY_MAC
from sdn.pipeline.service import Endpoint, Frontend, Protocol, ServicePort, group_base
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range
from tests.switch.ovs import PrivateSwitch, wait_until

DATAPATH_ID = 0x5000000000000001
NODE = LocalNode(
    "node-1",
    (Range.parse("10.244.1.0/24"), Range.parse("fd00:10:244:1::/64")),
    (Address.parse("172.30.0.11"), Address.parse("fd00:30::11")),
    Address.parse("172.30.0.11"),
    service_ranges=(Range.parse("10.96.0.0/16"), Range.parse("fd00:10:96::/112")),
)
PATIENCE = 60.0


def pod(number: int) -> PodPort:
    """Pod number N: address .N+2, OpenFlow port FIRST_POD_PORT+N."""
    value = Address.parse(f"10.244.1.{number + 2}").value
    return PodPort(
        "default",
        f"pod-{number}",
        f"container-{number}",
        "eth0",
        FIRST_POD_PORT + number,
        0x0A58 << 32 | value,
        value,
        Address.parse(f"fd00:10:244:1::{number + 2:x}").value,
    )


def endpoint(number: int, port: int = 8080) -> Endpoint:
    """A port of pod number N."""
    return Endpoint(pod(number).addresses[0], port, True)


def service(
    number: int,
    endpoints: Sequence[Endpoint],
    protocol: Protocol = Protocol.UDP,
    affinity_seconds: int = 0,
    node_port: int = 0,
) -> ServicePort:
    """Service number N: 10.96.0.N, port 80."""
    frontends = [Frontend(Address.parse(f"10.96.0.{number}"), 80, False)]
    if node_port:
        frontends.append(Frontend(None, node_port, True))
    return ServicePort(
        owner=Owner("Service", "default", f"service-{number}"),
        group_base=group_base(number, 0, 4),
        version=4,
        protocol=protocol,
        frontends=tuple(frontends),
        endpoints=tuple(endpoints),
        affinity_seconds=affinity_seconds,
    )


class ServiceNode:
    """See the module. ``switch`` outlives it: a second one finds what the first one has left."""

    def __init__(self, switch: PrivateSwitch, verdicts: Verdicts | None = None) -> None:
        """``verdicts`` takes what policies report."""
        self.switch = switch
        self.synchronizer = Synchronizer(NODE.name)
        self._listener = Listener(listen("127.0.0.1:0"), osken.serve_connection)
        self._switchboard = Switchboard()
        self._manager = osken.start(
            ["controller.app"],
            self._listener.accept_forever,
            switchboard=self._switchboard,
            verdicts=verdicts,
        )
        self._switchboard.claim(DATAPATH_ID, self.synchronizer)

    def connect(self) -> None:
        """Let the switch connect and wait until it holds what it must."""
        self.let_in()
        wait_until(lambda: self.synchronizer.status.synchronized, "the switch to be synchronized")

    def let_in(self) -> None:
        """Let the switch connect."""
        self.switch.vsctl(
            *("set", "bridge", self.switch.bridge, f"other-config:datapath-id={DATAPATH_ID:016x}", "--"),
            *("set-controller", self.switch.bridge, f"tcp:127.0.0.1:{self._listener.port}"),
        )

    def put_pods(self, count: int) -> None:
        """The node's own flows, and pods 0 to ``count``."""
        self.synchronizer.submit(NODE_PART, lambda: node_flows(NODE))
        for number in range(count):
            self.synchronizer.submit(("pod", number), lambda number=number: pod_flows(NODE, pod(number)))  # type: ignore[misc]

    def put(self, *ports: ServicePort, gone: tuple[Address, ...] = ()) -> None:
        """Make a Service be as its ports say, and wait until that is in force."""
        assert self.put_later(*ports, gone=gone)() is None

    def put_later(self, *ports: ServicePort, gone: tuple[Address, ...] = ()) -> Waiter:
        """The same without waiting; the answer is what was refused."""
        waiter = Waiter()
        part = ("service", str(ports[0].owner))
        self.synchronizer.submit(part, lambda: encode(service_flows(ports)), waiter.done, gone)
        return waiter

    def remove(self, port: ServicePort, gone: tuple[Address, ...] = ()) -> None:
        """Remove a Service, and wait until that is in force."""
        waiter = Waiter()
        self.synchronizer.submit(("service", str(port.owner)), None, waiter.done, gone)
        assert waiter() is None

    def close(self) -> None:
        self.synchronizer.stop(close=True)
        self._listener.close()
        self._switchboard.close()
        osken.stop(self._manager)


class Waiter:
    """Waits for what a synchronizer says when a part is in force, or refused."""

    def __init__(self) -> None:
        self._said = threading.Event()
        self._why: str | None = None

    def done(self, why: str | None) -> None:
        self._why = why
        self._said.set()

    @property
    def said(self) -> bool:
        """Whether anything was said."""
        return self._said.is_set()

    def __call__(self) -> str | None:
        assert self._said.wait(PATIENCE), "nothing was said of the part"
        return self._why


@contextmanager
def service_node(switch: PrivateSwitch, verdicts: Verdicts | None = None) -> Iterator[ServiceNode]:
    """A node that is gone at the end; its switch stays as it is."""
    osken.set_keepalive(5.0, 3)
    node = ServiceNode(switch, verdicts)
    try:
        yield node
    finally:
        node.close()


def add_pod_ports(switch: PrivateSwitch, count: int) -> None:
    """Dummy ports for pods 0 to ``count``, each with a capture of what it was sent."""
    for number in range(count):
        switch.add_port(f"p{number}", FIRST_POD_PORT + number, tx_pcap=str(switch.folder / f"p{number}.pcap"))


def send(
    switch: PrivateSwitch,
    client: int,
    destination: str,
    port: int,
    source_port: int,
    protocol: Protocol = Protocol.UDP,
) -> None:
    """A pod's datagram, or its SYN, into its port."""
    data = frame(client, destination, port, source_port, protocol)
    switch.appctl("netdev-dummy/receive", f"p{client}", data.hex())


def frame(client: int, destination: str, port: int, source_port: int, protocol: Protocol) -> bytes:
    """The same as bytes."""
    sender = pod(client)
    version = 6 if ":" in destination else 4
    source = str(sender.addresses[version == 6])
    built = packet.Packet()
    built.add_protocol(
        ethernet.ethernet(_mac(GATEWAY_MAC), _mac(sender.mac), 0x0800 if version == 4 else 0x86DD)
    )
    if version == 4:
        built.add_protocol(ipv4.ipv4(src=source, dst=destination, proto=int(protocol)))
    else:
        built.add_protocol(ipv6.ipv6(src=source, dst=destination, nxt=int(protocol)))
    if protocol is Protocol.UDP:
        built.add_protocol(udp.udp(source_port, port))
        built.add_protocol(b"hello")
    else:
        built.add_protocol(tcp.tcp(source_port, port, seq=1, bits=tcp.TCP_SYN))
    built.serialize()
    return bytes(built.data)


def _mac(value: int) -> str:
    return ":".join(f"{value >> shift & 255:02x}" for shift in range(40, -8, -8))


def connections(switch: PrivateSwitch, zone: int = 1) -> set[tuple[str, int, int, str, int]]:
    """Tracked connections of a zone: protocol, client's port, and where they go: number of the Service's
    address, endpoint's address, endpoint's port.
    """
    found = set()
    for line in switch.appctl("dpctl/dump-conntrack").splitlines():
        if f"zone={zone}" not in line:
            continue
        parsed = re.match(
            r"(\w+),orig=\(src=[\d.]+,dst=[\d.]+\.(\d+),sport=(\d+),dport=\d+\),"
            r"reply=\(src=([\d.]+),dst=[\d.]+,sport=(\d+),",
            line,
        )
        if parsed:
            found.add((parsed[1], int(parsed[3]), int(parsed[2]), parsed[4], int(parsed[5])))
    return found
