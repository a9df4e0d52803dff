# SPDX-License-Identifier: Apache-2.0
"""Pod: what the network reads of it.

``spec`` is kept as given, whole: most of it (images, volumes) is not the network's business, and must come back
from ``get`` as it was applied. The fields that the network reads are checked, and have a property.

No kubelet probes a pod's containers here, so its owner says by ``status.conditions`` whether it is ready, and by
``metadata.deletionTimestamp`` that it is being ended; of a declared status nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from sdn.model.meta import ObjectMeta
from sdn.model.names import (
    PROTOCOLS,
    InvalidObjectError,
    check_dns_label,
    check_dns_subdomain,
    check_port,
    check_port_name,
    type_name,
)
from sdn.model.reading import Fields

_STATUSES = ("True", "False", "Unknown")


class Pod(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A group of containers with one network namespace. Its labels replace those that came with its
    attachment.
    """

    KIND: ClassVar[str] = "Pod"
    API_VERSION: ClassVar[str] = "v1"
    NAMESPACED: ClassVar[bool] = True

    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)
    status: dict[str, Any] = msgspec.field(default_factory=dict)
    """The condition Ready, when it was declared."""

    @property
    def node_name(self) -> str:
        """The node that the pod is bound to; empty: not said."""
        return str(self.spec.get("nodeName") or "")

    @property
    def host_network(self) -> bool:
        """It has no network of its own, but its node's."""
        return self.spec.get("hostNetwork") is True

    @property
    def hostname(self) -> str:
        """``spec.hostname``; empty: not given."""
        return str(self.spec.get("hostname") or "")

    @property
    def subdomain(self) -> str:
        """The headless Service in whose domain the pod has a name; empty: none."""
        return str(self.spec.get("subdomain") or "")

    @property
    def named_ports(self) -> tuple[tuple[str, str, int], ...]:
        """Name, protocol and number of its containers' named ports (a sidecar's, too), in the order in which
        Kubernetes looks them up: of equal ones the first counts.
        """
        ports: dict[tuple[str, str], int] = {}
        for container in _containers(self.spec):
            for port in container.get("ports") or ():
                if port.get("name"):
                    key = port["name"], port.get("protocol") or "TCP"
                    ports.setdefault(key, port["containerPort"])
        return tuple((name, protocol, number) for (name, protocol), number in ports.items())

    @property
    def ready(self) -> bool:
        """Whether its owner says that it can serve; when nothing is said, it can."""
        return not any(condition["status"] != "True" for condition in self.status.get("conditions", ()))

    @property
    def terminating(self) -> bool:
        """Whether it is being ended."""
        return bool(self.metadata.deletion_timestamp)


def check_pod_spec(spec: Mapping[str, Any]) -> None:
    """The fields that the network reads. InvalidObjectError names the field."""
    fields = Fields("spec", spec, "a Pod's spec")
    if name := fields.text("nodeName"):
        check_dns_subdomain("spec.nodeName", name)
    fields.boolean("hostNetwork")
    for field in ("hostname", "subdomain"):
        if label := fields.text(field):
            check_dns_label(f"spec.{field}", label)
    for field in ("containers", "initContainers"):
        for path, container in fields.items(field):
            _check_container(Fields(path, container, "a container"))


def _check_container(fields: Fields) -> None:
    names: set[str] = set()
    for path, member in fields.items("ports"):
        port = Fields(path, member, "a container's port")
        number = port.integer("containerPort")
        if number is None:
            raise InvalidObjectError(port.path("containerPort"), "must be given")
        check_port(port.path("containerPort"), number)
        port.choice("protocol", PROTOCOLS)
        if name := port.text("name"):
            check_port_name(port.path("name"), name)
            if name in names:
                raise InvalidObjectError(port.path("name"), f"{name!r} is the name of another port, too")
            names.add(name)


def read_pod_status(document: object) -> dict[str, Any]:
    """Of a declared status the condition Ready; empty when it has none. InvalidObjectError names the field."""
    if document is None:
        return {}
    for path, member in Fields("status", document, "a Pod's status").items("conditions"):
        condition = Fields(path, member, "a condition")
        if condition.raw("type") != "Ready":
            continue
        status = condition.raw("status")
        if status not in _STATUSES:
            wrong = type_name(status) if not isinstance(status, str) else repr(status)
            raise InvalidObjectError(
                condition.path("status"), f'must be "True", "False" or "Unknown", got {wrong}'
            )
        return {"conditions": [{"type": "Ready", "status": status}]}
    return {}


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("containers") or ()
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield container
