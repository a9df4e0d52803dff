# SPDX-License-Identifier: Apache-2.0
"""Flows and groups as people know them: what ``ovs-ofctl -O OpenFlow15 --no-names dump-flows --no-stats``
prints.

The text is for reading and for pasting into ``ovs-ofctl add-flow``; nothing in this project parses it. A
test writes random flows to a real switch and compares line by line.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Final

from sdn.openflow.actionread import DecodedAction, Unknown
from sdn.openflow.flowdesc import DecodedFlow
from sdn.openflow.groupdesc import DecodedBucket, DecodedGroup
from sdn.openflow.groupimage import HASH_FIELDS
from sdn.pipeline.actions import (
    Bucket,
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
from sdn.pipeline.fields import CT_STATES, ETH_TYPE_ARP, OFPP_CONTROLLER, REGISTERS, Field
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import Match

OFP_DEFAULT_PRIORITY: Final = 0x8000
_PORT_NAMES: Final = {
    0xFFFFFFF8: "IN_PORT",
    0xFFFFFFF9: "TABLE",
    0xFFFFFFFA: "NORMAL",
    0xFFFFFFFB: "FLOOD",
    0xFFFFFFFC: "ALL",
    0xFFFFFFFD: "CONTROLLER",
    0xFFFFFFFE: "LOCAL",
    0xFFFFFFFF: "ANY",
}
_TCP_FLAGS: Final = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]")
_FLOW_FLAGS: Final = {
    1: "send_flow_rem",
    2: "check_overlap",
    4: "reset_counts",
    8: "no_packet_counts",
    16: "no_byte_counts",
}
#: One word says the Ethernet type, and with it the protocol.
_TYPE_WORDS: Final = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ipv6"}
_PROTOCOL_WORDS: Final = {
    (0x0800, 1): "icmp",
    (0x0800, 6): "tcp",
    (0x0800, 17): "udp",
    (0x0800, 132): "sctp",
    (0x86DD, 58): "icmp6",
    (0x86DD, 6): "tcp6",
    (0x86DD, 17): "udp6",
    (0x86DD, 132): "sctp6",
}
#: The order of a match as text, which is not the order on the wire. Two fields stand at the words' place.
_TEXT_ORDER: Final[tuple[str, ...]] = (
    *("pkt_mark", "conj_id", "ct_state", "ct_zone", "ct_mark", "ct_label"),
    *("ct_nw_src", "ct_ipv6_src", "ct_nw_dst", "ct_ipv6_dst", "ct_nw_proto", "ct_tp_src", "ct_tp_dst"),
    "words",
    *(register.name for register in REGISTERS),
    *("tun_id", "tun_src", "tun_dst", "tun_ipv6_src", "tun_ipv6_dst", "metadata", "in_port"),
    *("eth_src", "eth_dst", "eth_type", "ip_src", "ip_dst", "ipv6_src", "ipv6_dst", "arp_spa", "arp_tpa"),
    *("nw_proto", "arp_op", "arp_sha", "arp_tha", "ip_dscp", "nw_ecn", "nw_ttl", "ip_frag"),
    *("icmp_type", "icmp_code", "icmpv6_type", "icmpv6_code"),
    *("nd_target", "nd_sll", "nd_tll", "nd_reserved", "nd_options_type"),
    *("tcp_src", "udp_src", "sctp_src", "tcp_dst", "udp_dst", "sctp_dst", "tcp_flags"),
)
#: Names of fields where bits of them are named (``move``, ``output``): the older Nicira name where there is
#: one.
_NXM_NAMES: Final[dict[str, str]] = {
    **{f"reg{index}": f"NXM_NX_REG{index}" for index in range(16)},
    "conj_id": "NXM_NX_CONJ_ID",
    "in_port": "OXM_OF_IN_PORT",
    "eth_src": "NXM_OF_ETH_SRC",
    "eth_dst": "NXM_OF_ETH_DST",
    "eth_type": "NXM_OF_ETH_TYPE",
    "ip_src": "NXM_OF_IP_SRC",
    "ip_dst": "NXM_OF_IP_DST",
    "ipv6_src": "NXM_NX_IPV6_SRC",
    "ipv6_dst": "NXM_NX_IPV6_DST",
    "ip_frag": "NXM_NX_IP_FRAG",
    "ip_dscp": "OXM_OF_IP_DSCP",
    "nw_ecn": "NXM_NX_IP_ECN",
    "nw_ttl": "NXM_NX_IP_TTL",
    "nw_proto": "NXM_OF_IP_PROTO",
    "tcp_src": "NXM_OF_TCP_SRC",
    "tcp_dst": "NXM_OF_TCP_DST",
    "tcp_flags": "NXM_NX_TCP_FLAGS",
    "udp_src": "NXM_OF_UDP_SRC",
    "udp_dst": "NXM_OF_UDP_DST",
    "sctp_src": "OXM_OF_SCTP_SRC",
    "sctp_dst": "OXM_OF_SCTP_DST",
    "icmp_type": "NXM_OF_ICMP_TYPE",
    "icmp_code": "NXM_OF_ICMP_CODE",
    "icmpv6_type": "NXM_NX_ICMPV6_TYPE",
    "icmpv6_code": "NXM_NX_ICMPV6_CODE",
    "nd_reserved": "ERICOXM_OF_ICMPV6_ND_RESERVED",
    "nd_target": "NXM_NX_ND_TARGET",
    "nd_options_type": "ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE",
    "nd_sll": "NXM_NX_ND_SLL",
    "nd_tll": "NXM_NX_ND_TLL",
    "arp_op": "NXM_OF_ARP_OP",
    "arp_spa": "NXM_OF_ARP_SPA",
    "arp_tpa": "NXM_OF_ARP_TPA",
    "arp_sha": "NXM_NX_ARP_SHA",
    "arp_tha": "NXM_NX_ARP_THA",
    "tun_id": "NXM_NX_TUN_ID",
    "tun_src": "NXM_NX_TUN_IPV4_SRC",
    "tun_dst": "NXM_NX_TUN_IPV4_DST",
    "tun_ipv6_src": "NXM_NX_TUN_IPV6_SRC",
    "tun_ipv6_dst": "NXM_NX_TUN_IPV6_DST",
    "pkt_mark": "NXM_NX_PKT_MARK",
    "ct_state": "NXM_NX_CT_STATE",
    "ct_zone": "NXM_NX_CT_ZONE",
    "ct_mark": "NXM_NX_CT_MARK",
    "ct_label": "NXM_NX_CT_LABEL",
    "ct_nw_proto": "NXM_NX_CT_NW_PROTO",
    "ct_nw_src": "NXM_NX_CT_NW_SRC",
    "ct_nw_dst": "NXM_NX_CT_NW_DST",
    "ct_ipv6_src": "NXM_NX_CT_IPV6_SRC",
    "ct_ipv6_dst": "NXM_NX_CT_IPV6_DST",
    "ct_tp_src": "NXM_NX_CT_TP_SRC",
    "ct_tp_dst": "NXM_NX_CT_TP_DST",
    "metadata": "OXM_OF_METADATA",
}


def format_flow(flow: Flow | DecodedFlow) -> str:
    """One line, as ``dump-flows --no-stats`` prints it."""
    head = []
    if flow.cookie:
        head.append(f"cookie={flow.cookie:#x}, ")
    if flow.table:
        head.append(f"table={flow.table}, ")
    if flow.idle_timeout:
        head.append(f"idle_timeout={flow.idle_timeout}, ")
    if flow.hard_timeout:
        head.append(f"hard_timeout={flow.hard_timeout}, ")
    unknown: tuple[bytes, ...] = ()
    if isinstance(flow, DecodedFlow):
        unknown = flow.unknown_fields
        head.extend(f"{name} " for bit, name in _FLOW_FLAGS.items() if flow.flags & bit)
        if flow.importance:
            head.append(f"importance={flow.importance}, ")
    parts = [] if flow.priority == OFP_DEFAULT_PRIORITY else [f"priority={flow.priority}"]
    parts.extend(_match_parts(flow.match))
    parts.extend(f"oxm={raw.hex()}" for raw in unknown)
    if parts:
        head.append(",".join(parts) + " ")
    return f"{''.join(head)}actions={format_actions(flow.actions)}"


def format_match(match: Match) -> str:
    """The match alone; empty for one that takes every packet."""
    return ",".join(_match_parts(match))


def _match_parts(match: Match) -> Iterator[str]:
    terms = {field.name: (field, value, mask) for field, value, mask in match}
    eth_type = terms["eth_type"][1] if "eth_type" in terms else None
    protocol = terms["nw_proto"][1] if "nw_proto" in terms else None
    for name in _TEXT_ORDER:
        if name == "words":
            word = _TYPE_WORDS.get(eth_type) if eth_type is not None else None
            if word is None:
                continue
            del terms["eth_type"]
            if eth_type is not None and protocol is not None and (eth_type, protocol) in _PROTOCOL_WORDS:
                word = _PROTOCOL_WORDS[eth_type, protocol]
                del terms["nw_proto"]
            yield word
        elif name in terms:
            yield _format_term(*terms[name], arp=eth_type == ETH_TYPE_ARP)


def _format_term(field: Field, value: int, mask: int | None, *, arp: bool) -> str:
    name = field.name if arp and field.name.startswith("arp_") else field.ofctl
    match field.name:
        case "ip_dscp":
            return f"nw_tos={value << 2}"
        case "ip_frag":
            return f"nw_frag={_format_fragment(value, mask)}"
        case "eth_type":
            return f"dl_type=0x{value:04x}"
        case "ct_state":
            names = {bit: state for state, bit in CT_STATES.items()}
            return f"ct_state={_format_flags(value, mask, names, 0xFF)}"
        case "tcp_flags":
            names = {1 << bit: flag for bit, flag in enumerate(_TCP_FLAGS)}
            return f"tcp_flags={_format_flags(value, mask, names, 0xFFF)}"
        case "in_port":
            return f"in_port={_PORT_NAMES.get(value, value)}"
        case _:
            if mask is not None and field.kind == "decimal":
                return f"{name}={value:#x}/{mask:#x}"
            return f"{name}={_format_value(field, value, mask)}"


def _format_fragment(value: int, mask: int | None) -> str:
    if mask is None:
        return {0: "no", 1: "first", 3: "later"}.get(value, "<error>")
    if mask == 1:
        return "yes" if value else "no"
    return "<error>" if value else "not_later"


def _format_flags(value: int, mask: int | None, names: dict[int, str], everything: int) -> str:
    """Flags under a complete mask as a list, else each with its sign."""
    if mask is None or mask & everything == everything:
        return "|".join(name for bit, name in names.items() if value & bit) or "0"
    return "".join(("+" if value & bit else "-") + name for bit, name in names.items() if mask & bit)


def _format_value(field: Field, value: int, mask: int | None) -> str:
    """A value and its mask by the field's kind."""
    if field.kind == "mac":
        text = field.format(value)
        return text if mask is None else f"{text}/{field.format(mask)}"
    if field.kind in ("ipv4", "ipv6"):
        text = _address(value, field.kind == "ipv6")
        if mask is None:
            return text
        ones = mask.bit_count()
        if mask == field.all_ones ^ (field.all_ones >> ones):
            return f"{text}/{ones}"
        return f"{text}/{_address(mask, field.kind == 'ipv6')}"
    if field.kind == "port":
        return str(_PORT_NAMES.get(value, value))
    if field.kind == "decimal":
        return str(value) if mask is None else f"{value}/{mask:#x}"
    text = f"{value:#x}" if value else "0"
    return text if mask is None else f"{text}/{mask:#x}"


