# SPDX-License-Identifier: Apache-2.0
"""A pod that is given the address of one that has gone has connections of its own, even just the same ones.

Pings of one number, over IPv6: what Open vSwitch's userspace tracker cannot be made to forget.
"""

from collections.abc import Iterator

import pytest

from sdn.lab.state import PodRecord
from tests.lab.policy_changes import PolicyLab, running

NUMBER = "4242"
TRIES = 40


@pytest.fixture(scope="module")
def cluster() -> Iterator[PolicyLab]:
    with running() as found:
        yield found


def again(cluster: PolicyLab, address: str) -> PodRecord:
    """The next pod on node-1 that is given the address."""
    for number in range(TRIES):
        pod = cluster.lab.pod_add(f"next-{number}", "next", node="node-1")
        if address in pod.addresses:
            return pod
        cluster.lab.pod_delete(pod.name, "next")
    raise AssertionError(f"{address} was not given again to any of {TRIES} pods")


def ping(cluster: PolicyLab, source: PodRecord, address: str) -> str:
    done = cluster.lab.run(
        f"{source.namespace}/{source.name}",
        "ping",
        "-e",
        NUMBER,
        "-c",
        "3",
        "-i",
        "0.1",
        "-W",
        "1",
        "-w",
        "3",
        "-q",
        address,
    )
    return next((line for line in done.stdout.splitlines() if "received" in line), done.stderr)


@pytest.mark.parametrize("peer", ["free1", "free2"])
@pytest.mark.parametrize("opens", ["the pod", "its peer"])
@pytest.mark.parametrize("index", [0, 1])
def test_the_same_ping_as_the_former_pods_is_answered(
    cluster: PolicyLab, peer: str, opens: str, index: int
) -> None:
    far = cluster.pods[peer]
    former = cluster.lab.pod_add("former", "former", node="node-1")
    address = former.addresses[index]

    def exchange(pod: PodRecord) -> str:
        if opens == "the pod":
            return ping(cluster, pod, far.addresses[index])
        return ping(cluster, far, address)

    try:
        assert "3 received" in exchange(former)
    finally:
        cluster.lab.pod_delete("former", "former")
    present = again(cluster, address)
    try:
        assert "3 received" in exchange(present)
    finally:
        cluster.lab.pod_delete(present.name, "next")
