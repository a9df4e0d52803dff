# SPDX-License-Identifier: Apache-2.0
"""Where the cluster's DNS is served when no pods serve it: by each node's agent, on the node's gateway addresses.
Each registered node is thus an endpoint of the Service kube-system/kube-dns.
"""

from __future__ import annotations

from controller.allocation.builtin import DNS_PORT
from controller.records import NodeRecord
from sdn.pipeline.service import Protocol
from sdn.pipeline.topology import Range
from sdn.services.endpoints import ServiceEndpoint

#: By the names that Kubernetes' installers give them.
_PORTS = (("dns", Protocol.UDP, DNS_PORT), ("dns-tcp", Protocol.TCP, DNS_PORT))


def dns_endpoints(record: NodeRecord, zone: str) -> tuple[ServiceEndpoint, ...]:
    """Where a node's agent serves DNS."""
    gateways = (Range.parse(text).gateway for text in record.pod_ranges)
    return tuple(ServiceEndpoint(one, _PORTS, node=record.name, zone=zone, pod=False) for one in gateways)
