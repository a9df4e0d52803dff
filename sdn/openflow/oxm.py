# SPDX-License-Identifier: Apache-2.0
"""Match fields on the wire: OXM, the type-length-value form of OpenFlow 1.5 (section 7.2.3.2).

A match is encoded from a *template*. Matches of one shape (the same fields under the same masks) differ
only in their values, so all that is constant - headers, lengths, masks, padding - is worked out once per
shape into one big integer with holes, and a match costs one sum of shifted values. That is several times
faster than packing field after field.

Registers are the one surprise: in OpenFlow 1.5 Open vSwitch prints ``reg0`` and ``reg1`` of a match as one
64-bit ``xreg0`` (``reg2`` and ``reg3`` as ``xreg1``, and so on), with a mask unless both are matched in
full. We write what it prints. In actions a register stays a register.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.wire import padded
from sdn.pipeline.fields import FIELDS, OXM_PACKET_REGS, REGISTERS, Field
from sdn.pipeline.match import Match, Term

#: Bytes of a field's value.
WIDTH: Final[dict[Field, int]] = {field: (field.bits + 7) // 8 for field in FIELDS.values()}
_REGISTER_INDEX: Final[dict[Field, int]] = {field: index for index, field in enumerate(REGISTERS)}
_BY_NUMBER: Final[dict[tuple[int, int], Field]] = {(f.oxm_class, f.oxm_field): f for f in FIELDS.values()}
#: By class and number with the mask bit: field, bytes of a value, bytes of value and mask, largest value.
_FORMS: Final[dict[tuple[int, int], tuple[Field, int, int, int]]] = {
    (field.oxm_class, field.oxm_field << 1 | masked): (field, width, width << masked, field.all_ones)
    for field, width in WIDTH.items()
    for masked in (0, 1)
}
_IN_PORT: Final = FIELDS["in_port"]

OFPMT_OXM: Final = 1
#: Shapes are few; this bounds what a switch with odd flows could make us keep.
_MAX_TEMPLATES: Final = 4096


def header(field: Field, masked: bool = False) -> int:
    """The four bytes before a field's value, as a number."""
    length = WIDTH[field] * (2 if masked else 1)
    return field.oxm_class << 16 | field.oxm_field << 9 | masked << 8 | length


def field_of(number: int) -> Field | None:
    """The field that an unmasked header names, or None when it is none of ours (or says another length)."""
    field = _BY_NUMBER.get((number >> 16, number >> 9 & 0x7F))
    return field if field is not None and header(field) == number else None


#: Fields with an older number in Nicira's classes (nicira-ext.h; ovs-fields(7)). Open vSwitch names the fields of a
#: learned flow by these, whatever the version of OpenFlow. Class 0 is NXM_OF, class 1 NXM_NX.
_NICIRA: Final[dict[str, tuple[int, int]]] = {
    **{
        name: (0, number)
        for name, number in (("eth_dst", 1), ("eth_src", 2), ("eth_type", 3), ("nw_proto", 6))
    },
    **{name: (0, number) for name, number in (("ip_src", 7), ("ip_dst", 8), ("tcp_src", 9), ("tcp_dst", 10))},
    **{name: (0, number) for name, number in (("udp_src", 11), ("udp_dst", 12), ("icmp_type", 13))},
    **{
        name: (0, number)
        for name, number in (("icmp_code", 14), ("arp_op", 15), ("arp_spa", 16), ("arp_tpa", 17))
    },
    **{
        name: (1, number)
        for name, number in (("tun_id", 16), ("arp_sha", 17), ("arp_tha", 18), ("ipv6_src", 19))
    },
    **{name: (1, number) for name, number in (("ipv6_dst", 20), ("icmpv6_type", 21), ("icmpv6_code", 22))},
    **{
        name: (1, number)
        for name, number in (("nd_target", 23), ("nd_sll", 24), ("nd_tll", 25), ("nw_ecn", 28))
    },
    "tcp_flags": (1, 34),
}
_NICIRA_HEADER: Final[dict[Field, int]] = {
    field: oxm_class << 16 | number << 9 | WIDTH[field]
    for field in FIELDS.values()
    for oxm_class, number in (_NICIRA.get(field.name, (field.oxm_class, field.oxm_field)),)
}
_BY_NICIRA_HEADER: Final[dict[int, Field]] = {number: field for field, number in _NICIRA_HEADER.items()}


