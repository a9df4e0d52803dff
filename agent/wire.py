# SPDX-License-Identifier: Apache-2.0
"""What the agent knows, as the wire has it, and the other way round. Values only."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from agent.nodesetup.facts import Assignment, NodeFacts, Peer
from agent.state import Record
from sdn.v1 import controller_pb2 as messages
from sdn.v1 import types_pb2 as types
from sdn.version import VERSION


def node_info(facts: NodeFacts, pod_ranges: list[str]) -> types.NodeInfo:
    """The node as the wire has it."""
    return types.NodeInfo(
        name=facts.name,
        uid=facts.uid,
        addresses=[str(address) for address in facts.addresses],
        tunnel_address=str(facts.tunnel_address),
        tunnel_mac=facts.mac,
        encapsulation=f"ENCAPSULATION_{facts.encapsulation.upper()}",
        datapath=f"DATAPATH_{facts.datapath.upper()}",
        datapath_id=facts.datapath_id,
        pod_ranges=pod_ranges,
        mtu=facts.mtu,
        agent_version=VERSION,
        labels=facts.labels,
    )


def hello(facts: NodeFacts, pod_ranges: list[str]) -> messages.Hello:
    """How a stream begins; `pod_ranges` are those that the node used so far."""
    return messages.Hello(node=node_info(facts, pod_ranges))


def attachment(record: Record) -> types.Attachment:
    """An attachment as the wire has it."""
    created_at = Timestamp()
    created_at.FromMicroseconds(int(record.created_at * 1_000_000))
    return types.Attachment(
        container_id=record.container_id,
        interface_name=record.ifname,
        pod_namespace=record.pod_namespace,
        pod_name=record.pod_name,
        pod_uid=record.pod_uid,
        ofport=record.ofport,
        mac=record.mac,
        addresses=[str(address.ip) for address in record.addresses],
        labels=dict(record.labels),
        host_interface=record.host_interface,
        netns=record.netns,
        created_at=created_at,
    )


def assignment(welcome: messages.Welcome) -> Assignment:
    """What Welcome tells the node's set-up. It tells nothing of peers."""
    return Assignment(
        pod_ranges=list(welcome.node.pod_ranges),
        cluster_ranges=list(welcome.cluster_ranges),
        openflow_targets=sorted(set(welcome.openflow_targets)),
        service_ranges=list(welcome.service_ranges),
        load_balancer_ranges=list(welcome.load_balancer_ranges),
        node_port_first=welcome.node_port_first,
        node_port_last=welcome.node_port_last,
        cluster_domain=welcome.cluster_domain,
        dns_addresses=list(welcome.dns_addresses),
        serve_dns=welcome.serve_dns,
    )


def peers(told: messages.Peers) -> list[Peer]:
    """The other nodes, as far as this one's set-up depends on them, in a fixed order."""
    return [
        Peer(node.name, list(node.addresses), node.tunnel_address, node.tunnel_mac)
        for node in sorted(told.nodes, key=lambda node: node.name)
    ]
