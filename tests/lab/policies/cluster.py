# SPDX-License-Identifier: Apache-2.0
"""The lab of these tests, and beside it what was declared there: what the reference says of it must come true.

Three nodes. In each of the namespaces x, y and z are the pods a, b and c, one on each node, and on every node pods of
all namespaces. All of them, the nodes and a machine outside answer on ports 80 and 81, TCP and UDP, IPv4 and IPv6.

    =========  ===================  ==============================
    pod        labels               named ports
    =========  ===================  ==============================
    a          pod=a, tier=front    web: TCP 80, and UDP 81
    b          pod=b, tier=back     web: TCP 81
    c          pod=c                none
    =========  ===================  ==============================

Namespace x has the labels ns=x and team=blue, y ns=y and team=red, z ns=z alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import grpc

from sdn.lab import readiness
from sdn.lab.lab import Lab
from sdn.lab.waiting import patience, wait_until
from sdn.model import parse
from sdn.model.address import Address, Range
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.pod import Pod
from sdn.policy.evaluator import evaluate
from sdn.policy.values import ICMP, ICMPV6, NamedPort, PolicyNode, PolicyPod, Protocol
from sdn.policy.verdict import PolicyCluster, Verdict, connection_between
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import labs, service_objects
from tests.lab.policies.objects import Document, namespace, node, pod
from tests.lab.policies.probe import FAMILIES, PORTS, TRANSPORTS, Place, Way, faults, matrix, meant
from tests.lab.policies.streams import Plan, Traffic, free_port, streaming
from tests.lab.service_clients import Conversation
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Request

NODES = ("node-1", "node-2", "node-3")
OUTSIDE = "outside"
NAMESPACES = {"x": {"ns": "x", "team": "blue"}, "y": {"ns": "y", "team": "red"}, "z": {"ns": "z"}}
LABELS = {"a": {"pod": "a", "tier": "front"}, "b": {"pod": "b", "tier": "back"}, "c": {"pod": "c"}}
NAMED_PORTS = {"a": (("web", "TCP", 80), ("web", "UDP", 81)), "b": (("web", "TCP", 81),), "c": ()}
#: Each namespace begins on a node of its own, so that neighbours of all kinds are there.
NODE_OF = {
    f"{space}/{name}": NODES[(index + number) % len(NODES)]
    for index, space in enumerate(NAMESPACES)
    for number, name in enumerate(LABELS)
}
#: Seconds (stretched) until all connections that are allowed must be answered after a change.
CONVERGENCE = 20.0
#: Seconds (stretched) after which none that is denied may be answered any more: as long as a loaded switch may go on by
#: what it has cached.
CLOSED = 1.0
#: Seconds (stretched) for which a switch forwards by what it has cached after it has confirmed new flows.
CACHED = 0.25
#: Seconds (stretched) for which what is denied must be silent, when it is asked first and once more.
SILENCE, LONGER_SILENCE = 0.25, 0.4
_PROTOCOLS = {
    ("tcp", "IPv4"): Protocol.TCP,
    ("tcp", "IPv6"): Protocol.TCP,
    ("udp", "IPv4"): Protocol.UDP,
    ("udp", "IPv6"): Protocol.UDP,
    ("icmp", "IPv4"): ICMP,
    ("icmp", "IPv6"): ICMPV6,
}
_Key = tuple[str, str, str]


class PolicyLab:
    """See the module."""

    def __init__(self, lab: Lab, servers: Servers) -> None:
        self.lab = lab
        self.places: dict[str, Place] = {}
        self._servers = servers
        self._declared: dict[_Key, Document] = {}
        self._usual: dict[_Key, Document] = {}
        self._gateways: dict[str, tuple[Address, ...]] = {}

    def furnish(self) -> None:
        """Namespaces, pods, and all that answers."""
        for machine in (*self.lab.spec.node_machines, self.lab.spec.outside):
            addresses = dict(zip(FAMILIES, (machine.ipv4, machine.ipv6), strict=True))
            self._place(Place(machine.name, machine.netns, machine.name, addresses, is_pod=False))
        for name, labels in NAMESPACES.items():
            self.declare(namespace(name, labels))
        for name in NODE_OF:
            self.add_usual_pod(name)
        for name in NODES:
            # Declared, since a node whose agent is there cannot be deleted to take its labels away.
            self.declare(node(name, {}))
            ranges = service_objects.get(self.lab, "Node", name, "")["spec"]["podCIDRs"]
            self._gateways[name] = tuple(Range.parse(text).gateway for text in ranges)
        service_objects.settle(self.lab)
        self._usual = dict(self._declared)

    def restore(self) -> None:
        """As it was when it was furnished."""
        for key in self._declared.keys() - self._usual.keys():
            self._delete(key)
        changed = [made for key, made in self._usual.items() if self._declared.get(key) != made]
        self.declare(*changed)
        for name in [place.name for place in self.places.values() if place.is_pod]:
            if name not in NODE_OF:
                self.detach(name)
        for name in NODE_OF:
            if name not in self.places:
                self.add_usual_pod(name)

    # What is declared.

    def declare(self, *documents: Document) -> None:
        """Apply; grpc.RpcError if one is refused. Whether it is in force is not waited for."""
        service_objects.apply(self.lab, *documents)
        for document in documents:
            self._declared[_key(document)] = document

    def forget(self, *documents: Document) -> None:
        """Delete these objects."""
        for document in documents:
            self._delete(_key(document))

    def settle(self) -> None:
        """Wait until every switch does what was declared."""
        service_objects.settle(self.lab)

    def _wait_synchronized(self) -> None:
        """Wait until every switch holds its flows, and for most of the time that it may go on by what it has cached."""
        wait_until(
            lambda: not readiness.unsynchronized(self.lab.spec, self.lab.folder), "every switch's flows", 30
        )
        time.sleep(patience(CACHED))

    def _delete(self, key: _Key) -> None:
        kind, namespace_, name = key
        with grpc.insecure_channel(self.lab.server) as channel:
            inspection_pb2_grpc.InspectionStub(channel).Delete(
                inspection_pb2.DeleteRequest(kind=kind, namespace=namespace_, name=name), timeout=30
            )
        del self._declared[key]

    # Pods.

    def add_usual_pod(self, name: str) -> None:
        """One of those that are always there."""
        short = name.partition("/")[2]
        self.add_pod(name, NODE_OF[name], LABELS[short], NAMED_PORTS[short])

    def add_pod(
        self,
        name: str,
        on: str,
        labels: Mapping[str, str],
        ports: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        """Declare a Pod, and make it, serving."""
        self.declare(pod(name, labels, ports, nodeName=on))
        self.attach(name, on)

    def relabel(
        self, name: str, labels: Mapping[str, str], ports: Sequence[tuple[str, str, int]] | None = None
    ) -> None:
        """Declare other labels of a pod, and other named ports if any are given."""
        if ports is None:
            ports = NAMED_PORTS.get(name.partition("/")[2], ())
        self.declare(pod(name, labels, ports, nodeName=self.places[name].node))

    def attach(self, name: str, on: str, labels: Mapping[str, str] | None = None) -> None:
        """Make a pod, as its runtime does; ``labels`` are those that the runtime tells."""
        namespace_, _, short = name.partition("/")
        made = self.lab.pod_add(short, namespace_, on, labels)
        addresses = {("IPv6" if ":" in text else "IPv4"): text for text in made.addresses}
        self._place(Place(name, made.netns, on, addresses))

    def detach(self, name: str) -> None:
        """Remove a pod, as its runtime does: first its processes, then its network."""
        self._servers.close(name)
        del self.places[name]
        namespace_, _, short = name.partition("/")
        self.lab.pod_delete(short, namespace_)

    def _place(self, place: Place) -> None:
        self.places[place.name] = place
        self._servers.everywhere(place.netns, place.name, place.addresses.values(), PORTS)

    # Connections.

    @contextmanager
    def traffic(
        self, client: str, server: str, port: int = 0, transports: Sequence[str] = TRANSPORTS
    ) -> Iterator[Traffic]:
        """A connection in each family and transport, with data on the way all the time, for the time of the `with`
        block; by default to a port of their own.
        """
        # What the test before has declared is taken back, which takes each switch a moment: a connection that is
        # allowed when it begins, and denied before it is confirmed, does not go on before its client says something.
        self.settle()
        port = port or free_port()
        ends = self.places[client].netns, self.places[server].netns
        with ExitStack() as stack:
            streams = [
                stack.enter_context(streaming(Plan(*ends, transport, address, port)))
                for address in self.places[server].addresses.values()
                for transport in transports
            ]
            yield stack.enter_context(Traffic(streams))

    def converse(self, client: str, address: str, port: int, transport: str) -> Conversation:
        """One connection that stays, to one of those that answer."""
        return Conversation(Request(self.places[client].netns, transport, address, port))

    def model(self) -> PolicyCluster:
        """The cluster as the reference looks at it, by what was declared and which pods there are."""
        parsed = [parse(document) for document in self._declared.values()]
        records = {record.full_name: record for record in self.lab.pods()}
        found = []
        for place in self.places.values():
            if place.is_pod:
                declared = self._declared.get(("Pod", *place.name.split("/")))  # type: ignore[arg-type]
                value = parse(declared) if declared is not None else None
                of_pod = value if isinstance(value, Pod) else None
                found.append(
                    PolicyPod(
                        key=place.name,
                        namespace=place.name.partition("/")[0],
                        name=place.name.partition("/")[2],
                        node=place.node,
                        labels=of_pod.metadata.labels if of_pod else records[place.name].labels,
                        addresses=tuple(map(Address.parse, place.addresses.values())),
                        ofport=0,
                        named_ports=tuple(
                            NamedPort(name, Protocol[protocol], number)
                            for name, protocol, number in (of_pod.named_ports if of_pod else ())
                        ),
                    )
                )
        return PolicyCluster(
            namespaces={one.metadata.name: one.metadata.labels for one in parsed if one.KIND == "Namespace"},
            nodes=tuple(self._node(name) for name in NODES),
            pods=tuple(found),
            policies=tuple(one for one in parsed if isinstance(one, NetworkPolicy | ClusterNetworkPolicy)),
        )

    def _node(self, name: str) -> PolicyNode:
        document = self._declared.get(("Node", "", name), {"metadata": {}})
        addresses = tuple(map(Address.parse, self.places[name].addresses.values()))
        return PolicyNode(name, document["metadata"].get("labels", {}), addresses, self._gateways[name])

    def ways(self) -> list[Way]:
        """Among all pods; from and to all nodes; and to the machine outside."""
        pods = [place for place in self.places.values() if place.is_pod]
        nodes = [self.places[name] for name in NODES]
        return list(matrix((*pods, *nodes), (*pods, *nodes, self.places[OUTSIDE])))

    def expected(self, ways: Iterable[Way]) -> dict[Way, Verdict]:
        """What the reference says of connections."""
        model = self.model()
        return {
            way: evaluate(
                model,
                connection_between(
                    model,
                    Address.parse(self.places[way.source].addresses[way.family]),
                    Address.parse(self.places[way.destination].addresses[way.family]),
                    _PROTOCOLS[way.transport, way.family],
                    way.port,
                ),
            )
            for way in ways
        }

    def check(
        self,
        *,
        allowed: Sequence[str] = (),
        denied: Sequence[str] = (),
        ways: Iterable[Way] | None = None,
        at_once: bool = False,
    ) -> None:
        """All connections become what the reference says, and stay so; ``allowed`` and ``denied`` are what the test
        says of some, as :func:`tests.lab.policies.probe.meant` reads it. ``at_once``: there is no time to become so.
        What is denied must be so when all switches have confirmed it, or little later.
        """
        verdicts = self.expected(self.ways() if ways is None else ways)
        expected = {way: verdict.allowed for way, verdict in verdicts.items()}
        for patterns, wanted in ((allowed, True), (denied, False)):
            for pattern in patterns:
                wrong = [verdicts[way] for way in meant(pattern, expected) if expected[way] is not wanted]
                told = "; ".join(f"{verdict.connection}: {verdict.describe()}" for verdict in wrong[:4])
                assert not wrong, (
                    f"{pattern} must be {'allowed' if wanted else 'denied'}; the reference: {told}"
                )
        began = time.monotonic()
        if not at_once:
            self._wait_synchronized()
        asked, rounds = dict(expected), 0
        closed = time.monotonic() + patience(CLOSED)
        while True:
            rounds += 1
            began_round = time.monotonic()
            found = faults(self.places, asked, silence=SILENCE, attempts=3)
            if not found or at_once or time.monotonic() > began + patience(CONVERGENCE):
                break
            if began_round > closed and not all(expected[way] for way in found):
                break
            asked = {way: expected[way] for way in found}
        took = time.monotonic() - began
        assert not found, self._told(f"after {took:.1f} s", found, verdicts)
        found = faults(self.places, expected, silence=LONGER_SILENCE, attempts=5)
        assert not found, self._told("asked again when all was as it should be", found, verdicts)
        print(
            f"{len(expected)} connections, {sum(expected.values())} allowed: as they should after {rounds} "
            f"rounds, {took:.1f} s; once more {time.monotonic() - began - took:.1f} s",
            flush=True,
        )

    def _told(self, when: str, found: Mapping[Way, str], verdicts: Mapping[Way, Verdict]) -> str:
        lines = [f"{way} {fault}. {verdicts[way].describe()}" for way, fault in list(found.items())[:16]]
        return "\n".join((f"{len(found)} of {len(verdicts)} connections are wrong, {when}:", *lines))


def _key(document: Document) -> _Key:
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


@contextmanager
def running() -> Iterator[PolicyLab]:
    """The lab for the time of the `with` block."""
    with labs.running("policies", nodes=len(NODES)) as lab, Servers() as servers:
        found = PolicyLab(lab, servers)
        found.furnish()
        switches = [f"{name}/ovs-vswitchd" for name in NODES]
        began = {name: lab.process(name).pid for name in switches}
        yield found
        assert {name: lab.process(name).pid for name in switches} == began, (
            "a switch ended while it was tested"
        )
