# SPDX-License-Identifier: Apache-2.0
"""What a lab consists of, and every name and address that follows from it. Values only; nothing here is done."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from sdn.lab.errors import InvalidSpecError, LabError

Encapsulation = Literal["geneve", "vxlan", "gre"]
Datapath = Literal["netdev", "system"]
Store = Literal["sqlite", "etcd"]
Family = Literal["ipv4", "ipv6"]

UNDERLAY_V4 = ipaddress.IPv4Network("172.30.0.0/24")
UNDERLAY_V6 = ipaddress.IPv6Network("fd00:30::/64")
#: Addresses that only `outside` knows, reached through the default route of the nodes (RFC 5737, RFC 3849).
FAR_V4 = "198.51.100.1"
FAR_V6 = "2001:db8::1"
MAX_NODES = 80
MAX_CONTROLLERS = 9
#: Of an etcd cluster; more only make its writes slower.
MAX_MEMBERS = 7
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_LEAST_MTU = 1400


class Machine(msgspec.Struct, frozen=True):
    """A network namespace on the underlay: a node, a controller's machine, an etcd member's, or `outside`."""

    name: str
    netns: str
    #: Interface name in the underlay's namespace of the cable to this machine.
    port: str
    ipv4: str
    ipv6: str


class LabSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. `check()` before use."""

    name: str
    nodes: int = 3
    controllers: int = 1
    encapsulation: Encapsulation = "geneve"
    datapath: Datapath = "netdev"
    store: Store = "sqlite"
    #: Members of the etcd cluster, each on a machine of its own; with the store etcd only.
    etcd: int = 1
    #: MTU of the underlay, in bytes.
    mtu: int = 1500
    #: Ranges that pods' addresses come from, at most one a family.
    cluster_ranges: tuple[str, ...] = ("10.244.0.0/16", "fd00:10:244::/48")
    #: Ranges of ClusterIPs, at most one a family, the primary family's first.
    service_ranges: tuple[str, ...] = ("10.96.0.0/16", "fd00:10:96::/112")
    #: Ranges of LoadBalancer addresses. The nodes announce them on the underlay, so they are part of it.
    load_balancer_ranges: tuple[str, ...] = ("172.30.0.224/27", "fd00:30::1:0/112")
    #: Prefix lengths of the ranges that nodes are given out of the cluster's.
    node_prefix_ipv4: int | None = None
    node_prefix_ipv6: int | None = None
    #: Family of the addresses between which nodes send encapsulated packets.
    underlay: Family = "ipv4"
    #: Processes (controller-1, node-2/agent) whose clocks can be set, see sdn/lab/clocks.py.
    own_clocks: tuple[str, ...] = ()
    #: Source trees of processes (controller-1, node-2/agent, cni) that do not run from the lab's own, see
    #: sdn/lab/trees.py.
    trees: Mapping[str, str] = {}

    def check(self) -> None:
        """InvalidSpecError names the option that cannot be had, and what can."""
        check_name(self.name)
        if not 1 <= self.nodes <= MAX_NODES:
            raise InvalidSpecError(f"--nodes {self.nodes}: a lab has 1 to {MAX_NODES} nodes")
        self._check_controllers()
        if not _LEAST_MTU <= self.mtu <= 65535:
            raise InvalidSpecError(
                f"--mtu {self.mtu}: must be {_LEAST_MTU} to 65535 (IPv6 needs 1280 inside the tunnel)"
            )
        versions = []
        for text in self.cluster_ranges:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as problem:
                raise InvalidSpecError(f"--cluster-range {text}: {problem}") from None
            versions.append(network.version)
            for used in (UNDERLAY_V4, UNDERLAY_V6):
                if network.version == used.version and network.overlaps(used):
                    raise InvalidSpecError(f"--cluster-range {text}: overlaps with the underlay's {used}")
        if not versions or len(set(versions)) != len(versions):
            raise InvalidSpecError("--cluster-range: give one IPv4 range, one IPv6 range, or one of each")
        self._check_load_balancer_ranges()
        with_clocks = [machine.name for machine in self.controller_machines]
        with_clocks += [f"{machine.name}/agent" for machine in self.node_machines]
        for name in self.own_clocks:
            if name not in with_clocks:
                raise InvalidSpecError(f"own_clocks {name}: must be one of {', '.join(with_clocks)}")
        for name in self.trees:
            if name not in (*with_clocks, "cni"):
                raise InvalidSpecError(f"trees {name}: must be one of {', '.join(with_clocks)}, cni")

    def _check_controllers(self) -> None:
        if not 1 <= self.controllers <= MAX_CONTROLLERS:
            raise InvalidSpecError(
                f"--controllers {self.controllers}: a lab has 1 to {MAX_CONTROLLERS} controllers"
            )
        if self.controllers > 1 and self.store != "etcd":
            raise InvalidSpecError(
                f"--controllers {self.controllers}: several controllers share one store, and a file is for one "
                "controller alone; add --store etcd"
            )
        if not 1 <= self.etcd <= MAX_MEMBERS:
            raise InvalidSpecError(f"--etcd {self.etcd}: a lab has 1 to {MAX_MEMBERS} etcd members")
        if self.etcd > 1 and self.store != "etcd":
            raise InvalidSpecError(f"--etcd {self.etcd}: the store is {self.store}; add --store etcd")

    def _check_load_balancer_ranges(self) -> None:
        for text in self.load_balancer_ranges:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as problem:
                raise InvalidSpecError(f"load_balancer_ranges {text}: {problem}") from None
            for machine in self.machines:
                for address in (machine.ipv4, machine.ipv6):
                    if ipaddress.ip_address(address) in network:
                        raise InvalidSpecError(f"load_balancer_ranges {text}: {machine.name} has {address}")

    @property
    def node_machines(self) -> tuple[Machine, ...]:
        return tuple(self._machine(f"node-{n}", f"node{n}", 10 + n) for n in range(1, self.nodes + 1))

    @property
    def controller_machines(self) -> tuple[Machine, ...]:
        return tuple(
            self._machine(f"controller-{n}", f"ctrl{n}", 100 + n) for n in range(1, self.controllers + 1)
        )

    @property
    def store_machines(self) -> tuple[Machine, ...]:
        """Machines of the store; none when the controller holds it in a file."""
        if self.store != "etcd":
            return ()
        return tuple(self._machine(f"etcd-{n}", f"etcd{n}", 150 + n) for n in range(1, self.etcd + 1))

    @property
    def outside(self) -> Machine:
        return self._machine("outside", "outside", 200)

    @property
    def machines(self) -> tuple[Machine, ...]:
        return (*self.node_machines, *self.controller_machines, *self.store_machines, self.outside)

    @property
    def underlay_netns(self) -> str:
        return f"{self.name}-underlay"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every network namespace but the pods'."""
        return (self.underlay_netns, *(machine.netns for machine in self.machines))

    def node(self, name: str) -> Machine:
        for machine in self.node_machines:
            if machine.name == name:
                return machine
        raise LabError(f"lab {self.name} has no node {name!r}; it has node-1 to node-{self.nodes}")

    def machine(self, name: str) -> Machine:
        """The machine of this name; LabError if there is none."""
        for machine in self.machines:
            if machine.name == name:
                return machine
        names = ", ".join(machine.name for machine in self.machines)
        raise LabError(f"lab {self.name} has no machine {name!r}; it has {names}")

    def _machine(self, name: str, port: str, host: int) -> Machine:
        return Machine(name, f"{self.name}-{name}", port, str(UNDERLAY_V4[host]), str(UNDERLAY_V6[host]))


def check_name(name: str) -> None:
    """InvalidSpecError if no lab can have this name; it becomes part of namespaces' names and sockets' paths."""
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(f"lab name {name!r}: use 1 to 20 lower-case letters, digits and inner hyphens")
