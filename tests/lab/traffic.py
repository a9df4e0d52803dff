# SPDX-License-Identifier: Apache-2.0
"""Packets between pods and machines, sent and received by this process through sockets inside their namespaces.

A socket stays in the namespace that it was opened in, so a test can hold both ends of a conversation in its hands.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sdn.lab import namespaces
from sdn.lab.probe import checksum
from sdn.lab.waiting import patience

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
BROADCAST = "ff:ff:ff:ff:ff:ff"


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def udp(netns: str, family: int, address: str = "", *, whole: bool = False) -> Iterator[socket.socket]:
    """A UDP socket inside `netns`, bound to `address` if one is given. `whole`: datagrams may not be fragmented."""
    with namespaces.entered(netns):
        channel = socket.socket(family, socket.SOCK_DGRAM)
    with channel:
        channel.settimeout(patience(10))
        if whole and family == socket.AF_INET:
            channel.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
        elif whole:
            channel.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        if address:
            channel.bind((address, 0))
        yield channel


def exchange(
    source: str, target: str, address: str, payload: bytes = b"hello", *, whole: bool = False
) -> tuple[str, bytes]:
    """Send a datagram from namespace `source` to `address` in namespace `target`, until it arrives, and a reply back.

    The source address that the receiver saw, and what it received. A datagram may be lost, so it is sent some times.
    """
    family = family_of(address)
    with udp(target, family, address) as server, udp(source, family, whole=whole) as client:
        server.settimeout(patience(1))
        client.settimeout(patience(1))
        problem: OSError = TimeoutError(f"no datagram from {source} reached {address} in {target}")
        for _ in range(10):
            client.sendto(payload, (address, server.getsockname()[1]))
            try:
                received, sender = server.recvfrom(65535)
                server.sendto(b"reply", sender)
                answer, answerer = client.recvfrom(65535)
            except TimeoutError as timeout:
                problem = timeout
                continue
            if answer != b"reply" or answerer[0] != address:
                raise AssertionError(f"{source} asked {address} and was answered by {answerer[0]}")
            return str(sender[0]), received
        raise AssertionError(
            f"{source} to {address} in {target}: no exchange within ten attempts ({problem})"
        )


def transfer(
    source: str, target: str, address: str, size: int, port: int = 0, through: tuple[str, int] | None = None
) -> int:
    """Send `size` bytes over TCP to `address` in `target`, check that they arrive as they are, and give the segment
    size that was agreed. `through` is another address and port to connect to, that lead to `port` there.
    """
    family = family_of(address)
    with namespaces.entered(target):
        listener = socket.socket(family, socket.SOCK_STREAM)
    with namespaces.entered(source):
        client = socket.socket(family, socket.SOCK_STREAM)
    data = os.urandom(1 << 16)
    digest = hashlib.sha256()
    arrived = hashlib.sha256()
    counted = 0

    def receive() -> None:
        nonlocal counted
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(patience(60))
            while part := connection.recv(1 << 16):
                arrived.update(part)
                counted += len(part)

    with listener, client:
        listener.settimeout(patience(30))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        receiver = threading.Thread(target=receive)
        receiver.start()
        try:
            client.settimeout(patience(60))
            client.connect(through or (address, listener.getsockname()[1]))
            sent = 0
            while sent < size:
                part = data[: size - sent]
                client.sendall(part)
                digest.update(part)
                sent += len(part)
            segment = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            client.shutdown(socket.SHUT_WR)
        finally:
            receiver.join(patience(120))
    if counted != size or arrived.digest() != digest.digest():
        raise AssertionError(f"{source} sent {size} bytes to {address}, {counted} arrived")
    return segment


class Tap:
    """Sees every frame of a namespace's interface, and can send frames of any content there."""

    def __init__(self, netns: str, interface: str = "eth0") -> None:
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def wait_for(self, wanted: Callable[[bytes], bool], seconds: float = 10) -> bool:
        """Whether a frame that arrives (not one that is sent here) is as wanted, within `seconds` (stretched)."""
        deadline = time.monotonic() + patience(seconds)
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, where = self._socket.recvfrom(65535)
            except TimeoutError:
                return False
            if where[2] != socket.PACKET_OUTGOING and wanted(frame):
                return True
        return False

    def arrived(self) -> list[bytes]:
        """Frames that have arrived since the last look."""
        self._socket.setblocking(False)
        found: list[bytes] = []
        while True:
            try:
                frame, where = self._socket.recvfrom(65535)
            except BlockingIOError:
                return found
            if where[2] != socket.PACKET_OUTGOING:
                found.append(frame)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Frames.


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    return mac(destination) + mac(source) + struct.pack("!H", kind) + payload


