# SPDX-License-Identifier: Apache-2.0
"""Any process may be killed while pods are being made: packets go on, and all accounts agree in the end."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdn.lab.lab import Lab
from sdn.lab.waiting import wait_until
from tests.lab import accounts, labs
from tests.lab.watching import Watch

pytestmark = pytest.mark.alone

STEADY = 6
"""Pods that exist before, two on each node; their packets are watched."""
MADE = 18
"""Pods that are being made while a process is killed."""


@pytest.fixture(scope="module")
def steady(lab: Lab) -> Iterator[Lab]:
    labs.add_pods(lab, STEADY, "steady")
    accounts.wait_until_settled(lab)
    yield lab


def make_while_killing(lab: Lab, victim: str, prefix: str) -> None:
    """Make pods on all nodes; kill `victim` when a third of them is there, and again at two thirds."""
    with ThreadPoolExecutor(1) as background:
        making = background.submit(labs.add_pods, lab, MADE, prefix, 120)
        for share in (1, 2):
            number = STEADY + MADE * share // 3

            def enough(number: int = number) -> bool:
                return making.done() or len(lab.pods()) >= number

            wait_until(enough, f"{number} pods", 120)
            old = lab.kill(victim)
            lab.wait_restarted(victim, old)
        making.result()


@pytest.mark.parametrize("victim", ["controller-1", "node-1/agent", "node-1/ovsdb-server"])
def test_packets_go_on_and_everything_converges_when_a_daemon_is_killed(steady: Lab, victim: str) -> None:
    prefix = victim.replace("/", "-")
    with Watch(steady.pods()) as watch:
        make_while_killing(steady, victim, prefix)
        accounts.wait_until_settled(steady, 90)
    assert watch.sent > 100
    assert not watch.lost, watch.told()
    assert labs.unreachable(steady.ping_matrix(attempts=5)) == []
    labs.delete_pods(steady, [pod for pod in steady.pods() if pod.name.startswith(prefix)])
    accounts.wait_until_settled(steady)


def test_everything_comes_back_when_the_switch_is_killed(steady: Lab) -> None:
    """The userspace datapath lives in ovs-vswitchd: packets stop with it, and must go on when it does."""
    others = [pod for pod in steady.pods() if pod.node != "node-1"]
    with Watch(others) as watch:
        make_while_killing(steady, "node-1/ovs-vswitchd", "vswitchd")
        accounts.wait_until_settled(steady, 90)
    assert not watch.lost, f"nodes whose switch was not touched lost packets: {watch.told()}"
    assert labs.unreachable(steady.ping_matrix(attempts=5)) == []
    labs.delete_pods(steady, [pod for pod in steady.pods() if pod.name.startswith("vswitchd")])
    accounts.wait_until_settled(steady)


def test_pods_are_deleted_while_each_daemon_is_killed(steady: Lab) -> None:
    for victim in ("controller-1", "node-1/agent", "node-1/ovs-vswitchd", "node-1/ovsdb-server"):
        made = labs.add_pods(steady, 9, "brief")
        with ThreadPoolExecutor(1) as background:
            deleting = background.submit(labs.delete_pods, steady, made, 120)
            old = steady.kill(victim)
            steady.wait_restarted(victim, old)
            deleting.result()
        accounts.wait_until_settled(steady, 90)
    assert labs.unreachable(steady.ping_matrix(attempts=5)) == []


def test_an_add_without_a_controller_fails_whole_and_says_try_again(steady: Lab) -> None:
    from sdn.lab.errors import CniError

    steady.stop("controller-1")
    try:
        with Watch(steady.pods()) as watch:
            with pytest.raises(CniError) as refused:
                steady.pod_add("early", node="node-2", retry_seconds=0)
            time.sleep(1)
        assert refused.value.code == 11
        assert not watch.lost, watch.told()
        assert "early" not in [pod.name for pod in steady.folder.pods()]
    finally:
        steady.start("controller-1")
    accounts.wait_until_settled(steady)


def test_a_pod_that_was_removed_while_the_agent_was_away_is_forgotten(steady: Lab) -> None:
    """The runtime's DEL could not be delivered, and the namespace went: no address may leak."""
    from sdn.lab import namespaces

    pod = steady.pod_add("orphan", node="node-3")
    steady.stop("node-3/agent")
    try:
        namespaces.delete(pod.netns)
        steady.folder.remove_pod(pod)
    finally:
        steady.start("node-3/agent")
    accounts.wait_until_settled(steady, 90)


def test_a_node_that_starts_while_the_controller_is_away_goes_on_forwarding(steady: Lab) -> None:
    """The switch keeps its flows when agent and controller are both restarted, in any order."""
    with Watch(steady.pods()) as watch:
        steady.stop("controller-1")
        steady.restart("node-1/agent")
        time.sleep(2)
        steady.start("controller-1")
        accounts.wait_until_settled(steady)
    assert not watch.lost, watch.told()
