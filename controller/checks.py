# SPDX-License-Identifier: Apache-2.0
"""What agents report, checked where it enters: from gRPC messages to records, or an error that names the
field.

Only what one message says by itself is checked here; whether it fits with the rest of the cluster is
:mod:`controller.cluster`'s question.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from controller.records import AttachmentRecord, NodeRecord
from sdn.model.names import (
    InvalidObjectError,
    check_dns_label,
    check_dns_subdomain,
    check_labels,
    check_network,
)
from sdn.pipeline.registers import FIRST_POD_PORT, GATEWAY_MAC, LAST_POD_PORT, ROUTER_MAC
from sdn.v1 import types_pb2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
#: CNI specification, "Parameters": what a container id is made of.
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
#: What every IPv4 host must be able to take (RFC 791, section 3.1).
SMALLEST_MTU = 576

ENCAPSULATIONS: dict[types_pb2.Encapsulation, str] = {
    types_pb2.ENCAPSULATION_GENEVE: "geneve",
    types_pb2.ENCAPSULATION_VXLAN: "vxlan",
    types_pb2.ENCAPSULATION_GRE: "gre",
}
DATAPATHS: dict[types_pb2.Datapath, str] = {
    types_pb2.DATAPATH_NETDEV: "netdev",
    types_pb2.DATAPATH_SYSTEM: "system",
}


def check_node(info: types_pb2.NodeInfo) -> NodeRecord:
    """A node as its agent describes it, ``pod_ranges`` as offered. InvalidObjectError names the field."""
    check_dns_subdomain("node.name", info.name)
    if not info.uid or len(info.uid) > 128:
        raise InvalidObjectError("node.uid", "must be 1 to 128 characters")
    addresses = check_addresses("node.addresses", info.addresses)
    tunnel = check_address("node.tunnel_address", info.tunnel_address)
    if tunnel not in addresses:
        raise InvalidObjectError("node.tunnel_address", f"{tunnel} must be one of node.addresses")
    if info.encapsulation not in ENCAPSULATIONS:
        raise InvalidObjectError("node.encapsulation", f"must be {', '.join(ENCAPSULATIONS.values())}")
    if info.datapath not in DATAPATHS:
        raise InvalidObjectError("node.datapath", f"must be {', '.join(DATAPATHS.values())}")
    if not info.datapath_id:
        raise InvalidObjectError("node.datapath_id", "must not be 0")
    if info.mtu and not SMALLEST_MTU <= info.mtu <= 65535:
        raise InvalidObjectError("node.mtu", f"{info.mtu}: must be {SMALLEST_MTU} to 65535")
    ranges = [check_network(f"node.pod_ranges[{index}]", text) for index, text in enumerate(info.pod_ranges)]
    return NodeRecord(
        name=info.name,
        uid=info.uid,
        addresses=tuple(map(str, addresses)),
        tunnel_address=str(tunnel),
        tunnel_mac=check_mac("node.tunnel_mac", info.tunnel_mac),
        encapsulation=ENCAPSULATIONS[info.encapsulation],
        datapath=DATAPATHS[info.datapath],
        datapath_id=info.datapath_id,
        pod_ranges=tuple(map(str, ranges)),
        mtu=info.mtu,
        agent_version=info.agent_version,
        labels=check_labels("node.labels", dict(info.labels)),
    )


def check_attachment(
    attachment: types_pb2.Attachment, node: NodeRecord, path: str = "attachment"
) -> AttachmentRecord:
    """An attachment on ``node``. InvalidObjectError names the field."""
    if not _CONTAINER_ID.fullmatch(attachment.container_id) or len(attachment.container_id) > 255:
        raise InvalidObjectError(f"{path}.container_id", f"{attachment.container_id!r} is no container id")
    if not _INTERFACE.fullmatch(attachment.interface_name) or attachment.interface_name in (".", ".."):
        raise InvalidObjectError(
            f"{path}.interface_name", f"{attachment.interface_name!r} is no interface name"
        )
    check_dns_label(f"{path}.pod_namespace", attachment.pod_namespace)
    # A container that is no pod goes by its container's id, which Kubernetes would not take for a name.
    if attachment.pod_uid or attachment.pod_name != attachment.container_id:
        check_dns_subdomain(f"{path}.pod_name", attachment.pod_name)
    if not FIRST_POD_PORT <= attachment.ofport <= LAST_POD_PORT:
        raise InvalidObjectError(
            f"{path}.ofport", f"{attachment.ofport}: must be {FIRST_POD_PORT} to {LAST_POD_PORT}"
        )
    addresses = check_addresses(f"{path}.addresses", attachment.addresses)
    for address in addresses:
        _check_in_ranges(f"{path}.addresses", address, node.pod_ranges)
    return AttachmentRecord(
        node=node.name,
        container_id=attachment.container_id,
        interface_name=attachment.interface_name,
        pod_namespace=attachment.pod_namespace,
        pod_name=attachment.pod_name,
        pod_uid=attachment.pod_uid,
        ofport=attachment.ofport,
        mac=check_mac(f"{path}.mac", attachment.mac),
        addresses=tuple(map(str, addresses)),
        labels=check_labels(f"{path}.labels", dict(attachment.labels)),
        host_interface=attachment.host_interface,
        netns=attachment.netns,
        created_at=attachment.created_at.ToJsonString() if attachment.HasField("created_at") else "",
    )


def check_address(path: str, text: str) -> Address:
    """One unicast address without a prefix length."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidObjectError(path, f"{text!r} is no IP address") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise InvalidObjectError(path, f"{text} is no address that a host can have in a network")
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise InvalidObjectError(path, f"{text}: an address with a zone is no cluster address")
    return address


def check_addresses(path: str, texts: Iterable[str]) -> tuple[Address, ...]:
    """At least one address, at most one a family."""
    addresses = tuple(check_address(f"{path}[{index}]", text) for index, text in enumerate(texts))
    if not addresses:
        raise InvalidObjectError(path, "at least one address is needed")
    if len({address.version for address in addresses}) != len(addresses):
        raise InvalidObjectError(path, "two addresses of one family; one a family is possible")
    return addresses


def check_mac(path: str, text: str) -> str:
    """A unicast MAC address in lower case."""
    mac = text.lower()
    if not _MAC.fullmatch(mac):
        raise InvalidObjectError(path, f"{text!r} is no MAC address such as 0a:58:0a:f4:01:05")
    if int(mac[:2], 16) & 1 or not mac.strip("0:"):
        raise InvalidObjectError(path, f"{text} is no address of one interface (multicast or zero)")
    if int(mac.replace(":", ""), 16) in (GATEWAY_MAC, ROUTER_MAC):
        raise InvalidObjectError(path, f"{text} is the gateway's or the router's of every node")
    return mac


def _check_in_ranges(path: str, address: Address, ranges: Sequence[str]) -> None:
    for text in ranges:
        network = ipaddress.ip_network(text)
        if address in network:
            if address in (network.network_address, network.network_address + 1) or (
                network.version == 4 and address == network.broadcast_address
            ):
                raise InvalidObjectError(
                    path, f"{address} is reserved in the node's range {text} (network, gateway, broadcast)"
                )
            return
    raise InvalidObjectError(path, f"{address} is outside the node's ranges {', '.join(ranges)}")
