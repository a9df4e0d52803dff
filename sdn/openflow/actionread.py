# SPDX-License-Identifier: Apache-2.0
"""Actions and instructions from the wire.

Nothing is guessed: an action is given as one of :mod:`sdn.pipeline.actions` only when encoding it again
gives the same bytes, else as :class:`Unknown` with its bytes, so nothing that a switch holds is shown as
something that it is not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sdn.openflow import wire
from sdn.openflow.actionlayout import (
    CONJUNCTION,
    COPY_FIELD,
    CT,
    CT_COMMIT,
    CT_FORCE,
    GROUP,
    IN_PORT_HEADER,
    LEARN,
    LEARN_BITS,
    LEARN_CONSTANT,
    LEARN_DELETE_LEARNED,
    LEARN_LOAD,
    NAT,
    NAT_DST,
    NAT_IPV4_MAX,
    NAT_IPV4_MIN,
    NAT_IPV6_MAX,
    NAT_IPV6_MIN,
    NAT_PORT_MAX,
    NAT_PORT_MIN,
    NAT_RANDOM,
    NAT_SRC,
    NO_TABLE,
    OUTPUT,
    OUTPUT_REG,
    RESUBMIT,
    TYPE_LENGTH,
)
from sdn.openflow.actionwire import ENCODERS
from sdn.openflow.errors import CodecError
from sdn.openflow.oxm import decode_oxms, field_of, nicira_field
from sdn.pipeline.actions import (
    Action,
    Conjunction,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Learn,
    LearnMatch,
    Move,
    Nat,
    Output,
    OutputField,
    Resubmit,
    SetField,
)
from sdn.pipeline.fields import FIELDS


@dataclass(frozen=True, slots=True)
class Unknown:
    """An action or instruction that is not one of ours, as the switch gave it. ``what`` is "action" or
    "instruction".
    """

    what: str
    data: bytes


DecodedAction: TypeAlias = Action | Unknown


def split_actions(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Cut ``data[start:end]`` into actions (or instructions, or properties): type, offset, length. Raises
    CodecError.
    """
    position = start
    while position < end:
        if end - position < 8:
            raise CodecError("action is cut short", position)
        kind, length = TYPE_LENGTH.unpack_from(data, position)
        if length < 8 or length % 8 or position + length > end:
            raise CodecError(f"action says {length} bytes, {end - position} are left", position)
        yield kind, position, length
        position += length


def decode_actions(data: bytes, start: int, end: int) -> tuple[DecodedAction, ...]:
    """The actions in ``data[start:end]``. Raises CodecError."""
    return tuple(_decode_action(data, *where) for where in split_actions(data, start, end))


def decode_instructions(data: bytes, start: int, end: int) -> tuple[DecodedAction, ...]:
    """A flow's actions from its instructions: apply-actions opened, goto-table as :class:`Goto`. Raises
    CodecError.
    """
    result: list[DecodedAction] = []
    for kind, offset, length in split_actions(data, start, end):
        raw = data[offset : offset + length]
        if kind == wire.OFPIT_APPLY_ACTIONS and raw[4:8] == b"\0\0\0\0":
            result.extend(decode_actions(data, offset + 8, offset + length))
        elif kind == wire.OFPIT_GOTO_TABLE and length == 8 and raw[5:] == b"\0\0\0":
            result.append(Goto(raw[4]))
        else:
            result.append(Unknown("instruction", raw))
    return tuple(result)


def _decode_action(data: bytes, kind: int, offset: int, length: int) -> DecodedAction:
    raw = data[offset : offset + length]
    try:
        action = _understand(raw, kind)
        if action is not None and ENCODERS[action.__class__](action) == raw:
            return action
    except (CodecError, struct.error, KeyError, OverflowError):
        # The lengths are right, the content is not ours: that is what Unknown is for.
        pass
    return Unknown("action", raw)


def _understand(raw: bytes, kind: int) -> Action | None:
    """What the action probably is; the caller checks by encoding it again."""
    match kind:
        case wire.OFPAT_OUTPUT:
            return Output(OUTPUT.unpack(raw)[2])
        case wire.OFPAT_GROUP:
            return GroupAction(GROUP.unpack(raw)[2])
        case wire.OFPAT_DEC_NW_TTL:
            return DecTtl()
        case wire.OFPAT_SET_FIELD:
            return _understand_set_field(raw)
        case wire.OFPAT_COPY_FIELD:
            return _understand_move(raw)
        case wire.OFPAT_EXPERIMENTER:
            return _understand_nicira(raw)
        case _:
            return None


def _understand_set_field(raw: bytes) -> SetField | None:
    length = raw[7]
    if int.from_bytes(raw[4:8], "big") == IN_PORT_HEADER:
        port = int.from_bytes(raw[8:10], "big")
        return SetField(FIELDS["in_port"], port if port < 0xFF00 else port | 0xFFFF0000)
    terms, unknown = decode_oxms(raw, 4, 8 + length)
    if unknown or len(terms) != 1:
        return None
    return SetField(*terms[0])


