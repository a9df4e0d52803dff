# SPDX-License-Identifier: Apache-2.0
"""Keeps in force what Services need of the node's own stack: one thread between the table and those who do it.

Changes that come while one is applied are applied together. A Service's change costs what it contributes, not the
number of Services: those that need nothing of the node are not even remembered.

The node's set-up has the kernel's part (sets, routes, proxy entries), which it also repairs; health checks and
gratuitous announcements are served from here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Final, Protocol

from agent.ipam import Address
from agent.nodesetup.facts import Assignment, NodeFacts
from agent.nodesetup.frontends import Frontends
from agent.services.gratuitous import Announcer
from agent.services.health import HealthServers
from agent.services.table import Changes, Key, Service, ServiceTable
from agent.services.wanted import Surroundings, contribution, total
from sdn import logs

log: Final = logs.get("agent.services")
#: The node's addresses may change, and interfaces come and go: looked at this often.
_LOOK_SECONDS: Final = 5.0
#: Changes that are named in one line of the log.
_TOLD: Final = 20
_NOTHING: Final = Frontends()


class Setup(Protocol):
    """What of the node's set-up is needed here."""

    facts: NodeFacts | None
    assignment: Assignment | None

    def serve(self, frontends: Frontends) -> None: ...


class ServicePlane:
    """The thread, and what every Service contributes."""

    def __init__(self, table: ServiceTable, setup: Setup) -> None:
        self._table = table
        self._setup = setup
        self._lock = threading.Lock()
        self._changed: dict[Key, Service | None] = {}
        self._confirmed = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._services: dict[Key, Service] = {}
        self._contributions: dict[Key, Frontends] = {}
        self._surroundings = Surroundings()
        self._in_force = _NOTHING
        self._health = HealthServers()
        self._announcer = Announcer()
        self._thread = threading.Thread(target=self._run, name="services", daemon=True)

    def start(self) -> None:
        """Bring what is known into force, before anything else does, and follow from then on."""
        self._table.subscribe(self._note)
        self._health.start()
        self._announcer.start()
        self._apply()
        self._thread.start()

    def close(self) -> None:
        """End; the kernel goes on with what it has."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5)
        self._announcer.close()
        self._health.close()

    def _note(self, changes: Changes) -> None:
        with self._lock:
            self._changed.update({service.key: service for service in changes.changed})
            self._changed.update(dict.fromkeys(changes.removed))
            self._confirmed = changes.confirmed
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()
            if not self._stop.is_set():
                self._apply()

    def _apply(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
        surroundings = self._look()
        if surroundings != self._surroundings:
            self._surroundings = surroundings
            changed = {**self._services, **changed}
        for key, service in changed.items():
            self._take(key, service)
        wanted = total(self._contributions.values())
        # First what never has to wait for the switch.
        self._health.serve(surroundings.addresses, wanted.health)
        if wanted != self._in_force:
            # Another node may have taken over: nothing is claimed that will not be answered for.
            self._announce(wanted.announced & self._in_force.announced)
            self._setup.serve(wanted)
            _tell(self._in_force, wanted)
            self._in_force = wanted
        self._announce(wanted.announced)

    def _announce(self, addresses: Collection[Address]) -> None:
        """What is only known from disk is answered for, but not claimed: it may be another node's by now."""
        facts = self._setup.facts
        if facts is not None and self._confirmed:
            self._announcer.serve(facts.interface, addresses)

    def _take(self, key: Key, service: Service | None) -> None:
        needs = contribution(service, self._surroundings) if service is not None else _NOTHING
        if service is not None and needs_node(service):
            self._services[key] = service
        else:
            self._services.pop(key, None)
        if needs != _NOTHING:
            self._contributions[key] = needs
        else:
            self._contributions.pop(key, None)

    def _look(self) -> Surroundings:
        facts, assignment = self._setup.facts, self._setup.assignment
        return Surroundings(
            facts.addresses if facts is not None else (),
            tuple(assignment.switched()) if assignment is not None else (),
        )


def needs_node(service: Service) -> bool:
    """Whether a Service may contribute something, wherever the node is."""
    return bool(
        service.external_ips
        or service.load_balancer_ips
        or service.health_check_node_port
        or any(port.node_port for port in service.ports)
    )


def _tell(before: Frontends, after: Frontends) -> None:
    for what in ("node_ports", "own_addresses", "routed", "announced"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            log.info(
                what.replace("_", " ") + " changed",
                added=_texts(new - old),
                removed=_texts(old - new),
            )


def _texts(items: Collection[object]) -> list[str]:
    """The first few of them, and how many there are beside."""
    found = sorted(" ".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in items)
    more = len(found) - _TOLD
    return found if more <= 0 else [*found[:_TOLD], f"and {more} more"]
