# SPDX-License-Identifier: Apache-2.0
"""Policy: which connections pods may have, checked on the way from the pod that begins one to the pod that it is for.

Two gates, egress at the node of the one and ingress at the node of the other, each with three tables: the tier Admin,
NetworkPolicies, the tier Baseline. What they are asked for comes from sdn/policy as cells, and each cell is a few flows
here. A rule is a conjunction of two clauses, the peer and the pod with the destination port, so that an address that a
thousand rules share is one flow, and a rule that names ten thousand addresses and a hundred pods is not a million.

Every packet that goes the way on which its connection began is checked; answers are not, but for the mark that a denied
connection has. So a change cuts what it denies with the next packet: nothing has to be found in the tracker first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sdn.pipeline.actions import CONTROLLER, Action, Conjunction, Ct, Goto, Resubmit, SetField
from sdn.pipeline.fields import CT_MARK, ETH_TYPE_IPV4, ETH_TYPE_IPV6
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import (
    FORMER_BIT,
    RECIPIENT_REGISTER,
    RULE_REGISTER,
    SERVICE_ZONE,
    STAGED_REGISTER,
    UNSET_REGISTER,
    Mark,
    Priority,
    Source,
)
from sdn.pipeline.tables import (
    DENIAL,
    EGRESS_ADMIN,
    EGRESS_BASELINE,
    EGRESS_POLICY,
    INGRESS_ADMIN,
    INGRESS_BASELINE,
    INGRESS_POLICY,
    LOAD_BALANCING,
    PRESENCE,
    SOURCE_TRANSLATION,
    Table,
)
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range
from sdn.policy.cells import (
    Cell,
    GuardCell,
    IsolationCell,
    PeerCell,
    PortMatch,
    RuleCell,
    Stage,
    SubjectCell,
)
from sdn.policy.ports import LATER_FRAGMENTS, cover
from sdn.policy.values import Action as Verdict
from sdn.policy.values import Direction, PolicyRef, Protocol, Tier

#: In the order in which packets meet them; a table's place is its bit in STAGED_REGISTER.
_GATES: Final = (
    (Direction.EGRESS, Tier.ADMIN, EGRESS_ADMIN),
    (Direction.EGRESS, Tier.NETWORK_POLICY, EGRESS_POLICY),
    (Direction.EGRESS, Tier.BASELINE, EGRESS_BASELINE),
    (Direction.INGRESS, Tier.ADMIN, INGRESS_ADMIN),
    (Direction.INGRESS, Tier.NETWORK_POLICY, INGRESS_POLICY),
    (Direction.INGRESS, Tier.BASELINE, INGRESS_BASELINE),
)
_TABLE: Final[dict[tuple[Direction, Tier], Table]] = {
    (direction, tier): table for direction, tier, table in _GATES
}
_BIT: Final = {(direction, tier): 1 << place for place, (direction, tier, _) in enumerate(_GATES)}
_ALL_BITS: Final = (1 << len(_GATES)) - 1
_OF_DIRECTION: Final = {
    wanted: sum(bit for (direction, _), bit in _BIT.items() if direction is wanted) for wanted in Direction
}
#: Where packets go that a direction allows.
_ALLOWED: Final = {Direction.EGRESS: INGRESS_ADMIN, Direction.INGRESS: PRESENCE}
_ETH_TYPE: Final = {4: ETH_TYPE_IPV4, 6: ETH_TYPE_IPV6}
_DESTINATION: Final = {4: "ip_dst", 6: "ipv6_dst"}
_SOURCE: Final = {4: "ip_src", 6: "ipv6_src"}
_PORT: Final = {Protocol.TCP: "tcp_dst", Protocol.UDP: "udp_dst", Protocol.SCTP: "sctp_dst"}
_CLAUSES: Final = 2
#: One flow holds a few more (:class:`Conjunction`); what is beyond goes into flows beside it.
_IN_ONE_FLOW: Final = 4000
_PEER, _SUBJECT = 1, 2
_LATER_FRAGMENT = "3/3"
_FIRST, _FURTHER = "+new+trk", "-new+trk"
_DENIED: Final = f"{Mark.DENIED:#x}/{Mark.DENIED:#x}"
_NOT_DENIED: Final = f"0/{Mark.DENIED:#x}"


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """What is never asked for, and what becomes of what is denied."""
    yield from _exemptions(local)
    yield from _presence(local)
    yield LOAD_BALANCING.flow(
        match(ct_state="+rpl+trk", ct_mark=_DENIED),
        (),
        owner=local.owner,
        why="answer of a connection that policies deny",
        priority=Priority.FIRST,
    )
    yield DENIAL.flow(
        match(ct_mark=_DENIED),
        (),
        owner=local.owner,
        why="its answers are denied already",
        priority=Priority.URGENT,
    )
    deny = Ct(zone=SERVICE_ZONE, commit=True, execute=(SetField(CT_MARK, Mark.DENIED, Mark.DENIED),))
    allow = Ct(
        zone=SERVICE_ZONE,
        commit=True,
        execute=(SetField(CT_MARK, 0, Mark.DENIED),),
        table=SOURCE_TRANSLATION.number,
    )
    for eth_type in _ETH_TYPE.values():
        yield DENIAL.flow(
            match(eth_type=eth_type, ct_state="+est+trk", ct_mark=_NOT_DENIED),
            (deny,),
            owner=local.owner,
            why="of a connection that was allowed until now: its answers are denied from here on",
        )
        yield DENIAL.flow(
            match(eth_type=eth_type, ct_state="+new-est+trk", ct_mark=_NOT_DENIED, reg2=0),
            (),
            owner=local.owner,
            why="of no connection that anybody remembers",
            priority=Priority.HIGH,
        )
        yield DENIAL.flow(
            match(eth_type=eth_type, ct_state="+new-est+trk", ct_mark=_NOT_DENIED),
            (deny,),
            owner=local.owner,
            why="to a Service, and remembered since its endpoint was chosen: its answers are denied",
        )
        yield SOURCE_TRANSLATION.flow(
            match(eth_type=eth_type, ct_mark=_DENIED),
            (allow,),
            owner=local.owner,
            why="was denied and is allowed again, its answers too",
            priority=Priority.FIRST,
        )


def _exemptions(local: LocalNode) -> Iterator[Flow]:
    for source, table, why in (
        (Source.GATEWAY, PRESENCE, "from the node itself, which no pod of it can shut out"),
        (Source.OUTSIDE, INGRESS_ADMIN, "from no pod: nobody's egress"),
    ):
        yield EGRESS_ADMIN.flow(
            match(reg0=source),
            (Goto(table.number),),
            owner=local.owner,
            why=why,
            priority=Priority.EXEMPT,
        )
    for source, table in ((Source.POD, EGRESS_ADMIN), (Source.TUNNEL, INGRESS_ADMIN)):
        yield table.flow(
            match(
                reg0=source,
                ct_state="-new+rel+trk",
                ct_mark=_NOT_DENIED,
                reg4=f"0/{FORMER_BIT:#x}",
            ),
            (Goto(PRESENCE.number),),
            owner=local.owner,
            why="an error about a connection that is allowed",
            priority=Priority.EXEMPT,
        )
    for address in (*local.addresses, *(pod_range.gateway for pod_range in local.pod_ranges)):
        yield EGRESS_POLICY.flow(
            match(**{_DESTINATION[address.version]: address.value}),
            (Goto(PRESENCE.number),),
            owner=local.owner,
            why="to the pod's own node, which NetworkPolicies cannot deny",
            priority=Priority.EXEMPT,
        )


def _presence(local: LocalNode) -> Iterator[Flow]:
    for pod_range in local.pod_ranges:
        yield PRESENCE.flow(
            match(**{_DESTINATION[pod_range.version]: str(pod_range)}),
            (),
            owner=local.owner,
            why="to a pod of this node that does not exist",
            priority=Priority.LOW,
        )
        yield PRESENCE.flow(
            match(**{_DESTINATION[pod_range.version]: pod_range.gateway.value}),
            (Goto(SOURCE_TRANSLATION.number),),
            owner=local.owner,
            why="to the node itself",
        )


def pod_flows(pod: PodPort) -> Iterator[Flow]:
    """The pod exists, and it reaches itself, whatever policies say."""
    for address in pod.addresses:
        yield PRESENCE.flow(
            match(**{_DESTINATION[address.version]: address.value}),
            (SetField(RECIPIENT_REGISTER, pod.ofport), Goto(SOURCE_TRANSLATION.number)),
            owner=pod.owner,
            why="to the pod, which exists",
        )
        yield EGRESS_ADMIN.flow(
            match(
                reg0=Source.POD,
                in_port=pod.ofport,
                ct_state="-rel+trk",
                **{_DESTINATION[address.version]: address.value},
            ),
            (Goto(PRESENCE.number),),
            owner=pod.owner,
            why="from the pod to itself",
            priority=Priority.EXEMPT,
        )


def cell_flows(cell: Cell) -> tuple[Flow, ...]:
    """The flows of one cell."""
    if isinstance(cell, PeerCell):
        return tuple(_peer(cell))
    if isinstance(cell, SubjectCell):
        return tuple(_subject(cell))
    if isinstance(cell, RuleCell):
        return tuple(_rule(cell))
    if isinstance(cell, IsolationCell):
        return tuple(_isolation(cell))
    return tuple(_guard(cell))


def owner_of(ref: PolicyRef) -> Owner:
    """The same name as an owner of flows."""
    return Owner(ref.kind, ref.namespace, ref.name)


# Rules.


def _priority(stage: Stage) -> int:
    if stage.tier is Tier.NETWORK_POLICY and stage.staged:
        return Priority.STAGED_RULE - stage.level
    return Priority.RULE - stage.level


def _unasked(stage: Stage) -> dict[str, int | str]:
    """Staged rules are asked once in a table."""
    if not stage.staged:
        return {}
    return {STAGED_REGISTER.name: f"0/{_BIT[stage.direction, stage.tier]:#x}"}


def _clauses(
    conjunctions: tuple[int, ...], clause: int
) -> Iterator[tuple[dict[str, int | str], tuple[Action, ...]]]:
    """The actions of as many flows as it takes, and what their matches differ in, which always holds."""
    for number, start in enumerate(range(0, len(conjunctions), _IN_ONE_FLOW)):
        beside: dict[str, int | str] = {UNSET_REGISTER.name: f"0/{1 << (number - 1):#x}"} if number else {}
        share = conjunctions[start : start + _IN_ONE_FLOW]
        yield beside, tuple(Conjunction(one, clause, _CLAUSES) for one in share)


def _peer(cell: PeerCell) -> Iterator[Flow]:
    stage = cell.key.stage
    count = len(cell.conjunctions)
    for beside, actions in _clauses(cell.conjunctions, _PEER):
        yield _TABLE[stage.direction, stage.tier].flow(
            _on_range(stage.direction, cell.key.network, _unasked(stage) | beside),
            actions,
            owner=owner_of(cell.owner),
            why=f"peer of {count} rule{'' if count == 1 else 's'}",
            priority=_priority(stage),
        )


def _on_range(direction: Direction, network: Range, more: dict[str, int | str]) -> Match:
    names = _SOURCE if direction is Direction.INGRESS else _DESTINATION
    if network.prefix_length == 0:
        return match(eth_type=_ETH_TYPE[network.version], **more)
    return match(**{names[network.version]: str(network)}, **more)


def _subject(cell: SubjectCell) -> Iterator[Flow]:
    stage = cell.key.stage
    count = len(cell.conjunctions)
    for where in _of_pod(stage.direction, cell.key.ofport, cell.addresses, cell.key.ports is not None):
        for port in _on_ports(cell.key.ports):
            for beside, actions in _clauses(cell.conjunctions, _SUBJECT):
                yield _TABLE[stage.direction, stage.tier].flow(
                    match(**where, **port, **_unasked(stage), **beside),
                    actions,
                    owner=owner_of(cell.owner),
                    why=f"subject of {count} rule{'' if count == 1 else 's'}",
                    priority=_priority(stage),
                )


def _of_pod(
    direction: Direction, ofport: int, addresses: tuple[Address, ...], by_family: bool
) -> Iterator[dict[str, int | str]]:
    """Packets from the pod, or to it."""
    if direction is Direction.INGRESS:
        for address in addresses:
            yield {_DESTINATION[address.version]: address.value}
    elif by_family:
        for version in sorted({address.version for address in addresses}):
            yield {"in_port": ofport, "eth_type": _ETH_TYPE[version]}
    else:
        yield {"in_port": ofport}


def _on_ports(ports: PortMatch | None) -> Iterator[dict[str, int | str]]:
    if ports is None:
        yield {}
    elif ports.first == LATER_FRAGMENTS:
        yield {"nw_proto": ports.protocol, "ip_frag": _LATER_FRAGMENT}
    else:
        for value, mask in cover(ports.first, ports.last):
            term = {_PORT[ports.protocol]: f"{value:#x}/{mask:#x}"} if mask else {}
            yield {"nw_proto": ports.protocol, **term}


def _rule(cell: RuleCell) -> Iterator[Flow]:
    """What is done with packets for which the rule holds; those that begin a connection are counted by themselves."""
    stage = cell.stage
    table = _TABLE[stage.direction, stage.tier]
    word = cell.action.name.lower()
    why = f"{cell.rule} would {word}" if stage.staged else f"{cell.rule}: {word}"
    report = _report(cell.key.conjunction) if cell.log else ()
    for state in (_FIRST, _FURTHER):
        # Of what is allowed only the beginning is reported.
        told = report if state == _FIRST or cell.action is not Verdict.ACCEPT else ()
        yield table.flow(
            match(conj_id=cell.key.conjunction, ct_state=state, **_unasked(stage)),
            (*told, *_decided(stage, cell.action)),
            owner=owner_of(cell.owner),
            why=why,
            priority=_priority(stage),
        )


def _report(conjunction: int) -> tuple[Action, ...]:
    return SetField(RULE_REGISTER, conjunction), CONTROLLER


def _decided(stage: Stage, action: Verdict) -> tuple[Action, ...]:
    if stage.staged:
        return _staged(stage.direction, stage.tier, action)
    if action is Verdict.DENY:
        return (Goto(DENIAL.number),)
    if action is Verdict.PASS and stage.tier is Tier.ADMIN:
        return (Goto(_TABLE[stage.direction, Tier.NETWORK_POLICY].number),)
    return (Goto(_ALLOWED[stage.direction].number),)


def _staged(direction: Direction, tier: Tier, action: Verdict) -> tuple[Action, ...]:
    """Staged rules are not asked any more where this one would have decided, and the packet goes on."""
    if action is Verdict.DENY:
        bits = _ALL_BITS
    elif action is Verdict.ACCEPT:
        bits = _OF_DIRECTION[direction]
    else:
        bits = _BIT[direction, tier]
    return SetField(STAGED_REGISTER, bits, bits), Resubmit(_TABLE[direction, tier].number)


# Pods.


def _isolation(cell: IsolationCell) -> Iterator[Flow]:
    direction, staged = cell.key.direction, cell.key.staged
    table = _TABLE[direction, Tier.NETWORK_POLICY]
    report = _report(0) if cell.log else ()
    only = _unasked(Stage(direction, Tier.NETWORK_POLICY, 0, staged))
    actions = _staged(direction, Tier.NETWORK_POLICY, Verdict.DENY) if staged else (Goto(DENIAL.number),)
    what = "would isolate" if staged else "isolate" if cell.policies > 1 else "isolates"
    policies = f"{cell.policies} policies" if cell.policies > 1 else "the policy"
    for where in _of_pod(direction, cell.key.ofport, cell.addresses, by_family=False):
        for state in (_FIRST, _FURTHER):
            yield table.flow(
                match(**where, ct_state=state, **only),
                (*report, *actions),
                owner=owner_of(cell.owner),
                why=f"{policies} {what} the pod, and no rule allows this",
                priority=Priority.STAGED_ISOLATION if staged else Priority.ISOLATION,
            )


def _guard(cell: GuardCell) -> Iterator[Flow]:
    for direction, table in ((Direction.EGRESS, EGRESS_ADMIN), (Direction.INGRESS, INGRESS_ADMIN)):
        for where in _of_pod(direction, cell.key.ofport, cell.addresses, by_family=True):
            if direction is Direction.EGRESS:
                where = where | {"reg0": Source.POD}
            for state, term, why in (
                (
                    "+new-inv-rel+trk",
                    {"tcp_flags": "0/0x2"},
                    "in the middle of a connection that nobody knows",
                ),
                ("+inv-rel+trk", {}, "of no connection"),
            ):
                tcp: dict[str, int | str] = {"nw_proto": Protocol.TCP, **term} if term else {}
                yield table.flow(
                    match(ct_state=state, **where, **tcp),
                    (),
                    owner=owner_of(cell.owner),
                    why=f"{why}: not for a pod with policies",
                    priority=Priority.GUARD,
                )
