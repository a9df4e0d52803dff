# SPDX-License-Identifier: Apache-2.0
"""Switches as people are shown them: those that this controller owns by itself, all others as their owners tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from typing import Any, Final

import grpc

from controller.engine import Engine
from controller.errors import UnavailableError
from controller.ha.colleagues import Colleagues
from controller.status import Status
from sdn import logs
from sdn.v1 import inspection_pb2

log = logs.get("controller.inspection")

#: Seconds in which more may change: a node's pods come one after the other.
COALESCE_SECONDS: Final = 0.1
#: Seconds until a controller that does not answer is asked again.
AGAIN_SECONDS: Final = 1.0


class Switches:
    """Runs in the asyncio thread."""

    def __init__(self, engine: Engine, colleagues: Colleagues) -> None:
        self._engine = engine
        self._colleagues = colleagues
        self._loop = asyncio.get_running_loop()
        self._feeds: set[_Feed] = set()
        #: What other controllers say of the switches that they own, by controller and node.
        self._told: dict[str, dict[str, inspection_pb2.Switch]] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        engine.on_switch = self._note
        engine.watchers.node_state = self.state
        self._task = self._loop.create_task(self._follow_all())

    # One switch.

    def state(self, node: str) -> tuple[bool, Status]:
        """Whether the node's agent is connected to the owner of its switch, and how the switch stands there."""
        if not self._engine.ownership.owns(node):
            told = self._told_of(node)
            if told is None:
                return False, Status()
            return told.agent_connected, Status(
                connected=told.connected, synchronized=told.synchronized, last_error=told.last_error
            )
        return self._engine.watchers.agent_connected(node), self._engine.programs.status(node)

    async def agent_connected(self, node: str) -> bool:
        """Whether the node's agent is connected to the owner of its switch, as the owner says when it is asked: what it
        told before may be old, or lost with its stream. An owner that is not there has no agents. UnavailableError.
        """
        ownership = self._engine.ownership
        if ownership.owns(node):
            return self._engine.watchers.agent_connected(node)
        owner = ownership.owner(node)
        if owner is None:
            return False
        for switch in await self._colleagues.switches(owner.controller):
            if switch.node == node:
                return switch.agent_connected
        raise UnavailableError(
            f"Node {node}: Controller {owner.controller}, which owns it, does not say whether its agent is connected; "
            "try again"
        )

    def _told_of(self, node: str) -> inspection_pb2.Switch | None:
        owner = self._engine.ownership.owners().get(node)
        return self._told.get(owner.controller, {}).get(node) if owner is not None else None

    def own(self, node: str) -> inspection_pb2.Switch:
        """A switch that this controller owns."""
        synchronizer = self._engine.programs.synchronizer(node)
        if synchronizer is None:
            raise AssertionError(f"registered node {node} has no synchronizer")
        status = self._engine.programs.status(node)
        switch = inspection_pb2.Switch(
            node=node,
            datapath_id=self._engine.cluster.nodes[node].datapath_id,
            address=status.address,
            connected=status.connected,
            desired_flows=status.desired_flows,
            installed_flows=status.installed_flows,
            desired_groups=status.desired_groups,
            installed_groups=status.installed_groups,
            synchronized=status.synchronized,
            repaired=status.repaired,
            last_error=status.last_error,
            owner=self._engine.ownership.members.name,
            generation=self._engine.ownership.generation_of(node) or 0,
            agent_connected=self._engine.watchers.agent_connected(node),
            pipeline=status.pipeline,
        )
        _set_time(switch.connected_since, status.connected_since)
        _set_time(switch.synchronized_at, status.synchronized_at)
        for repair in synchronizer.repairs.last():
            told = switch.last_repairs.add(kind=repair.kind, what=repair.what)
            _set_time(told.time, repair.at)
        return switch

    def _unheard(self, node: str) -> inspection_pb2.Switch:
        """A switch of whose owner nothing is heard."""
        owner = self._engine.ownership.owners().get(node)
        return inspection_pb2.Switch(
            node=node,
            datapath_id=self._engine.cluster.nodes[node].datapath_id,
            owner=owner.controller if owner is not None else "",
            generation=owner.generation if owner is not None else 0,
        )

    def _owned(self, node: str) -> bool:
        return node in self._engine.cluster.nodes and self._engine.ownership.owns(node)

    # All of them.

    async def list(self, own_only: bool) -> list[inspection_pb2.Switch]:
        """As they are now, in the order of their nodes' names."""
        own = {name: self.own(name) for name in self._engine.cluster.nodes if self._owned(name)}
        if own_only:
            return [own[name] for name in sorted(own)]
        answers = await asyncio.gather(*map(self._colleagues.switches, self._colleagues.others()))
        told = {switch.node: switch for switches in answers for switch in switches}
        return [
            own.get(name) or told.get(name) or self._unheard(name)
            for name in sorted(self._engine.cluster.nodes)
        ]

    async def watch(self) -> AsyncGenerator[inspection_pb2.Switch, None]:
        """Those that this controller owns, then each that changes."""
        feed = _Feed(name for name in sorted(self._engine.cluster.nodes) if self._owned(name))
        self._feeds.add(feed)
        try:
            while True:
                for node in await feed.next():
                    if self._owned(node):
                        yield self.own(node)
                    else:
                        yield inspection_pb2.Switch(node=node)
                await asyncio.sleep(COALESCE_SECONDS)
        finally:
            self._feeds.discard(feed)

    def _note(self, node: str) -> None:
        for feed in self._feeds:
            feed.note(node)

    # What others tell.

    async def _follow_all(self) -> None:
        """Follow each other controller for as long as it is there."""
        while True:
            # Before it is looked at, so that nothing is missed.
            changed = self._loop.create_task(self._engine.ownership.next_change())
            others = self._colleagues.others()
            for name in self._following.keys() - others.keys():
                self._following.pop(name).cancel()
            for name in others.keys() - self._following.keys():
                self._following[name] = self._loop.create_task(self._follow(name))
            await changed

    async def _follow(self, name: str) -> None:
        while True:
            try:
                async for switch in self._colleagues.watch_switches(name):
                    self._take(name, switch)
            except grpc.aio.AioRpcError as problem:
                log.debug(
                    "another controller's switches are not told", controller=name, error=problem.details()
                )
            finally:
                for node in self._told.pop(name, {}):
                    self._changed(node)
            await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, name: str, switch: inspection_pb2.Switch) -> None:
        told = self._told.setdefault(name, {})
        if switch.owner:
            told[switch.node] = switch
        else:
            told.pop(switch.node, None)
        self._changed(switch.node)

    def _changed(self, node: str) -> None:
        if not self._owned(node):
            self._engine.watchers.changed("Node", "", node)

    async def close(self) -> None:
        """Follow nobody any more."""
        tasks = [self._task, *self._following.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Feed:
    """Nodes that have changed since they were taken last; each once, however often."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._nodes = dict.fromkeys(nodes)
        self._some = asyncio.Event()
        self._some.set()

    def note(self, node: str) -> None:
        self._nodes[node] = None
        self._some.set()

    async def next(self) -> list[str]:
        await self._some.wait()
        self._some.clear()
        nodes, self._nodes = list(self._nodes), {}
        return nodes


def _set_time(field: Any, value: datetime | None) -> None:
    if value is not None:
        field.FromDatetime(value)
