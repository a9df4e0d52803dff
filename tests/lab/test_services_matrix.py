# SPDX-License-Identifier: Apache-2.0
"""Every way to a Service: is it reached, and whose address does the endpoint see? As the documentation says.

One lab, one Service for each kind, policy and kind of endpoint; all cases are tried at once, and judged one by one.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sdn.lab.lab import Lab
from sdn.lab.spec import Machine
from sdn.lab.waiting import wait_until
from tests.lab import labs
from tests.lab import service_objects as objects
from tests.lab.service_clients import ask
from tests.lab.service_matrix import (
    ANNOUNCER,
    AWAY,
    FAMILIES,
    HOME,
    KINDS,
    OUTSIDE,
    POLICIES,
    Case,
    cases,
    expected,
    service_name,
    table,
)
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Answer, Request

pytestmark = pytest.mark.slow

ENDPOINTS = {"pod": 8080, "hostNetwork": 8081}
"""Ports on which the two kinds of endpoints serve."""
EXTERNAL = {"IPv4": "192.0.2.", "IPv6": "2001:db8:9::"}
"""Addresses that lead to the cluster because a router says so, one a Service: RFC 5737, RFC 3849."""
ROUTED = {"IPv4": ("192.0.2.0/24", "10.96.0.0/16"), "IPv6": ("2001:db8:9::/64", "fd00:10:96::/112")}
ALL_NAMES = [service_name(*parts) for parts in itertools.product(KINDS, POLICIES, ENDPOINTS)]


def declared(kind: str, policy: str, endpoint: str) -> dict[str, Any]:
    """The Service for these cases."""
    name = service_name(kind, policy, endpoint)
    spec: dict[str, Any] = {"type": "ClusterIP" if kind == "externalIP" else kind}
    spec["internalTrafficPolicy" if kind == "ClusterIP" else "externalTrafficPolicy"] = policy
    if kind == "externalIP":
        spec["externalIPs"] = [f"{EXTERNAL[family]}{ALL_NAMES.index(name) + 1}" for family in FAMILIES]
    return objects.service(name, objects.both(80, ENDPOINTS[endpoint]), {"endpoint": endpoint}, **spec)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running("matrix", nodes=3) as lab, Servers() as servers:
        served = lab.pod_add("served", node=HOME, labels={"endpoint": "pod"})
        lab.pod_add("near", node=HOME)
        lab.pod_add("far", node=AWAY)
        home = lab.spec.node(HOME)
        servers.everywhere(served.netns, "pod", served.addresses, [ENDPOINTS["pod"]])
        servers.everywhere(home.netns, "hostNetwork", (home.ipv4, home.ipv6), [ENDPOINTS["hostNetwork"]])
        objects.apply(
            lab,
            objects.pod("host", HOME, {"endpoint": "hostNetwork"}, host_network=True),
            *(declared(*parts) for parts in itertools.product(KINDS, POLICIES, ENDPOINTS)),
        )
        objects.settle(lab)
        yield lab


def wait_for_the_nodes(lab: Lab, services: dict[str, dict[str, Any]]) -> None:
    """Wait until each node's own rules have followed the flows: nobody tells when they are there."""
    route_outside(lab, HOME)
    asked = [
        case
        for case in cases(dict.fromkeys(ALL_NAMES, HOME))
        if case.policy == "Cluster" and case.client != "pod"
    ]
    sent = [request(lab, case, services[case.service]) for case in asked]

    def answered() -> bool:
        return all(answer.outcome == "answered" for answer in ask(*sent))

    wait_until(answered, "the rules of the nodes", 30, every=0.5)


