# SPDX-License-Identifier: Apache-2.0
"""VXLAN and GRE between nodes on the kernel datapath, a lab each; Geneve is the main job's
(test_main_job.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.cluster import NAME, Cluster, Place
from tests.kernel.guest import Guest
from tests.kernel.image import Report
from tests.kernel.traffic import Transfer, transfer

pytestmark = [pytest.mark.kernel, pytest.mark.root, pytest.mark.lab]

PODS = (("web-1", "node-1"), ("db-1", "node-2"))
DEVICES = {"vxlan": "vxlan_sys_4789", "gre": "gre_sys"}
"""The kernel's own tunnel device, as Open vSwitch names it."""


@pytest.fixture(scope="module", params=sorted(DEVICES))
def encapsulation(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def cluster(guest: Guest, report: Report, encapsulation: str) -> Iterator[Cluster]:
    cluster = Cluster(guest)
    report(f"bringing up lab {NAME} with {encapsulation} in the guest: a minute or two")
    cluster.up(encapsulation, PODS)
    yield cluster
    cluster.down()


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> dict[str, Place]:
    return cluster.places()


def test_the_kernel_encapsulates(cluster: Cluster, encapsulation: str) -> None:
    assert DEVICES[encapsulation] in cluster.ovs("node-1", "ovs-appctl", "dpctl/show")


def test_everyone_reaches_everyone(cluster: Cluster) -> None:
    matrix = cluster.json("lab", "ping-matrix", timeout=600)
    assert [way for way in matrix["results"] if not way["reachable"]] == []
    # Two pods: 2 ordered pairs; each pod to two nodes and back: 8; both families.
    assert matrix["summary"] == {"tried": 20, "reachable": 20}


def test_a_stream_arrives_whole_and_from_the_pods_own_address(guest: Guest, places: dict[str, Place]) -> None:
    here, there = places["web-1"], places["db-1"]
    for source, address in ((here.ipv4, there.ipv4), (here.ipv6, there.ipv6)):
        done = transfer(guest, here.inside, there.inside, address, 3_000_000)
        assert done == Transfer(source, 3_000_000, intact=True)


def test_a_packet_of_the_full_mtu_passes_unfragmented(guest: Guest, places: dict[str, Place]) -> None:
    here, there = places["web-1"], places["db-1"]
    mtu = int(guest.run([*here.inside, "cat", "/sys/class/net/eth0/mtu"]).check().stdout)
    for headers, address in ((28, there.ipv4), (48, there.ipv6)):
        ping = ["ping", "-c2", "-i0.3", "-w60", "-M", "do", "-s", str(mtu - headers), address]
        guest.run([*here.inside, *ping]).check()
