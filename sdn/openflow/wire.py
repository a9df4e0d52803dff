# SPDX-License-Identifier: Apache-2.0
"""The numbers of OpenFlow 1.5 that the codec uses, named as the specification names them.

Sources: OpenFlow Switch Specification 1.5.1, section 7; Open vSwitch's ``openflow/nicira-ext.h`` for its
extensions.
"""

from __future__ import annotations

import struct
from typing import Final

OFP_VERSION: Final = 6

OFPT_HELLO: Final = 0
OFPT_ERROR: Final = 1
OFPT_ECHO_REQUEST: Final = 2
OFPT_ECHO_REPLY: Final = 3
OFPT_EXPERIMENTER: Final = 4
OFPT_SET_CONFIG: Final = 9
OFPT_PACKET_IN: Final = 10
OFPT_PORT_STATUS: Final = 12
OFPT_PACKET_OUT: Final = 13
OFPT_FLOW_MOD: Final = 14
OFPT_GROUP_MOD: Final = 15
OFPT_PORT_MOD: Final = 16
OFPT_MULTIPART_REQUEST: Final = 18
OFPT_MULTIPART_REPLY: Final = 19
OFPT_BARRIER_REQUEST: Final = 20
OFPT_BARRIER_REPLY: Final = 21
OFPT_ROLE_REQUEST: Final = 24
OFPT_ROLE_REPLY: Final = 25
OFPT_SET_ASYNC: Final = 28
OFPT_ROLE_STATUS: Final = 30
OFPT_REQUESTFORWARD: Final = 32
OFPT_BUNDLE_CONTROL: Final = 33
OFPT_BUNDLE_ADD_MESSAGE: Final = 34

OFPET_BAD_REQUEST: Final = 1
OFPBRC_IS_SLAVE: Final = 10
OFPET_BAD_ACTION: Final = 2
OFPBAC_BAD_OUT_GROUP: Final = 9
OFPET_ROLE_REQUEST_FAILED: Final = 11
OFPRRFC_STALE: Final = 0

OFPMP_DESC: Final = 0
OFPMP_FLOW_DESC: Final = 1
OFPMP_GROUP_STATS: Final = 6
OFPMP_GROUP_DESC: Final = 7
OFPMP_PORT_DESC: Final = 13
OFPMP_FLOW_MONITOR: Final = 16
OFPMPF_REPLY_MORE: Final = 1

OFPTT_ALL: Final = 0xFF
OFPG_ALL: Final = 0xFFFFFFFC
OFPG_ANY: Final = 0xFFFFFFFF
OFP_NO_BUFFER: Final = 0xFFFFFFFF
OFPCML_NO_BUFFER: Final = 0xFFFF

OFPIT_GOTO_TABLE: Final = 1
OFPIT_APPLY_ACTIONS: Final = 4

OFPAT_OUTPUT: Final = 0
OFPAT_GROUP: Final = 22
OFPAT_DEC_NW_TTL: Final = 24
OFPAT_SET_FIELD: Final = 25
OFPAT_COPY_FIELD: Final = 28
OFPAT_EXPERIMENTER: Final = 0xFFFF

#: Open vSwitch's own actions.
NX_VENDOR_ID: Final = 0x00002320
NXAST_RESUBMIT_TABLE: Final = 14
NXAST_OUTPUT_REG: Final = 15
NXAST_LEARN: Final = 16
NXAST_CONJUNCTION: Final = 34
NXAST_CT: Final = 35
NXAST_NAT: Final = 36
NXAST_RESUBMIT_TABLE_CT: Final = 44

#: Open vSwitch's own messages.
NXT_CT_FLUSH: Final = 32

#: The experimenter under which Open vSwitch takes a group's selection method.
NTR_VENDOR_ID: Final = 0x0000154D
NTRT_SELECTION_METHOD: Final = 1

#: Statistics fields of a flow description (section 7.2.4.2).
OFPXSC_OPENFLOW_BASIC: Final = 0x8002
OXS_DURATION: Final = 0
OXS_IDLE_TIME: Final = 1
OXS_PACKET_COUNT: Final = 4
OXS_BYTE_COUNT: Final = 5

HEADER: Final = struct.Struct("!BBHI")
#: The longest message that the 16-bit length can say.
MAX_MESSAGE: Final = 0xFFFF


def padded(length: int) -> int:
    """``length`` rounded up to OpenFlow's alignment of eight bytes."""
    return (length + 7) & ~7
