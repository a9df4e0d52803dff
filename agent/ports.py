# SPDX-License-Identifier: Apache-2.0
"""Ports of the bridge br-int: a pod's, by its record. What is written into the database, and what is looked for
in it.

`external_ids` follow Open vSwitch's own convention (iface-id, attached-mac: documentation topic
"Integration"), and name the pod in keys of ours, so that `ovs-vsctl` alone tells whose port it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from agent.ovsdb import OvsdbRefused, Replica, difference_of
from agent.state import Record

INTEGRATION_BRIDGE: Final = "br-int"
CONTAINER_ID: Final = "sdn-container-id"
INTERFACE: Final = "sdn-interface"


def plug(record: Record) -> Callable[[Replica], None]:
    """The change that makes a pod's port, or mends what of it is not as it should be."""

    def apply(replica: Replica) -> None:
        bridge = replica.named("Bridge", INTEGRATION_BRIDGE)
        if bridge is None:
            raise OvsdbRefused(f"there is no bridge {INTEGRATION_BRIDGE} (yet)")
        interface = replica.named("Interface", record.host_interface)
        if interface is None:
            interface = replica.insert("Interface")
            interface.name = record.host_interface
            interface.ofport_request = record.ofport
            interface.external_ids = external_ids(record)
            port = replica.insert("Port")
            port.name = record.host_interface
            port.interfaces = [interface]
            port.external_ids = {CONTAINER_ID: record.container_id}
            bridge.addvalue("ports", port)
            return
        if interface.type:
            interface.type = ""
        if interface.external_ids != external_ids(record):
            interface.external_ids = external_ids(record)
        if interface.ofport_request != [record.ofport]:
            interface.ofport_request = record.ofport

    return apply


def misconfigured(replica: Replica, record: Record) -> str | None:
    """What of a port is not in the database as :func:`plug` writes it, for people; empty: it is not there at all. None:
    it is as it must be.
    """
    interface = replica.named("Interface", record.host_interface)
    if interface is None:
        return ""
    wrong = [
        *difference_of("type", interface.type, ""),
        *difference_of("ofport_request", interface.ofport_request, [record.ofport]),
        *difference_of("external_ids", dict(interface.external_ids), external_ids(record)),
    ]
    return "; ".join(wrong) or None


def unplug(*names: str) -> Callable[[Replica], None]:
    """The change that removes ports by name; those that do not exist are no error."""

    def apply(replica: Replica) -> None:
        bridge = replica.named("Bridge", INTEGRATION_BRIDGE)
        for name in names:
            port = replica.named("Port", name)
            if port is not None and bridge is not None:
                bridge.delvalue("ports", port)

    return apply


def external_ids(record: Record) -> dict[str, str]:
    return {
        "iface-id": f"{record.pod_namespace}_{record.pod_name}",
        "attached-mac": record.mac,
        CONTAINER_ID: record.container_id,
        INTERFACE: record.ifname,
        "sdn-pod-namespace": record.pod_namespace,
        "sdn-pod-name": record.pod_name,
    }


def plugged(name: str, ofport: int) -> Callable[[Replica], bool]:
    """Whether the switch has a port under the number that was asked for; OvsdbRefused when it says that it cannot."""

    def condition(replica: Replica) -> bool:
        interface = replica.named("Interface", name)
        if interface is None or not interface.ofport:
            return False
        given = int(interface.ofport[0])
        if given == ofport:
            return True
        why = interface.error[0] if interface.error else f"it has the OpenFlow number {given}, not {ofport}"
        raise OvsdbRefused(f"Open vSwitch cannot use {name} as port {ofport}: {why}")

    return condition


def difference(replica: Replica, record: Record) -> str:
    """What is wrong with a pod's port; empty when nothing is."""
    interface: Any = replica.named("Interface", record.host_interface)
    bridge = replica.named("Bridge", INTEGRATION_BRIDGE)
    if interface is None or bridge is None:
        return f"{INTEGRATION_BRIDGE} has no port {record.host_interface}"
    if all(port.name != record.host_interface for port in bridge.ports):
        return f"port {record.host_interface} is not on {INTEGRATION_BRIDGE}"
    if list(interface.ofport) != [record.ofport]:
        return f"port {record.host_interface} has the OpenFlow number {list(interface.ofport)}, not {record.ofport}"
    if interface.external_ids.get(CONTAINER_ID) != record.container_id:
        return f"port {record.host_interface} is another container's"
    return ""