def _understand_move(raw: bytes) -> Move | None:
    _, _, bits, source_offset, destination_offset, source, destination = COPY_FIELD.unpack(raw)
    source_field, destination_field = field_of(source), field_of(destination)
    if source_field is None or destination_field is None:
        return None
    return Move(source_field, source_offset, destination_field, destination_offset, bits)


def _understand_nicira(raw: bytes) -> Action | None:
    vendor, subtype = struct.unpack_from("!IH", raw, 4)
    if vendor != wire.NX_VENDOR_ID:
        return None
    if subtype in (wire.NXAST_RESUBMIT_TABLE, wire.NXAST_RESUBMIT_TABLE_CT):
        return Resubmit(RESUBMIT.unpack(raw)[5], with_ct=subtype == wire.NXAST_RESUBMIT_TABLE_CT)
    if subtype == wire.NXAST_OUTPUT_REG:
        _, _, _, _, bits, source, _ = OUTPUT_REG.unpack(raw)
        field = field_of(source)
        return None if field is None else OutputField(field, bits >> 6, (bits & 0x3F) + 1)
    if subtype == wire.NXAST_CT:
        return _understand_ct(raw)
    if subtype == wire.NXAST_LEARN:
        return _understand_learn(raw)
    if subtype == wire.NXAST_CONJUNCTION:
        _, _, _, _, clause, clauses, number = CONJUNCTION.unpack(raw)
        return Conjunction(number, clause + 1, clauses)
    return None


def _understand_ct(raw: bytes) -> Ct | None:
    _, _, _, _, flags, source, zone, table, _alg = CT.unpack_from(raw)
    zone_field = None
    if source:
        field = field_of(source)
        if field is None:
            return None
        zone_field = (field, zone >> 6)
        zone = 0
    nat: Nat | None = None
    execute: list[SetField | Move] = []
    for kind, offset, length in split_actions(raw, CT.size, len(raw)):
        inner = raw[offset : offset + length]
        if kind == wire.OFPAT_EXPERIMENTER and nat is None:
            nat = _understand_nat(inner)
            continue
        # Only what ct may execute: asking _understand would let a switch nest ct in ct without end.
        action: SetField | Move | None = None
        if kind == wire.OFPAT_SET_FIELD:
            action = _understand_set_field(inner)
        elif kind == wire.OFPAT_COPY_FIELD:
            action = _understand_move(inner)
        if action is None:
            return None
        execute.append(action)
    return Ct(
        zone=zone,
        zone_field=zone_field,
        commit=bool(flags & CT_COMMIT),
        force=bool(flags & CT_FORCE),
        table=None if table == NO_TABLE else table,
        nat=nat,
        execute=tuple(execute),
    )


def _understand_learn(raw: bytes) -> Learn | None:
    _, _, _, _, idle, hard, priority, cookie, flags, table, _, _ = LEARN.unpack_from(raw)
    match: list[LearnMatch] = []
    load: list[SetField] = []
    position = LEARN.size
    while position + 2 <= len(raw) and (head := int.from_bytes(raw[position : position + 2], "big")):
        bits = head & LEARN_BITS
        width = (bits + 15) // 16 * 2 if head & LEARN_CONSTANT else 6
        end = position + 2 + width + 6
        if end > len(raw):
            return None
        field = nicira_field(int.from_bytes(raw[end - 6 : end - 2], "big"))
        offset = int.from_bytes(raw[end - 2 : end], "big")
        if field is None:
            return None
        constant = None
        if head & LEARN_CONSTANT:
            constant = int.from_bytes(raw[position + 2 : position + 2 + width], "big")
        if not head & LEARN_LOAD:
            match.append(LearnMatch(field, constant))
        elif constant is None:
            return None
        else:
            mask = ((1 << bits) - 1) << offset
            load.append(SetField(field, constant << offset, None if mask == field.all_ones else mask))
        position = end
    return Learn(
        table,
        priority,
        cookie,
        tuple(match),
        tuple(load),
        idle,
        hard,
        delete_learned=bool(flags & LEARN_DELETE_LEARNED),
    )


def _understand_nat(raw: bytes) -> Nat:
    _, _, _, _, flags, present = NAT.unpack_from(raw)
    values: dict[int, int] = {}
    position = NAT.size
    for bit, width in (
        (NAT_IPV4_MIN, 4),
        (NAT_IPV4_MAX, 4),
        (NAT_IPV6_MIN, 16),
        (NAT_IPV6_MAX, 16),
        (NAT_PORT_MIN, 2),
        (NAT_PORT_MAX, 2),
    ):
        if present & bit:
            values[bit] = int.from_bytes(raw[position : position + width], "big")
            position += width
    ipv6 = bool(present & NAT_IPV6_MIN)
    return Nat(
        kind={0: "", NAT_SRC: "src", NAT_DST: "dst"}[flags & (NAT_SRC | NAT_DST)],
        ipv6=ipv6,
        address_min=values.get(NAT_IPV6_MIN if ipv6 else NAT_IPV4_MIN),
        address_max=values.get(NAT_IPV6_MAX if ipv6 else NAT_IPV4_MAX),
        port_min=values.get(NAT_PORT_MIN, 0),
        port_max=values.get(NAT_PORT_MAX, 0),
        random=bool(flags & NAT_RANDOM),
    )
