# SPDX-License-Identifier: Apache-2.0
"""A real engine with two nodes and a few pods, and short ways to declare policies and to ask about them.

node-1 has ``shop/db`` (role=db, port ``sql`` 5432/TCP), ``shop/web`` (role=web) and ``other/only-4`` (IPv4 alone);
node-2 has ``shop/job`` (role=web) and ``partner/client`` (role=web). Namespace partner is labelled ``project: mine``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from controller.engine import Engine
from controller.services.policycheck import Checker
from controller.services.policydescription import PolicyDescriber
from sdn.model.address import Address
from sdn.v1 import inspection_pb2
from tests.switch.controller_process import attachment
from tests.unit.services_engine import apply, register, running_engine

#: Where the pods are: namespace, name, node, number on it, labels.
PODS = (
    ("shop", "db", 1, 1, {"role": "db"}),
    ("shop", "web", 1, 2, {"role": "web"}),
    ("other", "only-4", 1, 3, {}),
    ("shop", "job", 2, 1, {"role": "web"}),
    ("partner", "client", 2, 2, {"role": "web"}),
)


def labels(**wanted: str) -> dict[str, Any]:
    """A selector of these labels."""
    return {"matchLabels": wanted}


def network_policy(name: str, namespace: str = "shop", **fields: Any) -> dict[str, Any]:
    """A NetworkPolicy for pods labelled role=db; ``annotations`` go to the metadata, the rest to the spec."""
    annotations = fields.pop("annotations", {})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"podSelector": labels(role="db"), **fields},
    }


def cluster_policy(name: str, tier: str = "Admin", priority: int = 10, **fields: Any) -> dict[str, Any]:
    """A ClusterNetworkPolicy for all pods; ``annotations`` as above."""
    annotations = fields.pop("annotations", {})
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, **fields},
    }


def document(kind: str, name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
    """Any other object."""
    metadata: dict[str, Any] = {"name": name, "labels": fields.pop("labels", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


class Asking:
    """The engine, and questions to it as they come by gRPC."""

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor) -> None:
        self.engine = engine
        self.checker = Checker(engine, threads)
        #: What owners of nodes that are not connected here would say, by node.
        self.elsewhere: dict[str, inspection_pb2.DescribePolicyResponse] = {}
        self.describer = PolicyDescriber(engine, threads, self._elsewhere)

    async def apply(self, *documents: dict[str, Any]) -> None:
        for each in documents:
            await apply(self.engine, each)

    async def check(
        self, source: str, destination: str, port: int = 80, **fields: Any
    ) -> inspection_pb2.CheckPolicyResponse:
        request = inspection_pb2.CheckPolicyRequest(
            source=source, destination=destination, port=port, namespace="shop", **fields
        )
        return await self.checker.check(request)

    async def allowed(self, source: str, destination: str, port: int = 80, **fields: Any) -> bool:
        """The same in all families."""
        answer = await self.check(source, destination, port, **fields)
        (allowed,) = {verdict.allowed for verdict in answer.verdicts}
        return allowed

    async def describe(
        self, name: str, namespace: str = "shop", kind: str = "NetworkPolicy", node: str = ""
    ) -> inspection_pb2.DescribePolicyResponse:
        return await self.describer.describe(kind, namespace, name, node)

    async def _elsewhere(
        self, kind: str, namespace: str, name: str, node: str
    ) -> inspection_pb2.DescribePolicyResponse | None:
        return self.elsewhere.get(node)

    def address(self, namespace: str, name: str, version: int = 4) -> str:
        """One of a pod's addresses."""
        (record,) = self.engine.cluster.attachments_of(namespace, name)
        found = map(Address.parse, record.addresses)
        return next(str(address) for address in found if address.version == version)


def asking(folder: Path, scenario: Callable[[Asking], Awaitable[None]], **network: Any) -> None:
    """Run a scenario in the cluster of the module."""

    async def run() -> None:
        with ThreadPoolExecutor(4) as threads:
            async with running_engine(folder, **network) as engine:
                nodes = {number: await register(engine, number, zone="a" * number) for number in (1, 2)}
                await apply(engine, document("Namespace", "partner", labels={"project": "mine"}))
                ports = [{"name": "sql", "containerPort": 5432}]
                containers = {"containers": [{"name": "main", "ports": ports}]}
                await apply(engine, document("Pod", "db", "shop", labels={"role": "db"}, spec=containers))
                for namespace, name, node, number, marks in PODS:
                    item = attachment(
                        nodes[node], number, pod_namespace=namespace, pod_name=name, labels=marks
                    )
                    if name == "only-4":
                        del item.addresses[1:]
                    await engine.attachments.attach(f"node-{node}", item, lambda _refused: None)
                await scenario(Asking(engine, threads))

    asyncio.run(run())
