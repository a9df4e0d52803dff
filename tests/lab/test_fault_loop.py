# SPDX-License-Identifier: Apache-2.0
"""Faults at random, for minutes, while pods, Services and policies come and go: nothing leaks, and packets go on.

`SDN_FAULT_LOOP_SECONDS` sets for how long (default 600; every kind of fault happens at least once in any case),
`SDN_TEST_SEED` repeats the choices of a run.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdn.lab import disks, partitions
from sdn.lab.lab import Lab
from sdn.lab.waiting import wait_until
from tests.lab import fault_accounts, fault_traffic, labs
from tests.lab.fault_churn import Churn
from tests.lab.fault_deck import KINDS, Deck, Fault, World
from tests.lab.fault_traffic import Steady, Traffic
from tests.lab.fault_windows import Outages
from tests.lab.service_servers import Servers

SECONDS = float(os.environ.get("SDN_FAULT_LOOP_SECONDS", "600"))
CONTROLLERS = ("controller-1", "controller-2", "controller-3")
CONTROLLER_DISK, MEMBER_DISK = 2, 320
"""MB. etcd reserves 128 of them."""
TOGETHER = 0.4
"""So often a second fault begins before the first ends."""
RESULTS = Path(__file__).parents[2] / "results"
"""Where the logs of a run that failed are kept."""
UNHURRIED = 0.6
"""So often the next fault waits until the cluster has recovered from the last one."""
RECOVERY = 120.0
UNEXPLAINED = 5
"""Of some 200,000 datagrams so many may be lost with nothing that excuses it: in one of a dozen short runs three in a
row were, while a port was slowly added to a switch, and why is not known. They are printed.
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    options = {"nodes": 3, "controllers": 3, "store": "etcd", "etcd": 3, "own_clocks": CONTROLLERS}
    with labs.running("faults", **options) as found:
        with ExitStack() as small:
            for machine in (*found.spec.controller_machines, *found.spec.store_machines):
                size = CONTROLLER_DISK if machine.name in CONTROLLERS else MEMBER_DISK
                small.enter_context(disks.small(found, machine.name, size))
                found.wait_ready()
            yield found


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as found:
        yield found


@pytest.fixture(scope="module")
def steady(lab: Lab, servers: Servers) -> Steady:
    try:
        return fault_traffic.make(lab, servers)
    except BaseException:
        print(f"the logs are in {fault_accounts.keep_logs(lab, RESULTS / 'faults-setup')}")
        raise


class Loop:
    """Draws faults and lets them happen until the time is over and all kinds have."""

    def __init__(self, world: World, rng: random.Random, seconds: float) -> None:
        self._world = world
        self._rng = rng
        self._seconds = seconds
        self._deck = Deck(world, rng)
        self._begun = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.pairs = 0

    def run(self) -> None:
        """LabError, or whatever a step of a fault raises, if the cluster does not get over one."""
        while time.monotonic() < self._begun + self._seconds or set(self.counts) < set(KINDS):
            first = self._deck.draw()
            second = self._deck.draw_beside(first) if self._rng.random() < TOGETHER else None
            self._happen(first, second)
            if self._rng.random() < UNHURRIED:
                self._recover()
            else:
                time.sleep(self._rng.uniform(0, 3))
        self._recover()

    def _happen(self, first: Fault, second: Fault | None) -> None:
        """Both are ended whatever happens; the second begins before the first ends."""
        steps: list[tuple[float, Callable[[], None]]] = [(first.seconds, lambda: self._end(first, healing))]
        if second is not None:
            later = self._rng.uniform(0, first.seconds)
            steps.append((later, lambda: self._begin(second, healing)))
            steps.append((later + second.seconds + 0.001, lambda: self._end(second, healing)))
            self.pairs += 1
        with ExitStack() as stack:
            healing: dict[Fault, ExitStack] = {
                fault: stack.enter_context(ExitStack()) for fault in (first, second) if fault
            }
            self._begin(first, healing)
            begun = time.monotonic()
            for when, step in sorted(steps, key=lambda pair: pair[0]):
                time.sleep(max(0.0, begun + when - time.monotonic()))
                step()

    def _begin(self, fault: Fault, healing: dict[Fault, ExitStack]) -> None:
        self._tell(f"{fault}, for {fault.seconds:.1f} s")
        self.counts[fault.kind] += 1
        healing[fault].callback(fault.end)
        fault.begin()

    def _end(self, fault: Fault, healing: dict[Fault, ExitStack]) -> None:
        healing[fault].close()
        self._tell(f"    over: {fault}")

    def _recover(self) -> None:
        """Every controller serves, every switch has an owner that has synchronized it and hears the node's agent."""
        lab, nodes = self._world.lab, len(self._world.nodes)
        began = time.monotonic()

        def whole() -> bool:
            switches = lab.switches().values()
            return (
                lab.serving() == CONTROLLERS
                and len(switches) == nodes
                and all(one.connected and one.synchronized and one.agent_connected for one in switches)
            )

        def why() -> str:
            held = [
                f"{name}: of {one.owner or 'nobody'}, connected {one.connected}, synchronized {one.synchronized},"
                f" agent connected {one.agent_connected}"
                for name, one in lab.switches().items()
            ]
            return f"{', '.join(lab.serving()) or 'none'} serve; {'; '.join(held)}"

        wait_until(whole, "the cluster to recover", RECOVERY, because=why)
        self._tell(f"    recovered after {time.monotonic() - began:.1f} s")

    def _tell(self, what: str) -> None:
        print(f"{time.monotonic() - self._begun:6.1f} s ({time.monotonic():.1f})  {what}", flush=True)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 1800)
