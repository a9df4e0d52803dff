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
    """Values of :data:`SOURCE_REGISTER`."""

    POD = 1
    GATEWAY = 2
    TUNNEL = 3


class Priority(enum.IntEnum):
    """Flow priorities. Matches of one table and one priority must never overlap: then the order of flows
    cannot matter.
    """

    MISS = 0
    LOW = 50
    NORMAL = 100
    HIGH = 150
    URGENT = 200
