# SPDX-License-Identifier: Apache-2.0
"""The os-ken (Ryu) application: hears which switches come and go, and tells the switchboard.

Loaded by name through os-ken's AppManager. Its handlers run in the application's event thread, whose queue is
short: they never wait.
"""

from __future__ import annotations

from typing import Any

from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_5

from controller.connection import SwitchConnection
from controller.switchboard import Switchboard
from controller.verdicts import Verdicts


class SwitchApp(app_manager.OSKenApp):  # type: ignore[misc]
    """OpenFlow 1.5 only: an older switch is refused in the handshake."""

    OFP_VERSIONS = (ofproto_v1_5.OFP_VERSION,)

    def __init__(
        self, *args: Any, switchboard: Switchboard, verdicts: Verdicts | None = None, **kwargs: Any
    ) -> None:
        """``verdicts`` takes what policies report; None: nobody wants to know."""
        super().__init__(*args, **kwargs)
        self._switchboard = switchboard
        self._verdicts = verdicts
        self._connections: dict[Any, SwitchConnection] = {}

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])  # type: ignore[untyped-decorator]
    def state_changed(self, event: Any) -> None:
        """A datapath has finished the handshake, or its connection has ended."""
        datapath = event.datapath
        if event.state == MAIN_DISPATCHER:
            audit = self._verdicts.audit(datapath.id) if self._verdicts is not None else None
            connection = SwitchConnection(datapath, audit)
            self._connections[datapath] = connection
            self._switchboard.connected(connection)
        elif ended := self._connections.pop(datapath, None):
            self._switchboard.disconnected(ended)