def test_whatever_fails_nothing_leaks_and_packets_go_on(
    lab: Lab, steady: Steady, servers: Servers, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SDN_TEST_SEED", random.randrange(1 << 32)))
    print(f"\nseed {seed}: SDN_TEST_SEED={seed} repeats the same faults and changes")
    fault_accounts.settle(lab)
    empty = fault_accounts.holdings(lab)
    outages, churn = Outages(), Churn(lab, seed)
    world = World(lab, steady, churn, outages)
    loop = Loop(world, random.Random(seed), SECONDS)
    try:
        failures = survive(loop, world, servers, empty, tmp_path)
        assert set(loop.counts) == set(KINDS)
        assert not failures, f"seed {seed}: {len(failures)} problems:\n" + "\n".join(failures[:100])
    except BaseException:
        print(f"seed {seed}; the logs are in {fault_accounts.keep_logs(lab, RESULTS / f'faults-{seed}')}")
        raise


def survive(
    loop: Loop, world: World, servers: Servers, empty: fault_accounts.Holdings, folder: Path
) -> list[str]:
    """Let the loop run while things change and traffic flows; all that was not as it should be."""
    lab, churn = world.lab, world.churn
    traffic = Traffic(lab, world.steady, world.outages, folder)
    try:
        with traffic:
            try:
                with churn:
                    loop.run()
            finally:
                partitions.heal_all(lab)
            fault_accounts.settle(lab)
    finally:
        print(f"faults: {dict(loop.counts)}, {loop.pairs} times two at once")
        print(f"changes: {churn.told()}; ADDs whose agent was killed: {dict(Counter(world.adds))}")
        print(traffic.told(), *traffic.unexcused()[:100], sep="\n")
    return [
        *world.problems,
        *churn.problems,
        *traffic.problems,
        *unexplained(traffic),
        *(f"denied, and came through: {what}" for what in traffic.leaked),
        *in_the_end(lab, churn, world.steady, servers, empty),
    ]


def unexplained(traffic: Traffic) -> Iterator[str]:
    """What was lost though nothing excuses it, if it is more than UNEXPLAINED."""
    losses = traffic.unexcused()
    if len(losses) > UNEXPLAINED:
        yield from (f"{loss.what}, sent at {loss.begin:.3f}" for loss in losses)


def in_the_end(
    lab: Lab, churn: Churn, steady: Steady, servers: Servers, empty: fault_accounts.Holdings
) -> Iterator[str]:
    """What the accounts do not bear out: of what is there, of what controllers started anew find, and of what is left
    when all that came and went is removed.
    """
    yield from fault_accounts.of_store(lab, churn)
    yield from fault_accounts.of_objects(lab, churn)
    yield from fault_accounts.unowned(lab)
    count, wrong = fault_accounts.probes(lab, churn, steady, servers)
    print(
        f"{count} requests among {len(churn.pods)} pods, {len(churn.services)} Services, {len(churn.grants)} policies"
    )
    yield from wrong
    held = fault_accounts.holdings(lab)
    fault_accounts.start_controllers_anew(lab)
    yield from (f"of new controllers: {what}" for what in fault_accounts.repaired(lab))
    yield from (
        f"with new controllers: {what}"
        for what in fault_accounts.compared(held, fault_accounts.holdings(lab))
    )
    churn.clear()
    fault_accounts.settle(lab)
    yield from (f"left: {what}" for what in fault_accounts.compared(empty, fault_accounts.holdings(lab)))
    yield from (f"left: {what}" for what in fault_accounts.of_store(lab, churn))
    yield from fault_accounts.of_daemons(lab)
