# SPDX-License-Identifier: Apache-2.0
"""How a switch stands, for whoever asks.

Of a switch that this controller does not own it says little: whoever owns it knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sdn.openflow import Role


@dataclass(frozen=True, slots=True)
class Status:
    """How a switch stands; see ``Switch`` in inspection.proto."""

    #: This controller owns the switch, and may write it.
    owner: bool = False
    #: There is a connection, whosever the switch is.
    linked: bool = False
    #: What this controller is to the switch by the switch's own last word on this connection, and the highest
    #: generation that the switch had seen then.
    role: Role | None = None
    generation: int = 0
    #: There is a connection, and the switch is ours.
    connected: bool = False
    address: str = ""
    connected_since: datetime | None = None
    desired_flows: int = 0
    installed_flows: int = 0
    desired_groups: int = 0
    installed_groups: int = 0
    synchronized: bool = False
    synchronized_at: datetime | None = None
    repaired: int = 0
    #: The version of the pipeline that the switch holds; 0: none that says so.
    pipeline: int = 0
    last_error: str = ""
