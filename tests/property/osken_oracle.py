# SPDX-License-Identifier: Apache-2.0
"""Our flows and groups as os-ken's objects: a second encoder, written by others, to hold ours against.

What os-ken cannot say is listed in :func:`can_say`. Its Nicira actions need one repair, without which
``ct`` with ``nat`` is shorter than it declares: :func:`pad_nicira_actions` puts in the missing zeroes.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, Final

from os_ken.ofproto import ofproto_v1_5 as ofp
from os_ken.ofproto import ofproto_v1_5_parser as parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

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
from sdn.pipeline.fields import FIELDS, OFPP_CONTROLLER, REGISTERS, Field
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import Match

DATAPATH: Final = ProtocolDesc(version=ofp.OFP_VERSION)
_NAMES: Final[dict[int, str]] = {
    each.oxm_type: each.name for each in ofp.oxm_types if isinstance(each.oxm_type, int)
}
#: Fields that os-ken does not know.
MISSING: Final = frozenset(
    FIELDS[name]
    for name in (
        *(
            "nd_reserved",
            "nd_options_type",
            "ct_nw_proto",
            "ct_nw_src",
            "ct_nw_dst",
            "ct_ipv6_src",
            "ct_ipv6_dst",
        ),
        *("ct_tp_src", "ct_tp_dst"),
    )
)
#: Fields of which os-ken knows the Nicira form, as ``learn`` names them.
_NICIRA: Final = {
    name: f"{name}_nxm"
    for name in (
        *("eth_dst", "eth_src", "eth_type", "tcp_src", "tcp_dst", "udp_src", "udp_dst"),
        *("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha", "ipv6_src", "ipv6_dst"),
    )
} | {
    "nw_proto": "ip_proto_nxm",
    "ip_src": "ipv4_src_nxm",
    "ip_dst": "ipv4_dst_nxm",
    "icmp_type": "icmpv4_type_nxm",
    "icmp_code": "icmpv4_code_nxm",
    "icmpv6_type": "icmpv6_type_nxm",
    "icmpv6_code": "icmpv6_code_nxm",
    "nw_ecn": "ip_ecn_nxm",
    "tun_id": "tunnel_id_nxm",
}


def name_of(field: Field) -> str:
    return _NAMES[field.oxm_class << 7 | field.oxm_field]


def learned_name_of(field: Field) -> str:
    return _NICIRA.get(field.name) or name_of(field)


def can_say(flow: Flow) -> bool:
    """Whether os-ken can encode the flow: it lacks two ND fields and ``resubmit(,N,ct)``."""
    return not any(field in MISSING for field, _, _ in flow.match) and can_say_actions(flow.actions)


def can_say_actions(actions: tuple[Action, ...]) -> bool:
    for action in actions:
        fields: list[Field] = []
        match action:
            case SetField(field):
                fields = [field]
            case Move(source, _, destination):
                fields = [source, destination]
            case Ct(execute=execute):
                if not can_say_actions(execute):
                    return False
            case Learn(match=match):
                # Of these it knows one form only, and not the one that is needed here.
                fields = (
                    [FIELDS["nd_reserved"]]
                    if any(each.field.name.startswith("nd_") for each in match)
                    else []
                )
            case Resubmit(with_ct=True):
                return False
            case _:
                pass
        if any(field in MISSING for field in fields):
            return False
    return True


def can_say_group(group: Group) -> bool:
    """It also lacks properties that are not whole words."""
    hashed = sum(4 + (field.bits + 7) // 8 for field in group.selection_fields)
    return hashed % 4 == 0 and all(can_say_actions(bucket.actions) for bucket in group.buckets)


def pad_nicira_actions(monkeypatch: Any) -> None:
    """os-ken pads a Nicira action only while something follows it."""
    original = parser.NXAction.serialize

    def serialize(action: Any, buffer: bytearray, offset: int) -> None:
        original(action, buffer, offset)
        buffer.extend(bytes(max(0, offset + action.len - len(buffer))))

    monkeypatch.setattr(parser.NXAction, "serialize", serialize)


def _user(field: Field, number: int) -> object:
    if field.kind == "mac":
        return field.format(number)
    if field.kind == "ipv4":
        return str(ipaddress.IPv4Address(number))
    if field.kind == "ipv6":
        return str(ipaddress.IPv6Address(number))
    return number


def _user_value(field: Field, value: int, mask: int | None) -> object:
    return _user(field, value) if mask is None else (_user(field, value), _user(field, mask))


def os_ken_match(match: Match) -> Any:
    """In our order, registers joined in pairs as Open vSwitch prints them."""
    ordered: list[tuple[str, object]] = []
    pairs: dict[int, tuple[int, int]] = {}
    for field, value, mask in match:
        if field in REGISTERS:
            index = REGISTERS.index(field)
            shift = 0 if index % 2 else 32
            ones = field.all_ones if mask is None else mask
            if index // 2 not in pairs:
                ordered.append((f"xreg{index // 2}", index // 2))
            old_value, old_mask = pairs.get(index // 2, (0, 0))
            pairs[index // 2] = (old_value | value << shift, old_mask | ones << shift)
        else:
            ordered.append((name_of(field), _user_value(field, value, mask)))
    filled: list[tuple[str, object]] = []
    for name, user in ordered:
        if name.startswith("xreg"):
            value, mask = pairs[int(name[4:])]
            filled.append((name, value if mask == (1 << 64) - 1 else (value, mask)))
        else:
            filled.append((name, user))
    return parser.OFPMatch(_ordered_fields=filled)


def os_ken_action(action: Action) -> Any:
    match action:
        case Output(port):
            return parser.OFPActionOutput(port, ofp.OFPCML_NO_BUFFER if port == OFPP_CONTROLLER else 0)
        case OutputField(field, offset, bits):
            return parser.NXActionOutputReg(offset << 6 | bits - 1, name_of(field), 0xFFFF)
        case SetField(field, value, mask):
            if field.name == "in_port":
                return parser.OFPActionSetField(in_port_nxm=value & 0xFFFF)
            return parser.OFPActionSetField(**{name_of(field): _user_value(field, value, mask)})
        case Move(source, source_offset, destination, destination_offset, bits):
            return parser.OFPActionCopyField(
                bits,
                source_offset,
                destination_offset,
                [parser.OFPOxmId(name_of(source)), parser.OFPOxmId(name_of(destination))],
            )
        case DecTtl():
            return parser.OFPActionDecNwTtl()
        case GroupAction(group_id):
            return parser.OFPActionGroup(group_id)
        case Resubmit(table):
            return parser.NXActionResubmitTable(table_id=table)
        case Ct():
            return _os_ken_ct(action)
        case Learn():
            return _os_ken_learn(action)
        case Conjunction(number, clause, clauses):
            # It counts clauses from 0, as the wire does.
            return parser.NXActionConjunction(clause=clause - 1, n_clauses=clauses, id_=number)
        case Goto():
            raise AssertionError("goto is an instruction")


def _os_ken_ct(action: Ct) -> Any:
    inner = [] if action.nat is None else [_os_ken_nat(action.nat)]
    inner += [os_ken_action(each) for each in action.execute]
    if action.zone_field is None:
        source, zone = "", action.zone
    else:
        field, offset = action.zone_field
        source, zone = name_of(field), offset << 6 | 15
    return parser.NXActionCT(
        flags=action.commit | action.force << 1,
        zone_src=source,
        zone_ofs_nbits=zone,
        recirc_table=0xFF if action.table is None else action.table,
        alg=0,
        actions=inner,
    )


def _os_ken_learn(action: Learn) -> Any:
    parts: list[Any] = []
    for each in action.match:
        name, bits = learned_name_of(each.field), each.field.bits
        source = (name, 0) if each.value is None else each.value
        parts.append(parser.NXFlowSpecMatch(src=source, dst=(name, 0), n_bits=bits))
    for load in action.load:
        mask = load.field.all_ones if load.mask is None else load.mask
        offset = (mask & -mask).bit_length() - 1
        parts.append(
            parser.NXFlowSpecLoad(
                src=load.value >> offset, dst=(learned_name_of(load.field), offset), n_bits=mask.bit_count()
            )
        )
    return parser.NXActionLearn(
        table_id=action.table,
        specs=parts,
        idle_timeout=action.idle_timeout,
        hard_timeout=action.hard_timeout,
        priority=action.priority,
        cookie=action.cookie,
        flags=2 if action.delete_learned else 0,
    )


def _os_ken_nat(nat: Nat) -> Any:
    family = "ipv6" if nat.ipv6 else "ipv4"
    address = ipaddress.IPv6Address if nat.ipv6 else ipaddress.IPv4Address
    arguments: dict[str, object] = {}
    if nat.address_min is not None:
        arguments[f"range_{family}_min"] = str(address(nat.address_min))
    if nat.address_max is not None:
        arguments[f"range_{family}_max"] = str(address(nat.address_max))
    if nat.port_min:
        arguments["range_proto_min"] = nat.port_min
    if nat.port_max:
        arguments["range_proto_max"] = nat.port_max
    # NX_NAT_F_SRC, NX_NAT_F_DST and NX_NAT_F_PROTO_RANDOM of Open vSwitch's nicira-ext.h; os-ken has no
    # names for them.
    flags = {"": 0, "src": 1, "dst": 2}[nat.kind]
    return parser.NXActionNAT(flags | (16 if nat.random else 0), **arguments)


def os_ken_flow_mod(flow: Flow, command: int, xid: int) -> bytes:
    """The whole message, as os-ken encodes it."""
    instructions = []
    actions = flow.actions
    tail = []
    if actions and isinstance(actions[-1], Goto):
        tail = [parser.OFPInstructionGotoTable(actions[-1].table)]
        actions = actions[:-1]
    if actions:
        instructions.append(
            parser.OFPInstructionActions(
                ofp.OFPIT_APPLY_ACTIONS, [os_ken_action(action) for action in actions]
            )
        )
    message = parser.OFPFlowMod(
        DATAPATH,
        cookie=flow.cookie,
        table_id=flow.table,
        command=command,
        idle_timeout=flow.idle_timeout,
        hard_timeout=flow.hard_timeout,
        priority=flow.priority,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
        match=os_ken_match(flow.match),
        instructions=[] if command == ofp.OFPFC_DELETE_STRICT else instructions + tail,
    )
    return _bytes(message, xid)


def os_ken_group_mod(group: Group, command: int, xid: int) -> bytes:
    """The whole message, as os-ken encodes it."""
    buckets = []
    for bucket in group.buckets:
        properties = []
        if group.type == "select":
            properties.append(
                parser.OFPGroupBucketPropWeight(type_=ofp.OFPGBPT_WEIGHT, length=8, weight=bucket.weight)
            )
        if bucket.watch_port is not None:
            properties.append(
                parser.OFPGroupBucketPropWatch(
                    type_=ofp.OFPGBPT_WATCH_PORT, length=8, watch=bucket.watch_port
                )
            )
        actions = [os_ken_action(action) for action in bucket.actions]
        buckets.append(parser.OFPBucket(bucket.bucket_id, actions, properties))
    properties = []
    if group.selection_method:
        name = group.selection_method.encode().ljust(16, b"\0")
        # The property's data is padding (4), the method's name (16) and its parameter (8), in words.
        data = bytes(4) + name + bytes(8)
        for field in group.selection_fields:
            width = (field.bits + 7) // 8
            data += struct.pack("!HBB", field.oxm_class, field.oxm_field << 1, width) + b"\xff" * width
        words = [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]
        properties.append(
            parser.OFPGroupPropExperimenter(
                type_=ofp.OFPGPT_EXPERIMENTER,
                length=12 + len(data),
                experimenter=0x154D,
                exp_type=1,
                data=words,
            )
        )
    kinds = {
        "all": ofp.OFPGT_ALL,
        "select": ofp.OFPGT_SELECT,
        "indirect": ofp.OFPGT_INDIRECT,
        "fast_failover": ofp.OFPGT_FF,
    }
    message = parser.OFPGroupMod(
        DATAPATH,
        command,
        kinds[group.type],
        group.group_id,
        ofp.OFPG_BUCKET_ALL,
        buckets,
        properties,
    )
    return _bytes(message, xid)


def _bytes(message: Any, xid: int) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)
