# SPDX-License-Identifier: Apache-2.0
"""Roles: which of a switch's controllers may change it (OpenFlow 1.5.1, sections 6.3.6, 7.3.8 and 7.4.4).

A controller asks for a role with a *generation*, a number that grows with each change of the master. The switch
refuses one lower than the highest that it has seen (ROLE_REQUEST_FAILED/STALE), makes whoever was the master a
slave, tells that one so, and refuses from then on what it sends to change anything (BAD_REQUEST/IS_SLAVE). So a
controller that does not know yet that another has taken over cannot write.

What Open vSwitch 3.1 does with that (tests/switch/test_codec_roles.py holds it):

- Each message of a bundle is refused by itself, under its own transaction id and in the order in which they came:
  open, each one that is added, close, commit, and discard, too. Who is deposed between close and commit is refused
  the commit; what was added stays on its connection then, and a commit after having become the master again would
  put it in force. It is thrown away after ten seconds (BUNDLE_FAILED/TIMEOUT under the number of its open request).
- A connection begins as EQUAL, whoever else is the master, and may write until it has asked to be a slave; so it
  does after a refused request to be the master. Local connections (the bridge's management socket) are EQUAL always.
- A slave may read flows, groups, counters. It gets no packets, and may send none. But **it may flush the connection
  tracker**: NXT_CT_FLUSH is taken from everybody.
- Generations are compared as the signed difference of two 64-bit numbers. A slave's raises the highest one seen,
  too: the master stays one, but is refused when it asks again with its own. An equal one is not stale: the last who
  asks with it is the master.
- The deposed master is told (OFPT_ROLE_STATUS, transaction id 0, role SLAVE, reason MASTER_REQUEST) with the new
  generation, before the answer to any message that it sent later. An EQUAL one stays what it is and is told nothing.
- After a restart of the switch no generation is known, and all are EQUAL.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from sdn.openflow.errors import CodecError
from sdn.openflow.message import ErrorMessage, decode_header
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPBRC_IS_SLAVE,
    OFPET_BAD_REQUEST,
    OFPET_ROLE_REQUEST_FAILED,
    OFPRRFC_STALE,
    OFPT_ROLE_REPLY,
    OFPT_ROLE_REQUEST,
    OFPT_ROLE_STATUS,
)

#: What Open vSwitch answers as generation before it has seen one; it forgets them when it is started again.
NO_GENERATION: Final = (1 << 64) - 1
#: The controller has no short number. Open vSwitch 3.1 does not look at it.
OFPCID_UNDEFINED: Final = 0

_ROLE: Final = struct.Struct("!IH2xQ")
_STATUS: Final = struct.Struct("!IB3xQ")


class Role(enum.IntEnum):
    """What a controller may do at a switch."""

    #: In a request: only say what the role is.
    NOCHANGE = 0
    #: Everything; what each connection begins with.
    EQUAL = 1
    #: Everything, and nobody else who is not EQUAL may.
    MASTER = 2
    #: Only read.
    SLAVE = 3


class RoleReason(enum.IntEnum):
    """Why the switch has changed a controller's role."""

    #: Another has become the master.
    MASTER_REQUEST = 0
    #: Somebody has configured it so.
    CONFIG = 1
    EXPERIMENTER = 2


@dataclass(frozen=True, slots=True)
class RoleReply:
    """The role that the asking controller has, and the highest generation that the switch has seen, maybe
    :data:`NO_GENERATION`.
    """

    xid: int
    role: Role
    generation: int
    short_id: int = OFPCID_UNDEFINED


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """Told by the switch: the role of the controller that hears this is another now."""

    role: Role
    reason: RoleReason
    generation: int


def role_request(xid: int, role: Role, generation: int = 0, short_id: int = OFPCID_UNDEFINED) -> bytes:
    """Ask for a role. ``generation`` counts for MASTER and SLAVE only. Raises CodecError when it is no 64-bit
    number, or ``short_id`` no 16-bit one.
    """
    try:
        body = _ROLE.pack(role, short_id, generation)
    except struct.error as error:
        raise CodecError(
            f"role request with generation {generation}, short_id {short_id}: {error}"
        ) from error
    return HEADER.pack(OFP_VERSION, OFPT_ROLE_REQUEST, HEADER.size + len(body), xid) + body


def decode_role_reply(message: bytes) -> RoleReply:
    """The answer to :func:`role_request`, header included. Raises CodecError."""
    header = decode_header(message)
    if header.type != OFPT_ROLE_REPLY:
        raise CodecError(f"message type {header.type} is not a role reply", 1)
    if len(message) != HEADER.size + _ROLE.size:
        raise CodecError(f"a role reply of {len(message)} bytes", 2)
    role, short_id, generation = _ROLE.unpack_from(message, HEADER.size)
    return RoleReply(header.xid, _role(role), generation, short_id)


def decode_role_status(message: bytes) -> RoleStatus:
    """A role status message, header included. Its properties, all of them experimenters', are passed over. Raises
    CodecError.
    """
    header = decode_header(message)
    if header.type != OFPT_ROLE_STATUS:
        raise CodecError(f"message type {header.type} is not a role status", 1)
    if len(message) < HEADER.size + _STATUS.size:
        raise CodecError("role status is cut short", HEADER.size)
    role, reason, generation = _STATUS.unpack_from(message, HEADER.size)
    try:
        return RoleStatus(_role(role), RoleReason(reason), generation)
    except ValueError:
        raise CodecError(f"unknown reason {reason} of a role status", HEADER.size + 4) from None


def _role(number: int) -> Role:
    try:
        return Role(number)
    except ValueError:
        raise CodecError(f"unknown role {number}", HEADER.size) from None


def tells_deposed(error: ErrorMessage) -> bool:
    """Whether a refusal is not about what was sent but about who sent it: another controller is the master."""
    return (error.type, error.code) in (
        (OFPET_BAD_REQUEST, OFPBRC_IS_SLAVE),
        (OFPET_ROLE_REQUEST_FAILED, OFPRRFC_STALE),
    )
