# SPDX-License-Identifier: Apache-2.0
"""Controllers die, are stopped, cut off or ended, and nobody loses a packet; a new pod on the orphaned node starts.

`SDN_HA_KILLS` sets how often each of it happens (default 2).
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from sdn.lab import faults, partitions
from sdn.lab.lab import Lab
from sdn.lab.waiting import wait_until
from tests.lab import accounts, labs
from tests.lab.steady import Steady

TIMES = int(os.environ.get("SDN_HA_KILLS", "2"))
pytestmark = [pytest.mark.alone, pytest.mark.timeout(600 + 60 * TIMES)]
NODES = ("node-1", "node-2", "node-3")
ATTEMPTS = 3
RENEWED = ("SIGSTOP", "cut off")
"""After these the controller is started anew where there are many: one that was found silent keeps away for twice as
long each time, up to 30 s (controller/ha/damping.py), and is given twice the time before it is found silent again
(controller/ha/heartbeat.py), so that it would not be the same that is measured.
"""
STALL = 0.1
"""Seconds for which this machine stood still: a switch in user space did, too, and lost what came meanwhile. Then the
test is made once more.
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running("failover", nodes=3, controllers=3, store="etcd", etcd=3) as found:
        for number, node in enumerate(NODES, 1):
            found.pod_add(f"steady-{number}", "default", node=node)
        yield found


@pytest.fixture(scope="module")
def rng() -> random.Random:
    seed = int(os.environ.get("SDN_TEST_SEED", random.randrange(1 << 32)))
    print(f"\nseed {seed}: SDN_TEST_SEED={seed} repeats the same choices")
    return random.Random(seed)


@contextmanager
def killed(lab: Lab, controller: str) -> Iterator[None]:
    faults.kill_for_good(lab, controller)
    try:
        yield
    finally:
        lab.start(controller)


@contextmanager
def ended(lab: Lab, controller: str) -> Iterator[None]:
    """SIGTERM; it hands over before it ends."""
    lab.stop(controller)
    try:
        yield
    finally:
        lab.start(controller)


FAULTS: dict[str, Callable[[Lab, str], AbstractContextManager[object]]] = {
    "kill -9": killed,
    "SIGSTOP": faults.frozen,
    "cut off": partitions.apart,
    "SIGTERM": ended,
}


def whole(lab: Lab) -> bool:
    """Every switch has an owner that has synchronized it, and every controller has one."""
    switches = lab.switches().values()
    owners = {switch.owner for switch in switches if switch.connected and switch.synchronized}
    return len(switches) == len(NODES) and len(owners) == len(NODES)


def spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, of {len(ordered)}"


@pytest.mark.parametrize("fault", FAULTS)
def test_an_owner_is_lost_and_nothing_else(lab: Lab, rng: random.Random, tmp_path: Path, fault: str) -> None:
    usual: list[float] = []
    took: list[float] = []
    for attempt in range(ATTEMPTS):
        steady = lose_owners(lab, rng, tmp_path / str(attempt), fault, usual, took)
        print(
            f"\n{fault}: ADD on the orphaned node took {spread(took)}; before it {spread(usual)}; {steady.told()}"
        )
        if not steady.lost or steady.stalled < STALL:
            break
    assert not steady.lost
    wait_until(lambda: whole(lab), "each controller to own a switch", 90)
    accounts.wait_until_settled(lab)


def add(lab: Lab, name: str, node: str) -> float:
    """Make a pod; the seconds that it took."""
    began = time.monotonic()
    lab.pod_add(name, "default", node=node)
    return time.monotonic() - began


def lose_owners(
    lab: Lab, rng: random.Random, folder: Path, fault: str, usual: list[float], took: list[float]
) -> Steady:
    """So many times, one after the other; `took` is how long an ADD on the orphaned node took each time, `usual` how
    long one took there just before, when nothing was wrong.
    """
    with Steady([lab.pod(f"steady-{number}") for number in (1, 2, 3)], folder) as steady:
        for number in range(TIMES):
            wait_until(lambda: whole(lab), "each controller to own a switch", 90)
            node = rng.choice(NODES)
            victim = lab.switches()[node].owner
            usual.append(add(lab, f"usual-{number}", node))
            lab.pod_delete(f"usual-{number}", "default")
            with FAULTS[fault](lab, victim):
                took.append(add(lab, f"new-{number}", node))
                assert lab.switches()[node].owner != victim
            lab.pod_delete(f"new-{number}", "default")
            if fault in RENEWED and TIMES > 2:
                lab.restart(victim)
    return steady
