# SPDX-License-Identifier: Apache-2.0
"""``ofproto/trace`` of a real switch, asked over the daemon's own socket and read into values.

The answer is text for people: the flows met, the final flow, and the datapath actions, once for each pass
through the tables (connection tracking recirculates). :func:`read` understands all of it that the simulator
claims to predict, and raises where it meets what it does not know, so that nothing is compared by being
overlooked.

Asking over the socket (the JSON-RPC of ``ovs-appctl``) takes about a millisecond, where starting
``ovs-appctl`` takes thirty.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from sdn.pipeline.fields import FIELDS, OFPP_CONTROLLER
from sdn.simulator.packet import Packet
from sdn.simulator.text import format_packet, parse
from tests.switch.ovs import PrivateSwitch

#: Fields of a printed flow that have no place in the registry: VLANs, which no flow of ours touches, and
#: tunnel details.
#: Protocols of which a tracked connection has ports, as the trace prints them. It prints ports of all.
_TRACKED_PORTS = re.compile(r"\bct_nw_proto=(?:6|17|132)\b")
_UNKNOWN_FIELDS = re.compile(
    r"\b(?:vlan_tci=0x0000|eth(?=,)|ipv6_label=0x00000|recirc_id=\w+|"
    r"tun_(?:gbp_id|gbp_flags|tos|ttl|erspan_ver|flags)=[^,]*|gtpu_\w+=\w+),?"
)
_MATCHED = re.compile(r"^ *(\d+)\. (?:.*, )?priority (\d+)(?:, cookie (0x[0-9a-f]+))?$")
_MISSED = re.compile(r"^ *(\d+)\. No match\.$")
_ERRORS = ("over max translation depth", "over 4096 resubmit actions", "over 64 kB")
_INVALID_TTL = 2  # OFPR_INVALID_TTL

#: Names of fields inside a datapath's set action → names in the registry.
_SET: Mapping[str, Mapping[str, str]] = {
    "eth": {"src": "eth_src", "dst": "eth_dst"},
    "ipv4": {"src": "ip_src", "dst": "ip_dst", "ttl": "nw_ttl"},
    "ipv6": {"src": "ipv6_src", "dst": "ipv6_dst", "hlimit": "nw_ttl"},
    "tcp": {"src": "tcp_src", "dst": "tcp_dst"},
    "udp": {"src": "udp_src", "dst": "udp_dst"},
    "sctp": {"src": "sctp_src", "dst": "sctp_dst"},
    "icmp": {"type": "icmp_type", "code": "icmp_code"},
    "icmpv6": {"type": "icmpv6_type", "code": "icmpv6_code"},
    "arp": {"sip": "arp_spa", "tip": "arp_tpa", "op": "arp_op", "sha": "arp_sha", "tha": "arp_tha"},
    "nd": {"target": "nd_target", "sll": "nd_sll", "tll": "nd_tll"},
    "nd_ext": {"nd_reserved": "nd_reserved", "nd_options_type": "nd_options_type"},
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet as the datapath sends it: OpenFlow port (``OFPP_CONTROLLER`` too) and headers.

    ``tunnel`` is the outer destination where the datapath itself encapsulates, and ``key`` the virtual
    network it writes.
    """

    port: int
    packet: Packet
    reason: str = "action"
    tunnel: str = ""
    key: int = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass through the tables. ``met`` holds (table, cookie) for each lookup, cookie None for a miss."""

    start: Packet
    met: tuple[tuple[int, int | None], ...]
    final: Packet
    sent: tuple[Sent, ...]
    actions: str
    error: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole answer, with its text for error messages."""

    passes: tuple[Pass, ...]
    text: str = field(repr=False)


class Tracer:
    """A connection to a switch's control socket."""

    def __init__(self, switch: PrivateSwitch) -> None:
        self._bridge = switch.bridge
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(120)
        self._socket.connect(str(Path(switch.folder) / "vswitchd.ctl"))
        self._decoder = json.JSONDecoder()
        self._pending = ""
        # Datapath port number → OpenFlow port number, of this bridge.
        self._ports = dict(self._port_numbers())

    def command(self, name: str, *arguments: str) -> str:
        """Run a control command. Raises AssertionError with the switch's complaint when it refuses."""
        request = {"id": 0, "method": name, "params": list(arguments)}
        self._socket.sendall(json.dumps(request).encode())
        while True:
            try:
                answer, end = self._decoder.raw_decode(self._pending)
            except json.JSONDecodeError:
                data = self._socket.recv(1 << 20)
                if not data:
                    raise ConnectionError("the switch closed its control socket") from None
                self._pending += data.decode()
                continue
            self._pending = self._pending[end:].lstrip()
            if answer["error"] is not None:
                raise AssertionError(f"{name} {' '.join(arguments)}: {answer['error']}")
            return str(answer["result"])

    def _port_numbers(self) -> Iterator[tuple[int, int]]:
        in_bridge = False
        for line in self.command("dpif/show").splitlines():
            bridge = re.fullmatch(r"  (\S+):", line)
            if bridge:
                in_bridge = bridge[1] == self._bridge
            port = re.match(r"    \S+ (\d+)/(\d+):", line)
            if port and in_bridge:
                number = int(port[1])
                yield int(port[2]), 0xFFFF0000 | number if number >= 0xFF00 else number

    def trace(self, packet: Packet, ct_states: Sequence[str] = ()) -> Trace:
        """Trace a packet; ``ct_states`` are the states after each ``ct`` with a table, in order."""
        following = [word for state in ct_states for word in ("--ct-next", state)]
        text = self.command("ofproto/trace", self._bridge, format_packet(packet), *following)
        return read(text, packet, self._ports)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(text: str, packet: Packet, ports: Mapping[int, int]) -> Trace:
    """The text of a packet's trace as values. Raises AssertionError where it is not understood."""
    passes: list[Pass] = []
    for block in re.split(r"^=+\nrecirc\(", text, flags=re.MULTILINE):
        lines = block.splitlines()
        # What a trace prints of its packet lacks a few fields, so the first pass starts with the packet
        # itself.
        start = _flow(_after(lines, "Flow: ")) if passes else packet
        final_text = _after(lines, "Final flow: ")
        final = start if final_text == "unchanged" else _flow(final_text)
        actions = _after(lines, "Datapath actions: ")
        error = next((line.strip() for line in lines if any(known in line for known in _ERRORS)), "")
        sent = tuple(_sent(actions, start, ports))
        passes.append(Pass(start, tuple(_met(lines)), final, sent, actions, error))
    return Trace(tuple(passes), text)


