# SPDX-License-Identifier: Apache-2.0
"""Translation: what the connections to all Services have in common.

Two zones of the connection tracker, because one connection can need both its destination and its source translated and
a zone translates one of them: SERVICE_ZONE turns a Service's address into its endpoint's, SOURCE_ZONE a client's
address into one that the endpoint's answer comes back to. Forward, the destination is translated first; backward, the
source is restored first. Only first packets look at the Services' flows: what follows is translated by the tracker
alone, so that no change of flows and no restart moves a connection.

A source is translated only where it must be, as kube-proxy does ("Virtual IPs and Service Proxies", Kubernetes
documentation): clients outside under externalTrafficPolicy Cluster appear as the node. Their ports are taken from
below the NodePorts, and the node's own connections have theirs above, so an answer cannot be taken for another's.

Connections to no Service are remembered too, with another port of the client where its own is taken: a client may use
one port both for a Service and for an endpoint of it by the endpoint's own address, and could not tell the answers
apart, nor could the tracker.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdn.pipeline.actions import IN_PORT, Action, Ct, Goto, Nat, Output, SetField
from sdn.pipeline.features.holders import HELD
from sdn.pipeline.fields import ETH_DST, ETH_SRC, ETH_TYPE_IPV4, ETH_TYPE_IPV6
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, match
from sdn.pipeline.registers import (
    FIRST_MASQUERADE_PORT,
    GATEWAY_MAC,
    GATEWAY_PORT,
    HAIRPIN_ADDRESS,
    NODE_PORT_ADDRESS,
    ROUTER_MAC,
    SERVICE_REGISTER,
    SERVICE_ZONE,
    SOURCE_ZONE,
    TO_NODE_BIT,
    Mark,
    Priority,
    Source,
)
from sdn.pipeline.tables import (
    BRIDGING,
    CONNTRACK,
    DELIVERY,
    EGRESS_ADMIN,
    INGRESS_ADMIN,
    LOAD_BALANCING,
    ROUTING,
    SENDER,
    SOURCE_TRANSLATION,
    UNTRANSLATION,
)
from sdn.pipeline.topology import Address, LocalNode, PodPort, RemoteNode

_FIRST_PACKET = "+new-rpl-inv+trk"
_ETH_TYPE = {4: ETH_TYPE_IPV4, 6: ETH_TYPE_IPV6}
_TRACK = Ct(zone=SERVICE_ZONE, nat=Nat(), table=SENDER.number)
_TRACK_TO_NODE = (SetField(SERVICE_REGISTER, TO_NODE_BIT, TO_NODE_BIT), _TRACK)
#: Everything that comes by the gateway port.
_BY_GATEWAY = (Source.GATEWAY, Source.OUTSIDE)
_ALL_MARKS = Mark.VIA_GATEWAY | Mark.MASQUERADE | Mark.OWN_NODE | Mark.NO_POD
_TO_NODE: tuple[Action, ...] = (SetField(ETH_SRC, ROUTER_MAC), SetField(ETH_DST, GATEWAY_MAC))


def to(address: Address, **more: int | str) -> Match:
    """Packets to an address."""
    return match(**more, **{"ip_dst" if address.version == 4 else "ipv6_dst": address.value})


def node_flows(local: LocalNode) -> Iterator[Flow]:
    """Tracking, the way back, and the translation of sources."""
    yield from _untracked(local)
    yield from _untranslation(local)
    yield from _conntrack(local)
    yield from _established(local)
    yield from _source_translation(local)
    yield from _direct(local)
    yield from _past_the_switch(local)


def _untracked(local: LocalNode) -> Iterator[Flow]:
    """Fragments whose others never came. Open vSwitch's userspace tracker gives them back after a while, beside
    whichever packet it sees next, and untracked: no rule about connections would hold for them.
    """
    for table in (SENDER, EGRESS_ADMIN, SOURCE_TRANSLATION, BRIDGING, DELIVERY):
        yield table.flow(
            match(ct_state="-trk"),
            (),
            owner=local.owner,
            why="behind the tracker, and not tracked",
            priority=Priority.UNTRACKED,
        )


def _untranslation(local: LocalNode) -> Iterator[Flow]:
    borrowed = [Address(version, value) for version, value in HAIRPIN_ADDRESS.items()]
    own = [local.own_address(version) for version in (4, 6)]
    for address in (*borrowed, *own):
        if address is not None:
            yield UNTRANSLATION.flow(
                to(address),
                (Ct(zone=SOURCE_ZONE, nat=Nat(), table=CONNTRACK.number),),
                owner=local.owner,
                why="may be the answer to a translated source",
            )


def _conntrack(local: LocalNode) -> Iterator[Flow]:
    node_port = [Address(version, value) for version, value in NODE_PORT_ADDRESS.items()]
    for address in (*local.addresses, *node_port):
        yield CONNTRACK.flow(
            to(address), _TRACK_TO_NODE, owner=local.owner, why="to a node's address: may be a NodePort"
        )
    for eth_type in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        yield CONNTRACK.flow(
            match(eth_type=eth_type),
            (_TRACK,),
            owner=local.owner,
            why="may belong to a connection to a Service",
            priority=Priority.LOW,
        )


def _established(local: LocalNode) -> Iterator[Flow]:
    """What is no first packet needs no Service's flow any more."""
    for source in Source:
        yield LOAD_BALANCING.flow(
            match(reg0=source, ct_state="-inv+rpl+trk", ct_mark=_bits(Mark.VIA_GATEWAY, Mark(0))),
            (*_TO_NODE, IN_PORT if source in _BY_GATEWAY else Output(GATEWAY_PORT)),
            owner=local.owner,
            why="answer to a client that came by the gateway port",
            priority=Priority.URGENT,
        )
    yield LOAD_BALANCING.flow(
        match(reg0=Source.TUNNEL, ct_state="-inv+rpl+trk", ct_mark=_bits(Mark(0), Mark.VIA_GATEWAY)),
        (Goto(DELIVERY.number),),
        owner=local.owner,
        why="answer of an endpoint on another node",
        priority=Priority.URGENT,
    )
    yield LOAD_BALANCING.flow(
        match(reg0=Source.TUNNEL),
        (Goto(INGRESS_ADMIN.number),),
        owner=local.owner,
        why="the other node has chosen the endpoint, and what its pods may send",
        priority=Priority.URGENT_WIDE,
    )
    for source in (Source.POD, *_BY_GATEWAY):
        yield LOAD_BALANCING.flow(
            match(reg0=source, ct_state="-new-rpl+trk"),
            (Goto(EGRESS_ADMIN.number),),
            owner=local.owner,
            why="on its way to an endpoint",
            priority=Priority.HIGH,
        )
        yield LOAD_BALANCING.flow(
            match(reg0=source, ct_state="-new+rpl+trk"),
            (Goto(BRIDGING.number),),
            owner=local.owner,
            why="answer of an endpoint to a pod of this node",
            priority=Priority.HIGH,
        )


