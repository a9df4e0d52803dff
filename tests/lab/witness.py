# SPDX-License-Identifier: Apache-2.0
"""Two witnesses of who wrote to the switches of a lab: the switches' own logs, and etcd's history of the owners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdn.lab.lab import Lab
from sdn.lab.programs import OPENFLOW_PORT
from sdn.lab.waiting import wait_until
from tests.lab import fencing, switchlog
from tests.lab.fencing import Account
from tests.lab.ownerhistory import OwnerHistory


def whole(lab: Lab) -> bool:
    """Every switch has an owner that has synchronized it, and every controller has one, or as many as others."""
    switches = lab.switches().values()
    owners = {switch.owner for switch in switches if switch.connected and switch.synchronized}
    return len(switches) == len(lab.spec.node_machines) and len(owners) == len(lab.spec.controller_machines)


def wait_whole(lab: Lab, seconds: float = 90) -> None:
    """LabError when it never comes to that."""
    wait_until(lambda: whole(lab), "each controller to own a switch", seconds)


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
