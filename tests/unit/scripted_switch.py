# SPDX-License-Identifier: Apache-2.0
"""A switch that takes what a synchronizer writes, and misbehaves as no real one can be made to."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

from sdn.openflow.bundle import BundleControl
from sdn.openflow.wire import (
    OFPMP_DESC,
    OFPMP_FLOW_DESC,
    OFPT_BARRIER_REPLY,
    OFPT_BARRIER_REQUEST,
    OFPT_BUNDLE_ADD_MESSAGE,
    OFPT_BUNDLE_CONTROL,
    OFPT_ERROR,
    OFPT_EXPERIMENTER,
    OFPT_MULTIPART_REPLY,
    OFPT_MULTIPART_REQUEST,
)
from tests.unit.openflow_peer import ROLE_REQUEST, SLAVE, Peer, Roles, message


class ScriptedSwitch:
    """Answers as a switch with no entries; ``on_close`` may answer a bundle's close request instead. ``roles`` are
    those of its controllers.
    """

    def __init__(
        self,
        peer: Peer,
        on_close: Callable[[int], bytes | None] = lambda _: None,
        flows: bytes = b"",
        roles: Roles | None = None,
    ) -> None:
        self.comparisons = 0
        self.commits = 0
        self.flushes = 0
        self.roles = roles or Roles()
        #: Called before a commit is looked at.
        self.before_commit: Callable[[], None] = lambda: None
        #: Called after a flush, before it is confirmed; False: it never is.
        self.after_flush: Callable[[], bool] = lambda: True
        self._silent = False
        self.peer = peer
        self.on_close = on_close
        self._flows = flows
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                kind, xid, body = self.peer.receive()
                if answer := self._answer(kind, xid, body):
                    self.peer.send(answer)
        except OSError:
            return

    def _answer(self, kind: int, xid: int, body: bytes) -> bytes | None:
        if kind == ROLE_REQUEST:
            return self.roles.answer(self.peer, xid, body)
        if kind == OFPT_BUNDLE_CONTROL and body[4:6] == struct.pack("!H", BundleControl.COMMIT_REQUEST):
            self.before_commit()
        if kind in (OFPT_BUNDLE_CONTROL, OFPT_BUNDLE_ADD_MESSAGE) and self.roles.role(self.peer) == SLAVE:
            return message(OFPT_ERROR, Roles.IS_SLAVE, xid)
        if kind == OFPT_EXPERIMENTER:
            self.flushes += 1
            self._silent = not self.after_flush()
            return None
        if kind == OFPT_MULTIPART_REQUEST:
            if body[:2] == struct.pack("!H", OFPMP_DESC):
                return message(OFPT_MULTIPART_REPLY, body[:2] + bytes(6) + bytes(1056), xid)
            is_flows = body[:2] == struct.pack("!H", OFPMP_FLOW_DESC)
            self.comparisons += is_flows
            return message(
                OFPT_MULTIPART_REPLY, body[:2] + bytes(6) + (self._flows if is_flows else b""), xid
            )
        if kind == OFPT_BARRIER_REQUEST:
            if self._silent:
                return None
            return message(OFPT_BARRIER_REPLY, xid=xid)
        if kind == OFPT_BUNDLE_CONTROL:
            bundle_id, request, flags = struct.unpack("!IHH", body[:8])
            if request == BundleControl.CLOSE_REQUEST and (other := self.on_close(xid)):
                return other
            self.commits += request == BundleControl.COMMIT_REQUEST
            return message(OFPT_BUNDLE_CONTROL, struct.pack("!IHH", bundle_id, request + 1, flags), xid)
        return None


def description(key: bytes, body: bytes) -> bytes:
    """One flow description (OpenFlow 1.5, section 7.3.5.2) with empty statistics."""
    entry = key[:4] + body[:16] + key[4:] + struct.pack("!HH4x", 0, 4) + body[16:]
    return struct.pack("!H2x", len(entry) + 4) + entry