def _after(lines: Sequence[str], prefix: str) -> str:
    for line in lines:
        if line.startswith(prefix):
            return line.removeprefix(prefix)
    raise AssertionError(f"no line starts with {prefix!r} in:\n" + "\n".join(lines))


def _flow(text: str) -> Packet:
    # Both link-layer options are printed of either message, and each exists in one of them.
    absent = "nd_tll" if "icmp_type=135" in text else "nd_sll"
    if not _TRACKED_PORTS.search(text):
        absent = rf"(?:{absent}|ct_tp_src|ct_tp_dst)"
    return parse(re.sub(rf"\b{absent}=[^,]*,?", "", _UNKNOWN_FIELDS.sub("", text + ",")))


def _met(lines: Sequence[str]) -> Iterator[tuple[int, int | None]]:
    for line in lines:
        matched = _MATCHED.match(line)
        if matched and matched[3]:
            yield int(matched[1]), int(matched[3], 16)
        missed = _MISSED.match(line)
        if missed:
            yield int(missed[1]), None


def _sent(actions: str, start: Packet, ports: Mapping[int, int]) -> Iterator[Sent]:
    """Follow the datapath's actions: what each output sends."""
    packet = start
    for action in _split(actions):
        name, _, inside = action.partition("(")
        inside = inside.removesuffix(")")
        if action.isdecimal():
            number = int(action)
            if number in ports:
                yield Sent(ports[number], packet)
        elif name == "set":
            packet = _set(packet, inside)
        elif name == "userspace":
            reason = re.search(r"controller\(reason=(\d+)", inside)
            if reason is None:
                raise AssertionError(f"what is {action}?")
            cause = "invalid_ttl" if int(reason[1]) == _INVALID_TTL else "action"
            yield Sent(OFPP_CONTROLLER, packet, cause)
        elif name == "clone":
            yield from _sent(inside, packet, ports)
        elif name == "tnl_push":
            yield _tunnelled(inside, packet, ports)
        elif name not in ("ct", "ct_clear", "recirc", "drop", "hash"):
            raise AssertionError(f"unknown datapath action {action!r} in {actions!r}")


def _tunnelled(inside: str, packet: Packet, ports: Mapping[int, int]) -> Sent:
    port = re.search(r"tnl_port\((\d+)\)", inside)
    outer = re.search(r"ipv[46]\(src=[^,]*,dst=([^,]*),", inside)
    key = re.search(r"(?:vni=|key=)(0x[0-9a-f]+)", inside)
    if port is None or outer is None:
        raise AssertionError(f"what is tnl_push({inside})?")
    return Sent(ports[int(port[1])], packet, tunnel=outer[1], key=int(key[1], 16) if key else 0)


def _set(packet: Packet, inside: str) -> Packet:
    name, _, values = inside.partition("(")
    values = values.removesuffix(")")
    if name == "skb_mark":
        return _masked(packet, "pkt_mark", values)
    for part in _split(values):
        key, _, value = part.partition("=")
        if name in ("ipv4", "ipv6") and key in ("tos", "tclass"):
            packet = _traffic_class(packet, value)
        elif name not in _SET or key not in _SET[name]:
            raise AssertionError(f"unknown part {part!r} of set({inside})")
        else:
            packet = _masked(packet, _SET[name][key], value)
    return packet


def _masked(packet: Packet, name: str, text: str) -> Packet:
    value_text, slash, mask_text = text.partition("/")
    known = FIELDS[name]
    value = known.parse(value_text)[0]
    if slash:
        mask = known.parse(mask_text)[0]
        value = packet[name] & ~mask | value & mask
    return packet.with_(**{name: value})


def _traffic_class(packet: Packet, text: str) -> Packet:
    value_text, slash, mask_text = text.partition("/")
    mask = int(mask_text, 0) if slash else 0xFF
    before = packet["ip_dscp"] << 2 | packet["nw_ecn"]
    byte = before & ~mask | int(value_text, 0) & mask
    return packet.with_(ip_dscp=byte >> 2, nw_ecn=byte & 3)


def _split(text: str) -> Iterator[str]:
    """Parts between commas that stand outside of parentheses."""
    depth = start = 0
    for place, letter in enumerate(text):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    if text[start:]:
        yield text[start:]
