# SPDX-License-Identifier: Apache-2.0
"""What a policy that logs says of a pod's packets, from the real pipeline in a real switch to those who watch."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

import pytest

from controller.audit import BURST, RATE, Sighting
from controller.verdicts import Reader, Record, Ruling, Selection, Verdicts
from sdn.pipeline.compiler import policy_flows
from sdn.pipeline.owner import Feature, Owner, cookie
from sdn.pipeline.service import Protocol as ServiceProtocol
from sdn.pipeline.tables import EGRESS_ADMIN, EGRESS_POLICY
from sdn.pipeline.topology import Range
from sdn.policy.cells import (
    Cell,
    IsolationCell,
    IsolationKey,
    PeerCell,
    PeerKey,
    PortMatch,
    RuleCell,
    RuleKey,
    Stage,
    SubjectCell,
    SubjectKey,
)
from sdn.policy.values import Action, Direction, PolicyRef, Protocol, Tier
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until
from tests.switch.service_node import (
    DATAPATH_ID,
    ServiceNode,
    Waiter,
    add_pod_ports,
    endpoint,
    frame,
    pod,
    send,
    service,
    service_node,
)

PODS: Final = 2
WEB: Final = PolicyRef("NetworkPolicy", "default", "web")
GATE: Final = PolicyRef("ClusterNetworkPolicy", "", "gate")
#: Numbers as conjunctions have: all 32 bits.
ALLOWED: Final = 0x9ABCDEF0
FORBIDDEN: Final = 0xFFFFFFFF
RULINGS: Final = {
    ALLOWED: Ruling(WEB, "egress[0]", Tier.NETWORK_POLICY, Direction.EGRESS, Action.ACCEPT),
    FORBIDDEN: Ruling(GATE, "egress[0]", Tier.ADMIN, Direction.EGRESS, Action.DENY),
    0: Ruling(WEB, "", Tier.NETWORK_POLICY, Direction.EGRESS, Action.DENY),
}


def cells() -> Iterator[Cell]:
    """Pod 0 may use port 80 of pod 1's addresses; nothing of 10.244.9.0/24; both are logged, and what is left."""
    me, addresses = pod(0).ofport, pod(0).addresses
    policy, admin = Stage(Direction.EGRESS, Tier.NETWORK_POLICY, 0), Stage(Direction.EGRESS, Tier.ADMIN, 7)
    for address in pod(1).addresses:
        length = 32 if address.version == 4 else 128
        yield PeerCell(PeerKey(policy, Range(address.version, address.value, length)), (ALLOWED,), WEB)
    ports = PortMatch(Protocol.TCP, 80, 80)
    yield SubjectCell(SubjectKey(policy, me, ports), addresses, (ALLOWED,), WEB)
    yield RuleCell(RuleKey(ALLOWED), policy, Action.ACCEPT, WEB, "egress[0]", log=True)
    yield IsolationCell(IsolationKey(Direction.EGRESS, me), addresses, WEB, 1, log=True)
    yield PeerCell(PeerKey(admin, Range.parse("10.244.9.0/24")), (FORBIDDEN,), GATE)
    yield SubjectCell(SubjectKey(admin, me, None), addresses, (FORBIDDEN,), GATE)
    yield RuleCell(RuleKey(FORBIDDEN), admin, Action.DENY, GATE, "egress[0]", log=True)


