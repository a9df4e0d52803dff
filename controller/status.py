# SPDX-License-Identifier: Apache-2.0
"""How a switch stands, for whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Status:
    """How a switch stands; see ``Switch`` in inspection.proto."""

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
    last_error: str = ""