def nicira_header(field: Field) -> int:
    """The four bytes that name a field to ``learn``."""
    return _NICIRA_HEADER[field]


def nicira_field(number: int) -> Field | None:
    """The field that ``learn`` names, or None when it is none of ours."""
    return _BY_NICIRA_HEADER.get(number)


class _Template:
    """Matches of one shape: the padded ``ofp_match`` as an integer in which only the values are missing."""

    __slots__ = ("base", "length", "shifts", "widths")

    def __init__(self, fields: tuple[Field, ...], masks: tuple[int | None, ...]) -> None:
        pieces: list[tuple[int, int]] = []  # (number, bytes), in wire order
        holes: dict[Field, tuple[int, int]] = {}  # field -> (piece that holds its value, shift within)
        masks_of = {
            field: (None if mask is None or mask == field.all_ones else mask)
            for field, mask in zip(fields, masks, strict=True)
        }
        if len(masks_of) != len(fields):
            raise CodecError("a field occurs twice in a match")
        for field, mask in masks_of.items():
            if mask is not None and not 0 <= mask <= field.all_ones:
                raise CodecError(f"mask {mask:#x} does not fit into {field.name}")
        self.widths = tuple(field.bits for field in fields)
        done: set[Field] = set()
        for field in sorted(masks_of, key=lambda each: each.order):
            if field in done:
                continue
            index = _REGISTER_INDEX.get(field)
            if index is not None:
                done.update(_add_register_pair(index // 2, masks_of, pieces, holes))
                continue
            mask = masks_of[field]
            pieces.append((header(field, mask is not None), 4))
            holes[field] = (len(pieces), 0)
            pieces.append((0, WIDTH[field]))
            if mask is not None:
                pieces.append((mask, WIDTH[field]))
        content = 4 + sum(size for _, size in pieces)
        self.length = padded(content)
        # From the last byte back: the padding, then each piece left of what follows it.
        position = (self.length - content) * 8
        number = 0
        where: list[int] = [0] * len(pieces)
        for piece in range(len(pieces) - 1, -1, -1):
            value, size = pieces[piece]
            where[piece] = position
            number |= value << position
            position += size * 8
        self.base = number | (OFPMT_OXM << 16 | content) << position
        self.shifts = tuple(where[holes[field][0]] + holes[field][1] for field in fields)


def _add_register_pair(
    pair: int,
    masks_of: dict[Field, int | None],
    pieces: list[tuple[int, int]],
    holes: dict[Field, tuple[int, int]],
) -> tuple[Field, Field]:
    """The 64-bit form of two registers of which at least one is matched. Returns both."""
    high, low = REGISTERS[2 * pair], REGISTERS[2 * pair + 1]
    mask = 0
    for register, shift in ((high, 32), (low, 0)):
        if register in masks_of:
            own = masks_of[register]
            mask |= (register.all_ones if own is None else own) << shift
            holes[register] = (len(pieces) + 1, shift)
    masked = mask != (1 << 64) - 1
    pieces.append((OXM_PACKET_REGS << 16 | pair << 9 | masked << 8 | (16 if masked else 8), 4))
    pieces.append((0, 8))
    if masked:
        pieces.append((mask, 8))
    return high, low


_templates: dict[tuple[tuple[Field, ...], tuple[int | None, ...]], _Template] = {}
_EMPTY: Final = (OFPMT_OXM << 48 | 4 << 32).to_bytes(8, "big")


def encode_match(match: Match) -> bytes:
    """The ``ofp_match`` of a match, padded, byte for byte as the switch prints it.

    Raises CodecError for a value that is too large for its field.
    """
    terms = match.terms
    if not terms:
        return _EMPTY
    fields, values, masks = zip(*terms, strict=True)
    template = _templates.get((fields, masks))
    if template is None:
        if len(_templates) >= _MAX_TEMPLATES:
            _templates.clear()
        template = _templates[fields, masks] = _Template(fields, masks)
    if any(map(operator.rshift, values, template.widths)):
        raise CodecError(f"a value is too large for its field in {match}")
    number: int = sum(map(operator.lshift, values, template.shifts), template.base)
    return number.to_bytes(template.length, "big")


def encode_set_field(field: Field, value: int, mask: int | None) -> bytes:
    """One OXM as the set-field action carries it, not padded.

    ``in_port`` goes in its 16-bit Nicira form: Open vSwitch refuses to set the 32-bit one.
    """
    if not 0 <= value <= field.all_ones or (mask is not None and not 0 <= mask <= field.all_ones):
        raise CodecError(f"{value:#x} does not fit into {field.name}")
    if field is _IN_PORT:
        if 0xFF00 <= value < 0xFFFFFF00 or mask is not None:
            raise CodecError(f"in_port cannot be set to {value:#x}")
        return (0x0002 << 16 | value & 0xFFFF).to_bytes(6, "big")
    width = WIDTH[field]
    if mask is None or mask == field.all_ones:
        return (header(field) << width * 8 | value).to_bytes(4 + width, "big")
    return (header(field, True) << width * 16 | value << width * 8 | mask).to_bytes(4 + 2 * width, "big")


def split_oxms(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut ``data[start:end]`` into OXMs: class, field number with the mask bit, offset and length of what
    follows.

    Raises CodecError.
    """
    position = start
    while position < end:
        if end - position < 4:
            raise CodecError("match field header is cut short", position)
        length = data[position + 3]
        if position + 4 + length > end:
            raise CodecError(f"match field says {length} bytes, {end - position - 4} are left", position)
        yield (
            data[position] << 8 | data[position + 1],
            data[position + 2],
            position + 4,
            length,
        )
        position += 4 + length


def decode_oxms(data: bytes, start: int, end: int) -> tuple[list[Term], list[bytes]]:
    """The terms of ``data[start:end]`` and, raw, the fields that the registry does not know.

    ``xregN`` comes back as the two registers that it is made of. Raises CodecError.
    """
    terms: list[Term] = []
    unknown: list[bytes] = []
    for oxm_class, number, offset, length in split_oxms(data, start, end):
        known = _FORMS.get((oxm_class, number))
        if known is None:
            if oxm_class == OXM_PACKET_REGS and number >> 1 < len(REGISTERS) // 2:
                terms.extend(_decode_register_pair(data, offset, length, bool(number & 1), number >> 1))
            else:
                unknown.append(data[offset - 4 : offset + length])
            continue
        field, width, expected, largest = known
        if length != expected:
            raise CodecError(f"{field.name} says {length} bytes", offset - 4)
        value = int.from_bytes(data[offset : offset + width], "big")
        mask = None
        if length != width:
            mask = int.from_bytes(data[offset + width : offset + length], "big")
            if mask > largest:
                raise CodecError(f"the mask of {field.name} has more than {field.bits} bits", offset + width)
            if mask == largest:
                mask = None
        if value > largest:
            raise CodecError(f"{field.name} has more than {field.bits} bits", offset)
        terms.append((field, value, mask))
    return terms, unknown


def _decode_register_pair(data: bytes, offset: int, length: int, masked: bool, pair: int) -> Iterator[Term]:
    if length != (16 if masked else 8):
        raise CodecError(f"xreg{pair} says {length} bytes", offset - 4)
    for register, at in ((REGISTERS[2 * pair], offset), (REGISTERS[2 * pair + 1], offset + 4)):
        value = int.from_bytes(data[at : at + 4], "big")
        mask = int.from_bytes(data[at + 8 : at + 12], "big") if masked else register.all_ones
        if mask:
            yield register, value, None if mask == register.all_ones else mask


def decode_match(data: bytes, start: int, end: int) -> tuple[Match, tuple[bytes, ...], int]:
    """The ``ofp_match`` at ``start``: the match, what the registry does not know of it, and the offset
    behind its padding.

    Raises CodecError when it is malformed or reaches beyond ``end``.
    """
    if end - start < 8:
        raise CodecError("match is cut short", min(start, end))
    kind = data[start] << 8 | data[start + 1]
    length = data[start + 2] << 8 | data[start + 3]
    if kind != OFPMT_OXM:
        raise CodecError(f"match type {kind} is not OXM", start)
    if length < 4 or start + padded(length) > end:
        raise CodecError(f"match says {length} bytes, {end - start} are left", start)
    terms, unknown = decode_oxms(data, start + 4, start + length)
    if len({field for field, _, _ in terms}) != len(terms):
        raise CodecError("a field occurs twice in a match", start)
    terms.sort(key=lambda term: term[0].order)
    return Match(tuple(terms)), tuple(unknown), start + padded(length)
