# SPDX-License-Identifier: Apache-2.0
"""Services: a connection to a Service's address chooses an endpoint in the switch.

For each port of a Service: one flow for each address and port that clients send to, a select group with a bucket for
each endpoint, and one flow for each endpoint that translates the destination. Nothing here depends on the node whose
switch it is for, except by the :class:`ServicePort` that it is made from.

Fragments: on the userspace datapath the tracker gives the fragments of a first datagram back one by one, and only the
first of them tells its port. That one therefore leaves a flow for a few seconds (in the table of learned flows) that
tells the others which Service they are for. Each then chooses an endpoint; the tracker, which puts them together again
to translate them, uses the last one's choice for all. On the kernel datapath they stay together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sdn.pipeline.actions import (
    CONTROLLER,
    Action,
    Ct,
    Goto,
    GroupAction,
    Learn,
    LearnMatch,
    Move,
    Nat,
    Resubmit,
    SetField,
)
from sdn.pipeline.features.endpointgroups import MOST_ENDPOINTS, endpoint_group, numbered
from sdn.pipeline.features.holders import OPENED
from sdn.pipeline.features.translation import to
from sdn.pipeline.fields import (
    CT_MARK,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FIELDS,
    IP_DST,
    IP_SRC,
    IPV6_DST,
    IPV6_SRC,
)
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.match import Match, match
from sdn.pipeline.owner import Feature, Owner, cookie
from sdn.pipeline.registers import (
    ENDPOINT_REGISTER,
    GROUP_REGISTER,
    NODE_PORT_ADDRESS,
    SERVICE_PORT_REGISTER,
    SERVICE_REGISTER,
    SERVICE_ZONE,
    TO_NODE_BIT,
    Mark,
    Priority,
    Source,
)
from sdn.pipeline.service import Endpoint, Frontend, Protocol, ServicePort
from sdn.pipeline.tables import (
    EGRESS_ADMIN,
    ENDPOINT,
    LOAD_BALANCING,
    ROUTING,
    SESSION_AFFINITY,
)
from sdn.pipeline.topology import Address, LocalNode, Range

_FIRST_PACKET = "+new-rpl-inv+trk"
_REJECT: tuple[Action, ...] = (CONTROLLER,)
_DROP: tuple[Action, ...] = ()

#: OpenFlow's idle time-out is 16 bits wide: an affinity of more than 18 hours ends then.
_LONGEST_TIMEOUT = 0xFFFF
_MARK_BITS = 4
_REMEMBER = (Move(SERVICE_REGISTER, 0, CT_MARK, 0, _MARK_BITS), OPENED)
_WHOLE, _FIRST_FRAGMENT, _LATER_FRAGMENT, _WITH_PORT = "0/3", "1/3", "3/3", "0/2"
_FRAGMENT_SECONDS = 10


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """Addresses of Services that have no such port, or that no Service has (yet, or any more)."""
    for service_range in (*local.service_ranges, *local.load_balancer_ranges):
        field = "ip_dst" if service_range.version == 4 else "ipv6_dst"
        yield LOAD_BALANCING.flow(
            match(ct_state=_FIRST_PACKET, **{field: str(service_range)}),
            _REJECT,
            owner=local.owner,
            why="no Service has this address and port: rejected",
            priority=Priority.LOW,
        )
        yield LOAD_BALANCING.flow(
            match(ct_state="+inv+trk", **{field: str(service_range)}),
            _DROP,
            owner=local.owner,
            why="to a Service, but of no connection",
            priority=Priority.URGENT,
        )
        yield ROUTING.flow(
            match(**{field: str(service_range)}),
            _DROP,
            owner=local.owner,
            why="a Service's address is on no link: it would come back",
            priority=Priority.HIGH,
        )
    for version, value in NODE_PORT_ADDRESS.items():
        yield LOAD_BALANCING.flow(
            to(Address(version, value), ct_state=_FIRST_PACKET),
            _REJECT,
            owner=local.owner,
            why="the NodePort is no more: rejected",
            priority=Priority.LOW,
        )
    for eth_type in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        for source in (Source.POD, Source.GATEWAY, Source.OUTSIDE):
            yield LOAD_BALANCING.flow(
                match(
                    reg0=source,
                    ct_state=_FIRST_PACKET,
                    ct_nw_proto=Protocol.UDP,
                    eth_type=eth_type,
                    ip_frag=_LATER_FRAGMENT,
                ),
                (
                    Resubmit(SESSION_AFFINITY.number),  # which Service
                    Resubmit(SESSION_AFFINITY.number),  # which endpoint, if the client has one already
                    Resubmit(ENDPOINT.number),
                ),
                owner=local.owner,
                why="part of a first datagram, of which another part has the port",
                priority=Priority.HIGH,
            )
    yield ENDPOINT.flow(
        match(reg2=0),
        (Goto(EGRESS_ADMIN.number),),
        owner=local.owner,
        why="of no Service",
    )


def service_flows(ports: Iterable[ServicePort]) -> Iterator[Flow | Group]:
    """Everything that a Service has on a switch."""
    for port in ports:
        yield from _Compilation(port).entries()


class _Compilation:
    """One port of one Service in one family."""

    def __init__(self, port: ServicePort) -> None:
        self._port = port
        self._eth_type = ETH_TYPE_IPV4 if port.version == 4 else ETH_TYPE_IPV6
        self._used: dict[int, Sequence[Endpoint]] = {}

    def entries(self) -> Iterator[Flow | Group]:
        port = self._port
        for frontend in port.frontends:
            yield from self._frontend(frontend)
        buckets = numbered({one for endpoints in self._used.values() for one in endpoints})
        for group_id, endpoints in self._used.items():
            yield endpoint_group(port, group_id, (buckets[one] for one in endpoints))
            if port.affinity_seconds or port.protocol is Protocol.UDP:
                yield ENDPOINT.flow(
                    match(eth_type=self._eth_type, reg2=port.group_base, reg3=0, reg5=group_id),
                    (GroupAction(group_id),),
                    owner=port.owner,
                    why="to be chosen",
                )
        chosen = match(
            eth_type=self._eth_type,
            ct_state=_FIRST_PACKET,
            ct_nw_proto=port.protocol,
            reg2=port.group_base,
            reg3=0,
        )
        for endpoint, bucket in buckets.items():
            yield self._endpoint(endpoint, bucket, chosen.with_value(ENDPOINT_REGISTER, bucket))

    def _frontend(self, frontend: Frontend) -> Iterator[Flow]:
        """Clients of this cluster are served alike; those outside may be held to the node's own endpoints.

        A connection from inside to an external address follows no externalTrafficPolicy (Kubernetes: traffic from
        inside the cluster takes a short cut to all endpoints).
        """
        local_only = self._port.external_local if frontend.external else self._port.internal_local
        everyone = self._to(local_only and not frontend.external)
        outside: tuple[Action, ...] | None = None
        if frontend.external and local_only:
            keep_source = SetField(SERVICE_REGISTER, 0, Mark.MASQUERADE)
            actions = self._to(True)
            outside = (keep_source, *actions) if actions else actions
        if frontend.restricted:
            yield from self._accept(frontend, _DROP, "a client that the source ranges do not name", {})
            for source_range in frontend.source_ranges:
                source = _from(source_range)
                yield from self._accept(frontend, everyone, "a client that may connect", source, urgent=True)
                if outside is not None:
                    yield from self._accept(
                        frontend,
                        outside,
                        "a client outside that may connect: this node's endpoints only",
                        source | {"reg0": Source.OUTSIDE},
                        urgent=True,
                    )
            return
        yield from self._accept(frontend, everyone, _why(everyone), {})
        if outside is not None:
            yield from self._accept(
                frontend,
                outside,
                f"from outside, this node's endpoints only: {_why(outside)}",
                {"reg0": Source.OUTSIDE},
            )

    def _accept(
        self,
        frontend: Frontend,
        actions: tuple[Action, ...],
        why: str,
        more: dict[str, int | str],
        *,
        urgent: bool = False,
    ) -> Iterator[Flow]:
        port = self._port
        terms: dict[str, int | str] = {
            "ct_state": _FIRST_PACKET,
            "ct_nw_proto": port.protocol,
            "ct_tp_dst": frontend.port,
            "eth_type": self._eth_type,
            **more,
        }
        if frontend.address is None:
            terms["reg4"] = f"{TO_NODE_BIT:#x}/{TO_NODE_BIT:#x}"
        else:
            terms["ip_dst" if port.version == 4 else "ipv6_dst"] = frontend.address.value
        priority = _priority(frontend, more, urgent)
        if port.protocol is not Protocol.UDP or actions in (_DROP, _REJECT):
            if port.protocol is Protocol.UDP:
                terms["ip_frag"] = _WITH_PORT
            yield LOAD_BALANCING.flow(match(**terms), actions, owner=port.owner, why=why, priority=priority)
            return
        yield LOAD_BALANCING.flow(
            match(**terms, ip_frag=_WHOLE), actions, owner=port.owner, why=why, priority=priority
        )
        known = _registers(actions)
        yield LOAD_BALANCING.flow(
            match(**terms, ip_frag=_FIRST_FRAGMENT),
            # From here on the same as the others' way, or the tracker would not see that they belong together.
            (
                self._learn_fragments(frontend, known),
                *known,
                Resubmit(SESSION_AFFINITY.number),
                Resubmit(ENDPOINT.number),
            ),
            owner=port.owner,
            why=f"{why}; the rest of the datagram will follow",
            priority=priority,
        )

    def _learn_fragments(self, frontend: Frontend, known: tuple[SetField, ...]) -> Learn:
        """What the other fragments of the same datagram have to know: the registers that this one's flow sets."""
        port = self._port
        four = port.version == 4
        name = f"{frontend.address or 'node'}/{frontend.port}"
        return Learn(
            SESSION_AFFINITY.number,
            Priority.NORMAL,
            cookie(Feature.SESSION_AFFINITY, Owner("Frontend", str(port.group_base), name)),
            match=(
                LearnMatch(FIELDS["eth_type"], self._eth_type),
                LearnMatch(GROUP_REGISTER, 0),
                LearnMatch(IP_SRC if four else IPV6_SRC),
                LearnMatch(IP_DST if four else IPV6_DST),
            ),
            load=known,
            idle_timeout=_FRAGMENT_SECONDS,
        )

    def _to(self, local: bool) -> tuple[Action, ...]:
        """What a first packet meets: a choice of endpoints, or why there is none."""
        port = self._port
        endpoints = port.local_endpoints if local else port.endpoints
        if not endpoints:
            return _DROP if port.elsewhere or (local and port.endpoints) else _REJECT
        group_id = port.group_base + local
        self._used[group_id] = endpoints[:MOST_ENDPOINTS]
        chosen = SetField(SERVICE_PORT_REGISTER, port.group_base)
        if not port.affinity_seconds:
            return chosen, GroupAction(group_id)
        return (
            chosen,
            SetField(GROUP_REGISTER, group_id),
            Resubmit(SESSION_AFFINITY.number),
            Resubmit(ENDPOINT.number),
        )

    def _endpoint(self, endpoint: Endpoint, bucket: int, chosen: Match) -> Flow:
        port = self._port
        actions: list[Action] = []
        if port.affinity_seconds:
            actions.append(self._learn(bucket))
        if not endpoint.pod:
            actions.append(SetField(SERVICE_REGISTER, Mark.NO_POD, Mark.NO_POD))
        address = endpoint.address
        nat = Nat("dst", address.version == 6, address.value, port_min=endpoint.port)
        actions.append(
            Ct(
                zone=SERVICE_ZONE,
                commit=True,
                nat=nat,
                table=EGRESS_ADMIN.number,
                execute=_REMEMBER,
            )
        )
        return ENDPOINT.flow(chosen, tuple(actions), owner=port.owner, why=_name(endpoint))

    def _learn(self, bucket: int) -> Learn:
        port = self._port
        learned = cookie(Feature.SESSION_AFFINITY, Owner("Endpoint", str(port.group_base), str(bucket)))
        return Learn(
            SESSION_AFFINITY.number,
            Priority.NORMAL,
            learned,
            match=(
                LearnMatch(FIELDS["eth_type"], self._eth_type),
                LearnMatch(GROUP_REGISTER),
                LearnMatch(IP_SRC if port.version == 4 else IPV6_SRC),
            ),
            load=(SetField(ENDPOINT_REGISTER, bucket),),
            idle_timeout=min(port.affinity_seconds, _LONGEST_TIMEOUT),
        )


