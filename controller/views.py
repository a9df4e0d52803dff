# SPDX-License-Identifier: Apache-2.0
"""Objects as people see them: what was declared, joined with what is.

Pure functions from the model to Kubernetes-shaped documents. A declared Pod's labels replace those that came
with its attachment; a declared Node's labels are laid over those that its agent reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.cluster import AttachmentKey, Cluster, key_of
from controller.records import AttachmentRecord, NodeRecord
from controller.synchronizer import Status
from sdn.model import Pod, to_document
from sdn.model.objects import API_VERSION

Document = dict[str, Any]


def node_document(cluster: Cluster, name: str, agent_connected: bool, switch: Status) -> Document | None:
    """The Node, declared or registered; None when it is neither."""
    declared = cluster.objects["Node"].get(("", name))
    record = cluster.nodes.get(name)
    if declared is None and record is None:
        return None
    document = to_document(declared) if declared is not None else _document("Node", "", name)
    document.setdefault("spec", {})
    if record is None:
        document["status"] = {"conditions": [_condition("Registered", False)]}
        return document
    document["metadata"]["uid"] = record.uid
    labels = record.labels | document["metadata"].get("labels", {})
    if labels:
        document["metadata"]["labels"] = labels
    document["spec"] |= {"podCIDR": record.pod_ranges[0], "podCIDRs": list(record.pod_ranges)}
    document["status"] = _node_status(cluster, record, agent_connected, switch)
    return document


def _node_status(cluster: Cluster, record: NodeRecord, agent_connected: bool, switch: Status) -> Document:
    return {
        "addresses": [{"type": "InternalIP", "address": address} for address in record.addresses],
        "conditions": [
            _condition("Registered", True),
            _condition("AgentConnected", agent_connected),
            _condition("SwitchConnected", switch.connected),
            _condition("SwitchSynchronized", switch.synchronized, switch.last_error),
        ],
        "nodeInfo": {
            "agentVersion": record.agent_version,
            "datapath": record.datapath,
            "datapathID": f"{record.datapath_id:016x}",
            "encapsulation": record.encapsulation,
            "mtu": record.mtu,
            "tunnelAddress": record.tunnel_address,
        },
        "pods": len(cluster.attachments_on(record.name)),
    }


def pod_document(
    cluster: Cluster, namespace: str, name: str, programmed: set[AttachmentKey]
) -> Document | None:
    """The Pod, declared or attached; None when it is neither."""
    declared = cluster.objects["Pod"].get((namespace, name))
    attachments = cluster.attachments_of(namespace, name)
    if declared is None and not attachments:
        return None
    document = to_document(declared) if declared is not None else _document("Pod", namespace, name)
    document.setdefault("spec", {})
    # Shown where it was declared: what get prints can be applied again, and says nothing new.
    ready = list(declared.status.get("conditions", ())) if isinstance(declared, Pod) else []
    if isinstance(declared, Pod) and declared.host_network:
        document["status"] = _host_pod_status(cluster, declared, ready)
        return document
    if not attachments:
        document["status"] = {"phase": "Pending", "conditions": [*ready, _condition("Attached", False)]}
        return document
    # While a sandbox is replaced the pod has two sets of attachments: the newest container's count.
    current = [record for record in attachments if record.container_id == attachments[0].container_id]
    newest = current[0]
    if newest.pod_uid:
        document["metadata"]["uid"] = newest.pod_uid
    if newest.created_at:
        document["metadata"]["creationTimestamp"] = newest.created_at
    if declared is None and newest.labels:
        document["metadata"]["labels"] = dict(newest.labels)
    document["spec"]["nodeName"] = newest.node
    document["status"] = _pod_status(cluster, current, attachments, programmed)
    document["status"]["conditions"] += ready
    return document


def _host_pod_status(cluster: Cluster, pod: Pod, ready: list[Document]) -> Document:
    """A pod on its node's network is never attached: its addresses are the node's."""
    record = cluster.nodes.get(pod.node_name)
    if record is None:
        return {"phase": "Pending", "conditions": ready}
    addresses = [{"ip": address} for address in record.addresses]
    return {
        "phase": "Running",
        "hostIP": record.addresses[0],
        "hostIPs": addresses,
        "podIP": record.addresses[0],
        "podIPs": addresses,
        "conditions": ready,
    }


def _pod_status(
    cluster: Cluster,
    current: list[AttachmentRecord],
    attachments: list[AttachmentRecord],
    programmed: set[AttachmentKey],
) -> Document:
    ready = all(key_of(record) in programmed for record in current)
    addresses = [address for record in sorted(current, key=_interface) for address in record.addresses]
    node = cluster.nodes[current[0].node]
    return {
        "phase": "Running" if ready else "Pending",
        "hostIP": node.addresses[0],
        "hostIPs": [{"ip": address} for address in node.addresses],
        "podIP": addresses[0],
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [_condition("Attached", True), _condition("Programmed", ready)],
        "attachments": [
            {
                "containerID": record.container_id,
                "interface": record.interface_name,
                "hostInterface": record.host_interface,
                "ofport": record.ofport,
                "mac": record.mac,
                "addresses": list(record.addresses),
                "netns": record.netns,
                "programmed": key_of(record) in programmed,
            }
            for record in attachments
        ],
    }


def namespace_document(cluster: Cluster, name: str) -> Document | None:
    """The Namespace, declared or in use; None when it is neither. "default" always exists."""
    declared = cluster.objects["Namespace"].get(("", name))
    if declared is None and not cluster.has_namespace(name):
        return None
    document = to_document(declared) if declared is not None else _document("Namespace", "", name)
    # As Kubernetes does, so that a selector can name a namespace.
    document["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    document["status"] = {"phase": "Active"}
    return document


def service_document(
    cluster: Cluster, namespace: str, name: str, addresses: Iterable[str]
) -> Document | None:
    """The Service with the LoadBalancer addresses that it has from the pool; None when there is none."""
    declared = cluster.objects["Service"].get((namespace, name))
    if declared is None:
        return None
    document = to_document(declared)
    # The switch serves these addresses itself (ipMode of Kubernetes' LoadBalancerIngress).
    ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
    document["status"] = {"loadBalancer": {"ingress": ingress} if ingress else {}}
    return document


def _interface(record: AttachmentRecord) -> str:
    return record.interface_name


def _document(kind: str, namespace: str, name: str) -> Document:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": {}}


def _condition(kind: str, holds: bool, message: str = "") -> Document:
    condition = {"type": kind, "status": "True" if holds else "False"}
    if message:
        condition["message"] = message
    return condition
