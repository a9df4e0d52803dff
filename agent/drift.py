# SPDX-License-Identifier: Apache-2.0
"""What somebody changes in Open vSwitch's database is noticed at once, put right, and told.

The replica sees each change. Those that touch what the agent keeps (settings of its bridges, their controllers and own
ports, all other ports of br-int) let it be looked at after a moment, in which more may come; its own changes are among
them, and what is looked at then is as it must be. What is done to the kernel's interface of a pod's port is among the
changes, too: ovs-vswitchd reports it there. What `ovs-ofctl` does to a port is not: see `agent.portconfig`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from agent.nodesetup.facts import PHYSICAL_BRIDGE
from agent.ovsdb import RowChange
from agent.ports import INTEGRATION_BRIDGE, OWN_PORTS
from agent.rows import UNSET
from sdn import logs

log: Final = logs.get("agent.drift")

#: Seconds in which more may come.
DEBOUNCE_SECONDS: Final = 0.1

MISSING, CHANGED, UNKNOWN = "missing", "changed", "unknown"

#: Called with how something was not as it must be, and what it was.
Found = Callable[[str, str], None]

#: Columns that must be what they are; others tell what ovs-vswitchd has made of them, or are notes of others.
_KEPT: Final = {
    "Bridge": frozenset({*UNSET["Bridge"], "controller"}),
    "Port": frozenset({*UNSET["Port"], "interfaces", "external_ids"}),
    "Interface": frozenset({*UNSET["Interface"], "external_ids", "admin_state", "mtu"}),
}
_BRIDGES: Final = frozenset({INTEGRATION_BRIDGE, PHYSICAL_BRIDGE})


class Drift:
    """Decides what a change touches. ``changed`` is called in the replica's thread."""

    def __init__(self, uplink: str, setup: Callable[[], None], ports: Callable[[set[str]], None]) -> None:
        """``setup`` is called when br-int, br-phy or one of their own ports may have to be mended, ``ports`` with the
        names of other ports that may, empty: all of them. Both in a thread of this. ``uplink`` is br-phy's own port.
        """
        self._own = OWN_PORTS | {PHYSICAL_BRIDGE, uplink}
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
        names = _ports_of(change)
        setup = _touches_setup(change) or not names.isdisjoint(self._own)
        # With a bridge its ports go, and come again when it is there again.
        everything = (change.event, change.table, change.name) == ("create", "Bridge", INTEGRATION_BRIDGE)
        touched = names - self._own
        if not setup and not everything and not touched:
            return
        with self._condition:
            self._setup_touched |= setup
            self._all_touched |= everything
            self._touched |= touched
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
            return change.name in _BRIDGES and not change.columns.isdisjoint(_KEPT["Bridge"])
        case "Bridge", "delete":
            return change.name in _BRIDGES
    return False


def _ports_of(change: RowChange) -> frozenset[str]:
    """The ports that may not be as they must be any more, whosever they are."""
    match change.table, change.event:
        case "Bridge", "update":
            return change.ports
        case "Port" | "Interface", "update":
            kept = not change.columns.isdisjoint(_KEPT[change.table])
            return frozenset({change.name}) if kept else frozenset()
        case "Port" | "Interface", _:
            return frozenset({change.name})
    return frozenset()
