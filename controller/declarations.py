# SPDX-License-Identifier: Apache-2.0
"""Declared objects: what users applied, stored as they wrote it."""

from __future__ import annotations

import msgspec

from controller.cluster import Cluster
from controller.errors import NotFoundError, PreconditionError
from controller.ledger import Ledger, whole
from controller.records import object_key
from controller.store import Delete, Put
from controller.watchers import Watchers
from sdn import logs
from sdn.model import Node, Object, to_document

log = logs.get("controller.declarations")


class Declarations:
    """Runs in the asyncio thread."""

    def __init__(self, ledger: Ledger, cluster: Cluster, watchers: Watchers) -> None:
        self._ledger = ledger
        self._cluster = cluster
        self._watchers = watchers

    @whole
    async def apply(self, value: Object, dry_run: bool) -> str:
        """Declare an object: "created", "configured" or "unchanged". PreconditionError, StoreError."""
        kind, namespace, name = value.KIND, value.metadata.namespace, value.metadata.name
        async with self._ledger.lock:
            before = self._cluster.objects[kind].get((namespace, name))
            self._check_declaration(value)
            outcome = "created" if before is None else "unchanged" if before == value else "configured"
            if not dry_run and outcome != "unchanged":
                document = msgspec.json.encode(to_document(value))
                await self._ledger.write([Put(object_key(kind, namespace, name), document)])
                self._cluster.put_object(value)
        if not dry_run and outcome != "unchanged":
            log.info("object applied", kind=kind, namespace=namespace, name=name, outcome=outcome)
            self._object_changed(kind, namespace, name)
        return outcome

    def _check_declaration(self, value: Object) -> None:
        if isinstance(value, Node) and value.pod_cidrs:
            record = self._cluster.nodes.get(value.metadata.name)
            if record is not None and set(value.pod_cidrs) - set(record.pod_ranges):
                raise PreconditionError(
                    f"Node {record.name}: spec.podCIDRs: the node is registered with {', '.join(record.pod_ranges)}; "
                    "delete the Node first to give it other ranges"
                )

    @whole
    async def remove(self, kind: str, namespace: str, name: str) -> None:
        """Withdraw a declaration. NotFoundError, PreconditionError, StoreError."""
        async with self._ledger.lock:
            if (namespace, name) not in self._cluster.objects[kind]:
                if (namespace, name) in self._cluster.names(kind):
                    raise PreconditionError(
                        f"{kind} {_full(namespace, name)} exists, but was not declared here"
                    )
                raise NotFoundError(f"{kind} {_full(namespace, name)} does not exist")
            await self._ledger.write([Delete(object_key(kind, namespace, name))])
            self._cluster.remove_object(kind, namespace, name)
        log.info("object deleted", kind=kind, namespace=namespace, name=name)
        self._object_changed(kind, namespace, name)

    def _object_changed(self, kind: str, namespace: str, name: str) -> None:
        self._watchers.changed(kind, namespace, name)
        if namespace:
            # A namespace exists by its pods, too.
            self._watchers.changed("Namespace", "", namespace)


def _full(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name
