# SPDX-License-Identifier: Apache-2.0
"""The bridge br-int: where pods, the gateway port and the tunnels meet, programmed by the controllers alone.

It is made in one transaction, complete with its controllers, because the first controller that is added to a
bridge empties its tables. fail_mode is "secure": without a controller the switch goes on with the flows that
it has, and adds none of its own.

The switch is connected to the controllers that the agent was told of: all, or some of them where there are many. When
those are others, the rows of the ones that stay are kept, and with them their connections; there is no moment without
any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from agent.drift import CHANGED, MISSING, UNKNOWN
from agent.nodesetup.facts import GATEWAY_INTERFACE, TUNNEL_INTERFACE, NodeFacts
from agent.ovsdb import OvsdbRefused, Replica
from agent.ports import INTEGRATION_BRIDGE, port_of, remove, where
from agent.rows import exactly, update
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, TUNNEL_PORT

#: Milliseconds: a controller that is restarted is found again within a second.
MAX_BACKOFF: Final = 1000
#: Milliseconds of silence after which the switch asks for a sign of life; as long again, and it connects anew. So a
#: controller that hangs, or is cut off, is noticed after five to ten seconds, and found within a second of its return.
#: Nothing waits for that: another controller takes the switch over on its own connection. Open vSwitch takes anything
#: less than five seconds for five. What it costs is an echo of eight bytes each five seconds on connections that are
#: idle, those of the controllers that do not own the switch: 200 a second for a controller with a thousand switches.
#: It also is the sign of life that controllers see.
INACTIVITY_PROBE: Final = 5000
#: Packets a second that the switch may send to a controller, and how many at once: connections to Services without
#: endpoints, which are refused by the controller. What is above is lost, and tried again by the client.
PACKET_IN_RATE: Final = 1000
PACKET_IN_BURST: Final = 250


def mac_text(number: int) -> str:
    """A MAC as text."""
    return ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big"))


@dataclass
class Mended:
    """What a change of a bridge has met: its controllers, and what was not as it must be, how and what."""

    targets: tuple[str, ...] = ()
    found: list[tuple[str, str]] = field(default_factory=list)

    def differed(self, whose: str, columns: list[str]) -> None:
        """These columns of a row that was there."""
        self.found += ((CHANGED, f"{whose}: {column}") for column in columns)


def bridge(
    facts: NodeFacts, targets: Callable[[], list[str]], mended: Mended | None = None
) -> Callable[[Replica], None]:
    """The change that makes br-int, its gateway port and its tunnel port, or mends what differs.

    `targets` are looked at when the change is made: they may have changed since it was asked for. `mended` is filled.
    """
    met = mended or Mended()

    def apply(replica: Replica) -> None:
        wanted_targets = targets()
        met.targets, met.found = tuple(wanted_targets), []
        root = replica.root()
        if root is None:
            raise OvsdbRefused("Open vSwitch's database is not initialized (ovs-vsctl init)")
        row = replica.named("Bridge", INTEGRATION_BRIDGE)
        if row is None:
            met.found.append((MISSING, f"bridge {INTEGRATION_BRIDGE}"))
            _make(replica, root, facts, wanted_targets)
            return
        keep_bridge(replica, row, _settings(facts), met)
        _controllers(replica, row, wanted_targets, met)
        for name, columns in _own_ports(facts).items():
            placed = port_of(replica, row, name)
            if placed is None:
                bring_back(replica, row, name, columns, met)
            else:
                port, interface = placed
                found = update(port, **exactly("Port")) + update(interface, **exactly("Interface", **columns))
                met.differed(f"port {name}", found)

    return apply


def _make(replica: Replica, root: Any, facts: NodeFacts, targets: list[str]) -> None:
    row = replica.insert("Bridge")
    row.name = INTEGRATION_BRIDGE
    update(row, **_settings(facts))
    own = _own_ports(facts)
    for name in own:
        remove(replica, name)
    row.ports = [new_port(replica, name, columns) for name, columns in own.items()]
    _controllers(replica, row, targets)
    root.addvalue("bridges", row)


def controllers(targets: Callable[[], list[str]]) -> Callable[[Replica], None]:
    """The change that connects br-int to these controllers and no others; nothing while there is no br-int."""

    def apply(replica: Replica) -> None:
        row = replica.named("Bridge", INTEGRATION_BRIDGE)
        if row is not None:
            _controllers(replica, row, targets())

    return apply


def _settings(facts: NodeFacts) -> dict[str, Any]:
    return {
        "datapath_type": facts.datapath,
        "fail_mode": "secure",
        "protocols": ["OpenFlow15"],
        "other_config": {"datapath-id": f"{facts.datapath_id:016x}", "disable-in-band": "true"},
    }


def _own_ports(facts: NodeFacts) -> dict[str, dict[str, Any]]:
    return {
        INTEGRATION_BRIDGE: {"type": "internal"},
        GATEWAY_INTERFACE: {
            "type": "internal",
            "mac": mac_text(GATEWAY_MAC),
            "ofport_request": GATEWAY_PORT,
            "mtu_request": facts.mtu,
        },
        # Where a packet goes is set by the flow that sends it.
        TUNNEL_INTERFACE: {
            "type": facts.encapsulation,
            "options": {"remote_ip": "flow", "key": "flow"},
            "ofport_request": TUNNEL_PORT,
        },
    }


def _controllers(replica: Replica, row: Any, targets: list[str], mended: Mended | None = None) -> None:
    if not targets:
        return  # Without any, the switch would forget its flows with the next one.
    present = {controller.target: controller for controller in getattr(row, "controller", [])}
    wanted = {target: present.get(target) or _controller(replica, target) for target in targets}
    if set(present) != set(wanted):
        if present:
            row.verify("controller")  # two changes under way would each make the same rows
        row.controller = list(wanted.values())
        if mended is not None:
            mended.found += ((MISSING, f"controller {target}") for target in sorted(wanted.keys() - present))
            mended.found += ((UNKNOWN, f"controller {target}") for target in sorted(present.keys() - wanted))
    for target, controller in wanted.items():
        settings: dict[str, Any] = {
            "max_backoff": MAX_BACKOFF,
            "inactivity_probe": INACTIVITY_PROBE,
            "connection_mode": "out-of-band",
            "controller_rate_limit": PACKET_IN_RATE,
            "controller_burst_limit": PACKET_IN_BURST,
        }
        known = target in present
        columns = update(controller, **(exactly("Controller", **settings) if known else settings))
        if mended is not None and known:
            mended.differed(f"controller {target}", columns)


def _controller(replica: Replica, target: str) -> Any:
    row = replica.insert("Controller")
    row.target = target
    return row


def keep_bridge(replica: Replica, row: Any, settings: dict[str, Any], mended: Mended) -> None:
    """Give a bridge these settings, and no others."""
    differed = update(row, **exactly("Bridge", **settings))
    mended.differed(f"bridge {row.name}", differed)
    root = replica.root()
    if differed and root is not None:
        # ovs-vswitchd does not look at stp_enable and rstp_enable when only they change.
        root.increment("next_cfg")


def bring_back(replica: Replica, bridge: Any, name: str, columns: dict[str, Any], mended: Mended) -> None:
    """Give a bridge a port that it has not, or that has more than its interface, from wherever it is."""
    elsewhere = where(replica, name)
    mended.found.append((CHANGED, f"port {name}: {elsewhere}") if elsewhere else (MISSING, f"port {name}"))
    remove(replica, name)
    bridge.addvalue("ports", new_port(replica, name, columns))


def new_port(replica: Replica, name: str, columns: dict[str, Any]) -> Any:
    """A Port and its Interface, which has these columns."""
    interface = replica.insert("Interface")
    interface.name = name
    update(interface, **columns)
    port = replica.insert("Port")
    port.name = name
    port.interfaces = [interface]
    return port
