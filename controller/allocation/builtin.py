# SPDX-License-Identifier: Apache-2.0
"""The Service that the controller itself provides: the cluster's DNS, when the agents serve it (setting dns).

It has the name that Kubernetes' installers give to theirs, and is not stored: settings say all of it. Each node's
agent answers for the node's own pods (internalTrafficPolicy Local).
"""

from __future__ import annotations

import ipaddress

from controller.allocation.network import ServiceNetwork
from sdn.model.meta import ObjectMeta
from sdn.model.service import CLUSTER_IP, LOCAL, Service, ServicePortSpec, ServiceSpec, defaulted

#: Namespace and name.
DNS = "kube-system", "kube-dns"
#: Its number, which no other Service ever has.
DNS_NUMBER = 1
DNS_PORT = 53


def dns_service(network: ServiceNetwork) -> Service | None:
    """The cluster's DNS as a Service; None: somebody else serves it."""
    if not network.serve_dns or not network.dns_addresses:
        return None
    addresses = network.dns_addresses
    return defaulted(
        Service(
            metadata=ObjectMeta(namespace=DNS[0], name=DNS[1], labels={"k8s-app": DNS[1]}),
            spec=ServiceSpec(
                type=CLUSTER_IP,
                cluster_ip=addresses[0],
                cluster_ips=addresses,
                ip_families=tuple(f"IPv{ipaddress.ip_address(text).version}" for text in addresses),
                ip_family_policy="PreferDualStack" if len(addresses) > 1 else "SingleStack",
                ports=(
                    ServicePortSpec(name="dns", protocol="UDP", port=DNS_PORT),
                    ServicePortSpec(name="dns-tcp", protocol="TCP", port=DNS_PORT),
                ),
                internal_traffic_policy=LOCAL,
            ),
        )
    )