class Watch:
    """Verdicts in a loop of their own, as the controller's; everything is asked of them there."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.verdicts: Verdicts = self.call(Verdicts)
        self.verdicts.node_of = lambda datapath_id: "node-1" if datapath_id == DATAPATH_ID else ""
        self.verdicts.ruling_of = self._ruling
        names = {str(address): f"default/pod-{n}" for n in range(PODS) for address in pod(n).addresses}
        self.verdicts.pod_of = lambda address: names.get(str(address), "")
        self.reader: Reader = self.call(lambda: self.verdicts.open(Selection()))

    def _ruling(self, sighting: Sighting) -> Ruling | None:
        self.sightings.append(sighting)
        return RULINGS.get(sighting.rule)

    def call(self, what: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    def next(self) -> Record:
        coming: Future[Record] = asyncio.run_coroutine_threadsafe(self.reader.next(), self._loop)
        return coming.result(60)

    def all(self) -> list[Record]:
        return self.call(lambda: self.verdicts.open(Selection()).recent)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    try:
        yield watch
    finally:
        watch.close()


@pytest.fixture
def switch() -> Iterator[PrivateSwitch]:
    for running in running_switch():
        add_pod_ports(running, PODS)
        yield running


@pytest.fixture
def watch() -> Iterator[Watch]:
    with watched() as found:
        yield found


@pytest.fixture
def node(switch: PrivateSwitch, watch: Watch) -> Iterator[ServiceNode]:
    with service_node(switch, watch.verdicts) as running:
        running.put_pods(PODS)
        waiter = Waiter()
        for cell in cells():
            running.synchronizer.submit(
                ("policy", cell.key), functools.partial(policy_flows, cell), waiter.done
            )
        running.connect()
        assert waiter() is None
        yield running


@pytest.mark.parametrize("version", [4, 6])
def test_a_rule_that_allows_is_told_with_the_connection(
    switch: PrivateSwitch, node: ServiceNode, watch: Watch, version: int
) -> None:
    source, destination = (str(pod(number).addresses[version == 6]) for number in (0, 1))
    before = time.time()
    send(switch, 0, destination, 80, 40000, ServiceProtocol.TCP)
    told = watch.next()
    assert before - 1 < told.time.ToMicroseconds() / 1e6 < time.time() + 1
    told.ClearField("time")
    assert told == Record(
        node="node-1",
        policy="NetworkPolicy/default/web",
        rule="egress[0]",
        tier="NetworkPolicy",
        direction="egress",
        action="accept",
        protocol="TCP",
        source=source,
        source_port=40000,
        destination=destination,
        destination_port=80,
        source_pod="default/pod-0",
        destination_pod="default/pod-1",
    )
    (seen,) = watch.sightings
    assert (seen.rule, seen.table) == (ALLOWED, EGRESS_POLICY.number)
    assert seen.cookie == cookie(Feature.POLICY, Owner("NetworkPolicy", "default", "web"))


@pytest.mark.parametrize("version", [4, 6])
def test_what_no_rule_allows_is_told_as_isolation(
    switch: PrivateSwitch, node: ServiceNode, watch: Watch, version: int
) -> None:
    destination = str(pod(1).addresses[version == 6])
    send(switch, 0, destination, 81, 40000, ServiceProtocol.TCP)
    send(switch, 0, destination, 80, 40000, ServiceProtocol.UDP)
    first, second = watch.next(), watch.next()
    assert (first.action, first.rule, first.protocol, first.destination_port) == ("deny", "", "TCP", 81)
    assert (second.action, second.rule, second.protocol, second.destination_port) == ("deny", "", "UDP", 80)
    assert [seen.rule for seen in watch.sightings] == [0, 0]


def test_a_rule_of_the_tier_admin_is_told_from_its_own_table(
    switch: PrivateSwitch, node: ServiceNode, watch: Watch
) -> None:
    send(switch, 0, "10.244.9.9", 80, 40000, ServiceProtocol.TCP)
    told = watch.next()
    assert (told.policy, told.tier, told.action) == ("ClusterNetworkPolicy/gate", "Admin", "deny")
    assert (told.destination, told.destination_pod) == ("10.244.9.9", "")
    (seen,) = watch.sightings
    assert (seen.rule, seen.table) == (FORBIDDEN, EGRESS_ADMIN.number)


def test_of_a_service_the_endpoint_is_told(switch: PrivateSwitch, node: ServiceNode, watch: Watch) -> None:
    node.put(service(1, [endpoint(1, 80)], ServiceProtocol.TCP))
    send(switch, 0, "10.96.0.1", 80, 40000, ServiceProtocol.TCP)
    told = watch.next()
    assert (told.action, told.destination, told.destination_port) == ("accept", str(pod(1).addresses[0]), 80)


def test_a_flood_is_told_in_measure_and_neither_changes_nor_rejects_suffer(
    switch: PrivateSwitch, node: ServiceNode, watch: Watch
) -> None:
    before = node.synchronizer.connection
    flood = [frame(0, "10.244.9.9", 80, port, ServiceProtocol.TCP).hex() for port in range(30000, 30100)]
    began = time.monotonic()
    sent = 0
    while time.monotonic() - began < 3:
        switch.appctl("netdev-dummy/receive", "p0", *flood)
        sent += len(flood)
    node.put(service(2, [endpoint(1)], ServiceProtocol.TCP))
    # Pod 1 has no policy: it is told at once that nobody serves it.
    send(switch, 1, "10.96.7.7", 80, 40000, ServiceProtocol.TCP)
    answers = switch.folder / "p1.pcap"
    wait_until(lambda: answers.exists() and answers.stat().st_size > 24, "the answer to pod 1")
    seconds = time.monotonic() - began
    told = watch.all()
    print(f"{sent} packets sent, {len(told)} told, {sum(one.suppressed for one in told)} counted")
    assert BURST <= len(told) <= min(sent, BURST + RATE * seconds + 1)
    assert node.synchronizer.connection is before, "the connection has held"
    time.sleep(1)
    switch.appctl("netdev-dummy/receive", "p0", flood[0])
    wait_until(lambda: sum(1 + one.suppressed for one in watch.all()) > len(told), "the last one")
    # The switch itself may have lost some on the way.
    assert sum(1 + one.suppressed for one in watch.all()) <= sent + 1
    assert sum(one.suppressed for one in watch.all()) > 0
