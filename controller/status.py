# SPDX-License-Identifier: Apache-2.0
"""How a switch stands, for whoever asks.

Of a switch that this controller does not own it says little: whoever owns it knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller.connection import SwitchConnection
from controller.writer import Writer
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
    #: The switch is there and has refused the node's own part, so it was left as it is.
    refused: bool = False
    synchronized_at: datetime | None = None
    repaired: int = 0
    #: The version of the pipeline that the switch holds; 0: none that says so.
    pipeline: int = 0
    last_error: str = ""


def seen(
    before: Status, connection: SwitchConnection | None, writer: Writer, *, owner: bool, news: bool
) -> dict[str, Any]:
    """The fields of the status after work was done; ``news``: something was written since the status before."""
    synchronized = connection is not None and writer.synchronized(connection)
    desired_flows, desired_groups = writer.wanted()
    installed_flows, installed_groups = writer.holdings.installed()
    return {
        "owner": owner,
        "linked": connection is not None,
        "role": before.role if connection is not None else None,
        "connected": owner and connection is not None,
        "address": connection.address if connection is not None else "",
        "connected_since": connection.since if connection is not None else None,
        "desired_flows": desired_flows,
        "installed_flows": installed_flows,
        "desired_groups": desired_groups,
        "installed_groups": installed_groups,
        "synchronized": synchronized,
        "refused": connection is not None and writer.held,
        # Audits that find nothing are none.
        "synchronized_at": datetime.now(UTC)
        if synchronized and (news or not before.synchronized)
        else before.synchronized_at,
        "pipeline": writer.holdings.pipeline,
    }


def stands(status: Status) -> tuple[bool, ...]:
    """What others are told of when it changes."""
    return status.owner, status.linked, status.connected, status.synchronized
