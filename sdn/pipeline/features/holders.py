# SPDX-License-Identifier: Apache-2.0
"""Holders: a tracked connection belongs to the pods at its ends, by their ports.

The tracker knows addresses, and addresses are handed down: who is given the address of a pod that has just gone would
be given its connections, and answers to them pass without a policy. Not every connection can be forgotten when its pod
goes (ICMPv6 cannot in Open vSwitch's userspace, controller/forgetting.py), nor at the same moment. So each one carries
in its label the port that it came from and that of the pod that it is for. A port's number is given to the next pod
only after all others.

A new pod may send just what its predecessor sent, to the same peer (pings have the same number in many containers). The
connection then changes hands with that packet, after policies have allowed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sdn.pipeline.actions import Ct, Goto, Move, SetField
from sdn.pipeline.fields import CT_LABEL, ETH_TYPE_IPV4, ETH_TYPE_IPV6, FIELDS
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.registers import (
    ANSWERER_OFFSET,
    FIRST_POD_PORT,
    FORMER_BIT,
    HOLDER_BITS,
    OPENER_OFFSET,
    RECIPIENT_REGISTER,
    SERVICE_REGISTER,
    SERVICE_ZONE,
    Mark,
    Priority,
    Source,
)
from sdn.pipeline.tables import LOAD_BALANCING, RECIPIENT, SENDER, SOURCE_TRANSLATION
from sdn.pipeline.topology import LocalNode, PodPort

#: What is remembered of a first packet: where it came from, and the pod that it is for.
OPENED: Final = Move(FIELDS["in_port"], 0, CT_LABEL, OPENER_OFFSET, HOLDER_BITS)
HELD: Final = (OPENED, Move(RECIPIENT_REGISTER, 0, CT_LABEL, ANSWERER_OFFSET, HOLDER_BITS))

_ONWARD, _ANSWER = "-rpl+trk", "+rpl+trk"
#: Bits of a port that only pods' ports have.
_OF_PODS: Final = (1 << HOLDER_BITS) - FIRST_POD_PORT
_ALL: Final = (1 << HOLDER_BITS) - 1
_FORMER = SetField(SERVICE_REGISTER, FORMER_BIT, FORMER_BIT)
_DESTINATION: Final = {4: "ip_dst", 6: "ipv6_dst"}


def _no_pod(offset: int) -> str:
    return f"0/{_OF_PODS << offset:#x}"


def _pod(ofport: int, offset: int) -> str:
    return f"{ofport << offset:#x}/{_ALL << offset:#x}"


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """Who is not the holder, and what becomes of the connection."""
    for table, state, offset in (
        (SENDER, _ONWARD, OPENER_OFFSET),
        (SENDER, _ANSWER, ANSWERER_OFFSET),
        (RECIPIENT, _ONWARD, ANSWERER_OFFSET),
        (RECIPIENT, _ANSWER, OPENER_OFFSET),
    ):
        yield table.flow(
            match(ct_state=state, ct_label=_no_pod(offset)),
            (Goto((RECIPIENT if table is SENDER else LOAD_BALANCING).number),),
            owner=local.owner,
            why="held by no pod of this node",
            priority=Priority.FIRST,
        )
    yield SENDER.flow(
        match(reg0=Source.POD, ct_state=_ONWARD),
        (_FORMER, Goto(RECIPIENT.number)),
        owner=local.owner,
        why="over a connection that a former pod opened",
        priority=Priority.LOW,
    )
    yield SENDER.flow(
        match(reg0=Source.POD, ct_state=_ANSWER),
        (),
        owner=local.owner,
        why="an answer for a former pod: the connection is not the sender's",
        priority=Priority.LOW,
    )
    for pod_range in local.pod_ranges:
        to_pods = {_DESTINATION[pod_range.version]: str(pod_range)}
        yield RECIPIENT.flow(
            match(**to_pods, ct_state=_ONWARD),
            (_FORMER, Goto(LOAD_BALANCING.number)),
            owner=local.owner,
            why="over a connection to a former pod",
            priority=Priority.LOW,
        )
        yield RECIPIENT.flow(
            match(**to_pods, ct_state=_ANSWER),
            (),
            owner=local.owner,
            why="an answer to a former pod",
            priority=Priority.LOW,
        )
    for eth_type in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        yield SOURCE_TRANSLATION.flow(
            match(
                eth_type=eth_type,
                reg4=f"{FORMER_BIT:#x}/{FORMER_BIT:#x}",
                ct_mark=f"0/{Mark.DENIED:#x}",
            ),
            (
                SetField(SERVICE_REGISTER, 0, FORMER_BIT),
                Ct(zone=SERVICE_ZONE, commit=True, execute=HELD, table=SOURCE_TRANSLATION.number),
            ),
            owner=local.owner,
            why="was a former pod's connection, and is this one's from here on",
            priority=Priority.FIRST,
        )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """What is the pod's."""
    for state, offset in ((_ONWARD, OPENER_OFFSET), (_ANSWER, ANSWERER_OFFSET)):
        yield SENDER.flow(
            match(in_port=pod.ofport, ct_state=state, ct_label=_pod(pod.ofport, offset)),
            (Goto(RECIPIENT.number),),
            owner=pod.owner,
            why="from the pod, which holds the connection",
        )
    for address in pod.addresses:
        for state, offset in ((_ONWARD, ANSWERER_OFFSET), (_ANSWER, OPENER_OFFSET)):
            yield RECIPIENT.flow(
                match(
                    ct_state=state,
                    ct_label=_pod(pod.ofport, offset),
                    **{_DESTINATION[address.version]: address.value},
                ),
                (Goto(LOAD_BALANCING.number),),
                owner=pod.owner,
                why="to the pod, which holds the connection",
            )
