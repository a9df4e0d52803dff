# SPDX-License-Identifier: Apache-2.0
"""Ports that the node's own connections have, beside those of Services.

Clients from outside appear to pods as the node with a port below the first NodePort, so the node's own connections must
not use those; and one on a NodePort would be led into the switch.
"""

from __future__ import annotations

from typing import Final

from agent.nodesetup import sysctl
from agent.nodesetup.facts import Assignment
from sdn import logs

log: Final = logs.get("agent.nodesetup")


class OwnPorts:
    """Tells once when the two overlap, and again when the node's are others."""

    def __init__(self) -> None:
        self._told: tuple[int, int] | None = None

    def look(self, assignment: Assignment) -> None:
        """Compare them."""
        own = sysctl.own_ports()
        if own is None or not assignment.node_port_last or own == self._told:
            return
        self._told = own
        if own[0] <= assignment.node_port_last:
            log.warning(
                "the node's own connections may use ports of Services: raise net.ipv4.ip_local_port_range",
                first=own[0],
                last=own[1],
                node_ports=f"{assignment.node_port_first}-{assignment.node_port_last}",
            )
