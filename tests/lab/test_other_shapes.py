# SPDX-License-Identifier: Apache-2.0
"""Clusters of other shapes: one family only, tunnels over IPv6, large and small MTUs."""

from typing import Any

import pytest

from tests.lab import labs, traffic


@pytest.mark.parametrize(
    ("options", "families"),
    [
        ({"cluster_ranges": ("10.55.0.0/16",)}, 1),
        ({"cluster_ranges": ("fd00:55::/48",)}, 1),
        ({"underlay": "ipv6"}, 2),
        ({"underlay": "ipv6", "encapsulation": "vxlan"}, 2),
        ({"mtu": 9000}, 2),
        ({"mtu": 1400, "encapsulation": "gre"}, 2),
    ],
    ids=["ipv4 only", "ipv6 only", "over ipv6", "vxlan over ipv6", "jumbo", "small gre"],
)
def test_all_reach_each_other_with_full_packets(options: dict[str, Any], families: int) -> None:
    with labs.running("shape", nodes=2, **options) as lab:
        pods = labs.add_pods(lab, 4)
        assert {len(pod.addresses) for pod in pods} == {families}
        assert labs.unreachable(lab.ping_matrix(attempts=5)) == []
        source, target = pods[0], pods[1]
        assert source.node != target.node
        for address in target.addresses:
            headers = 40 if ":" in address else 20
            payload = bytes(source.mtu - headers - 8)
            assert traffic.exchange(source.netns, target.netns, address, payload, whole=True)[1] == payload
            traffic.transfer(source.netns, target.netns, address, 1 << 20)
