# SPDX-License-Identifier: Apache-2.0
"""The layouts of actions (OpenFlow 1.5, sections 7.2.5 and 7.2.6; Open vSwitch's ``nicira-ext.h``), for
:mod:`~sdn.openflow.actionwire`, which writes them, and :mod:`~sdn.openflow.actionread`, which reads them.
"""

from __future__ import annotations

import struct
from typing import Final

TYPE_LENGTH: Final = struct.Struct("!HH")
OUTPUT: Final = struct.Struct("!HHIH6x")
GROUP: Final = struct.Struct("!HHI")
COPY_FIELD: Final = struct.Struct("!HHHHH2xII4x")
OUTPUT_REG: Final = struct.Struct("!HHIHHIH6x")
RESUBMIT: Final = struct.Struct("!HHIHHB3x")
CT: Final = struct.Struct("!HHIHHIHB3xH")
NAT: Final = struct.Struct("!HHIH2xHH")
#: Type, length, vendor, subtype; time-outs, priority, cookie, flags, table; time-outs on FIN.
LEARN: Final = struct.Struct("!HHIHHHHQHBxHH")
#: Type, length, vendor, subtype; clause (from 0, where people count from 1), clauses, the conjunction's number.
CONJUNCTION: Final = struct.Struct("!HHIHBBI")
NX_IN_PORT: Final = 0xFFF8

CT_COMMIT, CT_FORCE = 1, 2
NO_TABLE: Final = 0xFF
NAT_SRC, NAT_DST, NAT_RANDOM = 1, 2, 16
NAT_IPV4_MIN, NAT_IPV4_MAX, NAT_IPV6_MIN, NAT_IPV6_MAX, NAT_PORT_MIN, NAT_PORT_MAX = 1, 2, 4, 8, 16, 32

LEARN_DELETE_LEARNED: Final = 2
#: Of the 16 bits before each part of a learned flow: bits copied, a constant or a field, a match or a load.
LEARN_BITS, LEARN_LOAD, LEARN_CONSTANT = 0x7FF, 1 << 11, 1 << 13

#: Clauses that a conjunction may have.
CLAUSES_MIN, CLAUSES_MAX = 2, 64

#: NXM_OF_IN_PORT: the 16-bit form of in_port, the only one that can be set.
IN_PORT_HEADER: Final = 0x00000002
