# SPDX-License-Identifier: Apache-2.0
"""Policies on the kernel datapath, with SCTP, which the userspace datapath does not track.

What must become of connections is read off the reference by the same objects, and each policy's test says of some by
hand what it must be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pytest

from sdn.model import parse
from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.pod import Pod
from sdn.policy.evaluator import evaluate
from sdn.policy.values import NamedPort, PolicyNode, PolicyPod, Protocol
from sdn.policy.verdict import PolicyCluster, connection_between
from tests.kernel.cluster import SLOWNESS, TREE, Cluster
from tests.kernel.image import Report
from tests.lab.policies import objects
from tests.lab.policies.objects import Document, labels, network_policy, port
from tests.lab.policies.probe import FAMILIES, Place, Way, fault, matrix, meant, request
from tests.lab.policies.streams import Flowed, Plan
from tests.lab.service_sockets import Answer, Listener

pytestmark = [pytest.mark.kernel, pytest.mark.root, pytest.mark.lab, pytest.mark.slow]

PODS = {"server": "web-1", "near": "web-2", "far": "db-1"}
"""What the lab's pods are here: one is on the server's node, the other one is not."""
TRANSPORTS = ("tcp", "udp", "sctp")
PORTS = (8080, 8081)
NAMED_PORTS = [("web", "TCP", 8081), ("web", "SCTP", 8080)]
#: Times that all is tried until it is as it should; seconds of silence of what is denied (stretched by SLOWNESS).
TRIES, SILENCE = 3, 0.2
ENVIRONMENT = {"SDN_LAB_TIMEOUT_FACTOR": SLOWNESS, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def let_in(*rules: Document, **more: object) -> Document:
    """For the server. There is one such policy, so that each takes the place of the one before."""
    return network_policy("in", "default", podSelector=labels(pod="server"), ingress=list(rules), **more)


def let_out(*rules: Document) -> Document:
    """For the client on the other node, in the place of the one before, too."""
    return network_policy(
        "out", "default", podSelector=labels(pod="far"), egress=list(rules), policyTypes=["Egress"]
    )


@pytest.fixture(scope="module")
def policies(cluster: Cluster, report: Report) -> Iterator[GuestPolicies]:
    found = GuestPolicies(cluster, report)
    found.declare(
        *(
            objects.pod(f"default/{pod}", {"pod": role}, NAMED_PORTS, nodeName=found.places[role].node)
            for role, pod in PODS.items()
        )
    )
    yield found
    found.forget()


class GuestPolicies:
    """The lab in the guest, and what was declared there."""

    def __init__(self, cluster: Cluster, report: Report) -> None:
        self._cluster = cluster
        self._report = report
        self._declared: dict[tuple[str, str], Document] = {}
        roles = {pod: role for role, pod in PODS.items()}
        self.places = {
            name: Place(
                name,
                place.netns,
                place.node,
                dict(zip(FAMILIES, (place.ipv4, place.ipv6), strict=True)),
                is_pod=name in PODS,
            )
            for place in cluster.places().values()
            for name in [roles.get(place.name, place.name)]
        }

    def declare(self, *documents: Document) -> None:
        self._cluster.apply(documents)
        self._declared |= {(one["kind"], one["metadata"]["name"]): one for one in documents}

    def forget(self) -> None:
        """Remove all that was declared."""
        self._cluster.delete(list(self._declared.values()))

    def model(self) -> PolicyCluster:
        """The cluster as the reference looks at it."""
        parsed = {key: parse(document) for key, document in self._declared.items()}
        pods = {name: value for (kind, name), value in parsed.items() if isinstance(value, Pod)}
        return PolicyCluster(
            nodes=tuple(
                PolicyNode(name, {}, tuple(map(Address.parse, self.places[name].addresses.values())))
                for name in ("node-1", "node-2")
            ),
            pods=tuple(
                PolicyPod(
                    key=pod,
                    namespace="default",
                    name=pod,
                    node=self.places[role].node,
                    labels=pods[pod].metadata.labels,
                    addresses=tuple(map(Address.parse, self.places[role].addresses.values())),
                    ofport=0,
                    named_ports=tuple(
                        NamedPort(each, Protocol[protocol], number)
                        for each, protocol, number in pods[pod].named_ports
                    ),
                )
                for role, pod in PODS.items()
            ),
            policies=tuple(
                one for one in parsed.values() if isinstance(one, NetworkPolicy | ClusterNetworkPolicy)
            ),
        )

    def check(self, *, allowed: Sequence[str] = (), denied: Sequence[str] = ()) -> None:
        """All connections to the server are as the reference says; of some the test says it."""
        clients = [self.places[name] for name in ("near", "far", "node-1", "node-2")]
        model = self.model()
        ways = list(matrix(clients, [self.places["server"]], transports=TRANSPORTS, ports=PORTS))
        expected = {
            way: evaluate(
                model,
                connection_between(
                    model,
                    Address.parse(self.places[way.source].addresses[way.family]),
                    Address.parse(self.places[way.destination].addresses[way.family]),
                    Protocol[way.transport.upper()],
                    way.port,
                ),
            ).allowed
            for way in ways
        }
        for patterns, wanted in ((allowed, True), (denied, False)):
            for pattern in patterns:
                assert {expected[way] for way in meant(pattern, ways)} == {wanted}, pattern
        found: dict[Way, str] = {}
        for _ in range(TRIES):
            answers = self._ask(expected)
            found = {way: fault(self.places, way, expected[way], answers[way]) for way in ways}
            if not any(found.values()):
                return
        told = "\n".join(f"{way} {what}" for way, what in found.items() if what)
        raise AssertionError(f"wrong at the last of {TRIES} tries:\n{told}")

    def _ask(self, expected: dict[Way, bool]) -> dict[Way, Answer]:
        """Let the guest serve in the server's pod, and ask all at once."""
        server = self.places["server"]
        listeners = [
            Listener(server.netns, server.name, transport, address, number)
            for address in server.addresses.values()
            for transport in TRANSPORTS
            for number in PORTS
        ]
        requests = [
            request(self.places, way, allowed, silence=SILENCE, attempts=3)
            for way, allowed in expected.items()
        ]
        plan = {
            "listeners": [asdict(one) for one in listeners],
            "requests": [asdict(one) for one in requests],
            "window": len(requests),
        }
        done = self._cluster.guest.run(
            [sys.executable, "-S", "-m", "tests.lab.service_clients", "try"],
            cwd=TREE,
            env=ENVIRONMENT,
            stdin=json.dumps(plan),
            timeout=600,
        ).check()
        self._report(f"{len(requests)} connections took {done.seconds:.0f} s")
        answers = [Answer(**fields) for fields in json.loads(done.stdout)]
        return dict(zip(expected, answers, strict=True))

    def watch(
        self, client: str, ports: dict[int, bool], change: Document
    ) -> dict[str, tuple[Flowed, Flowed]]:
        """Connections from a client to ports of the server, of which those shall be cut that are told so, by a
        change that is made while data flows: what flowed before and after it, by transport, port and family.
        """
        server, place = self.places["server"], self.places[client]
        plans = {
            f"{transport} {number} {family}": Plan(place.netns, server.netns, transport, address, number)
            for number in ports
            for family, address in server.addresses.items()
            for transport in TRANSPORTS
        }
        plan = {
            "streams": [asdict(one) for one in plans.values()],
            "cut": [ports[one.port] for one in plans.values()],
            "within": 2,
            "watched": 0.3,
        }
        guest = self._cluster.guest
        guest.run(["tee", "/tmp/streams.json"], stdin=json.dumps(plan)).check()
        guest.shell(
            f"rm -f /tmp/changed /tmp/flowed; cd {TREE}; export SDN_LAB_TIMEOUT_FACTOR={SLOWNESS}\n"
            f"{sys.executable} -S -m tests.lab.policies.streams /tmp/changed"
            " < /tmp/streams.json > /tmp/flowed 2> /tmp/problems & process=$!\n"
            "until test -s /tmp/flowed; do kill -0 $process || { cat /tmp/problems; exit 1; }; sleep 0.2; done",
            timeout=300,
        ).check()
        self.declare(change)
        done = guest.shell(
            'touch /tmp/changed\nwhile test "$(wc -l < /tmp/flowed)" -lt 2; do sleep 0.2; done\ncat /tmp/flowed',
            timeout=300,
        ).check()
        before, after = (
            [Flowed(**fields) for fields in json.loads(line)] for line in done.stdout.splitlines()
        )
        return dict(zip(plans, zip(before, after, strict=True), strict=True))


