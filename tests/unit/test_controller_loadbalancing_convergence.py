# SPDX-License-Identifier: Apache-2.0
"""Whatever has changed in whatever order, every node has what a controller that starts afresh would give it."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from controller.allocation.network import load_balancer_ranges
from controller.engine import Engine
from controller.errors import NotFoundError
from controller.services.convert import node_info
from sdn.model import InvalidObjectError, parse
from sdn.pipeline.service import ServicePort
from tests.switch.controller_process import attachment
from tests.unit.services_engine import confirm, endpoint_slice, host_pod, register, running_engine, service

STEPS = 250
NETWORK = {"load_balancer_ranges": load_balancer_ranges(["192.0.2.0/24"], [], []), "serve_dns": True}
SPECS: list[dict[str, Any]] = [
    {},
    {"ipFamilyPolicy": "PreferDualStack"},
    {"internalTrafficPolicy": "Local"},
    {"type": "NodePort", "externalTrafficPolicy": "Local"},
    {"type": "LoadBalancer"},
    {"trafficDistribution": "PreferClose"},
    {"trafficDistribution": "PreferSameNode", "sessionAffinity": "ClientIP"},
    {"externalIPs": ["172.30.0.1", "203.0.113.9"]},
    {"clusterIP": "None"},
    {"publishNotReadyAddresses": True},
]


def ignored(_refused: str | None) -> None:
    """Whether it is in force is said by the test."""


class Walk:
    """Random changes of everything that Services depend on."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)

    async def begin(self) -> None:
        for number in (1, 2, 3):
            await register(self.engine, number, zone="a")

    async def step(self) -> None:
        name = f"s{self.random.randrange(4)}"
        node = self.random.randrange(1, 4)
        await self.random.choice(
            [self.service, self.service, self.slice, self.host_pod, self.pod, self.pod, self.pod, self.node]
        )(name, node)
        if self.random.random() < 0.3:
            await self.engine.loadbalancing.idle()

    async def apply(self, document: dict[str, Any]) -> None:
        await self.engine.declarations.apply(parse(document), False)

    async def remove(self, kind: str, name: str) -> None:
        try:
            await self.engine.declarations.remove(kind, "default", name)
        except NotFoundError:
            return

    async def service(self, name: str, _node: int) -> None:
        # Applied over another kind of Service some fields may not change; so it is made anew.
        await self.remove("Service", name)
        if self.random.random() < 0.8:
            # Two cannot have one externalIP with one port.
            with suppress(InvalidObjectError):
                await self.apply(service(name, **self.random.choice(SPECS)))

    async def slice(self, name: str, node: int) -> None:
        slice_name = f"slice-{self.random.randrange(3)}"
        if self.random.random() < 0.3:
            await self.remove("EndpointSlice", slice_name)
            return
        addresses = [f"198.51.100.{self.random.randrange(1, 6)}"]
        fields: dict[str, Any] = {"zone": self.random.choice("ab"), "nodeName": f"node-{node}"}
        if self.random.random() < 0.3:
            fields["hints"] = {"forZones": [{"name": self.random.choice("ab")}]}
        await self.apply(endpoint_slice(slice_name, name, *addresses, **fields))

    async def host_pod(self, name: str, node: int) -> None:
        pod = f"host-{self.random.randrange(3)}"
        if self.random.random() < 0.3:
            await self.remove("Pod", pod)
        else:
            await self.apply(host_pod(pod, f"node-{node}", self.random.random() < 0.7, app=name))

    async def pod(self, name: str, node: int) -> None:
        number = self.random.randrange(4)
        info = self.engine.cluster.nodes[f"node-{node}"]
        container = f"node-{node}-container-{number}"
        if self.random.random() < 0.3:
            await self.engine.attachments.detach(info.name, container, "eth0", ignored)
            return
        message = attachment(node_info(info), number, labels={"app": name})
        await self.engine.attachments.attach(info.name, message, ignored)
        if self.random.random() < 0.7:
            await confirm(self.engine)

    async def node(self, _name: str, node: int) -> None:
        fields: dict[str, Any] = {}
        if self.random.random() < 0.3:
            own = f"172.30.9.{node}"
            fields = {"addresses": [own], "tunnel_address": own}
        await register(self.engine, node, zone=self.random.choice("ab"), **fields)


def everything(engine: Engine) -> dict[tuple[str, str, str], tuple[ServicePort, ...]]:
    """What each node has of each Service."""
    return {
        (node, *key): engine.loadbalancing.shared_on(node, key).ports
        for node in engine.programs.nodes()
        for key in engine.loadbalancing.index.services
    }


@pytest.mark.parametrize("seed", range(4))
def test_what_has_grown_is_what_a_fresh_start_gives(tmp_path: Path, seed: int) -> None:
    async def run() -> None:
        async with running_engine(tmp_path, **NETWORK) as engine:
            walk = Walk(engine, seed)
            await walk.begin()
            for _ in range(STEPS):
                await walk.step()
            await confirm(engine)
            await engine.loadbalancing.idle()
            grown = everything(engine)
            states = {
                (node, key): engine.states.state(key, node)
                for node in engine.programs.nodes()
                for key in engine.loadbalancing.index.services
            }
        async with running_engine(tmp_path, **NETWORK) as fresh:
            assert everything(fresh) == grown
            for (node, key), state in states.items():
                again = fresh.states.state(key, node)
                assert state is not None
                assert again is not None
                state.announce = again.announce = False
                assert again == state

    asyncio.run(run())
