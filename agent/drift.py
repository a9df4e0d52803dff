# SPDX-License-Identifier: Apache-2.0
"""What somebody changes in Open vSwitch's database is noticed at once, put right, and told.

The replica sees each change. Those that touch what the agent keeps (settings of br-int, its controllers, its own ports,
ports of pods) let it be looked at after a moment, in which more may come; its own changes are among them, and what is
looked at then is as it must be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from agent.nodesetup.facts import GATEWAY_INTERFACE, TUNNEL_INTERFACE
from agent.ovsdb import RowChange
from agent.ports import INTEGRATION_BRIDGE
from agent.state import HOST_PREFIX
from sdn import logs

log: Final = logs.get("agent.drift")

#: Seconds in which more may come.
DEBOUNCE_SECONDS: Final = 0.1

MISSING, CHANGED, UNKNOWN = "missing", "changed", "unknown"

#: Called with how something was not as it must be, and what it was.
Found = Callable[[str, str], None]

_BRIDGE: Final = frozenset({"controller", "fail_mode", "protocols", "datapath_type", "other_config"})
_OWN: Final = frozenset({"type", "options", "mac", "mtu_request", "ofport_request"})
_POD: Final = frozenset({"ofport_request", "external_ids", "type"})


class Drift:
    """Decides what a change touches. ``changed`` is called in the replica's thread."""

    def __init__(self, setup: Callable[[], None], ports: Callable[[set[str]], None]) -> None:
        """``setup`` is called when br-int may have to be mended, ``ports`` with the names of pods' ports that may,
        empty: all of them. Both in a thread of this.
        """
        self._setup = setup
        self._ports = ports
        self._condition = threading.Condition()
        self._setup_touched = self._all_touched = False
        self._touched: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        with self._condition:
            self._condition.notify()

    def changed(self, change: RowChange) -> None:
        """A row of the database has changed."""
        setup, ports = _touches_setup(change), _touches_ports(change)
        if not setup and not ports:
            return
        with self._condition:
            self._setup_touched |= setup
            if change.table == "Interface" and ports:
                self._touched.add(change.name)
            else:
                self._all_touched |= ports
            self._condition.notify()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._condition:
                while not (self._setup_touched or self._all_touched or self._touched or self._stop.is_set()):
                    self._condition.wait()
            self._stop.wait(DEBOUNCE_SECONDS)
            with self._condition:
                setup, everything, touched = self._setup_touched, self._all_touched, self._touched
                self._setup_touched = self._all_touched = False
                self._touched = set()
            if setup:
                self._setup()
            if everything:
                self._ports(set())
            elif touched:
                self._ports(touched)


def _touches_setup(change: RowChange) -> bool:
    match change.table, change.event:
        case "Controller", _:
            return True
        case "Bridge", "update":
            return change.name == INTEGRATION_BRIDGE and bool(change.columns & _BRIDGE)
        case "Bridge", "delete":
            return change.name == INTEGRATION_BRIDGE
        case "Interface", "update":
            return change.name in (GATEWAY_INTERFACE, TUNNEL_INTERFACE) and bool(change.columns & _OWN)
        case "Interface", "delete":
            return change.name in (GATEWAY_INTERFACE, TUNNEL_INTERFACE)
    return False


def _touches_ports(change: RowChange) -> bool:
    if change.table == "Bridge":
        # With a bridge its ports go, and come again when it is there again.
        return change.event == "create" and change.name == INTEGRATION_BRIDGE
    if change.table != "Interface" or not change.name.startswith(HOST_PREFIX):
        return False
    return change.event != "update" or bool(change.columns & _POD)
