# SPDX-License-Identifier: Apache-2.0
"""A controller's synchronizer of one switch, which is scripted; the functions that yield are for pytest.fixture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from controller import osken, writer
from controller.connection import SwitchConnection
from controller.synchronizer import Synchronizer
from sdn.openflow import CtTuple, Role
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.topology import Address
from tests.unit.openflow_peer import (
    OpenFlowSide,
    openflow_side,
    wait_for,
)
from tests.unit.scripted_switch import ScriptedSwitch

ADDRESS = Address.parse("10.244.0.2")
TRACKED = (None, CtTuple(source=ADDRESS), None)


def flow(priority: int) -> Flow:
    return Flow(0, priority, match(in_port=1), (), 7, Owner("Node", "", "n"), "a test")


def compiled(*priorities: int) -> Callable[[], list[Flow]]:
    return lambda: [flow(priority) for priority in priorities]


class Node:
    """A controller's synchronizer of the one switch, and what it has said."""

    def __init__(self, side: OpenFlowSide, owned: int | None) -> None:
        self._side = side
        self.deposed: list[tuple[str, int]] = []
        self.told: list[str | None] = []
        #: Which generation the switch had seen, each time.
        self.seen: list[int] = []
        self.synchronizer = Synchronizer("node-1", owned=owned, on_deposed=self._on_deposed)

    def _on_deposed(self, node: str, generation: int, seen: int) -> None:
        self.deposed.append((node, generation))
        self.seen.append(seen)

    def connect(self, **switch: object) -> ScriptedSwitch:
        before = len(self._side.recorder.came)
        connected = ScriptedSwitch(self._side.switch(1), **switch)  # type: ignore[arg-type]
        self.synchronizer.connected(self._side.recorder.came[before])
        return connected

    @property
    def connection(self) -> SwitchConnection:
        connection = self.synchronizer.connection
        assert connection is not None
        return connection

    def submit(self, part: object, *priorities: int) -> None:
        self.synchronizer.submit(part, compiled(*priorities), self.told.append)  # type: ignore[arg-type]

    def wait_synchronized(self) -> None:
        wait_for(lambda: self.synchronizer.status.synchronized, "the switch to be synchronized")

    def wait_role(self, role: Role) -> None:
        wait_for(lambda: self.synchronizer.status.role is role, f"the role {role.name}")

    def close(self) -> None:
        self.synchronizer.stop(close=True)
        self.synchronizer._thread.join(30)

    def settle(self) -> None:
        """Wait until everything submitted before was taken in."""
        taken = threading.Event()
        # Compiled in the synchronizer's thread, whosever the switch is.
        self.synchronizer.submit("settle", lambda: taken.set() or [])  # type: ignore[func-returns-value]
        assert taken.wait(30)


def openflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenFlowSide]:
    monkeypatch.setattr(writer, "FIRST_PAUSE", 0.1)
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


def made_nodes(side: OpenFlowSide) -> Iterator[Callable[[int | None], Node]]:
    with ExitStack() as stack:

        def made(owned: int | None) -> Node:
            node = Node(side, owned)
            stack.callback(node.close)
            return node

        yield made


Make = Callable[[int | None], Node]
