# SPDX-License-Identifier: Apache-2.0
"""Many nodes in one process: of each an agent's session with its owner, and a switch connected to all controllers.

Started by tests/bench/scale.py, which says what to do in lines of JSON; each is answered by one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import grpc

from sdn.v1 import controller_pb2, controller_pb2_grpc, types_pb2
from tests.bench.simulated_switch import Connector, Switch
from tests.switch.controller_process import attachment, node_info

#: Seconds after which a session is opened again, at most; a part of it is left to chance.
_AGAIN: Final = 0.5
_MESSAGE: Final = 32 << 20
_PROBE_SECONDS: Final = 0.1
#: Number of a pod that comes and goes.
_PROBE_POD: Final = 200


class Controller:
    """Where a controller is reached."""

    def __init__(self, grpc_port: int, openflow_port: int) -> None:
        self.address = f"127.0.0.1:{grpc_port}"
        self.openflow_port = openflow_port


def _stream(call: Any) -> AsyncIterator[Any]:
    """The answers of a call over an asyncio channel, which the generated types know nothing of."""
    answers: AsyncIterator[Any] = call
    return answers


def ranged(number: int) -> types_pb2.NodeInfo:
    """A node with ranges of 10.128.0.0/9 and fd00:11::/32."""
    ranges = [f"10.{128 + (number >> 8)}.{number & 255}.0/24", f"fd00:11:0:{number:x}::/64"]
    return node_info(number, pod_ranges=ranges)


class Node:
    """See the module."""

    def __init__(self, number: int, controllers: list[Controller], pods: int) -> None:
        self.number = number
        self.info = ranged(number)
        self._controllers = controllers
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", _MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._stubs = {
            one.address: controller_pb2_grpc.ControllerStub(grpc.aio.insecure_channel(one.address, options))
            for one in controllers
        }
        self.switch = Switch(self.info.datapath_id)
        self.connectors: list[Connector] = []
        self.attached = {pod: attachment(self.info, pod) for pod in range(pods)}
        self.confirmed = 0
        self._full_state = 0
        self.welcomed = self.peers = self.peer_messages = 0
        self.sessions = 0
        self._owner = controller_pb2.Owner()
        self._owner_changed = asyncio.Event()
        self._outgoing: asyncio.Queue[controller_pb2.AgentMessage] | None = None
        self._sequence = 0
        self._answers: dict[int, asyncio.Future[str]] = {}
        self.tasks = [asyncio.create_task(self._watch(stub)) for stub in self._stubs.values()]
        self.tasks.append(asyncio.create_task(self._run()))

    async def _watch(self, stub: controller_pb2_grpc.ControllerStub) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):
                request = controller_pb2.WatchOwnerRequest(node=self.info.name)
                async for owner in _stream(stub.WatchOwner(request)):
                    if owner.generation > self._owner.generation:
                        self._owner = owner
                        self._owner_changed.set()
            await asyncio.sleep(random.uniform(0.1, _AGAIN))

    async def _run(self) -> None:
        asked = self.number
        await asyncio.sleep(0.3)
        while True:
            self._owner_changed.clear()
            address = self._owner.address
            if address not in self._stubs:
                address = self._controllers[asked % len(self._controllers)].address
            asked += 1
            with suppress(grpc.aio.AioRpcError):
                await self._session(self._stubs[address])
            self._outgoing = None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._owner_changed.wait(), random.uniform(0.1, _AGAIN))

    async def _session(self, stub: controller_pb2_grpc.ControllerStub) -> None:
        outgoing: asyncio.Queue[controller_pb2.AgentMessage] = asyncio.Queue()
        outgoing.put_nowait(controller_pb2.AgentMessage(hello=controller_pb2.Hello(node=self.info)))

        async def said() -> Any:
            while True:
                yield await outgoing.get()

        async for message in _stream(stub.Session(said())):
            kind = message.WhichOneof("message")
            if kind == "welcome":
                self.sessions += 1
                self.welcomed = 1
                del self.info.pod_ranges[:]
                self.info.pod_ranges.extend(message.welcome.node.pod_ranges)
                self._sequence += 1
                full = controller_pb2.FullState(
                    sequence=self._sequence, attachments=list(self.attached.values())
                )
                self._full_state = self._sequence
                outgoing.put_nowait(controller_pb2.AgentMessage(full_state=full))
                self._outgoing = outgoing
                if not self.connectors:
                    self.connectors = [Connector(self.switch, one.openflow_port) for one in self._controllers]
            elif kind == "programmed":
                if message.programmed.sequence == self._full_state:
                    self.confirmed = len(self.attached)
                self._settle(message.programmed.sequence, "")
            elif kind == "rejected":
                self._settle(message.rejected.sequence, message.rejected.reason)
            elif kind == "peers":
                self.peer_messages += 1
                self.peers = len(message.peers.nodes)

    def _settle(self, sequence: int, why: str) -> None:
        waiting = self._answers.pop(sequence, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(why)

    async def _ask(self, **what: Any) -> str:
        """Send a message, again in each new session, and wait for the answer."""
        while True:
            while self._outgoing is None:
                await asyncio.sleep(0.02)
            outgoing = self._outgoing
            self._sequence += 1
            (name, message), *_ = what.items()
            message.sequence = self._sequence
            answer = self._answers[self._sequence] = asyncio.get_running_loop().create_future()
            outgoing.put_nowait(controller_pb2.AgentMessage(**{name: message}))
            while self._outgoing is outgoing:
                done, _ = await asyncio.wait([answer], timeout=0.2)
                if done:
                    why: str = answer.result()
                    return why

    async def attach(self, number: int) -> None:
        """One pod; returns when it is in force."""
        while not self.welcomed:
            await asyncio.sleep(0.05)
        item = self.attached[number] = attachment(self.info, number)
        if why := await self._ask(attach=controller_pb2.Attach(attachment=item)):
            print(f"{self.info.name}: {why}", file=sys.stderr, flush=True)
        else:
            self.confirmed += 1

    async def detach(self, number: int) -> None:
        """It goes; returns when its flows have gone."""
        item = self.attached.pop(number)
        what = controller_pb2.Detach(container_id=item.container_id, interface_name=item.interface_name)
        await self._ask(detach=what)
        self.confirmed -= 1


class Nodes:
    """All of this process."""

    def __init__(self, controllers: list[Controller]) -> None:
        self._controllers = controllers
        self.nodes: list[Node] = []
        self._adds: list[float] = []
        self._lags: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop_task = asyncio.create_task(self._watch_loop())

    async def begin(self, first: int, count: int, pods: int) -> None:
        """Nodes with so many pods each, as fast as they can be made."""
        for number in range(first, first + count):
            self.nodes.append(Node(number, self._controllers, pods))
            await asyncio.sleep(0)

    def pods(self, first: int, count: int) -> None:
        """So many more pods on each node, all at once."""
        self._tasks += [
            asyncio.create_task(node.attach(number))
            for number in range(first, first + count)
            for node in self.nodes
        ]

    def probe(self) -> None:
        """From now on: pods that come and go, and echoes."""
        self._tasks.append(asyncio.create_task(self._add_and_remove()))
        self._tasks.append(asyncio.create_task(self._ask_echoes()))

    async def _add_and_remove(self) -> None:
        while True:
            node = random.choice(self.nodes)
            began = time.monotonic()
            await node.attach(_PROBE_POD)
            self._adds.append(time.monotonic() - began)
            await node.detach(_PROBE_POD)
            await asyncio.sleep(_PROBE_SECONDS)

    async def _ask_echoes(self) -> None:
        while True:
            for connector in self.nodes[0].connectors:
                connection = connector.connection
                if connection is not None and connection.ready:
                    connection.ask_echo()
            await asyncio.sleep(_PROBE_SECONDS)

    async def _watch_loop(self) -> None:
        """How long this process itself keeps others waiting: what it measures cannot be finer."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            self._lags.append(time.monotonic() - began - 0.02)

    def cut(self) -> None:
        """All switches lose all connections at once."""
        for node in self.nodes:
            for connector in node.connectors:
                connector.cut()

    def stats(self, since: float) -> dict[str, Any]:
        """What there is; figures that were measured since the last time."""
        switches = [node.switch for node in self.nodes]
        echoes: list[float] = []
        for node in self.nodes[:1]:
            for connector in node.connectors:
                if connector.connection is not None:
                    echoes += connector.connection.echoes
                    connector.connection.echoes.clear()
        adds, self._adds = self._adds, []
        lags, self._lags = self._lags, []
        return {
            "nodes": len(self.nodes),
            "welcomed": sum(node.welcomed for node in self.nodes),
            "sessions": sum(node.sessions for node in self.nodes),
            "pods": sum(node.confirmed for node in self.nodes),
            "peers": min((node.peers for node in self.nodes), default=0),
            "peer_messages": sum(node.peer_messages for node in self.nodes),
            "flows": sum(len(switch.flows) for switch in switches),
            "flows_each": sorted({len(switch.flows) for switch in switches}),
            "masters": sum(switch.master is not None for switch in switches),
            "connections": sum(len(switch.connections) for switch in switches),
            "bundles": sum(switch.bundles for switch in switches),
            "written": sum(switch.written for switch in switches),
            "policies": sum(switch.policies_at >= since for switch in switches),
            "policies_last": max((switch.policies_at for switch in switches), default=0.0),
            "echoes": echoes,
            "adds": adds,
            "lag": max(lags, default=0.0),
        }


async def main() -> None:
    """Do what stdin says."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    begin = json.loads(await reader.readline())
    nodes = Nodes([Controller(*ports) for ports in begin["controllers"]])
    tasks = []
    while line := await reader.readline():
        command = json.loads(line)
        answer: object = None
        match command["do"]:
            case "begin":
                tasks.append(
                    asyncio.create_task(nodes.begin(command["first"], command["count"], command["pods"]))
                )
            case "pods":
                nodes.pods(command["first"], command["count"])
            case "probe":
                nodes.probe()
            case "cut":
                nodes.cut()
            case "stats":
                answer = nodes.stats(command["since"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    # Of sessions that end while something is being sent.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.run(main())
