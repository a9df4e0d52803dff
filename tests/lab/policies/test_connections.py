# SPDX-License-Identifier: Apache-2.0
"""Connections that are there when a policy changes: those that stay allowed go on, those that are denied are cut.

Each test has connections of TCP and UDP, IPv4 and IPv6 at the same time, with data on the way in both directions.
"""

import pytest

from sdn.lab.waiting import wait_until
from tests.lab import service_objects
from tests.lab.policies.cluster import PolicyLab
from tests.lab.policies.objects import (
    ALL,
    Document,
    accept,
    cluster_policy,
    deny,
    in_namespaces,
    labels,
    namespaces,
    network_policy,
    number,
    pods,
    port,
    service,
)
from tests.lab.policies.probe import FAMILIES, TRANSPORTS
from tests.lab.policies.streams import Flowed, Traffic, free_port

#: Seconds (stretched) for which what is cut is watched, and for which it is looked whether something goes on.
WATCHED, SHORTLY = 1.0, 0.2
#: So often that is looked: a busy machine loses segments, and TCP sends one again after 0.2 s, 0.4 s, 0.8 s.
LOOKS = 25
#: Of x/a: a neighbour on its own node, and a pod on another.
CLIENTS = ("y/c", "y/a")
NOTHING = Flowed(0, 0)


def goes_on(traffic: Traffic, *, only_answers: bool = False) -> bool:
    """Whether all connections carry data both ways, or to the client: each at some time, which is soon enough."""
    wanted: list[bool] = []
    for _ in range(LOOKS):
        flows = traffic.flow(SHORTLY)
        now = [flow.at_client > 0 if only_answers else flow.both for flow in flows]
        wanted = [any(pair) for pair in zip(wanted or now, now, strict=True)]
        if all(wanted):
            return True
    return False


def silent(traffic: Traffic, seconds: float = WATCHED) -> bool:
    """Whether none of them carries anything in any direction."""
    return all(one == NOTHING for one in traffic.flow(seconds))


def open_port(number: int) -> Document:
    """x/a lets in everybody to this port."""
    ports = [port(number, transport.upper()) for transport in TRANSPORTS]
    return network_policy("open", podSelector=labels(pod="a"), ingress=[{"ports": ports}])


def test_connections_that_stay_allowed_go_on(cluster: PolicyLab) -> None:
    number = free_port()
    with cluster.traffic("y/a", "x/a", number) as traffic:
        assert goes_on(traffic)
        for change in (
            open_port(number),
            network_policy("more", podSelector=labels(pod="a"), policyTypes=["Ingress", "Egress"]),
            network_policy("client", "y", egress=[{"to": [namespaces(labels(ns="x"))]}]),
            cluster_policy("admin", "Admin", 1, in_namespaces(ALL), ingress=[accept([in_namespaces(ALL)])]),
        ):
            cluster.declare(change)
            cluster.settle()
            assert goes_on(traffic), f"ended with {change['kind']} {change['metadata']['name']}"


@pytest.mark.parametrize("client", CLIENTS)
def test_connections_are_cut_when_their_port_is_closed_and_others_go_on(
    cluster: PolicyLab, client: str
) -> None:
    opened = free_port()
    with cluster.traffic(client, "x/a") as cut, cluster.traffic(client, "x/a", opened) as kept:
        assert goes_on(cut)
        assert goes_on(kept)
        cluster.declare(open_port(opened))
        cluster.settle()
        assert silent(cut)
        assert goes_on(kept)
        assert silent(cut)


def test_connections_are_cut_when_their_client_may_not_have_them_any_more(cluster: PolicyLab) -> None:
    opened = free_port()
    with cluster.traffic("y/a", "x/a") as cut, cluster.traffic("y/a", "x/a", opened) as kept:
        assert goes_on(cut)
        assert goes_on(kept)
        ports = [port(opened, transport.upper()) for transport in TRANSPORTS]
        rule = {"to": [namespaces(labels(ns="x"))], "ports": ports}
        cluster.declare(network_policy("out", "y", egress=[rule], policyTypes=["Egress"]))
        cluster.settle()
        assert silent(cut)
        assert goes_on(kept)


