# SPDX-License-Identifier: Apache-2.0
"""Which changes of Open vSwitch's database let the agent look at what it keeps."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from agent.drift import Drift
from agent.ovsdb import RowChange
from agent.rows import difference_of

PATIENCE = 60.0


class Looked:
    """What was asked to be looked at, in order."""

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.drift = Drift("eth0", lambda: self.said.put("setup"), lambda names: self.said.put(names))

    def next(self) -> object:
        return self.said.get(timeout=PATIENCE)


@pytest.fixture
def looked() -> Iterator[Looked]:
    found = Looked()
    found.drift.start()
    yield found
    found.drift.close()


def change(event: str, table: str, name: str = "", *columns: str) -> RowChange:
    return RowChange(event, table, name, frozenset(columns))


def moved(bridge: str, *ports: str) -> RowChange:
    return RowChange("update", "Bridge", bridge, frozenset({"ports"}), frozenset(ports))


@pytest.mark.parametrize(
    "touching",
    [
        change("create", "Controller"),
        change("update", "Controller", "", "inactivity_probe"),
        change("update", "Bridge", "br-int", "fail_mode"),
        change("delete", "Bridge", "br-int"),
        change("delete", "Interface", "sdn-tun0"),
        change("update", "Interface", "sdn-gw0", "ofport_request"),
        change("update", "Interface", "sdn-gw0", "mtu"),
        change("update", "Bridge", "br-int", "mirrors"),
        change("update", "Bridge", "br-phy", "fail_mode"),
        change("delete", "Interface", "eth0"),
        change("update", "Port", "sdn-tun0", "tag"),
        moved("br-int", "sdn-tun0"),
        moved("br-phy", "eth0"),
    ],
)
def test_what_touches_the_bridge_lets_it_be_looked_at(looked: Looked, touching: RowChange) -> None:
    looked.drift.changed(touching)
    assert looked.next() == "setup"


def test_what_touches_pods_ports_lets_those_be_looked_at_together(looked: Looked) -> None:
    looked.drift.changed(change("delete", "Interface", "sdn-p17"))
    looked.drift.changed(change("update", "Interface", "sdn-p18", "external_ids", "ofport"))
    first = looked.next()
    assert isinstance(first, set)
    assert first | (looked.next() if len(first) < 2 else set()) == {"sdn-p17", "sdn-p18"}  # type: ignore[operator]
    looked.drift.changed(change("create", "Bridge", "br-int"))
    assert looked.next() == set()


@pytest.mark.parametrize(
    "touching",
    [
        change("update", "Interface", "sdn-p17", "admin_state"),
        change("update", "Interface", "sdn-p17", "mtu_request"),
        change("update", "Port", "sdn-p17", "qos"),
        change("update", "Port", "sdn-p17", "interfaces"),
        moved("br-int", "sdn-p17"),
        moved("br-phy", "sdn-p17"),
    ],
)
def test_what_touches_a_pods_port_lets_it_be_looked_at(looked: Looked, touching: RowChange) -> None:
    looked.drift.changed(touching)
    assert looked.next() == {"sdn-p17"}


def test_a_strange_port_is_looked_at(looked: Looked) -> None:
    looked.drift.changed(change("create", "Port", "rogue"))
    assert looked.next() == {"rogue"}


def test_what_the_switch_itself_writes_touches_nothing(looked: Looked) -> None:
    for other in (
        change("update", "Interface", "sdn-p17", "ofport"),
        change("update", "Interface", "sdn-tun0", "ofport", "error"),
        change("update", "Bridge", "br-int", "ports"),
        change("update", "Bridge", "br-ex", "fail_mode"),
        change("create", "Mirror"),
    ):
        looked.drift.changed(other)
    looked.drift.changed(change("delete", "Bridge", "br-int"))
    assert looked.next() == "setup"
    assert looked.said.empty()


def test_of_a_map_only_what_differs_is_told() -> None:
    assert difference_of(
        "options", {"key": "flow", "remote_ip": "1.2.3.4"}, {"key": "flow", "remote_ip": "flow"}
    ) == ["options:remote_ip 1.2.3.4, not flow"]
    assert difference_of("other_config", {}, {"a": "b"}) == ["other_config:a empty, not b"]
    assert difference_of("fail_mode", ["standalone"], "secure") == ["fail_mode standalone, not secure"]
    assert difference_of("mtu_request", [1400], 1400) == []
