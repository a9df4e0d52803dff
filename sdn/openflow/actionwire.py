# SPDX-License-Identifier: Apache-2.0
"""Actions and instructions to the wire.

What is written here is what Open vSwitch prints back, byte for byte: a masked set-field whose mask is
complete is written without one, ``nat`` stands before what ``ct`` executes, padding is zero. That is what
makes installed and desired flows comparable as bytes; a test writes random flows to a real switch and
compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sdn.openflow.actionlayout import (
    CLAUSES_MAX,
    CLAUSES_MIN,
    CONJUNCTION,
    COPY_FIELD,
    CT,
    CT_COMMIT,
    CT_FORCE,
    GROUP,
    LEARN,
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
    NX_IN_PORT,
    OUTPUT,
    OUTPUT_REG,
    RESUBMIT,
    TYPE_LENGTH,
)
from sdn.openflow.errors import CodecError
from sdn.openflow.oxm import encode_set_field, header, nicira_header
from sdn.openflow.wire import (
    NX_VENDOR_ID,
    NXAST_CONJUNCTION,
    NXAST_CT,
    NXAST_LEARN,
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
    Conjunction,
    Ct,
    DecTtl,
    Goto,
    GroupAction,
    Learn,
    Move,
    Nat,
    Output,
    OutputField,
    Resubmit,
    SetField,
)
from sdn.pipeline.fields import FIELDS, OFPP_CONTROLLER, Field

_DEC_TTL: Final = TYPE_LENGTH.pack(OFPAT_DEC_NW_TTL, 8) + bytes(4)


def _output(action: Output) -> bytes:
    return OUTPUT.pack(
        OFPAT_OUTPUT, 16, action.port, OFPCML_NO_BUFFER if action.port == OFPP_CONTROLLER else 0
    )


def _output_field(action: OutputField) -> bytes:
    bits = _ofs_nbits(action.offset, action.bits, action.field.bits)
    return OUTPUT_REG.pack(
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
    return TYPE_LENGTH.pack(OFPAT_SET_FIELD, length) + oxm.ljust(length - 4, b"\0")


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


_SET_FIELD: Final = {field: _set_field_template(field) for field in FIELDS.values()}


def _move(action: Move) -> bytes:
    return COPY_FIELD.pack(
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
    return GROUP.pack(OFPAT_GROUP, 8, action.group_id)


def _resubmit(action: Resubmit) -> bytes:
    kind = NXAST_RESUBMIT_TABLE_CT if action.with_ct else NXAST_RESUBMIT_TABLE
    return RESUBMIT.pack(OFPAT_EXPERIMENTER, 16, NX_VENDOR_ID, kind, NX_IN_PORT, action.table)


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
    flags = (CT_COMMIT if action.commit else 0) | (CT_FORCE if action.force else 0)
    table = NO_TABLE if action.table is None else action.table
    return (
        CT.pack(
            OFPAT_EXPERIMENTER, CT.size + len(inner), NX_VENDOR_ID, NXAST_CT, flags, source, zone, table, 0
        )
        + inner
    )


def _nat(nat: Nat) -> bytes:
    flags = {"": 0, "src": NAT_SRC, "dst": NAT_DST}[nat.kind] | (NAT_RANDOM if nat.random else 0)
    present = 0
    ranges = b""
    width, minimum, maximum = (
        (16, NAT_IPV6_MIN, NAT_IPV6_MAX) if nat.ipv6 else (4, NAT_IPV4_MIN, NAT_IPV4_MAX)
    )
    if nat.address_min is not None:
        present |= minimum
        ranges += nat.address_min.to_bytes(width, "big")
        if nat.address_max is not None and nat.address_max != nat.address_min:
            present |= maximum
            ranges += nat.address_max.to_bytes(width, "big")
    if nat.port_min:
        present |= NAT_PORT_MIN
        ranges += nat.port_min.to_bytes(2, "big")
        if nat.port_max not in (0, nat.port_min):
            present |= NAT_PORT_MAX
            ranges += nat.port_max.to_bytes(2, "big")
    length = padded(NAT.size + len(ranges))
    return NAT.pack(OFPAT_EXPERIMENTER, length, NX_VENDOR_ID, NXAST_NAT, flags, present) + ranges.ljust(
        length - NAT.size, b"\0"
    )


def _learn(action: Learn) -> bytes:
    parts = []
    for each in action.match:
        if each.value is None:
            source = nicira_header(each.field).to_bytes(4, "big") + b"\0\0"
            parts.append(each.field.bits.to_bytes(2, "big") + source + source)
        else:
            parts.append(_learned_constant(0, each.field, each.value, 0, each.field.bits))
    for load in action.load:
        mask = load.field.all_ones if load.mask is None else load.mask
        offset, bits = (mask & -mask).bit_length() - 1, mask.bit_count()
        if mask != ((1 << bits) - 1) << max(offset, 0) or not bits:
            raise CodecError(f"learn loads bits that stand together, not {mask:#x} of {load.field.name}")
        if load.value & ~mask:
            raise CodecError(f"learn loads {load.value:#x} into {load.field.name}: bits outside of the mask")
        parts.append(_learned_constant(LEARN_LOAD, load.field, load.value >> offset, offset, bits))
    specification = b"".join(parts)
    length = padded(LEARN.size + len(specification))
    return LEARN.pack(
        OFPAT_EXPERIMENTER,
        length,
        NX_VENDOR_ID,
        NXAST_LEARN,
        action.idle_timeout,
        action.hard_timeout,
        action.priority,
        action.cookie,
        LEARN_DELETE_LEARNED if action.delete_learned else 0,
        action.table,
        0,
        0,
    ) + specification.ljust(length - LEARN.size, b"\0")


def _learned_constant(kind: int, field: Field, value: int, offset: int, bits: int) -> bytes:
    """One part of a learned flow: a constant for ``bits`` bits of a field, in whole 16-bit words."""
    if not 0 <= value < 1 << bits:
        raise CodecError(f"{value:#x} does not fit into {bits} bits of {field.name}")
    constant = value.to_bytes((bits + 15) // 16 * 2, "big")
    head = (LEARN_CONSTANT | kind | bits).to_bytes(2, "big")
    return head + constant + nicira_header(field).to_bytes(4, "big") + offset.to_bytes(2, "big")


def _conjunction(action: Conjunction) -> bytes:
    clause, clauses = action.clause, action.clauses
    if not (CLAUSES_MIN <= clauses <= CLAUSES_MAX and 1 <= clause <= clauses):
        raise CodecError(f"conjunction {action.id} has clause {clause} of {clauses}")
    return CONJUNCTION.pack(
        OFPAT_EXPERIMENTER, 16, NX_VENDOR_ID, NXAST_CONJUNCTION, clause - 1, clauses, action.id
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
    Learn: _learn,
    Conjunction: _conjunction,
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