def test_connections_are_cut_when_an_administrator_denies_them(cluster: PolicyLab) -> None:
    closed = free_port()
    protocols = [number(transport, closed) for transport in TRANSPORTS]
    rule = deny([in_namespaces(labels(ns="y"))], *protocols)
    with cluster.traffic("y/a", "x/a", closed) as cut, cluster.traffic("y/a", "x/a") as kept:
        assert goes_on(cut)
        assert goes_on(kept)
        cluster.declare(cluster_policy("admin", "Admin", 1, in_namespaces(ALL), ingress=[rule]))
        cluster.settle()
        assert silent(cut)
        assert goes_on(kept)


def test_connections_are_cut_when_the_labels_of_their_client_change(cluster: PolicyLab) -> None:
    cluster.declare(
        network_policy("in", podSelector=labels(pod="a"), ingress=[{"from": [pods(labels(pod="b"))]}])
    )
    cluster.settle()
    with cluster.traffic("x/b", "x/a") as traffic:
        assert goes_on(traffic)
        cluster.relabel("x/b", {"pod": "other"})
        cluster.settle()
        assert silent(traffic)


def test_connections_are_cut_when_the_policy_that_allowed_them_goes(cluster: PolicyLab) -> None:
    number = free_port()
    cluster.declare(network_policy("deny", policyTypes=["Ingress"]), open_port(number))
    cluster.settle()
    with cluster.traffic("y/a", "x/a", number) as traffic:
        assert goes_on(traffic)
        cluster.forget(open_port(number))
        cluster.settle()
        assert silent(traffic)


def test_what_only_answers_ends_too(cluster: PolicyLab) -> None:
    """Nothing goes the way on which these connections began: they are found in the tracker, which takes a moment."""
    number = free_port()
    # A datagram of the server's would begin a connection of its own where it may have one.
    cluster.declare(network_policy("deny", policyTypes=["Ingress", "Egress"]), open_port(number))
    cluster.settle()
    with cluster.traffic("y/a", "x/a", number) as traffic:
        traffic.asking = False
        assert goes_on(traffic, only_answers=True)
        cluster.forget(open_port(number))
        cluster.settle()
        wait_until(lambda: silent(traffic, SHORTLY), "the last answer", 10)
        assert silent(traffic)
        traffic.asking = True
        assert silent(traffic)


def test_datagrams_of_one_socket_get_through_again_when_they_are_allowed_again(cluster: PolicyLab) -> None:
    denying = network_policy("deny", policyTypes=["Ingress"])
    with cluster.traffic("y/a", "x/a", transports=["udp"]) as traffic:
        assert goes_on(traffic)
        cluster.declare(denying)
        cluster.settle()
        assert silent(traffic)
        cluster.forget(denying)
        cluster.settle()
        wait_until(lambda: goes_on(traffic), "datagrams to flow again", 10)


def test_what_is_cut_stays_so_although_its_server_may_speak_to_its_client(cluster: PolicyLab) -> None:
    """What the server still says of connections that were cut begins none, not even when they are looked for in the
    tracker.
    """
    with cluster.traffic("y/a", "x/a") as traffic:
        assert goes_on(traffic)
        cluster.declare(network_policy("deny", policyTypes=["Ingress"]))
        cluster.settle()
        assert silent(traffic, 4)
        traffic.asking = False
        assert silent(traffic)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_connection_through_a_service_is_cut_by_its_endpoints_port(
    cluster: PolicyLab, transport: str, family: str
) -> None:
    cluster.declare(service("x/front", service_objects.both(8080, 80), {"pod": "a"}))
    cluster.settle()
    address = service_objects.cluster_ip(cluster.lab, "front", family, "x")
    with cluster.converse("y/a", address, 8080, transport) as one:
        assert one.ask()["name"] == "x/a"
        cluster.declare(open_port(80))
        cluster.settle()
        assert one.ask()["name"] == "x/a"
        cluster.declare(open_port(81))
        cluster.settle()
        with pytest.raises(TimeoutError):
            one.ask()
