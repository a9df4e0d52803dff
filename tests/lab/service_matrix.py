# SPDX-License-Identifier: Apache-2.0
"""Every way to a Service, and what Kubernetes says must come of it. Values only; nothing here sends a packet.

`expected` is written from the documentation, not from this network's code:

[source-ip]    kubernetes.io/docs/tutorials/services/source-ip
[virtual-ips]  kubernetes.io/docs/reference/networking/virtual-ips
[api]          the Service API's own text of externalTrafficPolicy and internalTrafficPolicy
               (kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1)
[internal]     kubernetes.io/docs/concepts/services-networking/service-traffic-policy
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

KINDS = ("ClusterIP", "NodePort", "LoadBalancer", "externalIP")
POLICIES = ("Cluster", "Local")
FAMILIES = ("IPv4", "IPv6")
TRANSPORTS = ("tcp", "udp")

#: Where the one endpoint of each Service is, a pod or a process of the node's own network, and who else is there.
HOME, AWAY, THIRD = "node-1", "node-2", "node-3"
OUTSIDE = "outside"
#: Stands for the node that announces a LoadBalancer address, as long as nobody knows which.
ANNOUNCER = "its announcer"


def service_name(kind: str, policy: str, endpoint: str) -> str:
    """Of the Service that is there for these cases."""
    return f"{kind}-{policy}-{endpoint}".lower()


@dataclass(frozen=True)
class Case:
    """One client speaks once to one frontend of one Service."""

    #: How the Service is addressed.
    kind: str
    #: internalTrafficPolicy of a ClusterIP, externalTrafficPolicy of all others.
    policy: str
    family: str
    transport: str
    #: "pod", "node" (a process of the node's own) or "outside", and on which node it is; "" outside.
    client: str
    client_node: str
    #: "pod" or "hostNetwork"; it is on HOME.
    endpoint: str
    #: The node whose address is spoken to (NodePort), or through which outside's packets come in; else "".
    node: str = ""

    @property
    def service(self) -> str:
        """Name of the Service that stands for this kind, policy and endpoint."""
        return service_name(self.kind, self.policy, self.endpoint)

    @property
    def place(self) -> str:
        """Where the packet is translated, as the documentation thinks of it: on the client's node, where there is one
        and the Service is not another node's port; else on the node where it comes in.
        """
        if self.client == "outside":
            return self.node
        if self.client == "node" and self.kind == "NodePort":
            return self.node
        return self.client_node

    @property
    def id(self) -> str:
        """One line for people, without family and transport."""
        where = f" on {self.client_node}" if self.client_node else ""
        by = {"": "", "outside": f" through {self.node}"}.get(self.client, "")
        if self.kind == "NodePort":
            by = f" at {self.node}"
        relation = "an" if self.node == ANNOUNCER else "a local" if self.place == HOME else "a remote"
        return f"{self.kind} {self.policy}: {self.client}{where}{by} to {relation} endpoint ({self.endpoint})"


@dataclass(frozen=True)
class Expectation:
    """What must come of a case."""

    reached: bool
    #: Whose address the endpoint sees: "client", or a node's name; "" when it is not reached.
    source: str = ""


def expected(case: Case) -> Expectation:
    """What the documentation says of a case."""
    local = case.place == HOME
    in_cluster = case.client in ("pod", "node")
    # A node's process has the node's address as its own.
    if case.kind == "ClusterIP":
        # "When set to Local, only node-local endpoints are considered" [virtual-ips]; for clients on a node without
        # any "the Service behaves as if it has zero endpoints" [internal].
        if case.policy == "Local" and not local:
            return Expectation(False)
        # "Packets sent to ClusterIP from within the cluster are never source NAT'd" [source-ip]. What a route to a node
        # brings from elsewhere returns through that node only if it appears under its address.
        return Expectation(True, "client" if in_cluster else case.place)
    if case.client == "pod":
        # "traffic sent to an External IP or LoadBalancer IP from within the cluster will always get 'Cluster'
        # semantics" [api]. To a node port, "clients ... from within the cluster may need to take traffic policy into
        # account when picking a node" [api]: a proxy that knows pods serves them under Cluster everywhere, so do we.
        return Expectation(True, "client")
    if case.client == "node" and (case.kind != "NodePort" or case.client_node == case.node):
        # From within the cluster, again; and a node's own port is translated before it leaves the node.
        return Expectation(True, "client")
    # What comes from outside, as another node's process does to a node port.
    if case.policy == "Cluster":
        # "Packets sent to Services with Type=NodePort are source NAT'd by default", so are those to LoadBalancer
        # addresses [source-ip].
        return Expectation(True, case.place)
    # "kube-proxy only proxies proxy requests to local endpoints, and does not forward traffic to other nodes. This
    # approach preserves the original source IP address. If there are no local endpoints, packets sent to the node are
    # dropped" [source-ip].
    return Expectation(True, "client") if local else Expectation(False)


def cases(announcers: dict[str, str]) -> Iterator[Case]:
    """All of them. `announcers`: by a Service's name, which node announces its LoadBalancer addresses."""
    for kind, policy, endpoint, family, transport in itertools.product(
        KINDS, POLICIES, ("pod", "hostNetwork"), FAMILIES, TRANSPORTS
    ):
        case = partial(Case, kind=kind, policy=policy, family=family, transport=transport, endpoint=endpoint)
        nodes = (HOME, AWAY, THIRD) if kind == "NodePort" else ("",)
        for client, client_node, node in itertools.product(("pod", "node"), (HOME, AWAY), nodes):
            yield case(client=client, client_node=client_node, node=node)
        if kind == "LoadBalancer":
            entries = [announcers[service_name(kind, policy, endpoint)]]
        else:
            entries = [HOME, AWAY]
        for node in entries:
            yield case(client="outside", client_node="", node=node)


def table(results: Iterable[tuple[Case, str]]) -> str:
    """All cases for people: a line for each way, a column for each family and transport with what came of it."""
    columns = list(itertools.product(FAMILIES, TRANSPORTS))
    lines: dict[str, dict[tuple[str, str], str]] = {}
    for case, text in sorted(results, key=lambda result: KINDS.index(result[0].kind)):
        lines.setdefault(case.id, {})[case.family, case.transport] = text
    rows = [["", *(f"{family} {transport.upper()}" for family, transport in columns)]]
    rows += [[name, *(found.get(column, "") for column in columns)] for name, found in lines.items()]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
