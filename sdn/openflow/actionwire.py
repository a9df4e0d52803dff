# SPDX-License-Identifier: Apache-2.0
"""Actions and instructions on the wire (OpenFlow 1.5, sections 7.2.5 and 7.2.6; Open vSwitch's
``nicira-ext.h``).

What is written here is what Open vSwitch prints back, byte for byte: a masked set-field whose mask is
complete is written without one, ``nat`` stands before what ``ct`` executes, padding is zero. That is what
makes installed and desired flows comparable as bytes; a test writes random flows to a real switch and
compares.

Decoding never guesses: an action is given as one of :mod:`sdn.pipeline.actions` only when encoding it again
gives the same bytes, else as :class:`Unknown` with its bytes, so nothing that a switch holds is shown as
something that it is not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sdn.openflow.errors import CodecError
from sdn.openflow.oxm import decode_oxms, encode_set_field, field_of, header
from sdn.openflow.wire import (
    NX_VENDOR_ID,
    NXAST_CT,
    NXAST_NAT,
    NXAST_OUTPUT_REG,
    NXAST_RESUBMIT_TABLE,
    NXAST_RESUBMIT_TABLE_CT,
    OFPAT_COPY_FIELD,
    OFPAT_DEC_NW_TTL,
    OFPAT_EXPERIMENTER,
    OFPAT_GROUP,
    OFPAT_OUTPUT,
    OFPAT_SET_FIELD,
    OFPCML_NO_BUFFER,
    OFPIT_APPLY_ACTIONS,
    OFPIT_GOTO_TABLE,
    padded,
)
from sdn.pipeline.actions import (
    Action,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Move,
    Nat,
    Output,
    OutputField,
    Resubmit,
    SetField,
)
from sdn.pipeline.fields import FIELDS, OFPP_CONTROLLER, Field


@dataclass(frozen=True, slots=True)
class Unknown:
    """An action or instruction that is not one of ours, as the switch gave it. ``what`` is "action" or
    "instruction".
    """

    what: str
    data: bytes


DecodedAction: TypeAlias = Action | Unknown

_OUTPUT: Final = struct.Struct("!HHIH6x")
_GROUP: Final = struct.Struct("!HHI")
_COPY_FIELD: Final = struct.Struct("!HHHHH2xII4x")
_OUTPUT_REG: Final = struct.Struct("!HHIHHIH6x")
_RESUBMIT: Final = struct.Struct("!HHIHHB3x")
_CT: Final = struct.Struct("!HHIHHIHB3xH")
_NAT: Final = struct.Struct("!HHIH2xHH")
_NX_IN_PORT: Final = 0xFFF8

_CT_COMMIT, _CT_FORCE = 1, 2
_NO_TABLE: Final = 0xFF
_NAT_SRC, _NAT_DST, _NAT_RANDOM = 1, 2, 16
_NAT_IPV4_MIN, _NAT_IPV4_MAX, _NAT_IPV6_MIN, _NAT_IPV6_MAX, _NAT_PORT_MIN, _NAT_PORT_MAX = 1, 2, 4, 8, 16, 32

_DEC_TTL: Final = struct.pack("!HH4x", OFPAT_DEC_NW_TTL, 8)
_IN_PORT_HEADER: Final = 0x00000002  # NXM_OF_IN_PORT: the 16-bit form, the only one that can be set


# Encoding: one function an action.


def _output(action: Output) -> bytes:
    return _OUTPUT.pack(
        OFPAT_OUTPUT, 16, action.port, OFPCML_NO_BUFFER if action.port == OFPP_CONTROLLER else 0
    )


def _output_field(action: OutputField) -> bytes:
    bits = _ofs_nbits(action.offset, action.bits, action.field.bits)
    return _OUTPUT_REG.pack(
        OFPAT_EXPERIMENTER, 24, NX_VENDOR_ID, NXAST_OUTPUT_REG, bits, header(action.field), OFPCML_NO_BUFFER
    )


def _ofs_nbits(offset: int, bits: int, width: int) -> int:
    """Open vSwitch's packing of "bits offset..offset+bits-1 of a field" (nicira-ext.h, ofs_nbits)."""
    if not (1 <= bits <= 64 and offset >= 0 and offset + bits <= width):
        raise CodecError(f"bits {offset}..{offset + bits - 1} of a field of {width} bits")
    return offset << 6 | bits - 1


def _set_field(action: SetField) -> bytes:
    field, value, mask = action.field, action.value, action.mask
    if mask is None:
        base, shift, length, limit = _SET_FIELD[field]
        if 0 <= value <= limit:
            return (base | value << shift).to_bytes(length, "big")
    oxm = encode_set_field(field, value, mask)
    length = padded(4 + len(oxm))
    return _TYPE_LENGTH.pack(OFPAT_SET_FIELD, length) + oxm.ljust(length - 4, b"\0")


