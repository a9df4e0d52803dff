# SPDX-License-Identifier: Apache-2.0
"""Policies from which wrong flows are easily made, each with connections of which a person says whether they may be.

The evaluator and the flows must both say so. What a random case of test_policy_pipeline.py shows to be wrong is written
out here by hand: the numbers that such a case is made of mean another one as soon as their generator changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sdn.policy.evaluator import evaluate
from sdn.policy.values import ICMP, PolicyNode, PolicyPod
from sdn.policy.verdict import Policy
from tests.property.policy_network import Network
from tests.property.test_policy_pipeline import explanation
from tests.unit.policy_world import (
    CLIENT,
    CLUSTER,
    DB,
    GRE,
    JOB,
    NODE_1,
    NODE_2,
    SCTP,
    STRAY,
    TCP,
    UDP,
    WEB,
    cluster_policy,
    connection,
    labels,
    network_policy,
    pod,
    rule,
    with_policies,
)

End = PolicyPod | PolicyNode
#: From whom, to whom, port, protocol.
Way = tuple[End, End, int, int]


@dataclass(frozen=True)
class Case:
    """The small cluster with these policies, and what is other in it by its field."""

    name: str
    policies: tuple[Policy, ...]
    allowed: tuple[Way, ...]
    denied: tuple[Way, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)


def ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"port": number} for number in numbers]


def tcp(number: int) -> dict[str, Any]:
    """Of a rule of a ClusterNetworkPolicy: this port."""
    return {"protocols": [{"tcp": {"destinationPort": {"number": number}}}]}


FROM_WEB = {"podSelector": labels(role="web")}
FROM_CLIENT = {"namespaceSelector": labels(project="mine")}
#: A second attachment of DB, as while its sandbox is replaced.
AGAIN = dataclasses.replace(pod("shop", "db", 1, 9, role="db"), key="shop/db again")

CASES = (
    Case(
        "the peers of a rule do not get the ports of another rule",
        (
            network_policy(
                ingress=[
                    {"from": [FROM_WEB], "ports": ports(80)},
                    {"from": [FROM_CLIENT], "ports": ports(81)},
                ]
            ),
        ),
        allowed=((WEB, DB, 80, TCP), (CLIENT, DB, 81, TCP)),
        denied=((WEB, DB, 81, TCP), (CLIENT, DB, 80, TCP), (WEB, DB, 80, UDP), (STRAY, DB, 80, TCP)),
    ),
    Case(
        "nor those of another policy",
        (
            network_policy("one", ingress=[{"from": [FROM_WEB], "ports": ports(80)}]),
            network_policy("two", ingress=[{"from": [FROM_CLIENT], "ports": ports(81)}]),
        ),
        allowed=((WEB, DB, 80, TCP), (CLIENT, JOB, 81, TCP)),
        denied=((WEB, DB, 81, TCP), (CLIENT, JOB, 80, TCP)),
    ),
    Case(
        "the pods of a policy do not get the peers of another one",
        (
            network_policy("db", podSelector=labels(role="db"), ingress=[{"from": [FROM_CLIENT]}]),
            network_policy("web", podSelector=labels(role="web"), ingress=[{"from": [{"podSelector": {}}]}]),
        ),
        allowed=((CLIENT, DB, 80, TCP), (JOB, WEB, 80, TCP), (CLIENT, JOB, 80, TCP)),
        denied=((JOB, DB, 80, TCP), (CLIENT, WEB, 80, TCP)),
    ),
    Case(
        "ranges of ports that overlap have each their own peers up to their borders",
        (
            network_policy("one", ingress=[{"from": [FROM_WEB], "ports": [{"port": 8000, "endPort": 8010}]}]),
            network_policy(
                "two", ingress=[{"from": [FROM_CLIENT], "ports": [{"port": 8007, "endPort": 8100}]}]
            ),
        ),
        allowed=(
            *((WEB, DB, port, TCP) for port in (8000, 8006, 8007, 8010)),
            *((CLIENT, DB, port, TCP) for port in (8007, 8010, 8011, 8100)),
        ),
        denied=(
            *((WEB, DB, port, TCP) for port in (7999, 8011, 8100)),
            *((CLIENT, DB, port, TCP) for port in (8000, 8006, 8101)),
        ),
    ),
    Case(
        "all ports of a protocol are not those of another one, and not what has no ports",
        (network_policy(ingress=[{"ports": [{"port": 1, "endPort": 65535, "protocol": "UDP"}]}]),),
        allowed=((WEB, DB, 1, UDP), (CLIENT, DB, 65535, UDP)),
        denied=((WEB, DB, 1, TCP), (WEB, DB, 65535, SCTP), (WEB, DB, 0, ICMP), (CLIENT, DB, 0, GRE)),
    ),
    Case(
        "on the way out a name is the number that the very peer gives it",
        (
            network_policy(
                podSelector=labels(role="db"),
                policyTypes=["Egress"],
                egress=[{"to": [{"podSelector": {}}, FROM_CLIENT], "ports": [{"port": "http"}]}],
            ),
        ),
        allowed=((DB, WEB, 8080, TCP), (DB, JOB, 9000, TCP)),
        denied=(
            (DB, WEB, 9000, TCP),
            (DB, JOB, 8080, TCP),
            (DB, CLIENT, 8080, TCP),
            (DB, CLIENT, 8080, UDP),
        ),
    ),
    Case(
        "what a block excepts another one of the rule may hold, but for what that one excepts",
        (
            network_policy(
                ingress=[
                    {
                        "from": [
                            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}},
                            {"ipBlock": {"cidr": "10.244.2.0/24", "except": ["10.244.2.4/31"]}},
                            {"ipBlock": {"cidr": "::/0", "except": ["fd00:10:244::/48"]}},
                            {"ipBlock": {"cidr": "fd00:10:244:2::/64", "except": ["fd00:10:244:2::4/127"]}},
                        ]
                    }
                ]
            ),
        ),
        allowed=((STRAY, DB, 80, TCP), (NODE_2, DB, 80, TCP)),
        denied=((CLIENT, DB, 80, TCP), (JOB, DB, 80, TCP), (WEB, DB, 80, TCP)),
    ),
    Case(
        "of equal priorities Deny goes first at the first and third place, Accept at the second",
        (
            cluster_policy("a", ingress=[rule("Accept", **tcp(number)) for number in (80, 81, 82)]),
            cluster_policy("b", ingress=[rule("Deny", **tcp(number)) for number in (80, 81, 82)]),
        ),
        allowed=((CLIENT, DB, 81, TCP), (WEB, JOB, 81, TCP), (CLIENT, DB, 83, TCP)),
        denied=((CLIENT, DB, 80, TCP), (WEB, JOB, 80, TCP), (CLIENT, DB, 82, TCP)),
    ),
    Case(
        "what is passed is decided by NetworkPolicies where they isolate, else by the tier Baseline",
        (
            cluster_policy("pass", ingress=[rule("Pass", **tcp(80)), rule("Deny")]),
            network_policy(podSelector=labels(role="db"), ingress=[{"from": [FROM_WEB]}]),
            cluster_policy("base", "Baseline", ingress=[rule("Deny", {"namespaces": labels(team="blue")})]),
        ),
        allowed=((WEB, DB, 80, TCP), (DB, WEB, 80, TCP), (STRAY, JOB, 80, TCP)),
        denied=(
            (CLIENT, DB, 80, TCP),
            (JOB, DB, 80, TCP),
            (CLIENT, WEB, 80, TCP),
            (DB, WEB, 81, TCP),
            (WEB, DB, 0, ICMP),
        ),
    ),
    Case(
        "what an administrator denies of TCP and UDP leaves alone what is neither",
        (cluster_policy(egress=[rule("Deny", protocols=[{"tcp": {}}, {"udp": {}}])]),),
        allowed=((DB, CLIENT, 0, ICMP), (DB, WEB, 0, GRE), (DB, JOB, 80, SCTP)),
        denied=((DB, CLIENT, 80, TCP), (DB, WEB, 53, UDP)),
    ),
    Case(
        "the ends of a connection are both asked, each by its own policies",
        (
            network_policy(
                "out",
                podSelector=labels(role="db"),
                policyTypes=["Egress"],
                egress=[{"ports": ports(80, 81)}],
            ),
            network_policy("in", "partner", ingress=[{"ports": ports(81, 82)}]),
        ),
        allowed=((DB, CLIENT, 81, TCP), (DB, JOB, 80, TCP), (WEB, CLIENT, 82, TCP)),
        denied=((DB, CLIENT, 80, TCP), (DB, CLIENT, 82, TCP), (WEB, CLIENT, 80, TCP)),
    ),
    Case(
        "a pod that is isolated speaks with itself and with its own node, not with another one",
        (network_policy(policyTypes=["Ingress", "Egress"]),),
        allowed=((DB, DB, 80, TCP), (DB, NODE_1, 53, UDP), (NODE_1, DB, 80, TCP), (NODE_2, JOB, 0, ICMP)),
        denied=((DB, NODE_2, 53, UDP), (NODE_2, DB, 80, TCP), (DB, WEB, 80, TCP), (NODE_1, JOB, 80, TCP)),
    ),
    Case(
        "an administrator keeps a pod from its own node, and not the node from the pod",
        (
            cluster_policy(
                egress=[{"action": "Deny", "to": [{"nodes": {}}], **tcp(22)}], ingress=[rule("Deny")]
            ),
        ),
        allowed=((DB, NODE_1, 80, TCP), (NODE_1, DB, 22, TCP), (NODE_2, DB, 22, TCP)),
        denied=((DB, NODE_1, 22, TCP), (DB, NODE_2, 22, TCP), (DB, WEB, 80, TCP)),
    ),
    Case(
        "a name whose address is a pod's opens the way to that pod, and to no other",
        (
            cluster_policy(
                egress=[
                    {"action": "Accept", "to": [{"domainNames": ["*.example.com"]}]},
                    {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
                ],
            ),
        ),
        allowed=((CLIENT, DB, 80, TCP), (WEB, DB, 80, TCP), (JOB, JOB, 80, TCP)),
        denied=((CLIENT, WEB, 80, TCP), (CLIENT, JOB, 80, TCP), (DB, WEB, 80, TCP)),
        fields={
            "domains": {"db.example.com": frozenset(DB.addresses), "example.com": frozenset(WEB.addresses)}
        },
    ),
    Case(
        "a second attachment of a pod is isolated, and a peer, as the first one is",
        (
            network_policy("db", podSelector=labels(role="db"), ingress=[{"from": [FROM_WEB]}]),
            network_policy(
                "client",
                "partner",
                ingress=[{"from": [{"namespaceSelector": {}, "podSelector": labels(role="db")}]}],
            ),
        ),
        allowed=((WEB, DB, 80, TCP), (WEB, AGAIN, 80, TCP), (DB, CLIENT, 80, TCP), (AGAIN, CLIENT, 80, TCP)),
        denied=((JOB, DB, 80, TCP), (JOB, AGAIN, 80, TCP), (DB, AGAIN, 80, TCP), (WEB, CLIENT, 80, TCP)),
        fields={"pods": (*CLUSTER.pods, AGAIN)},
    ),
    Case(
        "a staged policy neither isolates nor opens",
        (
            network_policy("staged", staged=True, ingress=[{"from": [FROM_CLIENT]}]),
            network_policy("db", podSelector=labels(role="db"), ingress=[{"from": [FROM_WEB]}]),
        ),
        allowed=((JOB, WEB, 80, TCP), (WEB, DB, 80, TCP)),
        denied=((CLIENT, DB, 80, TCP), (JOB, DB, 80, TCP)),
    ),
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_connections_get_through_that_a_person_says_are_allowed(case: Case, version: int) -> None:
    cluster = with_policies(*case.policies, **case.fields)
    network = Network(cluster)
    for ways, wanted in ((case.allowed, True), (case.denied, False)):
        for source, destination, port, protocol in ways:
            asked = connection(cluster, source, destination, port, protocol, version)
            assert evaluate(cluster, asked).allowed is wanted, explanation(network, asked)
            assert network.allows(asked) is wanted, explanation(network, asked)
