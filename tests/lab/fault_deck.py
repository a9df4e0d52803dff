# SPDX-License-Identifier: Apache-2.0
"""What is to go wrong, drawn at random: each kind of fault comes once before any comes again.

A fault is a value: what it is called, whom it hits, for how long, how it begins and how it ends.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sdn.lab import disks, etcd, faults, partitions
from sdn.lab.errors import CniError, LabError
from sdn.lab.lab import Lab
from sdn.lab.pods import TRY_AGAIN
from sdn.lab.waiting import wait_until
from tests.lab.fault_churn import SLOTS, Churn
from tests.lab.fault_traffic import Steady, wait_forwarding
from tests.lab.fault_windows import Outages

#: Until a process that was started or is started again is there, seconds.
_THERE = 60.0
#: In so many seconds after its begin an ADD is hit by its agent's end; one takes 0.05 to 0.2.
_ADD = 0.15
_CLOCK_JUMPS = (-86_400.0, -3600.0, -30.0, 30.0, 3600.0, 86_400.0, 10 * 365 * 86_400.0)


@dataclass(frozen=True)
class Fault:
    """One that is about to happen."""

    kind: str
    #: Processes that it hits: no two faults hit one at the same time.
    targets: tuple[str, ...]
    #: Between its begin and its end.
    seconds: float
    begin: Callable[[], None]
    end: Callable[[], None]
    detail: str = ""

    @property
    def of_store(self) -> bool:
        return any(target.startswith("etcd-") for target in self.targets)

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.targets)}{f' ({self.detail})' if self.detail else ''}"


@dataclass
class World:
    """What faults hit, and who is told of it."""

    lab: Lab
    steady: Steady
    churn: Churn
    outages: Outages
    #: What became of ADDs whose agent was killed.
    adds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def controllers(self) -> list[str]:
        return [machine.name for machine in self.lab.spec.controller_machines]

    @property
    def members(self) -> list[str]:
        return [machine.name for machine in self.lab.spec.store_machines]

    @property
    def nodes(self) -> list[str]:
        return [machine.name for machine in self.lab.spec.node_machines]


def _start(world: World, name: str) -> None:
    """Start a process, whatever keeps it from staying: its supervisor tries again."""
    world.lab.supervisor.begin_process(name)


def _wait_running(world: World, *names: str) -> None:
    def running() -> bool:
        return all(world.lab.process(name).state == "RUNNING" for name in names)

    wait_until(running, f"{', '.join(names)} to run", _THERE)


def _restarted(world: World, name: str) -> None:
    """Its supervisor has started it again, if it ended."""
    _start(world, name)
    _wait_running(world, name)


# Controllers.


def killed(world: World, rng: random.Random) -> Fault:
    name = rng.choice(world.controllers)
    return Fault(
        "controller killed",
        (name,),
        rng.uniform(0.5, 8),
        lambda: faults.kill_for_good(world.lab, name),
        lambda: _restarted(world, name),
    )


def stopped(world: World, rng: random.Random) -> Fault:
    name = rng.choice(world.controllers)
    return Fault(
        "controller stopped",
        (name,),
        rng.uniform(0.2, 10),
        lambda: faults.freeze(world.lab, name),
        lambda: faults.thaw(world.lab, name),
    )


def ended(world: World, rng: random.Random) -> Fault:
    name = rng.choice(world.controllers)
    return Fault(
        "controller ended",
        (name,),
        rng.uniform(0.5, 5),
        lambda: world.lab.stop(name),
        lambda: _restarted(world, name),
    )


def cut_off(world: World, rng: random.Random) -> Fault:
    name = rng.choice(world.controllers)
    return Fault(
        "controller cut off",
        (name,),
        rng.uniform(0.5, 10),
        lambda: partitions.cut(world.lab, name),
        lambda: partitions.heal(world.lab, name),
    )


def cut_apart(world: World, rng: random.Random) -> Fault:
    """From some of the others only, or in one direction only."""
    name = rng.choice(world.controllers)
    others = [other for other in (*world.controllers, *world.members, *world.nodes) if other != name]
    chosen = rng.sample(others, rng.randint(1, 4))
    one_way = rng.random() < 0.3

    def begin() -> None:
        if one_way:
            for other in chosen:
                partitions.cut_one_way(world.lab, name, other)
        else:
            partitions.cut(world.lab, name, *chosen)

    return Fault(
        "controller cut from some",
        (name,),
        rng.uniform(0.5, 10),
        begin,
        lambda: partitions.heal(world.lab, name, *chosen),
        f"{'to' if one_way else 'from'} {', '.join(sorted(chosen))}",
    )


def disk_full(world: World, rng: random.Random) -> Fault:
    return _full("controller's disk full", world, rng, world.controllers)


def store_disk_full(world: World, rng: random.Random) -> Fault:
    return _full("etcd's disk full", world, rng, world.members)


def _full(kind: str, world: World, rng: random.Random, names: Iterable[str]) -> Fault:
    """Sometimes the process must start while nothing is free."""
    name, anew = rng.choice(list(names)), rng.random() < 0.5

    def begin() -> None:
        disks.fill(world.lab, name)
        if anew:
            # One that cannot write may have ended by itself already, as etcd does.
            with contextlib.suppress(LabError):
                world.lab.kill(name)

    def end() -> None:
        disks.free(world.lab, name)
        _restarted(world, name)

    return Fault(kind, (name,), rng.uniform(2, 8), begin, end, "and killed" if anew else "")


def clock_jump(world: World, rng: random.Random) -> Fault:
    name, seconds = rng.choice(world.controllers), rng.choice(_CLOCK_JUMPS)
    return Fault(
        "controller's clock jumps",
        (name,),
        rng.uniform(3, 8),
        lambda: faults.set_clock(world.lab, name, seconds),
        lambda: faults.set_clock(world.lab, name, 0),
        f"{seconds:+.0f} s",
    )


# The store.


def leader_killed(world: World, rng: random.Random) -> Fault:
    name = etcd.wait_leader(world.lab.spec)
    return Fault(
        "etcd's leader killed",
        (name,),
        rng.uniform(0.5, 8),
        lambda: faults.kill_for_good(world.lab, name),
        lambda: _restarted(world, name),
    )


def quorum_lost(world: World, _rng: random.Random) -> Fault:
    names = etcd.enough_to_stop_writes(world.lab.spec)

    def end() -> None:
        faults.thaw(world.lab, *names)
        etcd.wait_leader(world.lab.spec, seconds=60)

    return Fault("etcd's quorum lost", names, 30.0, lambda: faults.freeze(world.lab, *names), end)


# Nodes.


def switch_restarted(world: World, rng: random.Random) -> Fault:
    node = rng.choice(world.nodes)
    name = f"{node}/ovs-vswitchd"

    def begin() -> None:
        with world.outages.down(node):
            old = world.lab.kill(name)
            world.lab.wait_restarted(name, old)
            wait_forwarding(world.steady, node)

    return Fault("vswitchd restarted", (name,), 0.0, begin, lambda: None)


def agent_killed(world: World, rng: random.Random) -> Fault:
    node = rng.choice(world.nodes)
    name, after = f"{node}/agent", rng.uniform(0, _ADD)
    kind, slot = rng.choice(("guarded", "web")), rng.choice(SLOTS)
    threads: list[threading.Thread] = []

    def add() -> None:
        try:
            pod = world.churn.add_once(node, kind, slot)
        except CniError as problem:
            world.adds.append(f"code {problem.code}")
            if problem.code != TRY_AGAIN:
                world.problems.append(f"an ADD whose agent was killed: code {problem.code}: {problem}")
        except Exception as problem:  # noqa: BLE001 - told in the test's own thread
            world.problems.append(f"an ADD whose agent was killed: {type(problem).__name__}: {problem}")
        else:
            world.adds.append("made")
            world.churn.keep(pod)

    def begin() -> None:
        adding = threading.Thread(target=add, name="ADD")
        threads.append(adding)
        adding.start()
        time.sleep(after)
        old = world.lab.kill(name)
        world.lab.wait_restarted(name, old)

    def end() -> None:
        for thread in threads:
            thread.join()

    return Fault(
        "agent killed during ADD", (name,), 0.0, begin, end, f"{after * 1000:.0f} ms after its begin"
    )


Draw = Callable[[World, random.Random], Fault]
#: By the name that the faults they draw have.
KINDS: dict[str, Draw] = {
    "controller killed": killed,
    "controller stopped": stopped,
    "controller ended": ended,
    "controller cut off": cut_off,
    "controller cut from some": cut_apart,
    "controller's disk full": disk_full,
    "controller's clock jumps": clock_jump,
    "etcd's leader killed": leader_killed,
    "etcd's quorum lost": quorum_lost,
    "etcd's disk full": store_disk_full,
    "vswitchd restarted": switch_restarted,
    "agent killed during ADD": agent_killed,
}


class Deck:
    """All kinds in random order, shuffled anew when none is left."""

    def __init__(self, world: World, rng: random.Random, kinds: Iterable[str] = KINDS) -> None:
        self._world = world
        self._rng = rng
        self._kinds = list(kinds)
        self._left: list[str] = []

    def draw(self) -> Fault:
        """The next one."""
        if not self._left:
            self._left = self._rng.sample(self._kinds, len(self._kinds))
        kind = self._left.pop()
        return KINDS[kind](self._world, self._rng)

    def draw_beside(self, other: Fault) -> Fault | None:
        """One that can happen at the same time: it hits nobody that the other one hits, and only one of both hits the
        store, of which one member more may be lost but not two. None: the next one cannot.
        """
        if not self._left:
            return None
        kind = self._left[-1]
        if other.of_store and KINDS[kind] in (leader_killed, quorum_lost, store_disk_full):
            return None
        fault = KINDS[kind](self._world, self._rng)
        if set(fault.targets) & set(other.targets):
            return None
        self._left.pop()
        return fault
