# SPDX-License-Identifier: Apache-2.0
"""A pod's link: a veth pair between the node and the pod's namespace, the pod's addresses and its default
routes.

What differs from the plain pair that `ip` makes, and why:
- addresses are set without duplicate address detection: the agent gave them, and a second of "tentative" is a
  second in which the pod cannot speak IPv6;
- the pod takes no router advertisements (accept_ra): its routes are ours;
- a default route replaces no other interface's, of ours or of another plugin's, but comes after it (metric): what a pod
  sends with its first address must leave by its first interface, where the switch expects it;
- on the userspace datapath the pod computes checksums itself (tx off): Open vSwitch reads the frames as they
  are, and a checksum left to hardware that does not exist would never be filled in;
- the node's end has no IPv6 (disable_ipv6) and is deaf to ARP: it is a port of the switch, not an interface
  of the node. IPv4 arriving on it is dropped by `agent.nodesetup.firewall`, by the name's prefix.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent import ethtool, ipam, netlink
from agent.netlink import Netlink, NetlinkError, Route
from agent.netns import Netns, inside
from agent.state import Record
from sdn import logs

log: Final = logs.get("agent.link")
_SYSCTL: Final = Path("/proc/sys/net/ipv6/conf")
_DEFAULT4: Final = ipaddress.ip_network("0.0.0.0/0")
_DEFAULT6: Final = ipaddress.ip_network("::/0")
#: With the port's number, the metric of a default route beside another one: more than the 1024 that IPv6 routes have
#: when nobody says otherwise.
_FURTHER_METRIC: Final = 2000


@dataclass(frozen=True)
class Difference:
    """What CHECK found: `what` names the object, `why` what is wrong with it, and `mend` can put it right or not."""

    what: str
    why: str
    mendable: bool = False


class InterfaceExists(Exception):
    """The pod's namespace has an interface with the wanted name already, and it is not ours."""


def make(node: Netlink, record: Record, netns: Netns) -> None:
    """Make the pair; the node's end is complete then. What an earlier attempt left is replaced.

    node  a socket in the node's namespace
    InterfaceExists when the pod has such an interface from elsewhere; OSError (NetlinkError among them) names
    what the kernel refused. What was made until then is left to `remove`.

    The pair is made with its one end in the pod already: to move an interface between namespaces takes the kernel
    ten times as long as to make it (12 ms against 1), so a stock of pairs made beforehand would not be quicker.
    """
    try:
        node.run([_pair(record, netns)])
    except NetlinkError as problem:
        if problem.errno != errno.EEXIST:
            raise
        _clear(node, record, netns)
        node.run([_pair(record, netns)])
    _write(_SYSCTL / record.host_interface / "disable_ipv6", "1")
    node.run([netlink.link_set(record.host_interface, up=True, arp=False)])


def _clear(node: Netlink, record: Record, netns: Netns) -> None:
    """Remove what is in the way and ours."""
    if node.link(record.host_interface) is not None:
        node.run([netlink.link_delete(record.host_interface)])
    with inside(netns):
        taken = record.ifname in (name for _index, name in socket.if_nameindex())
    if taken:
        raise InterfaceExists(f"{record.ifname} exists already in {netns.path}")


def _pair(record: Record, netns: Netns) -> netlink.Ask:
    return netlink.veth(
        record.host_interface,
        record.host_mac,
        record.mtu,
        peer=record.ifname,
        peer_mac=record.mac,
        peer_netns=netns.fd,
    )


def furnish(record: Record, netns: Netns, *, software_checksums: bool) -> None:
    """Everything inside the pod's namespace."""
    with inside(netns):
        pod = Netlink()
        index = socket.if_nametoindex(record.ifname)
        if any(address.version == 6 for address in record.addresses):
            conf = _SYSCTL / record.ifname
            # Runtimes such as Docker switch IPv6 off for every interface of a new namespace.
            if (conf / "disable_ipv6").exists() and (conf / "disable_ipv6").read_text() != "0\n":
                _write(conf / "disable_ipv6", "0")
            _write(conf / "accept_ra", "0")
            _write(conf / "accept_dad", "0")
        if software_checksums:
            ethtool.transmit_checksums_off(record.ifname)
    with pod:
        try:
            pod.run(
                [
                    netlink.link_set("lo", up=True),
                    netlink.link_set(record.ifname, up=True),
                    *(netlink.address_add(index, address) for address in record.addresses),
                    *(
                        netlink.route_add(index, route, replace=False)
                        for route in default_routes(record.addresses)
                    ),
                ]
            )
        except NetlinkError as problem:
            if problem.errno != errno.EEXIST:
                raise
            _add_routes(pod, index, record)