def _source_translation(local: LocalNode) -> Iterator[Flow]:
    for version, eth_type in _ETH_TYPE.items():
        own = local.own_address(version)
        hairpin = Nat("src", version == 6, HAIRPIN_ADDRESS[version])
        if own is not None:
            yield _translate(
                local,
                eth_type,
                _bits(Mark.MASQUERADE, Mark.NO_POD),
                Nat(
                    "src",
                    version == 6,
                    own.value,
                    port_min=FIRST_MASQUERADE_PORT,
                    port_max=local.first_node_port - 1,
                ),
                "a client outside appears as the node (externalTrafficPolicy Cluster)",
            )
        yield _translate(
            local,
            eth_type,
            _bits(Mark.MASQUERADE | Mark.NO_POD, Mark(0)),
            hairpin,
            "a client outside, and an endpoint that is no pod",
        )
        yield _translate(
            local,
            eth_type,
            _bits(Mark.OWN_NODE | Mark.NO_POD, Mark.MASQUERADE),
            hairpin,
            "the node itself, and an endpoint that is no pod",
        )


def _direct(local: LocalNode) -> Iterator[Flow]:
    """First packets to no Service: remembered on both nodes, translated on the client's (see :func:`pod_flows`)."""
    for address in (*local.addresses, *(pod_range.gateway for pod_range in local.pod_ranges)):
        yield SOURCE_TRANSLATION.flow(
            _first_from(address, reg0=Source.GATEWAY),
            (_remembered(local, address),),
            owner=local.owner,
            why=f"from the node to no Service: {_why_remembered(local)}",
            priority=Priority.HIGH,
        )
    for eth_type in _ETH_TYPE.values():
        yield SOURCE_TRANSLATION.flow(
            match(reg0=Source.OUTSIDE, eth_type=eth_type, ct_state=_FIRST_PACKET, reg2=0),
            (Ct(zone=SERVICE_ZONE, commit=True, table=BRIDGING.number, execute=HELD),),
            owner=local.owner,
            why="from elsewhere to no Service: remembered, so that answers are known as such",
            priority=Priority.HIGH,
        )
        yield SOURCE_TRANSLATION.flow(
            match(reg0=Source.TUNNEL, eth_type=eth_type, ct_state=_FIRST_PACKET),
            (Ct(zone=SERVICE_ZONE, commit=True, table=DELIVERY.number, execute=HELD),),
            owner=local.owner,
            why="from another node's client: remembered, so that answers are known as such",
            priority=Priority.HIGH,
        )
    yield SOURCE_TRANSLATION.flow(
        match(reg0=Source.TUNNEL),
        (Goto(DELIVERY.number),),
        owner=local.owner,
        why="the other node has translated the client where it must",
        priority=Priority.HIGH_WIDE,
    )


