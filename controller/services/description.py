# SPDX-License-Identifier: Apache-2.0
"""A Service with all that is behind it: endpoints, what each node's switch holds of it, connections, events.

Nodes are asked beside each other, a few at a time, each for a bounded time. A node that does not answer is told
with the reason, and the others are shown all the same.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from controller.connection import SwitchConnection
from controller.engine import CountConnections, Engine
from controller.errors import NotFoundError, UnavailableError
from controller.services.convert import to_struct
from controller.services.listing import read_entries
from controller.transport import ConnectionClosedError
from sdn.model import Service
from sdn.openflow import CodecError
from sdn.pipeline.flow import Flow, Group
from sdn.services.endpoints import ServiceEndpoint
from sdn.v1 import controller_pb2, inspection_pb2

#: Nodes that are asked at a time.
AT_ONCE = 16
#: Seconds that a node's switch, and its agent, have to answer.
PATIENCE = 10.0

#: Address, port, protocol of an endpoint.
_Target = tuple[str, int, str]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Describer:
    """Reads switches in ``threads``; ``count`` asks whoever has a session with the node's agent, ``elsewhere`` what the
    owner of a node's switch says of a Service on it (namespace, name, node), None: there is nobody else to ask.
    """

    engine: Engine
    threads: Executor
    count: CountConnections
    elsewhere: Callable[[str, str, str], Awaitable[inspection_pb2.ServiceOnNode | None]]

    async def describe(self, namespace: str, name: str, node: str) -> inspection_pb2.DescribeServiceResponse:
        """``node`` empty: as all nodes have it. NotFoundError."""
        engine = self.engine
        service = engine.cluster.objects["Service"].get((namespace, name))
        document = engine.watchers.document("Service", namespace, name)
        if not isinstance(service, Service) or document is None:
            raise NotFoundError(f"Service {namespace}/{name} does not exist")
        if node and node not in engine.cluster.nodes:
            raise NotFoundError(f"Node {node} is not registered")
        endpoints = engine.loadbalancing.index.endpoints((namespace, name))
        targets = sorted({target for endpoint in endpoints for target in _targets(endpoint)})
        front = functools.partial(is_front, fronts(engine, service))
        gate = asyncio.Semaphore(AT_ONCE)
        answers = await asyncio.gather(
            *(
                self._ask(one, service, targets, front, gate, not node)
                for one in ([node] if node else sorted(engine.cluster.nodes))
            )
        )
        total: Counter[_Target] = Counter()
        for _, counts in answers:
            total.update(counts)
        return inspection_pb2.DescribeServiceResponse(
            service=to_struct(document),
            endpoints=[entry for endpoint in endpoints for entry in _entries(endpoint, total)],
            nodes=[answer for answer, _ in answers],
            events=[to_struct(event) for event in engine.events.about("Service", namespace, name)],
        )

    async def _ask(
        self,
        node: str,
        service: Service,
        targets: Sequence[_Target],
        front: Callable[[controller_pb2.Destination], bool],
        gate: asyncio.Semaphore,
        everywhere: bool,
    ) -> tuple[inspection_pb2.ServiceOnNode, Counter[_Target]]:
        """What a node's switch holds of the Service, and how many connections it tracks to each endpoint."""
        answer = inspection_pb2.ServiceOnNode(node=node)
        counts: Counter[_Target] = Counter()
        problems: list[str] = []
        async with gate:
            read, counted = await asyncio.gather(
                self._read(node, service, everywhere), self._count(node, targets), return_exceptions=True
            )
        if isinstance(read, BaseException):
            problems.append(_told(read))
        else:
            answer.flows.extend(read[0])
            answer.groups.extend(read[1])
        if isinstance(counted, BaseException):
            problems.append(_told(counted))
        else:
            for count in counted.counts:
                if front(count.frontend):
                    target = count.endpoint
                    counts[target.address, target.port, target.protocol] += count.connections
        answer.connections = counts.total()
        answer.error = "; ".join(problems)
        return answer, counts

    async def _read(
        self, node: str, service: Service, everywhere: bool
    ) -> tuple[list[inspection_pb2.FlowEntry], list[inspection_pb2.GroupEntry]]:
        key = service.metadata.namespace, service.metadata.name
        # A request for this node alone would have gone to its owner as it was.
        if everywhere and (told := await self.elsewhere(*key, node)) is not None:
            if told.error and not told.flows and not told.groups:
                raise UnavailableError(told.error)
            return list(told.flows), list(told.groups)
        wanted: Callable[[], list[Flow | Group]] = self.engine.loadbalancing.entries_on(node, key)
        return await read_switch(
            self.engine, node, self.threads, lambda connection: read_entries(connection, wanted())
        )

    async def _count(self, node: str, targets: Sequence[_Target]) -> controller_pb2.ConnectionCounts:
        if not targets:
            return controller_pb2.ConnectionCounts()
        destinations = [
            controller_pb2.Destination(address=address, port=port, protocol=protocol)
            for address, port, protocol in targets
        ]
        return await self.count(node, destinations, PATIENCE)


