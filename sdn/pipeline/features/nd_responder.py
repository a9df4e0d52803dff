# SPDX-License-Identifier: Apache-2.0
"""Neighbour discovery responder: the switch answers neighbour solicitations (RFC 4861, section 7.2.4).

The answer takes two tables: the fields of an advertisement exist only in a packet that is one. The first
turns the solicitation around and makes it an advertisement, with the MAC asked for as its Ethernet source;
the second copies that MAC into the option and sets the flags. A solicitation for the asker's own address
(duplicate address detection, RFC 4862) has no answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import IN_PORT, Action, Move, Resubmit, SetField, move
from sdn.pipeline.fields import (
    ETH_SRC,
    ICMPV6_NEIGHBOR_ADVERTISEMENT,
    ICMPV6_NEIGHBOR_SOLICITATION,
    ICMPV6_TYPE,
    ND_OPTIONS_TYPE,
    ND_RESERVED,
    Field,
)
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.pipeline.registers import (
    GATEWAY_MAC,
    NEXT_HOP_ADDRESS,
    ROUTER_MAC,
    SCRATCH_REGISTER,
    Priority,
    Source,
)
from sdn.pipeline.tables import ND_ADVERTISEMENT, ND_RESPONDER
from sdn.pipeline.topology import LocalNode, PodPort, RemoteNode

#: A receiver must ignore neighbour discovery that a router has forwarded: its hop limit is no longer 255 (RFC
#: 4861, 7.1.1).
_HOP_LIMIT = 255
#: Flags of an advertisement, the first word after the checksum (RFC 4861, section 4.4).
_ROUTER, _SOLICITED, _OVERRIDE = 0x80000000, 0x40000000, 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


def _solicitation(target: int | str, **more: int) -> Match:
    return match(
        icmpv6_type=ICMPV6_NEIGHBOR_SOLICITATION, icmpv6_code=0, nw_ttl=_HOP_LIMIT, nd_target=target, **more
    )


def _write(field: Field, value: int) -> tuple[Action, ...]:
    """Set a field that the kernel datapath does not know, by way of a register.

    Open vSwitch refuses `set_field` of these two fields on the datapath `system` (BAD_SET_ARGUMENT: no "IPv6 ND
    Extension"), but not a move; ovs-vswitchd carries it out itself, as it does every change of neighbour
    discovery on either datapath.
    """
    return SetField(SCRATCH_REGISTER, value), Move(SCRATCH_REGISTER, 0, field, 0, field.bits)


def reply(mac: int) -> tuple[Action, ...]:
    """The first half of the answer that ``mac`` has the target address."""
    return (
        move("eth_src", "eth_dst"),
        SetField(ETH_SRC, mac),
        move("ipv6_src", "ipv6_dst"),
        move("nd_target", "ipv6_src"),
        SetField(ICMPV6_TYPE, ICMPV6_NEIGHBOR_ADVERTISEMENT),
        Resubmit(ND_ADVERTISEMENT.number),
    )


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """The gateway's address, to pods; the switch's own, to the node; and the second half of every answer."""
    yield ND_RESPONDER.flow(
        _solicitation(NEXT_HOP_ADDRESS[6], reg0=Source.GATEWAY),
        reply(ROUTER_MAC),
        owner=local.owner,
        why="the node asks for the switch",
    )
    for pod_range in local.pod_ranges:
        if pod_range.version == 6:
            yield ND_RESPONDER.flow(
                _solicitation(pod_range.gateway.value, reg0=Source.POD),
                reply(GATEWAY_MAC),
                owner=local.owner,
                why="a pod asks for its gateway",
            )
    for name, more, flags, priority in (
        ("a host", {}, _SOLICITED | _OVERRIDE, Priority.NORMAL),
        ("a router", {"eth_src": GATEWAY_MAC}, _ROUTER | _SOLICITED | _OVERRIDE, Priority.HIGH),
    ):
        yield ND_ADVERTISEMENT.flow(
            match(icmpv6_type=ICMPV6_NEIGHBOR_ADVERTISEMENT, **more),
            (
                *_write(ND_OPTIONS_TYPE, _TARGET_LINK_LAYER_ADDRESS),
                move("eth_src", "nd_tll"),
                *_write(ND_RESERVED, flags),
                IN_PORT,
            ),
            owner=local.owner,
            why=f"the advertisement of {name} goes back to who asked",
            priority=priority,
        )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """The pod's own address, to all but itself."""
    if pod.ipv6 is None:
        return
    yield ND_RESPONDER.flow(
        _solicitation(pod.ipv6),
        reply(pod.mac),
        owner=pod.owner,
        why="asked for the pod's MAC",
    )
    yield ND_RESPONDER.flow(
        _solicitation(pod.ipv6, in_port=pod.ofport),
        (),
        owner=pod.owner,
        why="the pod looks for a duplicate of its own address",
        priority=Priority.HIGH,
    )


def peer_flows(peer: RemoteNode) -> Iterator[Flow]:
    """Pods of another node, to this node, for which the whole cluster range is on the gateway port's link."""
    for pod_range in peer.pod_ranges:
        if pod_range.version == 6:
            yield ND_RESPONDER.flow(
                _solicitation(str(pod_range), reg0=Source.GATEWAY),
                reply(ROUTER_MAC),
                owner=peer.owner,
                why="the node asks for a pod of another node",
            )
