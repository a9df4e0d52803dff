# SPDX-License-Identifier: Apache-2.0
"""Labs for tests: brought up once for the tests that share one, gone at their end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sdn.lab.lab import Lab, LabSpec
from sdn.lab.matrix import Reach
from sdn.lab.state import PodRecord

#: Pods are made this many at a time: more only wait for each other on two cores.
AT_ONCE = 6


def lab_name(short: str) -> str:
    """A name that no other test run, nor anybody's own lab, has."""
    return f"t{os.getpid() % 100000}-{short}"


@contextmanager
def running(short: str, **options: Any) -> Iterator[Lab]:
    """A lab for the time of the `with` block; `options` are those of LabSpec: nodes, controllers, store, etcd, ..."""
    lab = Lab.up(LabSpec(name=lab_name(short), **options), lambda line: print(f"{short}: {line}", flush=True))
    try:
        yield lab
    finally:
        lab.down()


def compare_often(lab: Lab) -> None:
    """Let the switches compare what they have cached with their flows ten times a second instead of twice. They do so
    at every change of flows anyway; who waits for the end of a comparison waits less.
    """
    for node in lab.spec.node_machines:
        setting = "other_config:max-revalidator=100"
        lab.run(
            node.name, "ovs-vsctl", "--timeout=20", "set", "Open_vSwitch", ".", setting
        ).check_returncode()


def add_pods(lab: Lab, count: int, prefix: str = "p", retry_seconds: float = 60) -> list[PodRecord]:
    """Pods PREFIX-1 to PREFIX-COUNT, in turn on all nodes, several at once."""
    nodes = [node.name for node in lab.spec.node_machines]

    def make(number: int) -> PodRecord:
        node = nodes[number % len(nodes)]
        return lab.pod_add(f"{prefix}-{number + 1}", node=node, retry_seconds=retry_seconds)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(make, range(count)))


def delete_pods(lab: Lab, pods: Sequence[PodRecord], retry_seconds: float = 60) -> None:
    """Remove these pods, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda pod: lab.pod_delete(pod.name, pod.namespace, retry_seconds), pods))


def unreachable(reaches: Sequence[Reach]) -> list[str]:
    """What a person wants to read of the ways that do not work."""
    return [
        f"{reach.source} -> {reach.destination} {reach.address} ({reach.kind}) {reach.error}".strip()
        for reach in reaches
        if not reach.reachable
    ]
