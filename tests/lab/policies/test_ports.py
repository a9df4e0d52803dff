# SPDX-License-Identifier: Apache-2.0
"""Which ports a NetworkPolicy allows: by number, range, protocol and name; and that Services do not change that."""

import pytest

from tests.lab import service_objects
from tests.lab.policies.cluster import PolicyLab
from tests.lab.policies.objects import (
    Document,
    labels,
    namespaces,
    network_policy,
    pods,
    port,
    service,
)
from tests.lab.policies.probe import FAMILIES, TRANSPORTS, Way


def open_ports(*ports: Document) -> Document:
    """For all pods of x: these ports, from everybody."""
    return network_policy("ports", ingress=[{"ports": list(ports)}])


def test_a_number_is_a_tcp_port_unless_it_says_otherwise(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port(80)))
    cluster.check(allowed=["y/a > x/a tcp 80"], denied=["y/a > x/a tcp 81", "y/a > x/a udp"])


def test_a_port_of_udp_is_none_of_tcp(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port(80, "UDP")))
    cluster.check(allowed=["y/a > x/a udp 80"], denied=["y/a > x/a udp 81", "y/a > x/a tcp"])


def test_several_ports(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port(80, "UDP"), port(81, "TCP")))
    cluster.check(
        allowed=["y/a > x/a udp 80", "y/a > x/a tcp 81"], denied=["y/a > x/a udp 81", "y/a > x/a tcp 80"]
    )


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_protocol_without_a_port_means_all_its_ports(cluster: PolicyLab, protocol: str) -> None:
    cluster.declare(open_ports(port(protocol=protocol)))
    other = "udp" if protocol == "TCP" else "tcp"
    cluster.check(allowed=[f"y/a > x/a {protocol.lower()}"], denied=[f"y/a > x/a {other}"])


def test_an_empty_member_of_ports_means_all_of_tcp(cluster: PolicyLab) -> None:
    cluster.declare(open_ports({}))
    cluster.check(allowed=["y/a > x/a tcp"], denied=["y/a > x/a udp"])


def test_no_ports_mean_all_ports(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("ports", ingress=[{"from": [namespaces(labels(ns="y"))], "ports": []}]))
    cluster.check(allowed=["y/a > x/a"], denied=["z/a > x/a"])


#: Of each pod a range, and which ports are in it.
RANGES = {
    "x/a": (79, 80, (80,)),
    "x/b": (80, 81, (80, 81)),
    "x/c": (81, 90, (81,)),
    "y/a": (1, 79, ()),
    "y/b": (82, 65535, ()),
    "y/c": (1, 65535, (80, 81)),
}


def test_a_range_of_ports_has_both_its_ends(cluster: PolicyLab) -> None:
    allowed, denied = [], []
    for name, (first, last, taken) in RANGES.items():
        space, _, short = name.partition("/")
        rules = [{"ports": [port(first, end=last)]}]
        cluster.declare(network_policy(short, space, podSelector=labels(pod=short), ingress=rules))
        allowed += [f"z/a > {name} tcp {number}" for number in taken]
        denied += [f"z/a > {name} tcp {number}" for number in (80, 81) if number not in taken]
        denied.append(f"z/a > {name} udp")
    cluster.check(allowed=allowed, denied=denied)


def test_a_range_of_udp_ports(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port(50, "UDP", end=80)))
    cluster.check(allowed=["y/a > x/a udp 80"], denied=["y/a > x/a udp 81", "y/a > x/a tcp 80"])


def test_a_name_means_each_pods_own_port_of_that_name(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port("web")))
    cluster.check(
        allowed=["y/a > x/a tcp 80", "y/a > x/b tcp 81"],
        denied=["y/a > x/a tcp 81", "y/a > x/b tcp 80", "y/a > x/c", "y/a > x/a udp"],
    )


def test_a_name_means_the_port_of_its_protocol(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port("web", "UDP")))
    cluster.check(allowed=["y/a > x/a udp 81"], denied=["y/a > x/a udp 80", "y/a > x/a tcp", "y/a > x/b"])


def test_a_name_that_no_pod_has_means_no_port(cluster: PolicyLab) -> None:
    cluster.declare(open_ports(port("unknown")))
    cluster.check(denied=["y/a > x/a", "y/a > x/b", "y/a > x/c"])


def test_a_name_in_egress_is_that_of_the_pod_that_is_spoken_to(cluster: PolicyLab) -> None:
    rule = {"to": [namespaces(labels(ns="y")), pods(labels(pod="b"))], "ports": [port("web")]}
    cluster.declare(network_policy("out", egress=[rule], policyTypes=["Egress"]))
    cluster.check(
        allowed=["x/a > y/a tcp 80", "x/c > y/b tcp 81", "x/a > x/b tcp 81"],
        denied=["x/a > y/a tcp 81", "x/c > y/b tcp 80", "x/a > y/c", "x/b > x/a", "x/a > z/a"],
    )