def _add_routes(pod: Netlink, index: int, record: Record) -> None:
    """The default routes that the pod's interface lacks, after those of other interfaces."""
    try:
        pod.run([netlink.route_add(index, route, replace=False) for route in _lacking(pod, index, record)])
    except NetlinkError as problem:
        if problem.errno != errno.EEXIST:
            raise
        metric = _FURTHER_METRIC + record.ofport
        pod.run(
            [
                netlink.route_add(index, replace(route, metric=metric))
                for route in _lacking(pod, index, record)
            ]
        )


def _lacking(pod: Netlink, index: int, record: Record) -> list[Route]:
    """Default routes that the pod's interface does not have, with whatever metric."""
    there = {(route.destination, route.gateway) for route in pod.routes(index)}
    wanted = default_routes(record.addresses)
    return [route for route in wanted if (route.destination, route.gateway) not in there]


def default_routes(addresses: Sequence[netlink.Interface]) -> list[Route]:
    """One default route a family, by the gateway of the address's range."""
    return [
        Route(_DEFAULT4 if address.version == 4 else _DEFAULT6, ipam.gateway(address.network))
        for address in addresses
    ]


def remove(node: Netlink, record: Record, netns: Netns | None) -> None:
    """Remove the link; that of it that is not there is no error.

    The node's end takes the pod's with it. Without one, what is left in the pod's namespace is removed there, if it is
    ours by its MAC.
    """
    if node.link(record.host_interface) is not None:
        node.run([netlink.link_delete(record.host_interface)])
    elif netns is not None:
        with _pod(netns) as pod:
            left = pod.link(record.ifname)
            if left is not None and left.get_attr("IFLA_ADDRESS") == record.mac:
                pod.run([netlink.link_delete(record.ifname)])


def check(node: Netlink, record: Record, netns: Netns) -> list[Difference]:
    """What of the link is not as `make` made it; empty when all is well."""
    found: list[Difference] = []
    host = node.link(record.host_interface)
    if host is None:
        found.append(Difference(f"interface {record.host_interface}", "is missing on the node"))
    elif not host["flags"] & netlink.IFF_UP:
        found.append(Difference(f"interface {record.host_interface}", "is down"))
    with _pod(netns) as pod:
        inner = pod.link(record.ifname)
        where = f"interface {record.ifname} of {netns.path}"
        if inner is None:
            return [*found, Difference(where, "is missing")]
        if host is not None and inner.get_attr("IFLA_LINK") != host["index"]:
            found.append(Difference(where, f"is not the other end of {record.host_interface}"))
        if inner.get_attr("IFLA_ADDRESS") != record.mac:
            found.append(Difference(where, f"has MAC {inner.get_attr('IFLA_ADDRESS')}, not {record.mac}"))
        if inner.get_attr("IFLA_MTU") != record.mtu:
            found.append(Difference(where, f"has MTU {inner.get_attr('IFLA_MTU')}, not {record.mtu}"))
        if not inner["flags"] & netlink.IFF_UP:
            found.append(Difference(where, "is down"))
        addresses = {address for address, _scope, _flags in pod.addresses(inner["index"])}
        found += [Difference(where, f"lacks address {a}") for a in record.addresses if a not in addresses]
        for route in _lacking(pod, inner["index"], record):
            why = f"lacks route {route.destination} via {route.gateway}"
            found.append(Difference(where, why, mendable=True))
    return found


def mend(node: Netlink, record: Record, netns: Netns) -> bool:
    """Whether the link is as `make` and `furnish` made it. Where only routes are missing, they are added again: a pod
    that runs must not lose its interface for them. NetlinkError.
    """
    found = check(node, record, netns)
    if not all(difference.mendable for difference in found):
        return False
    if found:
        with _pod(netns) as pod:
            inner = pod.link(record.ifname)
            if inner is None:
                return False
            _add_routes(pod, inner["index"], record)
        log.warning("routes added again", pod=record.pod, reason="; ".join(one.why for one in found))
    return True


def mend_outer(node: Netlink, record: Record) -> str | None:
    """Put right the node's end. What was wrong, for people; empty: nothing; None: it is not there. OSError."""
    link = node.link(record.host_interface)
    if link is None:
        return None
    mtu = link.get_attr("IFLA_MTU")
    wrong = [
        *([] if link["flags"] & netlink.IFF_UP else ["down"]),
        *([] if mtu == record.mtu else [f"mtu {mtu}, not {record.mtu}"]),
    ]
    if wrong:
        node.run([netlink.link_set(record.host_interface, up=True, mtu=record.mtu)])
    return "; ".join(wrong)


@contextmanager
def _pod(netns: Netns) -> Iterator[Netlink]:
    with inside(netns):
        pod = Netlink()
    try:
        yield pod
    finally:
        pod.close()


def _write(path: Path, value: str) -> None:
    """A sysctl of IPv6; a kernel without IPv6 has none, and needs none."""
    if not path.parent.parent.exists():
        return
    path.write_text(value)


def delete(node: Netlink, host_interface: str) -> None:
    """Remove a link of which only the name of the node's end is known."""
    node.run([netlink.link_delete(host_interface)])
