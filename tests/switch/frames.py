# SPDX-License-Identifier: Apache-2.0
"""Packets as bytes, written from the RFCs and not by the code under test: ARP, TCP, UDP, ICMPv6 with
neighbour discovery.

Also the capture files that a dummy port writes of what it sends (option ``tx_pcap``).
"""

from __future__ import annotations

import struct
from pathlib import Path

from sdn.simulator.packet import Packet

_TCP, _UDP, _ICMPV6 = 6, 17, 58
_PAYLOAD = b"0123456789abcdef"


def frame(packet: Packet) -> bytes:
    """The packet as an Ethernet frame. Raises AssertionError for a kind that is not written here."""
    ethernet = packet["eth_dst"].to_bytes(6, "big") + packet["eth_src"].to_bytes(6, "big")
    ethernet += packet["eth_type"].to_bytes(2, "big")
    if packet["eth_type"] == 0x0806:
        return ethernet + _arp(packet)
    if packet["eth_type"] == 0x0800:
        return ethernet + _ipv4(packet)
    if packet["eth_type"] == 0x86DD:
        return ethernet + _ipv6(packet)
    raise AssertionError(f"no bytes for {packet}")


def _arp(packet: Packet) -> bytes:
    """RFC 826, for Ethernet and IPv4."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, packet["arp_op"])
    sender = packet["arp_sha"].to_bytes(6, "big") + packet["arp_spa"].to_bytes(4, "big")
    return head + sender + packet["arp_tha"].to_bytes(6, "big") + packet["arp_tpa"].to_bytes(4, "big")


def _ipv4(packet: Packet) -> bytes:
    """RFC 791, section 3.1, no options."""
    source, destination = packet["ip_src"].to_bytes(4, "big"), packet["ip_dst"].to_bytes(4, "big")
    body = _transport(packet, source, destination)
    tos = packet["ip_dscp"] << 2 | packet["nw_ecn"]
    first = struct.pack("!BBHHHBB", 0x45, tos, 20 + len(body), 7, 0, packet["nw_ttl"], packet["nw_proto"])
    checksum = _checksum(first + b"\0\0" + source + destination)
    return first + checksum.to_bytes(2, "big") + source + destination + body


def _ipv6(packet: Packet) -> bytes:
    """RFC 8200, section 3, no extension headers."""
    source, destination = packet["ipv6_src"].to_bytes(16, "big"), packet["ipv6_dst"].to_bytes(16, "big")
    body = _transport(packet, source, destination)
    word = 6 << 28 | (packet["ip_dscp"] << 2 | packet["nw_ecn"]) << 20
    head = struct.pack("!IHBB", word, len(body), packet["nw_proto"], packet["nw_ttl"])
    return head + source + destination + body


def _transport(packet: Packet, source: bytes, destination: bytes) -> bytes:
    if packet["nw_proto"] == _UDP:
        head = struct.pack("!HHH", packet["udp_src"], packet["udp_dst"], 8 + len(_PAYLOAD))
        place, body = 6, head + b"\0\0" + _PAYLOAD
    elif packet["nw_proto"] == _TCP:
        # RFC 9293, section 3.1: no options, no data.
        ports, flags = (packet["tcp_src"], packet["tcp_dst"]), 5 << 12 | packet["tcp_flags"]
        place, body = 16, struct.pack("!HHIIHHHH", *ports, 1000, 0, flags, 65535, 0, 0)
    elif packet["nw_proto"] == _ICMPV6:
        place, body = 2, _icmpv6(packet)
    else:
        raise AssertionError(f"no bytes for {packet}")
    # The pseudo-header: RFC 768; RFC 8200, section 8.1. Both sum up to the same shape.
    pseudo = source + destination + struct.pack("!II", len(body), packet["nw_proto"])
    checksum = _checksum(pseudo + body) or 0xFFFF
    return body[:place] + checksum.to_bytes(2, "big") + body[place + 2 :]


def _icmpv6(packet: Packet) -> bytes:
    """RFC 4443, section 2.1, and the messages of RFC 4861, section 4."""
    head = bytes((packet["icmpv6_type"], packet["icmpv6_code"], 0, 0))
    if packet["icmpv6_type"] not in (135, 136):
        return head + _PAYLOAD
    body = head + packet["nd_reserved"].to_bytes(4, "big") + packet["nd_target"].to_bytes(16, "big")
    option = packet["nd_options_type"]
    if option:
        mac = packet["nd_sll"] if packet["icmpv6_type"] == 135 else packet["nd_tll"]
        body += bytes((option, 1)) + mac.to_bytes(6, "big")
    return body


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def captured(path: Path) -> list[bytes]:
    """The frames of a capture file so far (the pcap format: a header of 24 bytes, then records)."""
    data = path.read_bytes() if path.exists() else b""
    order = "<" if data[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    frames, position = [], 24
    while position + 16 <= len(data):
        (length,) = struct.unpack_from(f"{order}I", data, position + 8)
        if position + 16 + length > len(data):
            break
        frames.append(data[position + 16 : position + 16 + length])
        position += 16 + length
    return frames
