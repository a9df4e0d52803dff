# SPDX-License-Identifier: Apache-2.0
"""Who and what the parts of a policy are for: subjects, peers and ports, one function each, one object at a time.

Part of the reference (``evaluator``): read off the documentation, without indexes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import (
    ClusterNetworkPolicyPeer,
    ClusterNetworkPolicyProtocol,
    NamespacedPods,
    Subject,
)
from sdn.model.networkpolicy import NetworkPolicyPeer, NetworkPolicyPort
from sdn.model.selector import LabelSelectorSpec
from sdn.policy.resolution import plain
from sdn.policy.values import PolicyPod, Protocol
from sdn.policy.verdict import Connection, End, PolicyCluster

#: The label that every namespace has by itself; its value is the namespace's name.
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def namespace_labels(cluster: PolicyCluster, namespace: str) -> Mapping[str, str]:
    """The labels of a namespace: the declared ones, and its name."""
    return {**cluster.namespaces.get(namespace, {}), NAMESPACE_NAME: namespace}


def selects_pod(selector: LabelSelectorSpec, pod: PolicyPod) -> bool:
    """Whether a selector takes the pod by its labels."""
    return selector.selector().matches(pod.labels)


def selects_namespace(selector: LabelSelectorSpec, cluster: PolicyCluster, namespace: str) -> bool:
    """Whether a selector takes the namespace by its labels."""
    return selector.selector().matches(namespace_labels(cluster, namespace))


# NetworkPolicy.


def peer_matches(
    cluster: PolicyCluster, peer: NetworkPolicyPeer, namespace: str, end: End, address: Address
) -> bool:
    """Whether the other end is this peer of a policy in ``namespace``. Selectors select pods, an ipBlock whatever has
    such an address, pods too.
    """
    if peer.ip_block is not None:
        return in_cidr(address, peer.ip_block.cidr) and not any(
            in_cidr(address, one) for one in peer.ip_block.except_
        )
    if not isinstance(end, PolicyPod):
        return False
    if peer.namespace_selector is None:
        in_namespace = end.namespace == namespace
    else:
        in_namespace = selects_namespace(peer.namespace_selector, cluster, end.namespace)
    return in_namespace and (peer.pod_selector is None or selects_pod(peer.pod_selector, end))


def port_matches(port: NetworkPolicyPort, connection: Connection) -> bool:
    """Whether the connection goes to this port. A name is that of a port of the pod that it goes to, with the same
    protocol; nothing else has named ports.
    """
    protocol = Protocol[port.protocol or "TCP"]
    if connection.protocol != protocol:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, str):
        return isinstance(connection.destination, PolicyPod) and any(
            (one.name, one.protocol, one.port) == (port.port, protocol, connection.port)
            for one in connection.destination.named_ports
        )
    return port.port <= connection.port <= (port.end_port or port.port)


# ClusterNetworkPolicy.


def subject_matches(cluster: PolicyCluster, subject: Subject, pod: PolicyPod) -> bool:
    """Whether a policy with this subject is for the pod."""
    if subject.namespaces is not None:
        return selects_namespace(subject.namespaces, cluster, pod.namespace)
    return subject.pods is not None and _takes(subject.pods, cluster, pod)


def cluster_peer_matches(
    cluster: PolicyCluster, peer: ClusterNetworkPolicyPeer, end: End, address: Address
) -> bool:
    """Whether the other end is this peer. ``nodes`` are meant by the addresses that nodes have of themselves,
    ``networks`` match pods and nodes, too, ``domainNames`` the addresses that the DNS gave for such names.
    """
    if peer.namespaces is not None:
        return isinstance(end, PolicyPod) and selects_namespace(peer.namespaces, cluster, end.namespace)
    if peer.pods is not None:
        return isinstance(end, PolicyPod) and _takes(peer.pods, cluster, end)
    if peer.nodes is not None:
        selector = peer.nodes.selector()
        return any(address in node.addresses for node in cluster.nodes if selector.matches(node.labels))
    if peer.networks:
        return any(in_cidr(address, cidr) for cidr in peer.networks)
    return any(
        address in addresses and any(domain_matches(pattern, name) for pattern in peer.domain_names)
        for name, addresses in cluster.domains.items()
    )


def _takes(pods: NamespacedPods, cluster: PolicyCluster, pod: PolicyPod) -> bool:
    return selects_namespace(pods.namespace_selector, cluster, pod.namespace) and selects_pod(
        pods.pod_selector, pod
    )


def cluster_protocol_matches(protocol: ClusterNetworkPolicyProtocol, connection: Connection) -> bool:
    """Whether the connection is of this protocol and goes to its ports. A name is that of a port of the pod that it
    goes to, whatever the port's protocol.
    """
    if protocol.destination_named_port:
        return isinstance(connection.destination, PolicyPod) and any(
            (one.name, one.protocol, one.port)
            == (protocol.destination_named_port, connection.protocol, connection.port)
            for one in connection.destination.named_ports
        )
    ports = {Protocol.TCP: protocol.tcp, Protocol.UDP: protocol.udp, Protocol.SCTP: protocol.sctp}
    for number, of_protocol in ports.items():
        if of_protocol is not None and connection.protocol == number:
            wanted = of_protocol.destination_port
            if wanted is None:
                return True
            if wanted.range is not None:
                return wanted.range.start <= connection.port <= wanted.range.end
            return connection.port == wanted.number
    return False


# Addresses and names.


def in_cidr(address: Address, cidr: str) -> bool:
    """Whether a range in CIDR form holds an address of its version."""
    return ipaddress.ip_address(str(address)) in ipaddress.ip_network(cidr, strict=False)


def domain_matches(pattern: str, name: str) -> bool:
    """Whether a name is what ``domainNames`` says: the same, or, after ``*.``, one or more labels before the rest. Case
    and a dot at the end mean nothing.
    """
    pattern, name = plain(pattern), plain(name)
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern
