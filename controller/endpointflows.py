# SPDX-License-Identifier: Apache-2.0
"""What the flows of Services say, read from their bytes: where an endpoint's flow sends connections, what
flows it lets the switch learn, which addresses a Service has.

A change of one endpoint is found among bytes, and a switch holds hundreds of thousands of flows: so the
frequent questions are answered here by walking over a few lengths, and only the rare one decodes a flow.
Bytes may come from a switch, and may be anything: what makes no sense gives no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from controller.desired import Entries, Key
from sdn.openflow import CodecError, decode_flow
from sdn.openflow.actionlayout import (
    CT,
    NAT,
    NAT_DST,
    NAT_IPV4_MAX,
    NAT_IPV4_MIN,
    NAT_IPV6_MAX,
    NAT_IPV6_MIN,
    NAT_PORT_MIN,
    TYPE_LENGTH,
)
from sdn.openflow.actionwire import encode_actions
from sdn.openflow.oxm import encode_match
from sdn.openflow.wire import (
    NX_VENDOR_ID,
    NXAST_CT,
    NXAST_LEARN,
    NXAST_NAT,
    OFPAT_EXPERIMENTER,
    OFPIT_APPLY_ACTIONS,
)
from sdn.pipeline.actions import SetField
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.match import match
from sdn.pipeline.registers import ENDPOINT_REGISTER, SERVICE_PORT_REGISTER
from sdn.pipeline.service import Protocol
from sdn.pipeline.tables import ENDPOINT, LOAD_BALANCING
from sdn.pipeline.topology import Address

#: An image's body: where its instructions begin, and what stands before an instruction's actions.
_INSTRUCTIONS: Final = 16
_INSTRUCTION_HEADER: Final = 8
#: An image's key: where its match fields begin.
_MATCH_FIELDS: Final = 8
#: Two registers in one field, as a switch prints them.
_SERVICE_PORT: Final = match(**{SERVICE_PORT_REGISTER.name: 0, ENDPOINT_REGISTER.name: 0})
_SERVICE_PORT_HEADER: Final = encode_match(_SERVICE_PORT)[4:8]
#: UDP, as a packet's header says it, or as the tracker does (of fragments, too).
_UDP: Final = tuple(
    ((field.oxm_class << 16 | field.oxm_field << 9 | 1) << 8 | Protocol.UDP).to_bytes(5, "big")
    for field in (FIELDS["nw_proto"], FIELDS["ct_nw_proto"])
)
_LEARN_COOKIE: Final = 16


class Target(NamedTuple):
    """Where an endpoint's flow sends connections."""

    address: Address
    port: int


class FrontendAddress(NamedTuple):
    """An address and port that clients send to; None: any address (a NodePort)."""

    address: Address | None
    port: int


def udp_service_port(key: Key) -> int | None:
    """The Service port (its group base) whose UDP connections this flow sends to an endpoint; None: it is no
    such flow.
    """
    if isinstance(key, int) or key[0] != ENDPOINT.number or not any(each in key for each in _UDP):
        return None
    position = _MATCH_FIELDS
    while position + 12 <= len(key):
        if key[position : position + 4] == _SERVICE_PORT_HEADER:
            return int.from_bytes(key[position + 4 : position + 8], "big")
        position += 4 + key[position + 3]
    return None


def target(body: bytes) -> Target | None:
    """Where the connections go that a flow with this body commits; None: it translates no destination."""
    for start, ct_end in _actions(body, NXAST_CT):
        for inner, end in _experimenter_actions(body, start + CT.size, ct_end, NXAST_NAT):
            _, _, _, _, flags, present = NAT.unpack_from(body, inner)
            if flags & NAT_DST:
                return _destination(body, inner + NAT.size, end, present)
    return None


def _destination(body: bytes, position: int, end: int, present: int) -> Target | None:
    """The address and port that stand in a ``nat`` action; their layout depends on what is present."""
    ipv6 = bool(present & NAT_IPV6_MIN)
    if (
        not present & NAT_PORT_MIN
        or present & (NAT_IPV4_MAX | NAT_IPV6_MAX)
        or ipv6 == bool(present & NAT_IPV4_MIN)
    ):
        return None
    width = 16 if ipv6 else 4
    if position + width + 2 > end:
        return None
    value = int.from_bytes(body[position : position + width], "big")
    port = int.from_bytes(body[position + width : position + width + 2], "big")
    return Target(Address(6 if ipv6 else 4, value), port)


def learn_cookies(body: bytes) -> Iterator[bytes]:
    """The cookies of the flows that the switch learns by a flow with this body."""
    if _NICIRA[NXAST_LEARN] not in body:
        return
    for start, end in _actions(body, NXAST_LEARN):
        if start + _LEARN_COOKIE + 8 <= end:
            yield body[start + _LEARN_COOKIE : start + _LEARN_COOKIE + 8]


def _actions(body: bytes, kind: int) -> Iterator[tuple[int, int]]:
    """Where Open vSwitch's actions of one kind begin and end among those that a flow applies."""
    position = _INSTRUCTIONS
    while position + _INSTRUCTION_HEADER <= len(body):
        instruction, length = TYPE_LENGTH.unpack_from(body, position)
        if length < _INSTRUCTION_HEADER or position + length > len(body):
            return
        if instruction == OFPIT_APPLY_ACTIONS:
            yield from _experimenter_actions(body, position + _INSTRUCTION_HEADER, position + length, kind)
        position += length


def _experimenter_actions(body: bytes, position: int, end: int, kind: int) -> Iterator[tuple[int, int]]:
    while position + _SHORTEST <= end:
        action, length = TYPE_LENGTH.unpack_from(body, position)
        if length < _SHORTEST or position + length > end:
            return
        if (
            action == OFPAT_EXPERIMENTER
            and length >= NAT.size
            and body[position + 4 : position + 10] == _NICIRA[kind]
        ):
            yield position, position + length
        position += length


_SHORTEST: Final = 8
_NICIRA: Final = {
    kind: NX_VENDOR_ID.to_bytes(4, "big") + kind.to_bytes(2, "big")
    for kind in (NXAST_CT, NXAST_NAT, NXAST_LEARN)
}


def frontends(service_port: int, entries: Entries) -> set[FrontendAddress]:
    """What clients of a Service port send to, as its flows among ``entries`` say."""
    chosen = encode_actions((SetField(SERVICE_PORT_REGISTER, service_port),))
    found: set[FrontendAddress] = set()
    for key, body in entries.items():
        if isinstance(key, int) or key[0] != LOAD_BALANCING.number or chosen not in body:
            continue
        try:
            values = {field.name: value for field, value, _ in decode_flow(key, body).match}
        except CodecError:
            continue
        port = values.get("ct_tp_dst")
        if port is None:
            continue
        if "ip_dst" in values:
            found.add(FrontendAddress(Address(4, values["ip_dst"]), port))
        elif "ipv6_dst" in values:
            found.add(FrontendAddress(Address(6, values["ipv6_dst"]), port))
        else:
            found.add(FrontendAddress(None, port))
    return found
