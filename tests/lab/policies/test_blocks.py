# SPDX-License-Identifier: Apache-2.0
"""Addresses as peers of a NetworkPolicy: ipBlock, except, pods' addresses among them, nodes, and machines outside."""

from tests.lab import service_objects
from tests.lab.policies.cluster import OUTSIDE, PolicyLab
from tests.lab.policies.objects import (
    Document,
    block,
    hosts,
    labels,
    network_policy,
    pods,
    port,
    service,
)
from tests.lab.policies.probe import FAMILIES, TRANSPORTS, Way

EVERYTHING = [block("0.0.0.0/0"), block("::/0")]
PODS = {"IPv4": "10.244.0.0/16", "IPv6": "fd00:10:244::/48"}
UNDERLAY = {"IPv4": "172.30.0.0/24", "IPv6": "fd00:30::/64"}


def addresses(cluster: PolicyLab, *names: str) -> list[str]:
    return [address for name in names for address in cluster.places[name].addresses.values()]


def let_in(*peers: Document, **more: object) -> Document:
    """For x/a."""
    return network_policy("in", podSelector=labels(pod="a"), ingress=[{"from": list(peers), **more}])


def let_out(*peers: Document) -> Document:
    """From all pods of x."""
    return network_policy("out", egress=[{"to": list(peers)}], policyTypes=["Egress"])


def test_a_pod_is_let_in_by_its_address(cluster: PolicyLab) -> None:
    cluster.declare(let_in(*hosts(addresses(cluster, "y/b"))))
    cluster.check(allowed=["y/b > x/a"], denied=["y/a > x/a", "x/b > x/a", "node-2 > x/a"])


def test_a_block_of_one_family_says_nothing_of_the_other(cluster: PolicyLab) -> None:
    cluster.declare(let_in(block("0.0.0.0/0")))
    cluster.check(allowed=["y/b > x/a IPv4", "node-2 > x/a IPv4"], denied=["y/b > x/a IPv6"])
    cluster.declare(let_in(block("::/0")))
    cluster.check(allowed=["y/b > x/a IPv6", "node-2 > x/a IPv6"], denied=["y/b > x/a IPv4"])


def test_the_pods_range_takes_all_pods_and_no_node(cluster: PolicyLab) -> None:
    cluster.declare(let_in(*map(block, PODS.values())))
    cluster.check(allowed=["y/b > x/a", "x/c > x/a"], denied=["node-2 > x/a", "node-3 > x/a"])


def test_what_is_excepted_is_not_let_in(cluster: PolicyLab) -> None:
    excepted = {family: f"{cluster.places['y/b'].addresses[family]}" for family in FAMILIES}
    cluster.declare(
        let_in(block(PODS["IPv4"], f"{excepted['IPv4']}/32"), block(PODS["IPv6"], f"{excepted['IPv6']}/128"))
    )
    cluster.check(allowed=["y/a > x/a", "z/a > x/a"], denied=["y/b > x/a", "node-2 > x/a"])


def test_what_one_peer_excepts_another_may_let_in(cluster: PolicyLab) -> None:
    cluster.declare(
        let_in(
            block(PODS["IPv4"], PODS["IPv4"].replace("/16", "/17")),
            block(PODS["IPv6"], PODS["IPv6"].replace("/48", "/49")),
            pods(labels(pod="b")),
        )
    )
    # The ranges of the nodes are at the beginning of the cluster's.
    cluster.check(allowed=["x/b > x/a"], denied=["x/c > x/a", "y/b > x/a"])


def test_a_node_is_let_in_by_its_address(cluster: PolicyLab) -> None:
    cluster.declare(let_in(*hosts(addresses(cluster, "node-2"))))
    cluster.check(allowed=["node-2 > x/a"], denied=["node-3 > x/a", "x/b > x/a", "y/a > x/a"])


def test_blocks_with_ports(cluster: PolicyLab) -> None:
    cluster.declare(let_in(*map(block, PODS.values()), ports=[port(80), port("web", "UDP")]))
    cluster.check(
        allowed=["y/b > x/a tcp 80", "y/b > x/a udp 81"], denied=["y/b > x/a tcp 81", "y/b > x/a udp 80"]
    )


def test_a_machine_outside_is_let_out_to_by_its_address(cluster: PolicyLab) -> None:
    cluster.declare(let_out(*hosts(addresses(cluster, OUTSIDE))))
    cluster.check(allowed=["x/a > outside", "x/c > outside"], denied=["x/a > node-3", "x/a > y/a"])