def _address(value: int, ipv6: bool) -> str:
    if ipv6:
        return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))
    return socket.inet_ntop(socket.AF_INET, value.to_bytes(4, "big"))


def format_actions(actions: tuple[DecodedAction, ...]) -> str:
    """Actions as they stand behind ``actions=``; none at all is ``drop``."""
    return ",".join(map(_format_action, actions)) or "drop"


def _format_action(action: DecodedAction) -> str:
    match action:
        case Output(port):
            if port == OFPP_CONTROLLER:
                return "CONTROLLER:65535"
            return _PORT_NAMES.get(port) or f"output:{port}"
        case OutputField(field, offset, bits):
            return f"output:{_bits(field, offset, bits)}"
        case SetField(field, value, mask):
            return f"set_field:{_format_value(field, value, mask)}->{field.name}"
        case Move(source, source_offset, destination, destination_offset, bits):
            return (
                f"move:{_bits(source, source_offset, bits)}->{_bits(destination, destination_offset, bits)}"
            )
        case DecTtl():
            return "dec_ttl"
        case GroupAction(group_id):
            return f"group:{group_id}"
        case Resubmit(table, with_ct):
            return f"resubmit(,{table}{',ct' if with_ct else ''})"
        case Goto(table):
            return f"goto_table:{table}"
        case Ct():
            return _format_ct(action)
        case Learn():
            return _format_learn(action)
        case Conjunction(number, clause, clauses):
            return f"conjunction({number},{clause}/{clauses})"
        case Unknown(what, data):
            return f"unknown_{what}({data.hex()})"