def _udp(source: bytes, destination: bytes, payload: bytes) -> bytes:
    length = 8 + len(payload)
    pseudo = source + destination + struct.pack("!HH", 17, length)
    header = struct.pack("!HHHH", 40000, 40001, length, 0)
    return struct.pack("!HHHH", 40000, 40001, length, checksum(pseudo + header + payload) or 0xFFFF) + payload


def udp_packet(source: str, destination: str, payload: bytes) -> tuple[int, bytes]:
    """EtherType and packet: UDP in IPv4 or IPv6, from and to any address."""
    here, there = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    segment = _udp(here.packed, there.packed, payload)
    if here.version == 6:
        return ETH_P_IPV6, struct.pack(
            "!IHBB", 6 << 28, len(segment), 17, 64
        ) + here.packed + there.packed + segment
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(segment), 7, 0, 64, 17)
    total = checksum(start + b"\0\0" + here.packed + there.packed)
    return ETH_P_IP, start + struct.pack("!H", total) + here.packed + there.packed + segment


def arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """An ARP packet; operation 1 asks, 2 answers (RFC 826)."""
    addresses = (
        mac(sender_mac),
        ipaddress.IPv4Address(sender).packed,
        mac(target_mac),
        ipaddress.IPv4Address(target).packed,
    )
    return struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, operation) + b"".join(addresses)


def _icmpv6(source: str, destination: str, message: bytes) -> bytes:
    here, there = ipaddress.IPv6Address(source).packed, ipaddress.IPv6Address(destination).packed
    pseudo = here + there + struct.pack("!IHBB", len(message), 0, 0, 58)
    total = checksum(pseudo + message)
    body = message[:2] + struct.pack("!H", total) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + here + there + body


def neighbour_solicitation(source: str, target: str, own_mac: str) -> tuple[str, bytes]:
    """Destination MAC and packet: who has `target`? asked by `source` (RFC 4861, section 4.3)."""
    packed = ipaddress.IPv6Address(target).packed
    group = str(ipaddress.IPv6Address(ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + packed[13:]))
    message = struct.pack("!BBHI", 135, 0, 0, 0) + packed + b"\x01\x01" + mac(own_mac)
    return "33:33:ff:" + ":".join(f"{byte:02x}" for byte in packed[13:]), _icmpv6(source, group, message)


def neighbour_advertisement(source: str, destination: str, target: str, own_mac: str) -> bytes:
    """`target` is at `own_mac`: unasked, and to override what was known (RFC 4861, section 4.4)."""
    packed = ipaddress.IPv6Address(target).packed
    message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + packed + b"\x02\x01" + mac(own_mac)
    return _icmpv6(source, destination, message)


def first_fragment(packet: bytes) -> bytes:
    """An IPv6 packet, without extension headers, as the first of several fragments (RFC 8200, section 4.5)."""
    header, payload = packet[:40], packet[40:]
    extension = struct.pack("!BBHI", header[6], 0, 1, 0x5D5D5D5D)
    length = struct.pack("!H", len(extension) + len(payload))
    return header[:4] + length + bytes((44,)) + header[7:] + extension + payload
