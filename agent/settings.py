# SPDX-License-Identifier: Apache-2.0
"""What an operator can tell the agent: one struct, every field a flag, a variable SDN_AGENT_* and a TOML key."""

from __future__ import annotations

import ipaddress
import re
import socket as sockets
from pathlib import Path
from typing import Annotated, Final, Literal

from agent.dns.config import upstream
from agent.targets import is_controller
from sdn.settings import Meta, Settings

__all__ = ["PROGRAM", "AgentSettings"]

PROGRAM: Final = "sdn-agent"
_NODE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[^=]+=[^=]*")


class AgentSettings(Settings, frozen=True, kw_only=True):
    """Settings of `sdn-agent`."""

    node_name: Annotated[
        str,
        Meta(
            description="Kubernetes name of this node: a DNS subdomain, unique in the cluster.",
            max_length=253,
        ),
    ] = sockets.gethostname().lower()
    controllers: Annotated[
        list[str],
        Meta(
            description="gRPC addresses of controllers: HOST:PORT, [IPv6]:PORT or unix:/PATH. All of them are asked "
            "which one owns this node's switch, and so are those that they name; one that answers is enough."
        ),
    ] = []
    uplink: Annotated[
        str,
        Meta(
            description="Interface that holds the node's address and leads to the other nodes.", max_length=15
        ),
    ] = "eth0"
    datapath: Annotated[
        Literal["netdev", "system"],
        Meta(
            description="What Open vSwitch forwards with: system, the kernel module; netdev, the userspace datapath, "
            "for which the uplink and its addresses move to the bridge br-phy."
        ),
    ] = "system"
    encapsulation: Annotated[
        Literal["geneve", "vxlan", "gre"],
        Meta(description="How packets travel between nodes; the same on all nodes of a cluster."),
    ] = "geneve"
    node_addresses: Annotated[
        list[str],
        Meta(
            description="The node's own addresses, at most one a family, the first one being the tunnel's end. Empty: "
            "the uplink's first global address of each family."
        ),
    ] = []
    node_labels: Annotated[
        list[str], Meta(description="Labels that the node is registered with, KEY=VALUE each.")
    ] = []
    mtu: Annotated[
        int,
        Meta(
            description="Greatest IP packet of a pod, bytes. 0: the uplink's MTU less what the encapsulation adds.",
            ge=0,
            le=65535,
        ),
    ] = 0
    state_dir: Annotated[
        Path, Meta(description="Folder of what must outlive the agent: addresses given, attachments, ranges.")
    ] = Path("/var/lib/sdn/agent")
    socket: Annotated[
        Path,
        Meta(
            description="Unix socket that the CNI plugin calls. The same verbs are served over gRPC on agent-grpc.sock "
            "beside it."
        ),
    ] = Path("/run/sdn/agent.sock")
    ovsdb: Annotated[str, Meta(description="Where ovsdb-server listens: unix:PATH, or tcp:HOST:PORT.")] = (
        "unix:/run/openvswitch/db.sock"
    )
    ovs_rundir: Annotated[
        Path,
        Meta(description="Folder of ovs-vswitchd's pid file and control socket (OVS_RUNDIR)."),
    ] = Path("/run/openvswitch")
    add_timeout: Annotated[
        float,
        Meta(
            description="Seconds that ADD waits for the switch and for a controller's confirmation before it undoes "
            "everything and answers with CNI code 11 (try again later). At most 100: the plugin waits 120 for its "
            "answer.",
            gt=0,
            le=100,
        ),
    ] = 10.0
    parallel_requests: Annotated[
        int,
        Meta(
            description="CNI requests worked on at once: so many ADDs, so many DELs and GCs, and so many others, of "
            "the plugin's socket and again over gRPC. More wait.",
            ge=1,
            le=256,
        ),
    ] = 16
    dns_upstreams: Annotated[
        list[str],
        Meta(
            description="DNS servers for names outside of the cluster, in order: ADDRESS, IPV4:PORT or [IPV6]:PORT. "
            "Empty: those of the node's /etc/resolv.conf. Used where the agents serve the cluster's DNS."
        ),
    ] = []
    audit_log: Annotated[
        str,
        Meta(
            description="File of what policies that log said of connections of this node's pods, one JSON object a "
            "line. A relative path is inside of state_dir. Empty: no such file."
        ),
    ] = "audit.log"
    audit_log_max_bytes: Annotated[
        int, Meta(description="Size at which audit_log is set aside and a new file begun.", ge=65536)
    ] = 10_485_760
    audit_log_files: Annotated[
        int,
        Meta(description="Files of audit_log that are kept, the one written to included.", ge=1, le=1000),
    ] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NODE_NAME.fullmatch(self.node_name):
            raise ValueError(f"node_name: {self.node_name!r} is no DNS subdomain (RFC 1123)")
        if not self.controllers:
            raise ValueError("controllers: at least one is needed (--controllers HOST:PORT)")
        for controller in self.controllers:
            if not is_controller(controller):
                raise ValueError(f"controllers: {controller!r} is not HOST:PORT, [IPv6]:PORT or unix:/PATH")
        if len({_version(address) for address in self.node_addresses}) != len(self.node_addresses):
            raise ValueError("node_addresses: at most one address a family")
        for label in self.node_labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"node_labels: {label!r} is not KEY=VALUE")
        for server in self.dns_upstreams:
            try:
                upstream(server)
            except ValueError as problem:
                raise ValueError(f"dns_upstreams: {problem}") from None
        if not self.ovsdb.startswith(("unix:", "tcp:")):
            raise ValueError(f"ovsdb: {self.ovsdb!r} is not unix:PATH or tcp:HOST:PORT")

    @property
    def grpc_socket(self) -> Path:
        """Where the Agent service is served over gRPC."""
        return self.socket.parent / "agent-grpc.sock"


def _version(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        raise ValueError(f"node_addresses: {address!r} is no IP address") from None