def _bits(field: Field, offset: int, bits: int) -> str:
    name = _NXM_NAMES[field.name]
    if bits == field.bits:
        return f"{name}[]"
    if bits == 1:
        return f"{name}[{offset}]"
    return f"{name}[{offset}..{offset + bits - 1}]"


def _format_ct(action: Ct) -> str:
    parts = []
    if action.commit:
        parts.append("commit")
    if action.force:
        parts.append("force")
    if action.table is not None:
        parts.append(f"table={action.table}")
    if action.zone_field is not None:
        field, offset = action.zone_field
        parts.append(f"zone={_bits(field, offset, 16)}")
    elif action.zone:
        parts.append(f"zone={action.zone}")
    if action.nat is not None:
        parts.append(_format_nat(action.nat))
    if action.execute:
        parts.append(f"exec({format_actions(action.execute)})")
    return f"ct({','.join(parts)})"


def _format_learn(action: Learn) -> str:
    parts = [f"table={action.table}"]
    if action.idle_timeout:
        parts.append(f"idle_timeout={action.idle_timeout}")
    if action.hard_timeout:
        parts.append(f"hard_timeout={action.hard_timeout}")
    if action.priority != OFP_DEFAULT_PRIORITY:
        parts.append(f"priority={action.priority}")
    if action.delete_learned:
        parts.append("delete_learned")
    if action.cookie:
        parts.append(f"cookie={action.cookie:#x}")
    for each in action.match:
        if each.value is None:
            parts.append(_bits(each.field, 0, each.field.bits))
        else:
            # A zone is hexadecimal here, and decimal in a match.
            hexadecimal = each.field.name == "ct_zone" and each.value
            text = f"{each.value:#x}" if hexadecimal else _format_value(each.field, each.value, None)
            parts.append(f"{each.field.name}={text}")
    for load in action.load:
        mask = load.field.all_ones if load.mask is None else load.mask
        offset, value = (mask & -mask).bit_length() - 1, load.value
        constant = f"{value >> offset:#x}" if value else "0"
        parts.append(f"load:{constant}->{_bits(load.field, offset, mask.bit_count())}")
    return f"learn({','.join(parts)})"