def _first_from(address: Address, **more: int | str) -> Match:
    """First packets of this client to no Service."""
    source = "ip_src" if address.version == 4 else "ipv6_src"
    return match(**more, **{source: address.value}, ct_state=_FIRST_PACKET, reg2=0)


def _remembered(local: LocalNode, address: Address) -> Ct:
    """Remember the connection, with its own address and another port if its own is taken.

    Not so in userspace: there Open vSwitch before 3.1.3 keeps a twin of each connection that may be translated, and
    aborts when it meets the twin of one that has just ended (its commit "conntrack: Remove nat_conn introducing key
    directionality"). A port that a Service's connection has already is then not changed.
    """
    nat = None if local.userspace else Nat("src", address.version == 6, address.value)
    return Ct(zone=SERVICE_ZONE, commit=True, nat=nat, table=BRIDGING.number, execute=HELD)


def _why_remembered(local: LocalNode) -> str:
    if local.userspace:
        return "remembered, so that answers are known as such"
    return "its port must be no other connection's"


def _translate(local: LocalNode, eth_type: int, mark: str, nat: Nat, why: str) -> Flow:
    return SOURCE_TRANSLATION.flow(
        match(eth_type=eth_type, ct_mark=mark),
        (Ct(zone=SOURCE_ZONE, commit=True, nat=nat, table=BRIDGING.number),),
        owner=local.owner,
        why=why,
    )


def _bits(wanted: Mark, unwanted: Mark) -> str:
    return f"{int(wanted):#x}/{int(wanted | unwanted):#x}"


def _past_the_switch(local: LocalNode) -> Iterator[Flow]:
    """Endpoints that are no pods are reached by way of the node's own stack, where clients came from."""
    for version, value in HAIRPIN_ADDRESS.items():
        field = "ip_src" if version == 4 else "ipv6_src"
        for source in _BY_GATEWAY:
            yield ROUTING.flow(
                match(reg0=source, **{field: value}),
                (*_TO_NODE, IN_PORT),
                owner=local.owner,
                why="back to the node, which knows the way to the endpoint",
                priority=Priority.URGENT,
            )
    for address in local.addresses:
        yield ROUTING.flow(
            to(address, reg0=Source.OUTSIDE),
            (*_TO_NODE, IN_PORT),
            owner=local.owner,
            why="an endpoint is this node itself (externalTrafficPolicy Local)",
            priority=Priority.HIGH,
        )


def pod_flows(local: LocalNode, pod: PodPort) -> Iterator[Flow]:
    """A pod as a client: of itself, whose address it must not see as the client's, and of no Service."""
    for address in pod.addresses:
        yield SOURCE_TRANSLATION.flow(
            _first_from(address, in_port=pod.ofport, reg0=Source.POD),
            (_remembered(local, address),),
            owner=pod.owner,
            why=f"from the pod to no Service: {_why_remembered(local)}",
            priority=Priority.HIGH,
        )
        hairpin = HAIRPIN_ADDRESS[address.version]
        yield SOURCE_TRANSLATION.flow(
            to(address, in_port=pod.ofport, ct_mark=_bits(Mark(0), _ALL_MARKS)),
            (
                Ct(
                    zone=SOURCE_ZONE,
                    commit=True,
                    nat=Nat("src", address.version == 6, hairpin),
                    table=BRIDGING.number,
                ),
            ),
            owner=pod.owner,
            why="the pod is its own Service's endpoint",
        )
        yield DELIVERY.flow(
            to(address, in_port=pod.ofport),
            (SetField(ETH_SRC, GATEWAY_MAC), SetField(ETH_DST, pod.mac), IN_PORT),
            owner=pod.owner,
            why="from the pod to itself, by way of a Service",
            priority=Priority.HIGH,
        )


def peer_flows(peer: RemoteNode) -> Iterator[Flow]:
    """Other nodes' addresses have the same NodePorts."""
    for address in peer.addresses:
        yield CONNTRACK.flow(
            to(address), _TRACK_TO_NODE, owner=peer.owner, why="to a node's address: may be a NodePort"
        )
