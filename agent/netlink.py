# SPDX-License-Identifier: Apache-2.0
"""rtnetlink, as `ip` speaks it: requests put together by pyroute2's message classes, many of them sent in one
go.

pyroute2's IPRoute works on one request at a time through an event loop; here a pod's whole set-up is one
system call, and a socket can be made inside a pod's namespace without a process of its own. Each request
carries a text that errors are told with.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# linux/netlink.h, linux/rtnetlink.h, linux/if.h, linux/if_addr.h
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 270, 10, 11, 12
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
GROUP_LINK: Final = 1
IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80
IFA_F_NODAD: Final = 0x02
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
PROTO_KERNEL: Final = 2
#: Marks the routes that this agent made (`ip route` shows "proto 88"). /etc/iproute2/rt_protos leaves it free.
PROTO_SDN: Final = 88
TABLE_MAIN: Final = 254
_NEXT_HOP_ONLINK: Final = 4
_HEADER: Final = struct.Struct("=IHHII")
_TIMEOUT: Final = 30.0


class NetlinkError(OSError):
    """The kernel refused a request; the text names it."""

    def __init__(self, number: int, what: str, detail: str) -> None:
        super().__init__(number, f"{what}: {detail or os.strerror(number)}")


@dataclass(frozen=True)
class Ask:
    """One request. `ignore` lists error numbers that mean that what is asked for is so already."""

    what: str
    type: int
    flags: int
    body: Any
    ignore: tuple[int, ...] = field(default=())


# --- requests -----------------------------------------------------------------------------------------------


def veth(
    name: str,
    mac: str,
    mtu: int,
    *,
    peer: str,
    peer_mac: str,
    peer_netns: int | None = None,
    up: bool = False,
) -> Ask:
    """`ip link add NAME type veth peer name PEER`, the peer straight in another namespace (a descriptor)."""
    there = ifinfmsg()
    there["attrs"] = [("IFLA_IFNAME", peer), ("IFLA_ADDRESS", peer_mac), ("IFLA_MTU", mtu)]
    if peer_netns is not None:
        there["attrs"].append(("IFLA_NET_NS_FD", peer_netns))
    body = ifinfmsg()
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": there["attrs"]})]}
    body["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
    ]
    if up:
        body["flags"] = body["change"] = IFF_UP
    return Ask(f"create veth {name} and {peer}", RTM_NEWLINK, _CREATE | _EXCL, body)


def link_set(
    name: str,
    *,
    up: bool | None = None,
    arp: bool | None = None,
    mtu: int | None = None,
    mac: str = "",
    ignore: tuple[int, ...] = (),
) -> Ask:
    """`ip link set dev NAME [up|down] [arp on|off] [mtu N] [address MAC]`"""
    body = ifinfmsg()
    body["attrs"] = [("IFLA_IFNAME", name)]
    if mtu is not None:
        body["attrs"].append(("IFLA_MTU", mtu))
    if mac:
        body["attrs"].append(("IFLA_ADDRESS", mac))
    for flag, wanted in ((IFF_UP, up), (IFF_NOARP, None if arp is None else not arp)):
        if wanted is not None:
            body["flags"] |= flag if wanted else 0
            body["change"] |= flag
    return Ask(f"set interface {name}", RTM_NEWLINK, 0, body, ignore)


def link_delete(name: str) -> Ask:
    """`ip link delete NAME`; that it does not exist is as good."""
    body = ifinfmsg()
    body["attrs"] = [("IFLA_IFNAME", name)]
    return Ask(f"delete interface {name}", RTM_DELLINK, 0, body, (errno.ENODEV,))


def address_add(index: int, address: Interface, flags: int = 0) -> Ask:
    """`ip address add ADDRESS dev INDEX`; IPv6 addresses are taken to be unique (nodad)."""
    body = _address(index, address)
    if address.version == 6:
        flags |= IFA_F_NODAD
    if flags:
        body["attrs"].append(("IFA_FLAGS", flags))
    return Ask(f"add address {address}", RTM_NEWADDR, _CREATE | _REPLACE, body, (errno.EEXIST,))


def address_delete(index: int, address: Interface) -> Ask:
    return Ask(
        f"delete address {address}",
        RTM_DELADDR,
        0,
        _address(index, address),
        (errno.EADDRNOTAVAIL, errno.ENODEV),
    )


def _address(index: int, address: Interface) -> Any:
    body = ifaddrmsg()
    body["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body["prefixlen"] = address.network.prefixlen
    body["index"] = index
    body["attrs"] = [("IFA_ADDRESS", str(address.ip)), ("IFA_LOCAL", str(address.ip))]
    return body


@dataclass(frozen=True)
class Route:
    """A route. No gateway: the destination is on the link. `onlink`: the gateway is, whatever other routes say."""

    destination: Network
    gateway: Address | None = None
    source: Address | None = None
    metric: int | None = None
    protocol: int = PROTO_SDN
    onlink: bool = False
    table: int = TABLE_MAIN


def route_add(index: int, route: Route, *, replace: bool = True) -> Ask:
    """`ip route replace`, or `add` when another route to the same destination, by whatever interface, must stay: EEXIST
    says that there is one with this metric.
    """
    flags, ignore = (_CREATE | _REPLACE, (errno.EEXIST,)) if replace else (_CREATE | _EXCL, ())
    return Ask(f"add route {route.destination}", RTM_NEWROUTE, flags, _route(index, route), ignore)


def route_delete(index: int, route: Route) -> Ask:
    return Ask(
        f"delete route {route.destination}",
        RTM_DELROUTE,
        0,
        _route(index, route),
        (errno.ESRCH, errno.ENODEV),
    )


def _route(index: int, route: Route) -> Any:
    body = rtmsg()
    four = route.destination.version == 4
    body["family"] = socket.AF_INET if four else socket.AF_INET6
    body["dst_len"] = route.destination.prefixlen
    body["table"] = route.table
    body["flags"] = _NEXT_HOP_ONLINK if route.onlink else 0
    body["proto"] = route.protocol
    body["type"] = 1  # unicast
    body["scope"] = SCOPE_LINK if four and route.gateway is None else SCOPE_UNIVERSE
    body["attrs"] = [("RTA_OIF", index)]
    if route.destination.prefixlen:
        body["attrs"].append(("RTA_DST", str(route.destination.network_address)))
    if route.gateway is not None:
        body["attrs"].append(("RTA_GATEWAY", str(route.gateway)))
    if route.source is not None:
        body["attrs"].append(("RTA_PREFSRC", str(route.source)))
    if route.metric is not None:
        body["attrs"].append(("RTA_PRIORITY", route.metric))
    return body


# --- the socket ---------------------------------------------------------------------------------------------


class Netlink:
    """One rtnetlink socket, in the namespace of the thread that made it. For one thread at a time."""

    def __init__(self, groups: int = 0) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, groups))
        self._socket.settimeout(_TIMEOUT)
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, asks: Sequence[Ask]) -> None:
        """Send all requests at once; NetlinkError for the first that was refused, after all were tried."""
        if not asks:
            return
        waiting: dict[int, Ask] = {}
        data = bytearray()
        for ask in asks:
            self._sequence += 1
            waiting[self._sequence] = ask
            data += _encode(ask, ask.flags | _REQUEST | _ACK, self._sequence)
        self._socket.send(data)
        failure: NetlinkError | None = None
        while waiting:
            for kind, sequence, message in self._receive():
                done = waiting.pop(sequence, None) if kind == _ERROR else None
                if done is None:
                    continue
                number = -int(struct.unpack_from("=i", message, 16)[0])
                if number and number not in done.ignore and failure is None:
                    failure = NetlinkError(number, done.what, _detail(message))
        if failure is not None:
            raise failure

    def dump(self, what: str, kind: int, body: Any, reply: type[Any]) -> list[Any]:
        """All objects of a kind, decoded by pyroute2's class for it."""
        self._sequence += 1
        self._socket.send(_encode(Ask(what, kind, 0, body), _REQUEST | _DUMP, self._sequence))
        found: list[Any] = []
        while True:
            for received, sequence, message in self._receive():
                if sequence != self._sequence:
                    continue
                if received == _DONE:
                    return found
                if received == _ERROR:
                    number = -int(struct.unpack_from("=i", message, 16)[0])
                    raise NetlinkError(number, what, _detail(message))
                decoded = reply(message)
                decoded.decode()
                found.append(decoded)

    def links(self) -> list[Any]:
        """Every interface of the namespace."""
        return self.dump("list interfaces", RTM_GETLINK, ifinfmsg(), ifinfmsg)

    def link(self, name: str) -> Any | None:
        """One interface by name, None when there is none."""
        self._sequence += 1
        body = ifinfmsg()
        body["attrs"] = [("IFLA_IFNAME", name)]
        self._socket.send(_encode(Ask("", RTM_GETLINK, 0, body), _REQUEST, self._sequence))
        while True:
            for received, sequence, message in self._receive():
                if sequence != self._sequence:
                    continue
                if received == _ERROR:
                    number = -int(struct.unpack_from("=i", message, 16)[0])
                    if number == errno.ENODEV:
                        return None
                    raise NetlinkError(number, f"look up interface {name}", _detail(message))
                decoded = ifinfmsg(message)
                decoded.decode()
                return decoded

    def addresses(self, index: int) -> list[tuple[Interface, int, int]]:
        """(address, scope, flags) of an interface."""
        found = []
        for message in self.dump("list addresses", RTM_GETADDR, ifaddrmsg(), ifaddrmsg):
            if message["index"] != index:
                continue
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            found.append(
                (ipaddress.ip_interface(f"{text}/{message['prefixlen']}"), int(message["scope"]), int(flags))
            )
        return found

    def routes(self, index: int, table: int = TABLE_MAIN) -> list[Route]:
        """Unicast routes of a table that leave by an interface."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            body = rtmsg()
            body["family"] = family
            for message in self.dump("list routes", RTM_GETROUTE, body, rtmsg):
                held_in = message.get_attr("RTA_TABLE") or message["table"]
                if message.get_attr("RTA_OIF") != index or held_in != table or message["type"] != 1:
                    continue
                nowhere = "0.0.0.0" if family == socket.AF_INET else "::"
                destination = message.get_attr("RTA_DST") or nowhere
                gateway, source = message.get_attr("RTA_GATEWAY"), message.get_attr("RTA_PREFSRC")
                found.append(
                    Route(
                        ipaddress.ip_network(f"{destination}/{message['dst_len']}"),
                        ipaddress.ip_address(gateway) if gateway else None,
                        ipaddress.ip_address(source) if source else None,
                        message.get_attr("RTA_PRIORITY"),
                        int(message["proto"]),
                        bool(message["flags"] & _NEXT_HOP_ONLINK),
                        table,
                    )
                )
        return found

    def events(self) -> Iterator[tuple[int, Any]]:
        """For a socket in GROUP_LINK: what arrived, as (RTM_NEWLINK or RTM_DELLINK, interface)."""
        for kind, _sequence, message in self._receive():
            if kind in (RTM_NEWLINK, RTM_DELLINK):
                decoded = ifinfmsg(message)
                decoded.decode()
                yield kind, decoded

    def _receive(self) -> Iterable[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 17)
        offset = 0
        messages = []
        while offset + 16 <= len(data):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
            messages.append((kind, sequence, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return messages


def _encode(ask: Ask, flags: int, sequence: int) -> bytes:
    body = ask.body
    body["header"]["type"] = ask.type
    body["header"]["flags"] = flags
    body["header"]["sequence_number"] = sequence
    body.reset()
    body.encode()
    raw = bytes(body.data)
    return raw + bytes(-len(raw) % 4)


def _detail(message: bytes) -> str:
    """The kernel's own words on an error, when it gave any (NLMSGERR_ATTR_MSG)."""
    offset = 36  # header, error number, header of the request (NETLINK_CAP_ACK)
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            return ""
        if kind & 0x3FFF == 1:
            return message[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""


__all__ = ["Address", "Ask", "Interface", "Netlink", "NetlinkError", "Network", "Route"]