async def read_switch(
    engine: Engine, node: str, threads: Executor, read: Callable[[SwitchConnection], Found]
) -> Found:
    """What ``read``, in one of ``threads``, finds in a node's switch. UnavailableError when that cannot be told."""
    synchronizer = engine.programs.synchronizer(node)
    connection = synchronizer.connection if synchronizer is not None else None
    if connection is None:
        raise UnavailableError(f"the switch of Node {node} is not connected")
    reading = asyncio.get_running_loop().run_in_executor(threads, read, connection)
    try:
        return await asyncio.wait_for(reading, PATIENCE)
    except TimeoutError:
        raise UnavailableError(f"the switch of Node {node} does not answer") from None
    except (ConnectionClosedError, CodecError) as problem:
        raise UnavailableError(f"the switch of Node {node}: {problem}") from None


def fronts(engine: Engine, service: Service) -> tuple[set[_Target], set[tuple[int, str]]]:
    """Where clients reach a Service: addresses with ports, and node ports."""
    spec = service.spec
    key = service.metadata.namespace, service.metadata.name
    pool = [str(address) for address in engine.allocation.load_balancer_addresses(*key)]
    addresses = [*spec.addresses, *pool, *spec.external_ips]
    at_address = {
        (str(ipaddress.ip_address(address)), port.port, port.protocol)
        for address in addresses
        for port in spec.ports
    }
    return at_address, {(port.node_port, port.protocol) for port in spec.ports if port.node_port}


def is_front(
    places: tuple[set[_Target], set[tuple[int, str]]], destination: controller_pb2.Destination
) -> bool:
    """Whether clients of a Service, reached at these places, had connected to this destination. An endpoint may serve
    several Services; a node port is told by its number alone, since each node has several addresses for it.
    """
    at_address, node_ports = places
    try:
        address = str(ipaddress.ip_address(destination.address))
    except ValueError:
        return False
    known = (address, destination.port, destination.protocol) in at_address
    return known or (destination.port, destination.protocol) in node_ports


def _targets(endpoint: ServiceEndpoint) -> Iterable[_Target]:
    address = str(endpoint.address)
    return ((address, number, protocol.name) for _, protocol, number in endpoint.ports)


def _entries(
    endpoint: ServiceEndpoint, connections: Counter[_Target]
) -> Iterable[inspection_pb2.ServiceEndpoint]:
    """One entry for each port of an endpoint; an endpoint without a port has one, too."""
    address = str(endpoint.address)
    common = inspection_pb2.ServiceEndpoint(
        address=address,
        node=endpoint.node,
        zone=endpoint.zone,
        target=endpoint.target,
        ready=endpoint.ready,
        serving=endpoint.serving,
        terminating=endpoint.terminating,
    )
    if not endpoint.ports:
        yield common
    for name, protocol, number in endpoint.ports:
        entry = inspection_pb2.ServiceEndpoint(
            port_name=name,
            port=number,
            protocol=protocol.name,
            connections=connections[address, number, protocol.name],
        )
        entry.MergeFrom(common)
        yield entry


def _told(problem: BaseException) -> str:
    """The text of an expected problem; any other is a defect, and raised."""
    if isinstance(problem, UnavailableError):
        return str(problem)
    raise problem