def test_without_policies_all_protocols_get_through(policies: GuestPolicies) -> None:
    policies.check(allowed=["* > server"])


def test_default_deny(policies: GuestPolicies) -> None:
    policies.declare(let_in())
    policies.check(
        denied=["near > server", "far > server sctp", "node-2 > server"], allowed=["node-1 > server"]
    )


def test_ports_by_number_and_range(policies: GuestPolicies) -> None:
    policies.declare(let_in({"ports": [port(8080), port(8081, "UDP", end=9000), port(8080, "SCTP")]}))
    policies.check(
        allowed=["near > server tcp 8080", "far > server udp 8081", "far > server sctp 8080"],
        denied=["near > server tcp 8081", "far > server udp 8080", "far > server sctp 8081"],
    )


def test_ports_by_name(policies: GuestPolicies) -> None:
    policies.declare(let_in({"ports": [port("web"), port("web", "SCTP"), port(protocol="UDP")]}))
    policies.check(
        allowed=["near > server tcp 8081", "far > server sctp 8080", "far > server udp"],
        denied=["near > server tcp 8080", "far > server sctp 8081"],
    )


def test_all_ports_of_sctp_from_one_client(policies: GuestPolicies) -> None:
    rule = {"from": [objects.pods(labels(pod="far"))], "ports": [port(protocol="SCTP")]}
    policies.declare(let_in(rule))
    policies.check(
        allowed=["far > server sctp"], denied=["near > server", "far > server tcp", "node-2 > server"]
    )