def test_a_name_in_egress_to_everybody_means_any_pod_that_has_it(cluster: PolicyLab) -> None:
    cluster.declare(network_policy("out", egress=[{"ports": [port("web")]}], policyTypes=["Egress"]))
    cluster.check(
        allowed=["x/a > y/a tcp 80", "x/c > z/b tcp 81"],
        denied=["x/a > y/a tcp 81", "x/a > y/c", "x/a > outside", "x/a > node-2"],
    )


def test_ports_in_egress(cluster: PolicyLab) -> None:
    rule = {"to": [pods(labels(pod="b"))], "ports": [port(80), port(81, "UDP", end=100)]}
    cluster.declare(network_policy("out", egress=[rule], policyTypes=["Egress"]))
    cluster.check(
        allowed=["x/a > x/b tcp 80", "x/c > x/b udp 81"],
        denied=["x/a > x/b tcp 81", "x/a > x/b udp 80", "x/a > x/c", "x/a > y/b"],
    )


def test_ports_are_those_of_their_own_rule(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy(
            "rules",
            ingress=[
                {"from": [namespaces(labels(ns="y"))], "ports": [port(80)]},
                {"from": [namespaces(labels(ns="z"))], "ports": [port(81)]},
            ],
        )
    )
    cluster.check(
        allowed=["y/a > x/a tcp 80", "z/a > x/a tcp 81"], denied=["y/a > x/a tcp 81", "z/a > x/a tcp 80"]
    )


# Services: a policy is asked about the endpoint that was chosen, by its own port.


def through(cluster: PolicyLab, name: str, destination: str) -> list[Way]:
    """From all pods and nodes, by the ClusterIP's port 8080 to port 80, and by port 80 to port 81."""
    return [
        Way(place.name, destination, family, transport, target, (address, asked))
        for place in cluster.places.values()
        if place.name not in ("outside", destination)
        for family in FAMILIES
        for address in [service_objects.cluster_ip(cluster.lab, name, family, destination.partition("/")[0])]
        for transport in TRANSPORTS
        for asked, target in ((8080, 80), (80, 81))
    ]


def declare_service(cluster: PolicyLab) -> list[Way]:
    ports = [*service_objects.both(8080, 80), *service_objects.both(80, 81)]
    cluster.declare(service("x/front", ports, {"pod": "a"}))
    return [*cluster.ways(), *through(cluster, "front", "x/a")]


def test_ingress_through_a_service_is_allowed_by_the_endpoints_port(cluster: PolicyLab) -> None:
    ways = declare_service(cluster)
    cluster.declare(open_ports(port(80)))
    # Port 80 of the ClusterIP is the pod's port 81, so it is denied.
    cluster.check(allowed=["y/a > x/a tcp 80", "x/c > x/a tcp 80"], denied=["y/a > x/a tcp 81"], ways=ways)
    cluster.declare(open_ports(port(8080)))
    cluster.check(denied=["y/a > x/a", "x/c > x/a"], ways=ways)


def test_ingress_through_a_service_is_allowed_by_who_asks(cluster: PolicyLab) -> None:
    ways = declare_service(cluster)
    cluster.declare(network_policy("in", ingress=[{"from": [namespaces(labels(ns="y"))]}]))
    cluster.check(
        allowed=["y/a > x/a", "node-1 > x/a"], denied=["z/a > x/a", "x/b > x/a", "node-2 > x/a"], ways=ways
    )


def test_egress_through_a_service_is_allowed_by_the_endpoint(cluster: PolicyLab) -> None:
    ways = declare_service(cluster)
    rule = {
        "to": [{"namespaceSelector": labels(ns="x"), "podSelector": labels(pod="a")}],
        "ports": [port(80)],
    }
    cluster.declare(network_policy("out", "y", egress=[rule], policyTypes=["Egress"]))
    cluster.check(
        allowed=["y/a > x/a tcp 80", "y/b > x/a tcp 80"], denied=["y/a > x/a tcp 81", "y/a > x/b"], ways=ways
    )


def test_egress_to_a_cluster_ip_as_an_address_allows_nothing(cluster: PolicyLab) -> None:
    ways = declare_service(cluster)
    blocks = [
        {"ipBlock": {"cidr": f"{address}/{128 if ':' in address else 32}"}}
        for address in (service_objects.cluster_ip(cluster.lab, "front", family, "x") for family in FAMILIES)
    ]
    cluster.declare(network_policy("out", "y", egress=[{"to": blocks}], policyTypes=["Egress"]))
    cluster.check(denied=["y/a > x/a", "y/b > x/a"], allowed=["z/a > x/a"], ways=ways)