@pytest.fixture(scope="module")
def announcers(lab: Lab, services: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Which node announces the addresses of each LoadBalancer Service, by the MACs that `outside` learned."""
    found = {}
    for policy, endpoint in itertools.product(POLICIES, ENDPOINTS):
        name = service_name("LoadBalancer", policy, endpoint)
        nodes = {announcer(lab, objects.load_balancer_ip(lab, name, family)) for family in FAMILIES}
        assert len(nodes) == 1, f"{name} is announced by {nodes}"
        found[name] = nodes.pop()
    return found


def announcer(lab: Lab, address: str) -> str:
    """The node whose MAC `outside` knows for an address of its link."""
    nodes = {node.name: node for node in lab.spec.node_machines}
    for target in (address, *(node.ipv4 for node in nodes.values())):
        lab.run(OUTSIDE, "ping", "-c1", "-W1", target)
    listed = json.loads(lab.run(OUTSIDE, "ip", "-j", "neighbour").stdout)
    macs = {item["dst"]: item["lladdr"] for item in listed if "lladdr" in item}
    for name, node in nodes.items():
        if macs.get(address) == macs.get(node.ipv4, ""):
            return name
    raise AssertionError(f"{address} is nobody's: {macs}")


def of_family(machine: Machine, family: str) -> str:
    return machine.ipv4 if family == "IPv4" else machine.ipv6


def client_netns(lab: Lab, case: Case) -> str:
    if case.client == "outside":
        return lab.netns(OUTSIDE)
    if case.client == "node":
        return lab.netns(case.client_node)
    return lab.netns("near" if case.client_node == HOME else "far")


def client_address(lab: Lab, case: Case) -> str:
    if case.client == "pod":
        pod = lab.pod("near" if case.client_node == HOME else "far")
        return pod.addresses[FAMILIES.index(case.family)]
    if case.client == "node":
        return of_family(lab.spec.node(case.client_node), case.family)
    return of_family(lab.spec.outside, case.family)


def request(lab: Lab, case: Case, service: dict[str, Any]) -> Request:
    """What the client of this case sends."""
    number = 80
    if case.kind == "NodePort":
        address = of_family(lab.spec.node(case.node), case.family)
        number = next(
            int(port["nodePort"])
            for port in service["spec"]["ports"]
            if port.get("protocol", "TCP") == case.transport.upper()
        )
    else:
        found = {
            "ClusterIP": service["spec"]["clusterIPs"],
            "LoadBalancer": [
                item["ip"] for item in service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
            ],
            "externalIP": service["spec"].get("externalIPs", []),
        }[case.kind]
        address = next(one for one in found if (":" in one) == (case.family == "IPv6"))
    # What shall be dropped is tried once.
    patience = {"timeout": 2.0, "attempts": 3} if expected(case).reached else {"timeout": 2.5, "attempts": 1}
    return Request(client_netns(lab, case), case.transport, address, number, **patience)  # type: ignore[arg-type]


def route_outside(lab: Lab, node: str) -> None:
    """`outside` sends what is for ClusterIPs and externalIPs to this node."""
    for family in FAMILIES:
        for network in ROUTED[family]:
            via = of_family(lab.spec.node(node), family)
            done = lab.run(OUTSIDE, "ip", "route", "replace", network, "via", via)
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def services(lab: Lab) -> dict[str, dict[str, Any]]:
    """All Services as they were made, by name; the nodes know them."""
    found = {name: objects.get(lab, "Service", name) for name in ALL_NAMES}
    wait_for_the_nodes(lab, found)
    return found


@pytest.fixture(scope="module")
def answers(
    lab: Lab, announcers: dict[str, str], services: dict[str, dict[str, Any]]
) -> Iterator[dict[Case, Answer]]:
    todo = list(cases(announcers))
    found: dict[Case, Answer] = {}
    phases = {"": [case for case in todo if case.client != "outside"]}
    for node in (HOME, AWAY, "node-3"):
        phases[node] = [case for case in todo if case.client == "outside" and case.node == node]
    for node, now in phases.items():
        if node:
            route_outside(lab, node)
        sent = [request(lab, case, services[case.service]) for case in now]
        found.update(zip(now, ask(*sent), strict=True))
    yield found
    print()
    print(table((case, judged(lab, case, answer)) for case, answer in found.items()))


def wanted_source(lab: Lab, case: Case) -> str:
    expectation = expected(case)
    if not expectation.reached:
        return ""
    if expectation.source == "client":
        return client_address(lab, case)
    return of_family(lab.spec.node(expectation.source), case.family)


def judged(lab: Lab, case: Case, answer: Answer) -> str:
    """What came of a case, in a word or two."""
    wanted = wanted_source(lab, case)
    if answer.outcome == "answered" and answer.source == wanted and answer.name == case.endpoint:
        word = "own address" if expected(case).source == "client" else expected(case).source
        return word if answer.attempts == 1 else f"{word}, attempt {answer.attempts}"
    if not wanted and answer.outcome != "answered":
        return answer.outcome
    return f"WRONG: {answer.outcome} {answer.name} {answer.source} instead of {wanted or 'nothing'}"


# The announcing nodes are not known before the lab is up; which cases there are depends on nothing else.
PLANNED = list(cases(dict.fromkeys(ALL_NAMES, ANNOUNCER)))


@pytest.mark.parametrize("case", PLANNED, ids=lambda case: f"{case.family} {case.transport}, {case.id}")
def test_the_endpoint_is_reached_and_sees_whom_the_documentation_says(
    lab: Lab, answers: dict[Case, Answer], announcers: dict[str, str], case: Case
) -> None:
    if case.node == ANNOUNCER:
        case = replace(case, node=announcers[case.service])
    assert "WRONG" not in judged(lab, case, answers[case]), f"{case}: {answers[case]}"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_addresses_under_local_are_announced_where_an_endpoint_is(
    announcers: dict[str, str], endpoint: str
) -> None:
    assert announcers[service_name("LoadBalancer", "Local", endpoint)] == HOME