def _set_field_template(field: Field) -> tuple[int, int, int, int]:
    """An unmasked set-field as an integer in which only the value is missing: that, where it goes, bytes,
    largest value.
    """
    oxm = encode_set_field(field, 0, None)
    length = padded(4 + len(oxm))
    shift = (length - 4 - len(oxm)) * 8
    base = (OFPAT_SET_FIELD << 16 | length) << (length - 4) * 8 | int.from_bytes(oxm, "big") << shift
    # in_port has a shorter form than its values: the general way for those.
    return base, shift, length, -1 if field.name == "in_port" else field.all_ones


_TYPE_LENGTH: Final = struct.Struct("!HH")
_SET_FIELD: Final = {field: _set_field_template(field) for field in FIELDS.values()}


def _move(action: Move) -> bytes:
    return _COPY_FIELD.pack(
        OFPAT_COPY_FIELD,
        24,
        action.bits,
        action.source_offset,
        action.destination_offset,
        header(action.source),
        header(action.destination),
    )


def _dec_ttl(_action: DecTtl) -> bytes:
    return _DEC_TTL


def _group(action: GroupAction) -> bytes:
    return _GROUP.pack(OFPAT_GROUP, 8, action.group_id)


def _resubmit(action: Resubmit) -> bytes:
    kind = NXAST_RESUBMIT_TABLE_CT if action.with_ct else NXAST_RESUBMIT_TABLE
    return _RESUBMIT.pack(OFPAT_EXPERIMENTER, 16, NX_VENDOR_ID, kind, _NX_IN_PORT, action.table)


def _ct(action: Ct) -> bytes:
    if action.zone_field is None:
        source, zone = 0, action.zone
    else:
        field, offset = action.zone_field
        source, zone = header(field), _ofs_nbits(offset, 16, field.bits)
    inner = b"" if action.nat is None else _nat(action.nat)
    inner += b"".join(
        [_set_field(each) if isinstance(each, SetField) else _move(each) for each in action.execute]
    )
    flags = (_CT_COMMIT if action.commit else 0) | (_CT_FORCE if action.force else 0)
    table = _NO_TABLE if action.table is None else action.table
    return (
        _CT.pack(
            OFPAT_EXPERIMENTER, _CT.size + len(inner), NX_VENDOR_ID, NXAST_CT, flags, source, zone, table, 0
        )
        + inner
    )


def _nat(nat: Nat) -> bytes:
    flags = {"": 0, "src": _NAT_SRC, "dst": _NAT_DST}[nat.kind] | (_NAT_RANDOM if nat.random else 0)
    present = 0
    ranges = b""
    width, minimum, maximum = (
        (16, _NAT_IPV6_MIN, _NAT_IPV6_MAX) if nat.ipv6 else (4, _NAT_IPV4_MIN, _NAT_IPV4_MAX)
    )
    if nat.address_min is not None:
        present |= minimum
        ranges += nat.address_min.to_bytes(width, "big")
        if nat.address_max is not None and nat.address_max != nat.address_min:
            present |= maximum
            ranges += nat.address_max.to_bytes(width, "big")
    if nat.port_min:
        present |= _NAT_PORT_MIN
        ranges += nat.port_min.to_bytes(2, "big")
        if nat.port_max not in (0, nat.port_min):
            present |= _NAT_PORT_MAX
            ranges += nat.port_max.to_bytes(2, "big")
    length = padded(_NAT.size + len(ranges))
    return _NAT.pack(OFPAT_EXPERIMENTER, length, NX_VENDOR_ID, NXAST_NAT, flags, present) + ranges.ljust(
        length - _NAT.size, b"\0"
    )


def _goto(_action: Goto) -> bytes:
    raise CodecError("goto_table is an instruction: only a flow's last action may be one")


ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    Output: _output,
    OutputField: _output_field,
    SetField: _set_field,
    Move: _move,
    DecTtl: _dec_ttl,
    GroupAction: _group,
    Resubmit: _resubmit,
    Ct: _ct,
    Goto: _goto,
}


def encode_actions(actions: tuple[Action, ...]) -> bytes:
    """A list of actions, as a bucket or a packet-out carries it. Raises CodecError for what the wire cannot
    say.
    """
    return b"".join([ENCODERS[action.__class__](action) for action in actions])


def encode_instructions(actions: tuple[Action, ...]) -> bytes:
    """A flow's instructions: apply-actions, unless there is none, and goto-table. Nothing at all drops the
    packet.
    """
    if not actions:
        return b""
    last = actions[-1]
    tail = b""
    if last.__class__ is Goto:
        tail = (OFPIT_GOTO_TABLE << 48 | 8 << 32 | last.table << 24).to_bytes(8, "big")
        if len(actions) == 1:
            return tail
        actions = actions[:-1]
    body = b"".join([ENCODERS[action.__class__](action) for action in actions])
    return (OFPIT_APPLY_ACTIONS << 48 | len(body) + 8 << 32).to_bytes(8, "big") + body + tail


# Decoding.


