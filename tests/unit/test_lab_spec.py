# SPDX-License-Identifier: Apache-2.0
"""What follows from a lab's specification, and which specifications are refused."""

import ipaddress
import itertools
from typing import Any

import pytest

from sdn.lab.errors import InvalidSpecError, LabError
from sdn.lab.spec import MAX_CONTROLLERS, MAX_MEMBERS, MAX_NODES, UNDERLAY_V4, UNDERLAY_V6, LabSpec

LARGEST = LabSpec(name="x" * 20, nodes=MAX_NODES, controllers=MAX_CONTROLLERS, store="etcd", etcd=MAX_MEMBERS)


def test_no_two_machines_share_a_name_namespace_cable_or_address() -> None:
    LARGEST.check()
    machines = LARGEST.machines
    assert len(machines) == MAX_NODES + MAX_CONTROLLERS + MAX_MEMBERS + 1
    for attribute in ("name", "netns", "port", "ipv4", "ipv6"):
        values = [getattr(machine, attribute) for machine in machines]
        assert len(set(values)) == len(values), attribute


def test_addresses_are_inside_the_underlay_and_names_fit_the_kernels_limit() -> None:
    for machine in LARGEST.machines:
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
        ({"controllers": MAX_CONTROLLERS + 1, "store": "etcd"}, "--controllers"),
        ({"controllers": 2}, "--controllers 2: .* add --store etcd"),
        ({"etcd": 3}, "--etcd 3: the store is sqlite"),
        ({"etcd": 0, "store": "etcd"}, "--etcd"),
        ({"etcd": MAX_MEMBERS + 1, "store": "etcd"}, "--etcd"),
        (
            {"own_clocks": ("etcd-1",), "store": "etcd"},
            "own_clocks etcd-1: must be one of controller-1, node-1/agent",
        ),
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


def test_a_machine_is_found_by_its_name_and_one_that_is_not_there_is_told() -> None:
    spec = LabSpec(name="x", nodes=1, controllers=2, store="etcd", etcd=3)
    assert [spec.machine(machine.name) for machine in spec.machines] == list(spec.machines)
    with pytest.raises(
        LabError, match="'etcd-4'; it has node-1, controller-1, controller-2, etcd-1, etcd-2, etcd-3, outside"
    ):
        spec.machine("etcd-4")
