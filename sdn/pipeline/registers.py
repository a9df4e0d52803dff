# SPDX-License-Identifier: Apache-2.0
"""Every number with a meaning: registers, marks, priorities, fixed ports and addresses, each named once.

A feature file may use only names from here; a bare number in a match or an action is a defect.
"""

from __future__ import annotations

import enum

from sdn.pipeline.fields import FIELDS, Field

#: The MAC of every node's gateway port. One for all nodes: routed packets then look the same on every node,
#: and the gateway's neighbour entry in a pod never goes stale.
GATEWAY_MAC = 0x0A5800000001

#: The MAC that answers, on a node's gateway port, for the pods of other nodes: frames sent to it are routed
#: by the switch.
ROUTER_MAC = 0x0A5800000002

#: Fixed OpenFlow port numbers of the bridge ``br-int``; pods come after, chosen by the node's agent.
GATEWAY_PORT = 1
TUNNEL_PORT = 2
FIRST_POD_PORT = 16
LAST_POD_PORT = 0xFEFF - 1

#: Where the packet came from, set once at classification.
SOURCE_REGISTER: Field = FIELDS["reg0"]


#: Where a responder keeps the address that was asked for while it swaps sender and target, and values on their way to
#: fields that take no constant.
SCRATCH_REGISTER: Field = FIELDS["reg1"]


class Source(enum.IntEnum):
    """Values of :data:`SOURCE_REGISTER`. By the gateway port comes what the node itself sends from one of its
    addresses (GATEWAY), and what it routes for others (OUTSIDE).
    """

    POD = 1
    GATEWAY = 2
    TUNNEL = 3
    OUTSIDE = 4


#: The Service port (its group base) that a connection is for, and the endpoint (its bucket) chosen; 0: none yet.
SERVICE_PORT_REGISTER: Field = FIELDS["reg2"]
ENDPOINT_REGISTER: Field = FIELDS["reg3"]

#: What the tracked connection must remember (bits of :class:`Mark`), and whether the packet is for a node's address.
SERVICE_REGISTER: Field = FIELDS["reg4"]
TO_NODE_BIT = 1 << 31

#: In the same register: the tracked connection was held by a pod that is no more, and is the present one's from now on.
FORMER_BIT = 1 << 30

#: The group of a Service with session affinity.
GROUP_REGISTER: Field = FIELDS["reg5"]

#: The number of the policy rule that is reported to the controller; 0: a pod's isolation.
RULE_REGISTER: Field = FIELDS["reg6"]

#: Which tables of policies staged rules have decided in (bit n: the n-th of them): there they are asked no more.
STAGED_REGISTER: Field = FIELDS["reg7"]


#: The port of the pod of this node that the packet is for; 0: none of this node.
RECIPIENT_REGISTER: Field = FIELDS["reg8"]

#: Never set: flows that hold for the same packets differ in which of its bits they want to be 0.
UNSET_REGISTER: Field = FIELDS["reg15"]

#: Which ports hold a tracked connection (ct_label in :data:`SERVICE_ZONE`): at the first offset the one that its
#: first packet came from, at the second the pod's that it was for. Those below :data:`FIRST_POD_PORT` are no pod's.
HOLDER_BITS = 16
OPENER_OFFSET, ANSWERER_OFFSET = 0, 16


class Mark(enum.IntFlag):
    """Bits of ct_mark in :data:`SERVICE_ZONE`; all but DENIED are of connections to Services, and stand in
    :data:`SERVICE_REGISTER` before.

    VIA_GATEWAY    the client came by the gateway port, so answers leave by it
    MASQUERADE     the client is outside and its address is to be translated (policy Cluster)
    OWN_NODE       the client is this node itself
    NO_POD         the endpoint is no pod: it answers past the switch unless it sees an address that leads there
    DENIED         policies deny the connection: its answers are dropped, too
    """

    VIA_GATEWAY = 1
    MASQUERADE = 2
    OWN_NODE = 4
    NO_POD = 8
    DENIED = 16


#: Zones of the connection tracker: destinations of Services are translated in the first, sources in the second.
SERVICE_ZONE = 1
SOURCE_ZONE = 2

#: Addresses that exist on every node alone, never on a wire (RFC 3927; RFC 4193).
#: NODE_PORT: what the node's stack makes of its own address when the port is a NodePort.
#: HAIRPIN: whom an endpoint sees that would otherwise see itself, or answer past the switch.
#: NEXT_HOP: the switch as the node's routes name it; it answers with ROUTER_MAC.
NODE_PORT_ADDRESS = {4: 0xA9FE00FC, 6: 0xFD5D17D017D000000000000000000000 | 0xFC}
HAIRPIN_ADDRESS = {4: 0xA9FE00FD, 6: 0xFD5D17D017D000000000000000000000 | 0xFD}
NEXT_HOP_ADDRESS = {4: 0xA9FE00FE, 6: 0xFD5D17D017D000000000000000000000 | 0xFE}

#: Lowest source port of translated clients; the highest is the one below the first NodePort. The node's own
#: connections use ports above (net.ipv4.ip_local_port_range), so that the two never meet.
FIRST_MASQUERADE_PORT = 1024


class Priority(enum.IntEnum):
    """Flow priorities. Matches of one table and one priority must never overlap: then the order of flows
    cannot matter. (Clauses of conjunctions may.)

    In the tables of policies a rule has :data:`RULE` less its level (sdn/policy/precedence.py).
    """

    MISS = 0
    LOW = 50
    NORMAL_WIDE = 90
    NORMAL = 100
    HIGH_WIDE = 140
    HIGH = 150
    URGENT_WIDE = 190
    URGENT = 200
    FIRST = 250
    STAGED_ISOLATION = 300
    STAGED_RULE = 310
    ISOLATION = 320
    RULE = 60_000
    GUARD = 60_100
    EXEMPT = 60_200
    UNTRACKED = 60_300
