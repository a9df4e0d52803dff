# SPDX-License-Identifier: Apache-2.0
"""The main job, whole: thirty pods on three nodes, every encapsulation, both families, real packets."""

import itertools
from collections.abc import Iterator

import pytest

from sdn.lab.lab import Lab
from sdn.lab.spec import FAR_V4, FAR_V6
from sdn.lab.state import PodRecord
from tests.lab import labs, traffic

PODS = 30
OVERHEAD = {"geneve": 50, "vxlan": 50, "gre": 42}
"""Bytes that each encapsulation at least adds to an IPv4 underlay: outer IP, transport, own header, inner Ethernet."""


@pytest.fixture(scope="module", params=["geneve", "vxlan", "gre"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with labs.running(request.param, encapsulation=request.param) as found:
        labs.add_pods(found, PODS)
        yield found


@pytest.fixture
def pods(lab: Lab) -> list[PodRecord]:
    return lab.pods()


def on(lab: Lab, node: str) -> list[PodRecord]:
    return [pod for pod in lab.pods() if pod.node == node]


def pairs(lab: Lab) -> list[tuple[PodRecord, PodRecord]]:
    """One pair on one node, one on two."""
    first, second, *_ = on(lab, "node-1")
    return [(first, second), (first, on(lab, "node-2")[0])]


def test_all_pods_and_nodes_reach_each_other(lab: Lab, pods: list[PodRecord]) -> None:
    assert len(pods) == PODS
    assert {pod.node for pod in pods} == {"node-1", "node-2", "node-3"}
    reaches = lab.ping_matrix(attempts=5)
    assert labs.unreachable(reaches) == []
    # Each family: pod to pod, pod to node, node to pod.
    assert len(reaches) == 2 * (PODS * (PODS - 1) + PODS * 3 + 3 * PODS)


def test_no_address_or_mac_is_given_twice(pods: list[PodRecord]) -> None:
    assert all(len(pod.addresses) == 2 for pod in pods)
    for values in ([pod.mac for pod in pods], list(itertools.chain(*(pod.addresses for pod in pods)))):
        assert len(set(values)) == len(values)


def test_a_pod_sees_another_pods_own_address(lab: Lab) -> None:
    for source, target in pairs(lab):
        for own, address in zip(source.addresses, target.addresses, strict=True):
            assert traffic.exchange(source.netns, target.netns, address)[0] == own


def test_a_node_sees_a_pods_own_address(lab: Lab) -> None:
    pod = on(lab, "node-1")[0]
    for node in lab.spec.node_machines:
        for own, address in zip(pod.addresses, (node.ipv4, node.ipv6), strict=True):
            assert traffic.exchange(pod.netns, node.netns, address)[0] == own


def test_a_pod_sees_a_nodes_own_address(lab: Lab) -> None:
    pod = on(lab, "node-1")[0]
    for node in lab.spec.node_machines:
        for own, address in zip((node.ipv4, node.ipv6), pod.addresses, strict=True):
            assert traffic.exchange(node.netns, pod.netns, address)[0] == own


def test_outside_sees_the_pods_node_and_answers_through_it(lab: Lab) -> None:
    outside = lab.spec.outside
    for pod in (on(lab, "node-1")[0], on(lab, "node-2")[0]):
        node = lab.spec.node(pod.node)
        for own, near, far in ((node.ipv4, outside.ipv4, FAR_V4), (node.ipv6, outside.ipv6, FAR_V6)):
            assert traffic.exchange(pod.netns, outside.netns, near)[0] == own
            assert traffic.exchange(pod.netns, outside.netns, far)[0] == own


def test_outside_does_not_reach_a_pod_by_its_address(lab: Lab) -> None:
    """It has no route to pods: what it sees of them must have been translated."""
    pod = on(lab, "node-1")[0]
    for address in pod.addresses:
        assert lab.run("outside", "ping", "-c1", "-W1", address).returncode != 0


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_full_packets_pass_whole(lab: Lab, family: int) -> None:
    headers = (20, 40)[family]
    for source, target in pairs(lab):
        assert 1400 <= source.mtu <= 1500 - OVERHEAD[lab.spec.encapsulation], "MTU not found from the uplink"
        payload = bytes(source.mtu - headers - 8)
        assert (
            traffic.exchange(source.netns, target.netns, target.addresses[family], payload, whole=True)[1]
            == payload
        )


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_tcp_carries_a_long_transfer_in_full_segments(lab: Lab, family: int) -> None:
    headers = (20, 40)[family] + 20
    for source, target in pairs(lab):
        segment = traffic.transfer(source.netns, target.netns, target.addresses[family], 8 << 20)
        # Options (time stamps) take up to twelve bytes of it.
        assert source.mtu - headers - 12 <= segment <= source.mtu - headers


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_datagram_of_9000_bytes_arrives(lab: Lab, family: int) -> None:
    payload = bytes(range(250)) * 36
    for source, target in pairs(lab):
        assert traffic.exchange(source.netns, target.netns, target.addresses[family], payload)[1] == payload


def test_a_hop_between_pods_counts_once_a_router(lab: Lab) -> None:
    """Bridged on one node: unchanged; routed between nodes: one less (RFC 1812 section 5.3.1, RFC 8200 section 3)."""
    for (source, target), expected in zip(pairs(lab), (64, 63), strict=True):
        for family, kind, offset in ((0, traffic.ETH_P_IP, 14 + 8), (1, traffic.ETH_P_IPV6, 14 + 7)):
            token = f"ttl-{family}-{target.name}".encode()
            with (
                traffic.Tap(target.netns) as tap,
                traffic.udp(source.netns, traffic.family_of(target.addresses[family])) as client,
            ):
                seen: list[int] = []

                def wanted(
                    frame: bytes,
                    kind: int = kind,
                    token: bytes = token,
                    offset: int = offset,
                    seen: list[int] = seen,
                ) -> bool:
                    if frame[12:14] == kind.to_bytes(2, "big") and token in frame:
                        seen.append(frame[offset])
                        return True
                    return False

                client.sendto(token, (target.addresses[family], 40001))
                assert tap.wait_for(wanted)
                assert seen == [expected]
