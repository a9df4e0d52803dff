# SPDX-License-Identifier: Apache-2.0
"""A flow's image: the bytes by which installed and desired flows are compared, and from which messages are
made.

The image is laid out as Open vSwitch lays out a flow description (OpenFlow 1.5, section 7.3.5.2), so that
reading the switch is cutting, not decoding:

======
==========================================================================================================
``key``   table (1 byte), zero (1), priority (2), ``ofp_match`` with its padding ``body``  idle time-out
(2), hard time-out (2), flags (2), importance (2), cookie (8), instructions ======
==========================================================================================================

Two flows with the same key are the same entry of a switch (section 6.4); with the same body too, there is
nothing to do.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from sdn.openflow.actionwire import encode_instructions
from sdn.openflow.errors import CodecError
from sdn.openflow.oxm import encode_match
from sdn.openflow.wire import (
    HEADER,
    MAX_MESSAGE,
    OFP_NO_BUFFER,
    OFP_VERSION,
    OFPG_ANY,
    OFPT_FLOW_MOD,
)
from sdn.pipeline.fields import OFPP_ANY
from sdn.pipeline.flow import Flow


class FlowImage(NamedTuple):
    """See the module. Unpacks as ``key, body``, so images make a dict: ``dict(map(flow_image, flows))``."""

    key: bytes
    body: bytes

    @property
    def table(self) -> int:
        return self.key[0]

    @property
    def priority(self) -> int:
        return self.key[2] << 8 | self.key[3]

    @property
    def cookie(self) -> int:
        return int.from_bytes(self.body[8:16], "big")


class FlowCommand(enum.IntEnum):
    """What a flow-mod does (section 7.3.4.2).

    ``ADD`` also replaces: an entry with the same key gets the new body in one step, keeps its counters, and
    no packet falls between. So it serves for what is new and for what has changed. (``MODIFY_STRICT``
    leaves time-outs alone.)
    """

    ADD = 0
    MODIFY_STRICT = 2
    DELETE_STRICT = 4


_TABLE_PRIORITY: Final = struct.Struct("!BxH")
_BODY: Final = struct.Struct("!HHHHQ")
#: What a message that describes one flow has beside key and body: headers, and 56 bytes of statistics.
_DESCRIPTION: Final = 76
#: The longest key and body together. Open vSwitch takes longer flows, as long as the message that makes them, and then
#: leaves them out when it is asked for its flows: such a flow would be missing for ever.
MAX_IMAGE: Final = MAX_MESSAGE - _DESCRIPTION


def flow_image(flow: Flow) -> tuple[bytes, bytes]:
    """Key and body of a flow, exactly as the switch will describe it. Raises CodecError that names owner, table and
    match, also for a flow that is too long for a switch to describe (with an empty match, one of more than 4088
    ``conjunction`` actions).

    A plain tuple and not a FlowImage, since this runs for every flow; ``FlowImage(*flow_image(flow))``
    makes one.
    """
    try:
        key = _TABLE_PRIORITY.pack(flow.table, flow.priority) + encode_match(flow.match)
        body = _BODY.pack(flow.idle_timeout, flow.hard_timeout, 0, 0, flow.cookie) + encode_instructions(
            flow.actions
        )
        if len(key) + len(body) > MAX_IMAGE:
            raise CodecError(
                f"{len(key) + len(body)} bytes are more than a switch can describe ({MAX_IMAGE})"
            )
        return key, body
    except (struct.error, OverflowError, CodecError) as error:
        raise CodecError(
            f"flow of {flow.owner} in table {flow.table}, priority {flow.priority}, {flow.match}: {error}"
        ) from error


_COOKIE_MASK: Final = bytes(8)
_COMMAND: Final = {command: bytes([command]) for command in FlowCommand}
_ANYWHERE: Final = struct.pack("!III", OFP_NO_BUFFER, OFPP_ANY, OFPG_ANY)


def flow_mod(command: FlowCommand, key: bytes, body: bytes, xid: int = 0) -> bytes:
    """The flow-mod message that makes, changes or removes the entry with this image.

    ``DELETE_STRICT`` removes whatever has the key; of the body only the cookie is looked at, and it is not
    compared. Works as well for what the switch printed as for what :func:`flow_image` made. Raises
    CodecError when it is too long.
    """
    instructions = b"" if command is FlowCommand.DELETE_STRICT else body[16:]
    length = 44 + len(key) + len(instructions)
    if length > MAX_MESSAGE:
        raise CodecError(f"a flow of {length} bytes does not fit into a message")
    return b"".join(
        (
            HEADER.pack(OFP_VERSION, OFPT_FLOW_MOD, length, xid),
            body[8:16],
            _COOKIE_MASK,
            key[:1],
            _COMMAND[command],
            body[:4],
            key[2:4],
            _ANYWHERE,
            body[4:8],
            key[4:],
            instructions,
        )
    )