def test_everything_but_the_cluster_is_let_out_to(cluster: PolicyLab) -> None:
    cluster.declare(let_out(block("0.0.0.0/0", PODS["IPv4"]), block("::/0", PODS["IPv6"])))
    cluster.check(allowed=["x/a > outside", "x/a > node-2"], denied=["x/a > x/b", "x/a > y/a"])


def test_a_node_is_let_out_to_by_its_address(cluster: PolicyLab) -> None:
    cluster.declare(let_out(*hosts(addresses(cluster, "node-2"))))
    cluster.check(allowed=["x/a > node-2", "x/a > node-1"], denied=["x/a > node-3", "x/a > outside"])


def test_a_name_is_no_port_of_what_is_no_pod(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("out", egress=[{"to": EVERYTHING, "ports": [port("web")]}], policyTypes=["Egress"])
    )
    cluster.check(allowed=["x/a > y/a tcp 80"], denied=["x/a > outside", "x/a > node-2", "x/a > y/a tcp 81"])


def test_many_blocks_that_hold_each_other(cluster: PolicyLab) -> None:
    ipv4 = cluster.places["y/b"].addresses["IPv4"]
    ipv6 = cluster.places["y/b"].addresses["IPv6"]
    cluster.declare(
        network_policy(
            "in",
            podSelector=labels(pod="a"),
            ingress=[
                {"from": [block("0.0.0.0/0", "10.0.0.0/8"), block("::/0", "fd00::/16")], "ports": [port(80)]},
                {
                    "from": [block("10.0.0.0/8", f"{ipv4}/32"), block("fd00::/16", f"{ipv6}/128")],
                    "ports": [port(81)],
                },
                {"from": hosts((ipv4, ipv6)), "ports": [port(80, "UDP")]},
            ],
        )
    )
    cluster.check(
        # The nodes' IPv6 addresses are within fd00::/16, too.
        allowed=[
            "node-2 > x/a tcp 80 IPv4",
            "node-2 > x/a tcp 81 IPv6",
            "z/a > x/a tcp 81",
            "y/b > x/a udp 80",
        ],
        denied=["node-2 > x/a tcp 81 IPv4", "z/a > x/a tcp 80", "y/b > x/a tcp 81", "y/b > x/a tcp 80"],
    )


def from_outside(cluster: PolicyLab, service_name: str) -> list[Way]:
    """By the port that a Service, whose endpoint is x/a, has on the node of x/a."""
    home = cluster.places[cluster.places["x/a"].node]
    return [
        Way(
            OUTSIDE,
            "x/a",
            family,
            transport,
            80,
            (home.addresses[family], node_port(cluster, service_name, transport)),
        )
        for family in FAMILIES
        for transport in TRANSPORTS
    ]


def node_port(cluster: PolicyLab, service_name: str, transport: str) -> int:
    """The port that a Service of x has on every node."""
    ports = service_objects.get(cluster.lab, "Service", service_name, "x")["spec"]["ports"]
    return next(int(one["nodePort"]) for one in ports if one["protocol"] == transport.upper())


def test_clients_outside_are_let_in_by_their_own_address(cluster: PolicyLab) -> None:
    cluster.declare(
        service(
            "x/front",
            service_objects.both(8080, 80),
            {"pod": "a"},
            type="NodePort",
            externalTrafficPolicy="Local",
        )
    )
    ways = from_outside(cluster, "front")
    cluster.check(allowed=["outside > x/a"], ways=ways)
    cluster.declare(let_in(*map(block, PODS.values())))
    cluster.check(denied=["outside > x/a"], ways=ways)
    cluster.declare(let_in(*map(block, UNDERLAY.values())))
    cluster.check(allowed=["outside > x/a"], ways=ways)
    own = cluster.places[OUTSIDE].addresses
    cluster.declare(
        let_in(block(UNDERLAY["IPv4"], f"{own['IPv4']}/32"), block(UNDERLAY["IPv6"], f"{own['IPv6']}/128"))
    )
    cluster.check(denied=["outside > x/a"], ways=ways)
    cluster.declare(let_in(*hosts(own.values()), ports=[port(80)]))
    cluster.check(allowed=["outside > x/a tcp"], denied=["outside > x/a udp"], ways=ways)
