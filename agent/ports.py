# SPDX-License-Identifier: Apache-2.0
"""Ports of the bridge br-int: a pod's, by its record. What is written into the database, and what is looked for
in it.

`external_ids` follow Open vSwitch's own convention (iface-id, attached-mac: documentation topic
"Integration"), and name the pod in keys of ours, so that `ovs-vsctl` alone tells whose port it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from agent.nodesetup.facts import GATEWAY_INTERFACE, TUNNEL_INTERFACE
from agent.ovsdb import OvsdbRefused, Replica
from agent.rows import differences, exactly, update
from agent.state import HOST_PREFIX, Record

INTEGRATION_BRIDGE: Final = "br-int"
#: The ports of br-int that are no pod's.
OWN_PORTS: Final = frozenset({INTEGRATION_BRIDGE, GATEWAY_INTERFACE, TUNNEL_INTERFACE})
CONTAINER_ID: Final = "sdn-container-id"
INTERFACE: Final = "sdn-interface"


def plug(record: Record) -> Callable[[Replica], None]:
    """The change that makes a pod's port, or mends what of it is not as it should be."""

    def apply(replica: Replica) -> None:
        bridge = replica.named("Bridge", INTEGRATION_BRIDGE)
        if bridge is None:
            raise OvsdbRefused(f"there is no bridge {INTEGRATION_BRIDGE} (yet)")
        name = record.host_interface
        placed = port_of(replica, bridge, name)
        if placed is None:
            remove(replica, name)
            interface = replica.insert("Interface")
            interface.name = name
            interface.ofport_request = record.ofport
            interface.external_ids = external_ids(record)
            port = replica.insert("Port")
            port.name = name
            port.interfaces = [interface]
            port.external_ids = {CONTAINER_ID: record.container_id}
            bridge.addvalue("ports", port)
            return
        for row, columns in zip(placed, _columns(record), strict=True):
            update(row, **columns)

    return apply


def _columns(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a pod's Port and its Interface hold."""
    port = exactly("Port", external_ids={CONTAINER_ID: record.container_id})
    return port, exactly("Interface", ofport_request=[record.ofport], external_ids=external_ids(record))


def misconfigured(replica: Replica, record: Record) -> str | None:
    """What of a port is not in the database as :func:`plug` writes it, for people; empty: it is not there at all. None:
    it is as it must be.
    """
    name = record.host_interface
    placed = port_of(replica, replica.named("Bridge", INTEGRATION_BRIDGE), name)
    if placed is None:
        return where(replica, name)
    wrong: list[str] = []
    for row, columns in zip(placed, _columns(record), strict=True):
        wrong += differences(row, **columns)
    return "; ".join(wrong) or None


def port_of(replica: Replica, bridge: Any | None, name: str) -> tuple[Any, Any] | None:
    """The rows of a port of this bridge and its interface, both of this name; None: it has none with that, and that
    alone.
    """
    port, interface = replica.named("Port", name), replica.named("Interface", name)
    if bridge is None or port is None or interface is None:
        return None
    placed = port.interfaces == [interface] and replica.has_port(bridge, port)
    return (port, interface) if placed else None


def where(replica: Replica, name: str) -> str:
    """Where a port is that is not as it must be, for people; empty: nowhere."""
    holders = _holders(replica, name)
    if not holders:
        return ""
    bridges = {
        bridge.name for bridge in replica.rows("Bridge") for port in holders if replica.has_port(bridge, port)
    }
    interfaces = {interface.name for port in holders for interface in port.interfaces}
    return f"on {','.join(sorted(bridges))} with interface {','.join(sorted(interfaces))}"


def remove(replica: Replica, name: str) -> None:
    """Remove the port with this name, and any that has its interface, from whatever bridge. None is no error."""
    holders = _holders(replica, name)
    for bridge in replica.rows("Bridge"):
        for port in holders:
            if replica.has_port(bridge, port):
                bridge.delvalue("ports", port)


def _holders(replica: Replica, name: str) -> list[Any]:
    port, interface = replica.named("Port", name), replica.named("Interface", name)
    found = [] if port is None else [port]
    if interface is not None and (port is None or interface not in port.interfaces):
        found += [other for other in replica.rows("Port") if interface in other.interfaces]
    return found


def unplug(*names: str) -> Callable[[Replica], None]:
    """The change that removes ports by name; those that do not exist are no error."""

    def apply(replica: Replica) -> None:
        for name in names:
            remove(replica, name)

    return apply


def claimed(replica: Replica) -> set[str]:
    """The ports that must be a pod's: those of br-int but for its own, and whatever bears our name elsewhere."""
    bridge = replica.named("Bridge", INTEGRATION_BRIDGE)
    names = {port.name for port in bridge.ports} if bridge is not None else set()
    return (names - OWN_PORTS) | {
        port.name for port in replica.rows("Port") if port.name.startswith(HOST_PREFIX)
    }


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
