# SPDX-License-Identifier: Apache-2.0
"""What follows from a lab's specification, and which specifications are refused."""

import ipaddress
import itertools
from typing import Any

import pytest

from sdn.lab.errors import InvalidSpecError
from sdn.lab.spec import MAX_NODES, UNDERLAY_V4, UNDERLAY_V6, LabSpec


def test_no_two_machines_share_a_name_namespace_cable_or_address() -> None:
    spec = LabSpec(name="x", nodes=MAX_NODES, controllers=1)
    machines = spec.machines
    for attribute in ("name", "netns", "port", "ipv4", "ipv6"):
        values = [getattr(machine, attribute) for machine in machines]
        assert len(set(values)) == len(values), attribute


def test_addresses_are_inside_the_underlay_and_names_fit_the_kernels_limit() -> None:
    for machine in LabSpec(name="x" * 20, nodes=MAX_NODES).machines:
        assert ipaddress.IPv4Address(machine.ipv4) in UNDERLAY_V4
        assert ipaddress.IPv6Address(machine.ipv6) in UNDERLAY_V6
        assert len(machine.port) <= 15


def test_labs_with_different_names_share_no_namespace() -> None:
    names = [
        set(LabSpec(name=name, nodes=20).namespaces) for name in ("a", "b", "a-node", "a-node-1", "node-1")
    ]
    for one, other in itertools.combinations(names, 2):
        assert not one & other


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": ""}, "lab name"),
        ({"name": "Upper"}, "lab name"),
        ({"name": "a/b"}, "lab name"),
        ({"name": "-a"}, "lab name"),
        ({"name": "x" * 21}, "lab name"),
        ({"nodes": 0}, "--nodes"),
        ({"nodes": MAX_NODES + 1}, "--nodes"),
        ({"controllers": 0}, "--controllers"),
        ({"controllers": 3}, "--controllers"),
        ({"mtu": 500}, "--mtu"),
        ({"mtu": 70000}, "--mtu"),
        ({"cluster_ranges": ()}, "--cluster-range"),
        ({"cluster_ranges": ("10.0.0.0/8", "10.1.0.0/16")}, "--cluster-range"),
        ({"cluster_ranges": ("10.0.0.1/8",)}, "--cluster-range"),
        ({"cluster_ranges": ("nonsense",)}, "--cluster-range nonsense"),
        ({"cluster_ranges": ("172.16.0.0/12",)}, "overlaps"),
        ({"cluster_ranges": ("fd00::/16",)}, "overlaps"),
        ({"load_balancer_ranges": ("nonsense",)}, "load_balancer_ranges nonsense"),
        ({"load_balancer_ranges": ("172.30.0.0/28",)}, "node-1 has 172.30.0.11"),
    ],
)
def test_what_cannot_be_a_lab_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSpecError, match=named):
        LabSpec(**{"name": "x", **wrong}).check()


@pytest.mark.parametrize("ranges", [("10.0.0.0/16",), ("fd00:1::/48",), ("fd00:1::/48", "10.0.0.0/29")])
def test_one_family_is_enough_and_the_order_is_free(ranges: tuple[str, ...]) -> None:
    LabSpec(name="x", cluster_ranges=ranges).check()
