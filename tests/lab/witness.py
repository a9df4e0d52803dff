# SPDX-License-Identifier: Apache-2.0
"""Two witnesses of who wrote to the switches of a lab: the switches' own logs, and etcd's history of the owners."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sdn.lab.lab import Lab
from sdn.lab.programs import OPENFLOW_PORT
from sdn.lab.waiting import wait_until
from tests.lab import fencing, switchlog
from tests.lab.fencing import Account
from tests.lab.ownerhistory import OwnerHistory

#: Loggers that tell of controllers and their leases.
_OF_CONTROLLERS = (
    "controller.marks",
    "controller.ownership",
    "controller.membership",
    "controller.heartbeat",
)


def whole(lab: Lab) -> bool:
    """Every switch has an owner that has synchronized it, and every controller has one, or as many as others."""
    switches = lab.switches().values()
    owners = {switch.owner for switch in switches if switch.connected and switch.synchronized}
    return len(switches) == len(lab.spec.node_machines) and len(owners) == len(lab.spec.controller_machines)


def wait_whole(lab: Lab, seconds: float = 90) -> None:
    """LabError when it never comes to that."""
    wait_until(
        lambda: whole(lab), "each controller to own a switch", seconds, because=lambda: _how_it_stands(lab)
    )


def _how_it_stands(lab: Lab) -> str:
    """Whose the switches are, who is there, and what each controller said last of itself and others."""
    owners = [
        f"{node}: {switch.owner}'s, connected {switch.connected}, synchronized {switch.synchronized}"
        for node, switch in lab.switches().items()
    ]
    asked = [sys.executable, "-m", "sdn.cli.main", "--lab", lab.name, "controllers"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    said = [
        line
        for controller in lab.spec.controller_machines
        for line in [
            line
            for line in lab.log(controller.name).read_text(encoding="utf-8", errors="replace").splitlines()
            if any(word in line for word in _OF_CONTROLLERS)
        ][-12:]
    ]
    return "\n".join([*owners, shown.stdout + shown.stderr, *said])


class Witness:
    """Asked after the fact."""

    def __init__(self, lab: Lab, history: OwnerHistory) -> None:
        self._lab = lab
        self._history = history
        #: By the name that Open vSwitch gives the connection to it.
        self.controllers = {
            f"tcp:{machine.ipv4}:{OPENFLOW_PORT}": machine.name for machine in lab.spec.controller_machines
        }

    def accounts(self) -> dict[str, Account]:
        """What each node's switch tells."""
        return {
            node.name: fencing.account(switchlog.of_node(self._lab, node.name))
            for node in self._lab.spec.node_machines
        }

    def violations(self, accounts: dict[str, Account]) -> list[str]:
        """What must not be, of all nodes."""
        owners = self._history.owners()
        return [
            f"{node}: {problem}"
            for node, told in accounts.items()
            for problem in fencing.violations(told, self.controllers, owners.get(node, {}))
        ]

    def connection_to(self, controller: str) -> str:
        """The name that Open vSwitch gives it."""
        return next(name for name, its in self.controllers.items() if its == controller)


@contextmanager
def watching(lab: Lab) -> Iterator[Witness]:
    """For the time of the `with` block both are written. The controllers are started anew first."""
    with OwnerHistory(lab) as history:
        switchlog.begin(lab)
        wait_whole(lab)
        yield Witness(lab, history)
