# SPDX-License-Identifier: Apache-2.0
"""The tables, declared once, in the order in which packets meet them.

Everything else is derived: a table's number is its place in the list, the names in ``sdnctl`` and the page
docs/pipeline.md come from here. A feature file names the table that it writes to and makes flows through
:meth:`Table.flow`, which fills in the number, the cookie and the owner.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdn.pipeline.actions import Action, Goto
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match
from sdn.pipeline.owner import Feature, Owner, cookie
from sdn.pipeline.registers import Priority


@dataclass(frozen=True, slots=True)
class Declaration:
    """One table as declared: ``miss`` is the name of the table where unmatched packets go, or None: they are
    dropped.
    """

    name: str
    stage: str
    feature: Feature
    matches: str
    miss: str | None
    about: str


@dataclass(frozen=True, slots=True)
class Table:
    """A declared table with its number."""

    number: int
    declaration: Declaration

    @property
    def name(self) -> str:
        return self.declaration.name

    def flow(
        self,
        match: Match,
        actions: tuple[Action, ...],
        *,
        owner: Owner,
        why: str,
        priority: int = Priority.NORMAL,
    ) -> Flow:
        """A flow of this table."""
        return Flow(
            self.number, priority, match, actions, cookie(self.declaration.feature, owner), owner, why
        )


DECLARATIONS: tuple[Declaration, ...] = (
    Declaration(
        "classification",
        "where from",
        Feature.CLASSIFICATION,
        "in_port, tun_src",
        None,
        "Where the packet came from: a pod's port, the node itself by its gateway port, or another node "
        "by the tunnel. A tunnel packet from an address that is no node's is dropped.",
    ),
    Declaration(
        "spoof_guard",
        "who",
        Feature.SPOOF_GUARD,
        "in_port, eth_src, addresses, arp_*, nd_*",
        None,
        "A pod may speak only as itself: with its MAC and its addresses, and claim no other in ARP or "
        "neighbour discovery.",
    ),
    Declaration(
        "arp_responder",
        "neighbours",
        Feature.ARP_RESPONDER,
        "arp_op, arp_tpa",
        None,
        "ARP requests are answered here, at once; no request is ever flooded, and none reaches a pod.",
    ),
    Declaration(
        "nd_responder",
        "neighbours",
        Feature.ND_RESPONDER,
        "nd_target",
        None,
        "Neighbour solicitations for addresses that exist: the first half of the answer.",
    ),
    Declaration(
        "nd_advertisement",
        "neighbours",
        Feature.ND_RESPONDER,
        "icmpv6_type, eth_src",
        None,
        "The second half: fields that only exist once the packet has become an advertisement.",
    ),
    Declaration(
        "untranslation",
        "services",
        Feature.SERVICES,
        "ip_dst",
        "conntrack",
        "Answers to a translated source (a client outside that borrowed the node's address, an endpoint that is its "
        "own client) get their true destination back.",
    ),
    Declaration(
        "conntrack",
        "services",
        Feature.SERVICES,
        "ip_dst",
        None,
        "Every packet passes the connection tracker once: what belongs to a connection to a Service is translated "
        "as its first packet was, in both directions. What is for a node's address is remembered: it may be for a "
        "NodePort.",
    ),
    Declaration(
        "sender",
        "holders",
        Feature.HOLDERS,
        "in_port, ct_state, ct_label",
        "recipient",
        "A tracked connection is held by the ports of the pods at its ends, not by addresses, which pods hand down. "
        "What a pod answers over a connection that was a former pod's ends here; what it sends over one that its "
        "predecessor opened makes the connection its own.",
    ),
    Declaration(
        "recipient",
        "holders",
        Feature.HOLDERS,
        "ip_dst, ct_state, ct_label",
        "load_balancing",
        "The same for the pod that the packet is for: answers to who had the address before do not reach it.",
    ),
    Declaration(
        "load_balancing",
        "services",
        Feature.SERVICES,
        "reg0, reg4, ct_state, ct_mark, ip_dst, ct_nw_proto, ct_tp_dst",
        "egress_admin",
        "The first packet of a connection to a Service chooses an endpoint by a select group. Where there is none it "
        "is rejected at once. Ports are those that the tracker saw, so that fragments count too. Answers to clients "
        "that came by the gateway port leave by it. Answers of a connection that policies deny end here.",
    ),
    Declaration(
        "session_affinity",
        "services",
        Feature.SESSION_AFFINITY,
        "reg5, ip_src, ip_dst",
        None,
        "Written by the switch itself: which endpoint a client had last (sessionAffinity ClientIP), and which Service "
        "the fragments of a datagram are for.",
    ),
    Declaration(
        "endpoint",
        "services",
        Feature.SERVICES,
        "reg2, reg3",
        None,
        "The endpoint chosen becomes the destination, and the tracker remembers it.",
    ),
    Declaration(
        "egress_admin",
        "policy",
        Feature.POLICY,
        "in_port, ip_dst, protocol, destination port, ct_state, reg7, conj_id",
        "egress_policy",
        "From a pod of this node: rules of ClusterNetworkPolicies of the tier Admin, in their order. The tables from "
        "here to denial are for packets that go the way on which their connection began; answers pass by them.",
    ),
    Declaration(
        "egress_policy",
        "policy",
        Feature.POLICY,
        "in_port, ip_dst, protocol, destination port, ct_state, reg7, conj_id",
        "egress_baseline",
        "NetworkPolicies: what a rule allows goes on; of a pod that is isolated for egress nothing else does.",
    ),
    Declaration(
        "egress_baseline",
        "policy",
        Feature.POLICY,
        "in_port, ip_dst, protocol, destination port, ct_state, reg7, conj_id",
        "ingress_admin",
        "Of pods that no NetworkPolicy isolates: rules of the tier Baseline.",
    ),
    Declaration(
        "ingress_admin",
        "policy",
        Feature.POLICY,
        "ip_src, ip_dst, protocol, destination port, ct_state, reg7, conj_id",
        "ingress_policy",
        "To a pod of this node: rules of the tier Admin.",
    ),
    Declaration(
        "ingress_policy",
        "policy",
        Feature.POLICY,
        "ip_src, ip_dst, protocol, destination port, ct_state, reg7, conj_id",
        "ingress_baseline",
        "NetworkPolicies for ingress.",
    ),
    Declaration(
        "ingress_baseline",
        "policy",
        Feature.POLICY,
        "ip_src, ip_dst, protocol, destination port, ct_state, reg7, conj_id",
        "presence",
        "Rules of the tier Baseline for ingress. What no table of policies denies is allowed.",
    ),
    Declaration(
        "denial",
        "policy",
        Feature.POLICY,
        "ct_state, ct_mark, reg2",
        None,
        "What policies deny ends here. A connection that the tracker knows is marked, so that its answers end, too.",
    ),
    Declaration(
        "presence",
        "policy",
        Feature.POLICY,
        "ip_dst",
        "source_translation",
        "What is for an address of this node's range that no pod has ends here, before the tracker remembers it: a pod "
        "that is given the address later would else begin with connections that no policy has seen.",
    ),
    Declaration(
        "source_translation",
        "services",
        Feature.SERVICES,
        "reg0, reg4, ct_mark, in_port, ip_src, ip_dst, reg2, ct_state",
        "bridging",
        "Where the answer would not come back here by itself, the client's address is translated: to the node's for "
        "clients outside (externalTrafficPolicy Cluster), to an address of the switch for an endpoint that is its "
        "own client, and for endpoints that are no pods. Connections to no Service are remembered, so that no answer "
        "is taken for one of a Service's.",
    ),
    Declaration(
        "bridging",
        "where to",
        Feature.BRIDGING,
        "eth_dst, ip_dst",
        None,
        "Same node: a frame to a pod's MAC and address goes to its port untouched. A frame to the "
        "gateway's or the router's MAC goes on to be routed. Broadcast and multicast end here.",
    ),
    Declaration(
        "routing",
        "where to",
        Feature.ROUTING,
        "ip_dst, nw_ttl",
        "delivery",
        "Pods and addresses of other nodes: the hop limit is decremented and the packet leaves by the "
        "tunnel. A packet whose hop limit ends here goes to the node, which answers with an ICMP error.",
    ),
    Declaration(
        "delivery",
        "where to",
        Feature.DELIVERY,
        "ip_dst",
        None,
        "This node: its pods, its own addresses, and for what leaves the cluster the gateway port.",
    ),
)

TABLES: tuple[Table, ...] = tuple(Table(number, declared) for number, declared in enumerate(DECLARATIONS))
(
    CLASSIFICATION,
    SPOOF_GUARD,
    ARP_RESPONDER,
    ND_RESPONDER,
    ND_ADVERTISEMENT,
    UNTRANSLATION,
    CONNTRACK,
    SENDER,
    RECIPIENT,
    LOAD_BALANCING,
    SESSION_AFFINITY,
    ENDPOINT,
    EGRESS_ADMIN,
    EGRESS_POLICY,
    EGRESS_BASELINE,
    INGRESS_ADMIN,
    INGRESS_POLICY,
    INGRESS_BASELINE,
    DENIAL,
    PRESENCE,
    SOURCE_TRANSLATION,
    BRIDGING,
    ROUTING,
    DELIVERY,
) = TABLES
_BY_NAME = {table.name: table for table in TABLES}


def table_name(number: int) -> str:
    """The name of a table, or its number as text where the pipeline has no such table."""
    return TABLES[number].name if 0 <= number < len(TABLES) else str(number)


def table_named(name: str) -> Table:
    """The table of that name. Raises KeyError."""
    return _BY_NAME[name]


def miss_flows(owner: Owner) -> tuple[Flow, ...]:
    """The flows that carry out each table's declared miss; a table that drops needs none (OpenFlow 1.5,
    section 5.4).
    """
    return tuple(
        table.flow(
            Match(),
            (Goto(table_named(table.declaration.miss).number),),
            owner=owner,
            why=f"what {table.name} does not match goes on",
            priority=Priority.MISS,
        )
        for table in TABLES
        if table.declaration.miss is not None
    )
