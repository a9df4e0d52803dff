# SPDX-License-Identifier: Apache-2.0
"""The compiler: what a switch must hold, as a pure function of the model.

Five kinds of objects have flows on a switch: the node itself, each of its pods, each other node, each Service, and
each cell of what policies say (sdn/policy/cells.py). Each kind has one function here, which asks every feature;
when an object changes, only its own flows are computed again. No function here reads a clock, a file or a global,
so any controller computes the same flows for any switch.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from sdn.pipeline.features import (
    arp_responder,
    bridging,
    classification,
    delivery,
    holders,
    nd_responder,
    policy,
    routing,
    services,
    spoof_guard,
    translation,
)
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.service import ServicePort
from sdn.pipeline.tables import miss_flows
from sdn.pipeline.topology import LocalNode, PodPort, RemoteNode
from sdn.pipeline.version import version_flow
from sdn.policy.cells import Cell


def node_flows(local: LocalNode) -> tuple[Flow, ...]:
    """The flows that the node itself owns on its switch."""
    return tuple(
        chain(
            (version_flow(local.owner),),
            miss_flows(local.owner),
            classification.node_flows(local),
            spoof_guard.node_flows(local),
            arp_responder.node_flows(local),
            nd_responder.node_flows(local),
            holders.node_flows(local),
            translation.node_flows(local),
            services.node_flows(local),
            policy.node_flows(local),
            bridging.node_flows(local),
            routing.node_flows(local),
            delivery.node_flows(local),
        )
    )


def pod_flows(local: LocalNode, pod: PodPort) -> tuple[Flow, ...]:
    """The flows that a pod owns on the switch of its node."""
    return tuple(
        chain(
            classification.pod_flows(pod),
            spoof_guard.pod_flows(pod),
            arp_responder.pod_flows(pod),
            nd_responder.pod_flows(pod),
            holders.pod_flows(pod),
            translation.pod_flows(local, pod),
            policy.pod_flows(pod),
            bridging.pod_flows(pod),
            delivery.pod_flows(pod),
        )
    )


def peer_flows(peer: RemoteNode) -> tuple[Flow, ...]:
    """The flows that a node owns on the switch of each other node: the same on all of them."""
    return tuple(
        chain(
            classification.peer_flows(peer),
            arp_responder.peer_flows(peer),
            nd_responder.peer_flows(peer),
            translation.peer_flows(peer),
            routing.peer_flows(peer),
        )
    )


def service_flows(ports: Iterable[ServicePort]) -> tuple[Flow | Group, ...]:
    """The flows and groups that a Service owns on a switch: the same on every switch where its ports are the same."""
    return tuple(services.service_flows(ports))


def policy_flows(cell: Cell) -> tuple[Flow, ...]:
    """The flows of one cell of the node's policies."""
    return policy.cell_flows(cell)


def switch_flows(local: LocalNode, pods: Iterable[PodPort], peers: Iterable[RemoteNode]) -> tuple[Flow, ...]:
    """Everything that the node's switch must hold."""
    return tuple(
        chain(
            node_flows(local),
            chain.from_iterable(pod_flows(local, pod) for pod in pods),
            chain.from_iterable(map(peer_flows, peers)),
        )
    )
