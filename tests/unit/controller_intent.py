# SPDX-License-Identifier: Apache-2.0
"""The part of a controller that takes in what users declare, on a real store and with no switch."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from controller.allocation.allocation import Allocation
from controller.allocation.network import ServiceNetwork
from controller.cluster import Cluster
from controller.declarations import Applied, Declarations
from controller.events import Events
from controller.ledger import Ledger, under
from controller.programs import Programs
from controller.records import OBJECTS, NodeRecord
from controller.store.sqlite import SqliteStore
from controller.switchboard import Switchboard
from controller.watchers import Watchers
from sdn.model import Object, Service, parse


def network(**fields: Any) -> ServiceNetwork:
    """The default cluster with a small pool of LoadBalancer addresses; ranges may be given as texts."""
    values: dict[str, Any] = {"load_balancer_ranges": ("192.0.2.0/29", "2001:db8::/125"), **fields}
    for name in ("service_ranges", "load_balancer_ranges"):
        if name in values:
            values[name] = tuple(map(ipaddress.ip_network, values[name]))
    return ServiceNetwork(**values)


def service(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A Service's document; one TCP port 80 unless ``ports`` are given."""
    spec = {"ports": [{"port": 80}], **spec}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def node_record(name: str, *addresses: str) -> NodeRecord:
    """A registered node."""
    number = int(ipaddress.ip_address(addresses[0])) & 255
    return NodeRecord(
        name=name,
        uid=f"uid-{name}",
        addresses=addresses,
        tunnel_address=addresses[0],
        tunnel_mac="02:00:00:00:00:01",
        encapsulation="geneve",
        datapath="netdev",
        datapath_id=number,
        pod_ranges=(f"10.244.{number}.0/24",),
    )


class Intent:
    """See the module. ``changes``: what the hook was told, as kind, namespace/name, was there, is there."""

    def __init__(self, store: SqliteStore, services: ServiceNetwork) -> None:
        self.cluster = Cluster()
        self.ledger = Ledger(store)
        self.events = Events()
        self.allocation = Allocation(services)
        self.programs = Programs(Switchboard(), services, lambda _node: None)
        self.watchers = Watchers(self.cluster, self.programs, self.allocation, self.events)
        self.declarations = Declarations(
            self.ledger, self.cluster, self.watchers, self.allocation, self.events
        )
        self.changes: list[tuple[str, str, bool, bool]] = []
        self.declarations.on_change = self._changed

    def _changed(
        self, kind: str, namespace: str, name: str, before: Object | None, after: Object | None
    ) -> None:
        self.changes.append((kind, f"{namespace}/{name}", before is not None, after is not None))

    async def load(self) -> None:
        """As the engine does it at the controller's start."""
        services = []
        entries = (await self.ledger.list_all()).entries
        for entry in under(OBJECTS, entries):
            value = parse(msgspec.json.decode(entry.value))
            if isinstance(value, Service):
                services.append(value)
            else:
                self.cluster.put_object(value)
        await self.declarations.load(services, entries)
        await self.declarations.fill_waiting()

    async def apply(self, document: dict[str, Any], dry_run: bool = False) -> Applied:
        return await self.declarations.apply(parse(document), dry_run)

    async def spec(self, document: dict[str, Any]) -> dict[str, Any]:
        """Apply a Service; gives the spec that people see then."""
        await self.apply(document)
        metadata = document["metadata"]
        spec: dict[str, Any] = self.get("Service", metadata["namespace"], metadata["name"])["spec"]
        return spec

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        document = self.watchers.document(kind, namespace, name)
        assert document is not None, f"no {kind} {namespace}/{name}"
        return document

    def ingress(self, name: str, namespace: str = "default") -> list[str]:
        """LoadBalancer addresses as a Service's status shows them."""
        status = self.get("Service", namespace, name)["status"]["loadBalancer"]
        return [item["ip"] for item in status.get("ingress", ())]

    def reasons(self, name: str, namespace: str = "default") -> list[str]:
        """Reasons of a Service's events."""
        return [event["reason"] for event in self.events.about("Service", namespace, name)]

    async def delete(self, name: str, namespace: str = "default") -> None:
        await self.declarations.remove("Service", namespace, name)


@asynccontextmanager
async def intent(path: Path, **fields: Any) -> AsyncIterator[Intent]:
    """A controller's intent on the store in this file, as after a start; the store is closed at the end."""
    store = SqliteStore(path / "store.db")
    try:
        running = Intent(store, network(**fields))
        await running.load()
        try:
            yield running
        finally:
            running.programs.stop()
            running.ledger.stop()
    finally:
        store.close()