def split_actions(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Cut ``data[start:end]`` into actions (or instructions, or properties): type, offset, length. Raises
    CodecError.
    """
    position = start
    while position < end:
        if end - position < 8:
            raise CodecError("action is cut short", position)
        kind, length = _TYPE_LENGTH.unpack_from(data, position)
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
        if kind == OFPIT_APPLY_ACTIONS and raw[4:8] == b"\0\0\0\0":
            result.extend(decode_actions(data, offset + 8, offset + length))
        elif kind == OFPIT_GOTO_TABLE and length == 8 and raw[5:] == b"\0\0\0":
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
        case 0:  # OFPAT_OUTPUT
            return Output(_OUTPUT.unpack(raw)[2])
        case 22:  # OFPAT_GROUP
            return GroupAction(_GROUP.unpack(raw)[2])
        case 24:  # OFPAT_DEC_NW_TTL
            return DecTtl()
        case 25:  # OFPAT_SET_FIELD
            return _understand_set_field(raw)
        case 28:  # OFPAT_COPY_FIELD
            return _understand_move(raw)
        case 0xFFFF:  # OFPAT_EXPERIMENTER
            return _understand_nicira(raw)
        case _:
            return None


def _understand_set_field(raw: bytes) -> SetField | None:
    length = raw[7]
    if int.from_bytes(raw[4:8], "big") == _IN_PORT_HEADER:
        port = int.from_bytes(raw[8:10], "big")
        return SetField(FIELDS["in_port"], port if port < 0xFF00 else port | 0xFFFF0000)
    terms, unknown = decode_oxms(raw, 4, 8 + length)
    if unknown or len(terms) != 1:
        return None
    return SetField(*terms[0])


def _understand_move(raw: bytes) -> Move | None:
    _, _, bits, source_offset, destination_offset, source, destination = _COPY_FIELD.unpack(raw)
    source_field, destination_field = field_of(source), field_of(destination)
    if source_field is None or destination_field is None:
        return None
    return Move(source_field, source_offset, destination_field, destination_offset, bits)


def _understand_nicira(raw: bytes) -> Action | None:
    vendor, subtype = struct.unpack_from("!IH", raw, 4)
    if vendor != NX_VENDOR_ID:
        return None
    if subtype in (NXAST_RESUBMIT_TABLE, NXAST_RESUBMIT_TABLE_CT):
        return Resubmit(_RESUBMIT.unpack(raw)[5], with_ct=subtype == NXAST_RESUBMIT_TABLE_CT)
    if subtype == NXAST_OUTPUT_REG:
        _, _, _, _, bits, source, _ = _OUTPUT_REG.unpack(raw)
        field = field_of(source)
        return None if field is None else OutputField(field, bits >> 6, (bits & 0x3F) + 1)
    if subtype == NXAST_CT:
        return _understand_ct(raw)
    return None


def _understand_ct(raw: bytes) -> Ct | None:
    _, _, _, _, flags, source, zone, table, _alg = _CT.unpack_from(raw)
    zone_field = None
    if source:
        field = field_of(source)
        if field is None:
            return None
        zone_field = (field, zone >> 6)
        zone = 0
    nat: Nat | None = None
    execute: list[SetField | Move] = []
    for kind, offset, length in split_actions(raw, _CT.size, len(raw)):
        inner = raw[offset : offset + length]
        if kind == OFPAT_EXPERIMENTER and nat is None:
            nat = _understand_nat(inner)
            continue
        # Only what ct may execute: asking _understand would let a switch nest ct in ct without end.
        action: SetField | Move | None = None
        if kind == OFPAT_SET_FIELD:
            action = _understand_set_field(inner)
        elif kind == OFPAT_COPY_FIELD:
            action = _understand_move(inner)
        if action is None:
            return None
        execute.append(action)
    return Ct(
        zone=zone,
        zone_field=zone_field,
        commit=bool(flags & _CT_COMMIT),
        force=bool(flags & _CT_FORCE),
        table=None if table == _NO_TABLE else table,
        nat=nat,
        execute=tuple(execute),
    )


def _understand_nat(raw: bytes) -> Nat:
    _, _, _, _, flags, present = _NAT.unpack_from(raw)
    values: dict[int, int] = {}
    position = _NAT.size
    for bit, width in (
        (_NAT_IPV4_MIN, 4),
        (_NAT_IPV4_MAX, 4),
        (_NAT_IPV6_MIN, 16),
        (_NAT_IPV6_MAX, 16),
        (_NAT_PORT_MIN, 2),
        (_NAT_PORT_MAX, 2),
    ):
        if present & bit:
            values[bit] = int.from_bytes(raw[position : position + width], "big")
            position += width
    ipv6 = bool(present & _NAT_IPV6_MIN)
    return Nat(
        kind={0: "", _NAT_SRC: "src", _NAT_DST: "dst"}[flags & (_NAT_SRC | _NAT_DST)],
        ipv6=ipv6,
        address_min=values.get(_NAT_IPV6_MIN if ipv6 else _NAT_IPV4_MIN),
        address_max=values.get(_NAT_IPV6_MAX if ipv6 else _NAT_IPV4_MAX),
        port_min=values.get(_NAT_PORT_MIN, 0),
        port_max=values.get(_NAT_PORT_MAX, 0),
        random=bool(flags & _NAT_RANDOM),
    )