def test_egress(policies: GuestPolicies) -> None:
    rule = {"to": [objects.pods(labels(pod="server"))], "ports": [port(8081, "SCTP"), port(8080, "UDP")]}
    policies.declare(let_in({}), let_out(rule))
    policies.check(
        allowed=["far > server sctp 8081", "far > server udp 8080", "near > server"],
        denied=["far > server sctp 8080", "far > server tcp"],
    )


@pytest.mark.parametrize("client", ["near", "far"])
def test_connections_are_cut_when_their_port_is_closed_and_others_go_on(
    policies: GuestPolicies, client: str
) -> None:
    policies.declare(let_in({}), let_out({}))
    kept = [port(9001, transport.upper()) for transport in TRANSPORTS]
    flowed = policies.watch(client, {9000: True, 9001: False}, let_in({"ports": kept}))
    for name, (before, after) in flowed.items():
        assert before.both, f"{name} carried nothing while it was allowed: {before}"
        if " 9000 " in name:
            assert after == Flowed(0, 0), f"{name} still carries data: {after}"
        else:
            assert after.both, f"{name} carries nothing: {after}"


def test_an_administrator_denies_what_a_network_policy_allows(policies: GuestPolicies) -> None:
    rules = [
        objects.deny([objects.in_namespaces({})], objects.number("sctp", 8081), objects.number("udp", 8080))
    ]
    policies.declare(
        let_in({}),
        let_out({}),
        objects.cluster_policy("admin", "Admin", 1, objects.in_namespaces({}), ingress=rules),
    )
    policies.check(
        denied=["near > server sctp 8081", "far > server udp 8080"],
        allowed=["near > server sctp 8080", "far > server tcp", "node-2 > server sctp 8081"],
    )
