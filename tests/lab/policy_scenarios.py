# SPDX-License-Identifier: Apache-2.0
"""Changes of one object that close one way, open another one, and leave a third one open, each made in another manner.

In the namespace `front` are pods that send: those of role x, and those of role y. In `back` are those that receive,
of role r. The ports P, Q and R have nothing else in common with these letters. In every scenario x may reach Q in both
states, and somebody may reach P in the one and R in the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.lab import policy_documents as documents
from tests.lab.policy_documents import NAMESPACE_NAME, Document, labelled, ports, protocols
from tests.lab.policy_stream import Way

P, Q, R = 7001, 7002, 7003
PORTS = (P, Q, R)
FRONT, BACK = "front", "back"
#: (role of the sender, port)
Allowed = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class State:
    """What is declared for it to be in force, what is removed, and what it allows."""

    allowed: Allowed
    declared: tuple[Document, ...] = ()
    removed: tuple[Document, ...] = ()


@dataclass(frozen=True)
class Scenario:
    name: str
    states: Mapping[str, State]
    #: Declared before everything.
    always: tuple[Document, ...] = ()
    #: Each direction's state allows P, and both together never do: two switches that are not in the same state may let
    #: something pass between nodes.
    both_directions: bool = False

    def allows(self, state: str, way: Way) -> bool:
        """Senders are called by their role and a number."""
        return (way.source[0], way.port) in self.states[state].allowed

    def documents(self) -> list[Document]:
        """All objects that may have been declared, each once."""
        declared = [*self.always, *(one for state in self.states.values() for one in state.declared)]
        names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in declared]
        return list(dict(zip(names, declared, strict=True)).values())


def _from(role: str) -> Document:
    """Pods of that role in the namespace of the senders, as a peer of a NetworkPolicy."""
    return {"namespaceSelector": _named(FRONT), "podSelector": labelled(role=role)}


def _named(namespace: str) -> Document:
    return labelled(**{NAMESPACE_NAME: namespace})


def _ingress(*rules: tuple[Document, int]) -> Document:
    found = [{"from": [peer], "ports": ports(port)} for peer, port in rules]
    return documents.network_policy("changes", BACK, policyTypes=["Ingress"], ingress=found)


def _egress(*numbers: int) -> Document:
    peer = {"namespaceSelector": _named(BACK), "podSelector": labelled(role="r")}
    rules = [{"to": [peer], "ports": ports(number)} for number in numbers]
    return documents.network_policy(
        "changes", FRONT, labelled(role="x"), policyTypes=["Egress"], egress=rules
    )


#: One NetworkPolicy for those who receive, replaced.
INGRESS = Scenario(
    "ingress rules",
    {
        "A": State(frozenset({("x", P), ("x", Q)}), (_ingress((_from("x"), P), (_from("x"), Q)),)),
        "B": State(frozenset({("x", Q), ("y", R)}), (_ingress((_from("x"), Q), (_from("y"), R)),)),
    },
)

#: One NetworkPolicy for those who send, replaced.
EGRESS = Scenario(
    "egress rules",
    {
        "A": State(frozenset({("x", P), ("x", Q)}), (_egress(P, Q),)),
        "B": State(frozenset({("x", Q), ("x", R)}), (_egress(Q, R),)),
    },
    (documents.network_policy("nothing", FRONT, labelled(role="y"), policyTypes=["Egress"]),),
)

#: A NetworkPolicy that comes and goes.
EXISTENCE = Scenario(
    "a policy made and deleted",
    {
        "A": State(
            frozenset((role, port) for role in "xy" for port in PORTS), (), (_ingress((_from("x"), Q)),)
        ),
        "B": State(frozenset({("x", Q)}), (_ingress((_from("x"), Q)),)),
    },
)


def namespace_labels() -> Scenario:
    """The labels of the senders' namespace."""

    def may(mode: str) -> Document:
        return {"namespaceSelector": labelled(mode=mode), "podSelector": labelled(role="x")}

    return Scenario(
        "labels of a namespace",
        {
            "A": State(frozenset({("x", P), ("x", Q)}), (documents.namespace(FRONT, {"mode": "p"}),)),
            "B": State(frozenset({("x", Q), ("x", R)}), (documents.namespace(FRONT, {"mode": "r"}),)),
        },
        (_ingress((may("p"), P), (_from("x"), Q), (may("r"), R)),),
    )


def pod_labels(pods: Mapping[str, Mapping[str, Document]]) -> Scenario:
    """The labels of senders: `pods` has by state and name what is declared of those of role x."""

    def may(what: str) -> Document:
        return {"namespaceSelector": _named(FRONT), "podSelector": labelled(may=what)}

    return Scenario(
        "labels of pods",
        {
            "A": State(frozenset({("x", P), ("x", Q)}), tuple(pods["p"].values())),
            "B": State(frozenset({("x", Q), ("x", R)}), tuple(pods["r"].values())),
        },
        (_ingress((may("p"), P), (_from("x"), Q), (may("r"), R)),),
    )


# Cluster policies.

_SUBJECT = {
    "namespaces": {"matchExpressions": [{"key": NAMESPACE_NAME, "operator": "In", "values": [FRONT, BACK]}]}
}


def _pods(role: str) -> Document:
    return {"pods": {"namespaceSelector": {}, "podSelector": labelled(role=role)}}


def _rules(which: str, accepted: list[tuple[str, int]]) -> list[Document]:
    """Accept these in turn, deny the rest, so that what stays accepted gets another place in the order."""
    accept = [
        {"action": "Accept", which: [_pods(role)], "protocols": protocols(port)} for role, port in accepted
    ]
    return [*accept, {"action": "Deny", which: [{"namespaces": {}}]}]


def _administered(ingress: list[tuple[str, int]], egress: list[tuple[str, int]] | None = None) -> Document:
    rules = {"ingress": _rules("from", ingress)}
    if egress is not None:
        rules["egress"] = _rules("to", egress)
    return documents.cluster_policy("changes", "Admin", _SUBJECT, **rules)


#: One ClusterNetworkPolicy of the tier Admin, replaced.
ADMIN = Scenario(
    "rules of the tier Admin",
    {
        "A": State(frozenset({("x", P), ("x", Q)}), (_administered([("x", P), ("x", Q)]),)),
        "B": State(frozenset({("x", Q), ("y", R)}), (_administered([("x", Q), ("y", R)]),)),
    },
)

#: One ClusterNetworkPolicy whose directions change in opposite ways: never are both open for P.
CROSSED = Scenario(
    "both directions, crossed",
    {
        "A": State(frozenset({("x", Q)}), (_administered([("x", Q)], [("r", P), ("r", Q)]),)),
        "B": State(frozenset({("x", Q)}), (_administered([("x", P), ("x", Q)], [("r", Q)]),)),
    },
    both_directions=True,
)
