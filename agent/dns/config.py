# SPDX-License-Identifier: Apache-2.0
"""What the DNS server's process is told when it starts. Values only."""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from agent import ipam
from agent.nodesetup.facts import Assignment

PORT: Final = 53
#: What the process prints when it serves and knows all Services.
READY: Final = b"ready\n"


class DnsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """
    listen       addresses to serve on
    domain       of the cluster
    ranges       whose reverse names are the cluster's, CIDR
    nameservers  addresses of the cluster's DNS, as pods know them
    upstreams    servers for all other names: ADDRESS, IPV4:PORT or [IPV6]:PORT; empty: those of /etc/resolv.conf
    log_level    a level specification (sdn.logs)
    linger_seconds  how long to go on when the agent has ended
    """

    listen: tuple[str, ...]
    domain: str
    ranges: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    log_level: str = "info"
    port: int = PORT
    linger_seconds: float = 0.0


def from_assignment(
    assignment: Assignment | None, upstreams: tuple[str, ...] = (), log_level: str = "info"
) -> DnsConfig | None:
    """None when this node is to serve no DNS (yet)."""
    if assignment is None or not assignment.serve_dns or not assignment.pod_ranges:
        return None
    return DnsConfig(
        listen=tuple(str(ipam.gateway(network)) for network in assignment.ranges()),
        domain=assignment.cluster_domain,
        ranges=tuple(sorted({*assignment.cluster_ranges, *assignment.service_ranges})),
        nameservers=tuple(assignment.dns_addresses),
        upstreams=upstreams,
        log_level=log_level,
    )


def upstream(text: str) -> tuple[str, int]:
    """Address and port of "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353". ValueError."""
    host, port = text, str(PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not ADDRESS, IPV4:PORT or [IPV6]:PORT")
        port = rest[1:] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} is not ADDRESS, IPV4:PORT or [IPV6]:PORT") from None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: {port!r} is no port")
    return host, int(port)