def _format_nat(nat: Nat) -> str:
    if not nat.kind:
        return "nat"
    text = nat.kind
    if nat.address_min is not None:
        ranged = nat.address_max not in (None, nat.address_min)
        low = _address(nat.address_min, nat.ipv6)
        high = _address(nat.address_max, nat.ipv6) if ranged and nat.address_max is not None else ""
        if nat.ipv6 and nat.port_min:
            low, high = f"[{low}]", f"[{high}]" if high else ""
        text += f"={low}" + (f"-{high}" if high else "")
    if nat.port_min:
        text += (":" if nat.address_min is not None else "=:") + str(nat.port_min)
        if nat.port_max not in (0, nat.port_min):
            text += f"-{nat.port_max}"
    return f"nat({text}{',random' if nat.random else ''})"


def format_group(group: Group | DecodedGroup) -> str:
    """One group as ``ovs-ofctl dump-groups`` prints it."""
    kind = "ff" if group.type == "fast_failover" else group.type
    text = f"group_id={group.group_id},type={kind}"
    if group.selection_method:
        text += f",selection_method={group.selection_method}"
    if group.selection_fields:
        names = [field.name for field in HASH_FIELDS if field in group.selection_fields]
        text += f",fields={names[0]}" if len(names) == 1 else f",fields({','.join(names)})"
    buckets: Sequence[Bucket | DecodedBucket] = group.buckets
    if group.type == "select":
        buckets = sorted(buckets, key=lambda bucket: bucket.bucket_id)
    for bucket in buckets:
        text += f",bucket=bucket_id:{bucket.bucket_id}"
        if group.type == "select" and bucket.weight != 1:
            text += f",weight:{bucket.weight}"
        if bucket.watch_port is not None:
            text += f",watch_port:{_PORT_NAMES.get(bucket.watch_port, bucket.watch_port)}"
        text += f",actions={format_actions(tuple(bucket.actions))}"
    return text