def _registers(actions: tuple[Action, ...]) -> tuple[SetField, ...]:
    """The registers that a first packet's flow sets, the group's number among them even if that flow needs it not."""
    known = [action for action in actions if isinstance(action, SetField)]
    known += [SetField(GROUP_REGISTER, one.group_id) for one in actions if isinstance(one, GroupAction)]
    return tuple(known)


def _priority(frontend: Frontend, more: dict[str, int | str], urgent: bool) -> Priority:
    """Narrower matches above wider ones; an address above "every node's address" (WIDE)."""
    if urgent and "reg0" in more:
        return Priority.URGENT if frontend.address is not None else Priority.URGENT_WIDE
    if urgent or "reg0" in more:
        return Priority.HIGH if frontend.address is not None else Priority.HIGH_WIDE
    return Priority.NORMAL if frontend.address is not None else Priority.NORMAL_WIDE


def _from(source_range: Range) -> dict[str, int | str]:
    return {"ip_src" if source_range.version == 4 else "ipv6_src": str(source_range)}


def _why(actions: tuple[Action, ...]) -> str:
    if actions == _REJECT:
        return "the Service has no endpoint: rejected"
    return "to one of the Service's endpoints" if actions else "no endpoint that the policy allows: dropped"


def _name(endpoint: Endpoint) -> str:
    host = f"[{endpoint.address}]" if endpoint.address.version == 6 else str(endpoint.address)
    return f"to endpoint {host}:{endpoint.port}"
