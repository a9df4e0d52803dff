# SPDX-License-Identifier: Apache-2.0
"""Controllers, agents and the CNI plugin are replaced by another build under traffic, in any order; nothing is lost."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdn.lab import trees
from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import wait_until
from tests.lab import accounts, builds, labs
from tests.lab.policy_stream import Stream, Way

pytestmark = pytest.mark.alone

PORT = 7000
#: Datagrams a second of each way.
RATE = 20
#: Seconds before the end in which a datagram may still be on its way.
SLACK = 2.0
PARTS = ("controller-1", "node-1/agent", "node-2/agent", trees.PLUGIN)


@pytest.fixture(scope="module")
def rng() -> random.Random:
    seed = int(os.environ.get("SDN_TEST_SEED", random.randrange(1 << 32)))
    print(f"\nseed {seed}: SDN_TEST_SEED={seed} repeats the same order")
    return random.Random(seed)


def ways(pods: Sequence[PodRecord]) -> list[Way]:
    """From each pod to each other one."""
    return [
        Way(one.name, other.name, one.netns, other.netns, address, PORT, one.node == other.node)
        for one in pods
        for other in pods
        if one != other
        for address in other.addresses
    ]


def assert_nothing_lost(stream: Stream, end: float) -> None:
    lost = [
        (way.source, way.destination, way.address, round(end - one.sent, 2))
        for way, datagrams in stream.record.items()
        for one in datagrams
        if one.sent < end and not one.received
    ]
    print(f"{stream.sent} datagrams, {len(lost)} lost")
    assert not lost, f"{len(lost)} of {stream.sent} were lost: {lost[:10]}"


def replace(lab: Lab, part: str, tree: Path) -> None:
    """As a package manager does it: new files, then the service is started anew."""
    trees.set_tree(lab.folder, part, tree)
    if part != trees.PLUGIN:
        lab.restart(part)


def works(lab: Lab, prefix: str) -> None:
    """Pods can be made on both nodes, reach each other, and are deleted."""
    pods = labs.add_pods(lab, 2, prefix, retry_seconds=120)
    assert labs.unreachable(lab.ping_matrix()) == []
    labs.delete_pods(lab, pods, retry_seconds=120)
    accounts.wait_until_settled(lab)


@pytest.mark.parametrize("first", ["controller-1", "node-1/agent"])
def test_each_part_is_replaced_by_the_next_build_in_a_random_order(
    first: str, rng: random.Random, tmp_path: Path
) -> None:
    """From the former build to today's: at each step some parts are the former ones and some are not."""
    former, called = builds.former(tmp_path)
    order = [part for part in PARTS if part != first]
    rng.shuffle(order)
    order.insert(0, first)
    print(f"from {called}, in the order {', '.join(order)}")
    with labs.running("upgrade", nodes=2, trees=dict.fromkeys(PARTS, str(former))) as lab:
        pods = labs.add_pods(lab, 4, "steady")
        accounts.wait_until_settled(lab)
        with Stream(ways(pods), RATE, tmp_path / "stream") as stream:
            time.sleep(1)
            for number, part in enumerate(order):
                replace(lab, part, builds.ROOT)
                works(lab, f"after-{number}")
            time.sleep(1 + SLACK)
            end = time.monotonic() - SLACK
        assert_nothing_lost(stream, end)
        assert {switch.synchronized for switch in lab.switches().values()} == {True}


def test_a_changed_pipeline_comes_to_each_switch_once_and_loses_nothing(tmp_path: Path) -> None:
    """Three controllers are replaced one after the other by ones that have another table: while there are both, the
    newer ones take the switches over, and none goes back.
    """
    changed, version = builds.changed_pipeline(tmp_path)
    controllers = ("controller-1", "controller-2", "controller-3")
    with labs.running(
        "pipeline",
        nodes=2,
        controllers=3,
        store="etcd",
        trees=dict.fromkeys(controllers, str(builds.ROOT)),
    ) as lab:
        pods = labs.add_pods(lab, 4, "steady")
        accounts.wait_until_settled(lab)
        assert {switch.pipeline for switch in lab.switches().values()} == {version - 1}
        with Stream(ways(pods), RATE, tmp_path / "stream") as stream:
            time.sleep(1)
            for number, controller in enumerate(controllers):
                replace(lab, controller, changed)
                wait_until(
                    lambda: _pipelines(lab) == {version}, "the newer controller to have all switches", 60
                )
                works(lab, f"after-{number}")
            time.sleep(1 + SLACK)
            end = time.monotonic() - SLACK
        assert_nothing_lost(stream, end)
        found = _pipelines_found(lab, controllers)
        print(found)
        for node, versions in found.items():
            assert versions == sorted(versions), f"the pipeline of {node} went back"


def _pipelines(lab: Lab) -> set[int]:
    return {switch.pipeline if switch.synchronized else 0 for switch in lab.switches().values()}


def _pipelines_found(lab: Lab, controllers: Sequence[str]) -> dict[str, list[int]]:
    """What each switch held whenever a controller compared it, in the order of time."""
    logs = [lab.log(controller).read_text(encoding="utf-8") for controller in controllers]
    lines = [json.loads(line) for log in logs for line in log.splitlines() if "switch compared" in line]
    found: dict[str, list[int]] = {}
    for line in sorted(lines, key=lambda line: str(line["time"])):
        found.setdefault(line["node"], []).append(line["pipeline"])
    return found
