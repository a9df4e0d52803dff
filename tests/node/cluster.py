# SPDX-License-Identifier: Apache-2.0
"""Controllers that only speak the agent's protocol (tests/node/controller.py), which share the nodes among them.

    with cluster(tmp_path, "a", "b") as controllers:
        controllers.give("node-1", "b")

Who owns what is the test's to say; the controllers tell it to the agents that ask. A node that nobody owns belongs to
the controller that its agent opens a session with.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sdn.v1 import controller_pb2 as messages
from tests.node.controller import Controller


class Cluster:
    """The controllers by name, who of them is there, and who owns which node."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._generations = itertools.count(10)
        self.controllers: dict[str, Controller] = {}
        #: Names of those that the others know to be there.
        self.members: set[str] = set()
        self.owners: dict[str, tuple[str, int]] = {}

    def __getitem__(self, name: str) -> Controller:
        return self.controllers[name]

    def add(self, controller: Controller) -> None:
        with self._lock:
            self.controllers[controller.name] = controller
            self.members.add(controller.name)

    def give(self, node: str, name: str, *, told_by: str = "") -> int:
        """A node has another owner; all controllers tell it, or only one does. Its generation."""
        with self._lock:
            generation = next(self._generations)
            self.owners[node] = name, generation
        self.tell(node, told_by=told_by)
        return generation

    def lose(self, *names: str) -> None:
        """The others know that these controllers are not there any more, and tell it."""
        with self._lock:
            self.members -= set(names)
        self.tell_all()

    def find(self, *names: str) -> None:
        """The others know that these controllers are there (again), and tell it."""
        with self._lock:
            self.members |= set(names)
        self.tell_all()

    def tell_all(self) -> None:
        for node in list(self.owners):
            self.tell(node)

    def tell(self, node: str, *, told_by: str = "") -> None:
        for controller in self.controllers.values():
            if controller.name in self.members and told_by in ("", controller.name):
                controller.tell_owner(node, self.word(node))

    def owner(self, node: str) -> str:
        """Name of the owner; empty: nobody."""
        with self._lock:
            return self.owners.get(node, ("", 0))[0]

    # --- what controllers ask

    def word(self, node: str) -> messages.Owner:
        with self._lock:
            name, generation = self.owners.get(node, ("", 0))
            members = [self.controllers[member] for member in sorted(self.members)]
            return messages.Owner(
                controller=name,
                address=self.controllers[name].target if name else "",
                generation=generation,
                openflow_targets=self.targets(),
                controllers=[member.target for member in members],
            )

    def targets(self) -> list[str]:
        with self._lock:
            return [self.controllers[member].openflow_target for member in sorted(self.members)]

    def elsewhere(self, controller: Controller, node: str) -> str:
        with self._lock:
            owner = self.owner(node)
            if owner and owner != controller.name:
                return f"Node {node} is {owner}'s at {self.controllers[owner].target}"
        if not owner:
            self.give(node, controller.name)
        return ""


@contextmanager
def cluster(folder: Path, *names: str) -> Iterator[Cluster]:
    """Running controllers of these names; their OpenFlow targets are ports from 6653 on."""
    together = Cluster()
    with ExitStack() as stack:
        for number, name in enumerate(names):
            target = f"tcp:172.31.0.1:{6653 + number}"
            controller = Controller(folder, name=name, cluster=together, openflow_target=target)
            together.add(controller)
            stack.enter_context(controller)
        yield together
