# SPDX-License-Identifier: Apache-2.0
"""A pod as Services see it: its attachments joined with its declaration.

What is declared says labels, names of ports, readiness; what is attached says where the pod is and which
addresses it has. A pod that is not declared is taken as ready with its attachment's labels. A pod on the
host's network is never attached: its declaration says the node, and it has the node's addresses.

A pod counts as ready no sooner than its own switch has confirmed its flows: nobody is sent to a pod that
cannot answer yet. While a sandbox is replaced the former one counts until the new one is in force.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from controller.cluster import AttachmentKey, Cluster, key_of
from controller.records import AttachmentRecord, NodeRecord
from sdn.model import Node, Pod
from sdn.pipeline.topology import Address
from sdn.services.endpoints import PodView

#: Kubernetes, "Well-Known Labels": where a node is.
ZONE_LABEL = "topology.kubernetes.io/zone"


def zone_of(cluster: Cluster, name: str) -> str:
    """A node's zone; empty: not known. Declared labels are laid over what its agent reports."""
    labels: dict[str, str] = {}
    record = cluster.nodes.get(name)
    if record is not None:
        labels |= record.labels
    declared = cluster.objects["Node"].get(("", name))
    if isinstance(declared, Node):
        labels |= declared.metadata.labels
    return labels.get(ZONE_LABEL, "")


def node_addresses(record: NodeRecord) -> tuple[Address, ...]:
    """A node's own addresses."""
    return tuple(map(Address.parse, record.addresses))


def pod_view(
    cluster: Cluster, namespace: str, name: str, in_force: Container[AttachmentKey]
) -> PodView | None:
    """The pod; None when it is nowhere (yet, or any more). ``in_force`` are attachments whose flows are in
    their switch.
    """
    declared = cluster.objects["Pod"].get((namespace, name))
    pod = declared if isinstance(declared, Pod) else None
    if pod is not None and pod.host_network:
        return _host_view(cluster, pod)
    attachments = cluster.attachments_of(namespace, name)
    if not attachments:
        return None
    current = _current(attachments, in_force)
    addresses: dict[int, Address] = {}
    for record in current:
        for address in map(Address.parse, record.addresses):
            addresses.setdefault(address.version, address)
    node = current[0].node
    forwarding = all(key_of(record) in in_force for record in current)
    return _view(
        pod,
        namespace,
        name,
        node,
        zone_of(cluster, node),
        tuple(addresses.values()),
        labels=pod.metadata.labels if pod is not None else current[0].labels,
        ready=forwarding and (pod is None or pod.ready),
    )


def _host_view(cluster: Cluster, pod: Pod) -> PodView:
    record = cluster.nodes.get(pod.node_name)
    return _view(
        pod,
        pod.metadata.namespace,
        pod.metadata.name,
        pod.node_name,
        zone_of(cluster, pod.node_name),
        node_addresses(record) if record is not None else (),
        labels=pod.metadata.labels,
        ready=pod.ready,
    )


def _view(
    pod: Pod | None,
    namespace: str,
    name: str,
    node: str,
    zone: str,
    addresses: tuple[Address, ...],
    *,
    labels: Mapping[str, str],
    ready: bool,
) -> PodView:
    return PodView(
        namespace=namespace,
        name=name,
        node=node,
        zone=zone,
        addresses=addresses,
        labels=dict(labels),
        ready=ready,
        terminating=pod is not None and pod.terminating,
        hostname=pod.hostname if pod is not None else "",
        subdomain=pod.subdomain if pod is not None else "",
        named_ports=pod.named_ports if pod is not None else (),
        host_network=pod is not None and pod.host_network,
    )


def _current(
    attachments: Sequence[AttachmentRecord], in_force: Container[AttachmentKey]
) -> list[AttachmentRecord]:
    """The attachments of the newest container that forwards, else of the newest; by interface, in order."""
    containers = list(dict.fromkeys(record.container_id for record in attachments))
    forwarding = {record.container_id for record in attachments} - {
        record.container_id for record in attachments if key_of(record) not in in_force
    }
    chosen = next((container for container in containers if container in forwarding), containers[0])
    return sorted(
        (record for record in attachments if record.container_id == chosen),
        key=lambda record: record.interface_name,
    )
