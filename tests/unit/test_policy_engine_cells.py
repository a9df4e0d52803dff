# SPDX-License-Identifier: Apache-2.0
"""What peers and ports come to in cells: ranges, nodes, domains, blocks of ports, and ports by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from sdn.model.address import Address
from sdn.policy.cells import Cell, PeerCell, RuleCell, SubjectCell
from sdn.policy.engine import PolicyEngine
from sdn.policy.ports import LATER_FRAGMENTS
from sdn.policy.values import Direction, NamedPort, PolicyRef
from tests.unit.policy_world import (
    CLIENT,
    DB,
    JOB,
    NODE_1,
    NODE_2,
    SCTP,
    STRAY,
    TCP,
    UDP,
    WEB,
    cluster_policy,
    labels,
    network_policy,
    rule,
)
from tests.unit.test_policy_engine import engine_with, of

POLICY = PolicyRef("NetworkPolicy", "shop", "policy")


def peers(engine: PolicyEngine, node: str = "node-1") -> dict[str, PolicyRef]:
    """The ranges of peers on a node, and whose cells they are."""
    return {str(cell.key.network): cell.owner for cell in of(engine, node, PeerCell)}


def ports(engine: PolicyEngine, pod: Any = DB) -> set[tuple[int, int, int] | None]:
    """What a pod is a subject for: protocols, first and last ports; None: all traffic."""
    found = set()
    for cell in of(engine, pod.node, SubjectCell):
        if cell.key.ofport == pod.ofport:
            match = cell.key.ports
            found.add(None if match is None else (int(match.protocol), match.first, match.last))
    return found


def from_blocks(*blocks: str | dict[str, Any]) -> list[dict[str, Any]]:
    """One rule for ingress from these blocks."""
    peers = [{"ipBlock": {"cidr": one} if isinstance(one, str) else one} for one in blocks]
    return [{"from": peers}]


# Peers.


@pytest.mark.parametrize(
    "rules", [[{}], from_blocks("0.0.0.0/0", "::/0"), from_blocks("::/1", "8000::/1", "0.0.0.0/0")]
)
def test_everybody_is_all_addresses_of_both_families(rules: list[dict[str, Any]]) -> None:
    engine = engine_with(network_policy(ingress=rules))
    assert peers(engine) == {"0.0.0.0/0": POLICY, "::/0": POLICY}


def test_beside_everybody_other_peers_say_nothing() -> None:
    rules = from_blocks("0.0.0.0/0", "::/0")
    rules[0]["from"].append({"podSelector": {}})
    engine = engine_with(network_policy("a", ingress=rules), network_policy("b", ingress=[{}]))
    assert len(of(engine, "node-1", RuleCell)) == 1


@pytest.mark.parametrize(
    ("blocks", "ranges"),
    [
        (["192.0.2.0/24"], {"192.0.2.0/24"}),
        (["192.0.2.0/25", "192.0.2.128/25"], {"192.0.2.0/24"}),
        (["192.0.2.0/24", "192.0.2.7/32"], {"192.0.2.0/24"}),
        (["192.0.2.9/24"], {"192.0.2.0/24"}),
        ([{"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]}], {"192.0.2.128/25"}),
        ([{"cidr": "192.0.2.0/30", "except": ["192.0.2.2/32"]}], {"192.0.2.0/31", "192.0.2.3/32"}),
        (
            [{"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]}, "192.0.2.0/26"],
            {"192.0.2.128/25", "192.0.2.0/26"},
        ),
        ([{"cidr": "2001:db8::/126", "except": ["2001:db8::/128"]}], {"2001:db8::1/128", "2001:db8::2/127"}),
        ([{"cidr": "192.0.2.0/24", "except": ["198.51.100.0/24"]}], {"192.0.2.0/24"}),
    ],
)
def test_blocks_come_to_the_fewest_ranges(blocks: list[str | dict[str, Any]], ranges: set[str]) -> None:
    assert set(peers(engine_with(network_policy(ingress=from_blocks(*blocks))))) == ranges


def test_pods_are_peers_by_each_address_and_own_their_cells() -> None:
    engine = engine_with(network_policy(ingress=[{"from": [{"podSelector": labels(role="web")}]}]))
    assert peers(engine) == {
        "10.244.1.5/32": PolicyRef("Pod", "shop", "web"),
        "fd00:10:244:1::5/128": PolicyRef("Pod", "shop", "web"),
    }


def test_the_address_of_a_pod_that_is_declared_too_is_one_cell_with_both_rules() -> None:
    engine = engine_with(
        network_policy("by-labels", ingress=[{"from": [{"podSelector": labels(role="web")}]}]),
        network_policy("by-address", ingress=from_blocks("10.244.1.5/32")),
    )
    cells = {str(cell.key.network): cell for cell in of(engine, "node-1", PeerCell)}
    assert len(cells) == 2
    both = cells["10.244.1.5/32"]
    assert (len(both.conjunctions), both.owner) == (2, PolicyRef("Pod", "shop", "web"))
    engine.remove_pod(WEB.key)
    assert peers(engine) == {"10.244.1.5/32": PolicyRef("NetworkPolicy", "shop", "by-address")}


def test_a_declared_address_changes_hands_with_the_pod_that_has_it() -> None:
    engine = engine_with(network_policy(podSelector=labels(role="db"), ingress=from_blocks("10.244.1.5/32")))
    engine.remove_pod(WEB.key)
    engine.take()
    engine.put_pod(WEB)
    (cell,) = engine.take().cells["node-1"].values()
    assert isinstance(cell, PeerCell)
    assert cell.owner == PolicyRef("Pod", "shop", "web")


def test_of_several_policies_that_name_a_range_the_first_owns_the_cell() -> None:
    several = [
        network_policy(name, ingress=[{**from_blocks("192.0.2.0/24")[0], "ports": [{"port": port}]}])
        for port, name in enumerate(("b", "a", "c"), 1)
    ]
    engine = engine_with(*several)
    assert peers(engine) == {"192.0.2.0/24": PolicyRef("NetworkPolicy", "shop", "a")}


def test_nodes_are_peers_by_their_own_addresses_not_their_gateways() -> None:
    engine = engine_with(cluster_policy(egress=[rule("Deny", {"nodes": labels(zone="b")})]))
    wanted = {"172.30.0.12/32", "fd00:30::12/128"}
    assert set(peers(engine)) == wanted
    assert set(peers(engine).values()) == {PolicyRef("Node", "", "node-2")}
    engine.put_node(dataclasses.replace(NODE_1, labels={"zone": "b"}))
    assert set(peers(engine)) == {*wanted, "172.30.0.11/32", "fd00:30::11/128"}
    engine.remove_node("node-2")
    assert set(peers(engine)) == {"172.30.0.11/32", "fd00:30::11/128"}


def test_an_address_that_two_nodes_have_is_a_peer_while_one_of_them_is_there() -> None:
    engine = engine_with(cluster_policy(egress=[rule("Deny", {"nodes": {}})]))
    engine.put_node(dataclasses.replace(NODE_2, addresses=NODE_1.addresses))
    assert set(peers(engine)) == {"172.30.0.11/32", "fd00:30::11/128"}
    engine.remove_node("node-1")
    assert set(peers(engine, "node-2")) == {"172.30.0.11/32", "fd00:30::11/128"}
    engine.take()
    engine.remove_node("node-2")
    assert set(engine.take().cells["node-2"].values()) == {None}


def test_domains_are_peers_by_what_the_dns_gave_for_names_that_fit() -> None:
    names = {"domainNames": ["*.example.com", "Example.com."]}
    engine = engine_with(cluster_policy(egress=[rule("Accept", names)]))
    assert peers(engine) == {}
    one, other = Address.parse("192.0.2.1"), Address.parse("2001:db8::1")
    engine.put_domain("a.example.com", frozenset((one,)))
    engine.put_domain("B.Example.com.", frozenset((one, other)))
    engine.put_domain("notexample.com", frozenset((Address.parse("192.0.2.3"),)))
    engine.put_domain("example.com", frozenset((Address.parse("192.0.2.2"),)))
    assert set(peers(engine)) == {"192.0.2.1/32", "2001:db8::1/128", "192.0.2.2/32"}
    engine.put_domain("b.example.com", frozenset())
    assert set(peers(engine)) == {"192.0.2.1/32", "192.0.2.2/32"}
    engine.put_domain("a.example.com", frozenset())
    assert set(peers(engine)) == {"192.0.2.2/32"}
    assert engine.domains().keys() == {"example.com", "notexample.com"}


def test_a_pattern_takes_the_names_that_were_known_before() -> None:
    engine = engine_with()
    engine.put_domain("a.example.com", frozenset((Address.parse("192.0.2.1"),)))
    engine.put_domain("example.com", frozenset((Address.parse("192.0.2.2"),)))
    engine.put_domain("example.org", frozenset((Address.parse("192.0.2.3"),)))
    wildcard = cluster_policy("a", egress=[rule("Accept", {"domainNames": ["*.example.com"]})])
    engine.put_policy(wildcard)
    assert set(peers(engine)) == {"192.0.2.1/32"}
    engine.put_policy(cluster_policy("b", egress=[rule("Accept", {"domainNames": ["example.org"]})]))
    assert set(peers(engine)) == {"192.0.2.1/32", "192.0.2.3/32"}


# Ports.


def _ports(*wanted: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"ports": list(wanted)}]


def _with_fragments(*found: tuple[int, int, int]) -> set[tuple[int, int, int]]:
    """And fragments that carry no port, of each protocol."""
    return {*found, *((protocol, LATER_FRAGMENTS, LATER_FRAGMENTS) for protocol, _, _ in found)}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], {None}),
        ([{"port": 80}], _with_fragments((TCP, 80, 80))),
        ([{"protocol": "UDP"}], {(UDP, 0, 65535)}),
        ([{}, {"port": 80}, {"port": "sql"}], {(TCP, 0, 65535)}),
        (
            [{"port": 1, "endPort": 65535}, {"port": 80}],
            _with_fragments(*((TCP, 1 << n, (2 << n) - 1) for n in range(16))),
        ),
        ([{"port": 80}, {"port": 81}, {"port": 80, "endPort": 81}], _with_fragments((TCP, 80, 81))),
        ([{"port": 80, "protocol": "SCTP"}, {"port": 80}], _with_fragments((SCTP, 80, 80), (TCP, 80, 80))),
        ([{"port": "sql"}, {"port": 5432}], _with_fragments((TCP, 5432, 5432))),
    ],
)
def test_ports_are_merged_and_cut_into_blocks(
    wanted: list[dict[str, Any]], found: set[tuple[int, int, int] | None]
) -> None:
    assert ports(engine_with(network_policy(ingress=_ports(*wanted)))) == found


def test_rules_of_several_policies_with_ranges_that_overlap_meet_in_the_blocks_that_both_need() -> None:
    engine = engine_with(
        network_policy("a", ingress=_ports({"port": 80, "endPort": 83})),
        network_policy("b", ingress=_ports({"port": 80, "endPort": 87})),
        network_policy("c", ingress=_ports({"port": 82, "endPort": 87})),
    )
    numbers = {
        cell.key.ports.first: len(cell.conjunctions)
        for cell in of(engine, "node-1", SubjectCell)
        if cell.key.ofport == DB.ofport and cell.key.ports is not None and cell.key.ports.first > 0
    }
    # 80 to 83, 80 to 87, and 82 to 83 with 84 to 87.
    assert numbers == {80: 1, 82: 1, 84: 1}
    assert len(of(engine, "node-1", RuleCell)) == 3


def test_denying_needs_no_fragments() -> None:
    http = {"protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}
    assert ports(engine_with(cluster_policy(ingress=[rule("Deny", **http)]))) == {(TCP, 80, 80)}
    assert ports(engine_with(cluster_policy(ingress=[rule("Pass", **http)]))) == _with_fragments(
        (TCP, 80, 80)
    )


# Ports by name.


def test_for_ingress_a_name_is_the_subject_s_own_port() -> None:
    engine = engine_with(network_policy(ingress=_ports({"port": "http"})))
    assert len(of(engine, "node-2", RuleCell)) == 1
    assert ports(engine, WEB) == _with_fragments((TCP, 8080, 8080))
    assert ports(engine, JOB) == _with_fragments((TCP, 9000, 9000))
    assert ports(engine, DB) == set()


def test_a_cluster_policy_s_name_is_of_any_protocol() -> None:
    by_name = {"protocols": [{"destinationNamedPort": "http"}]}
    engine = engine_with(cluster_policy(ingress=[rule("Accept", **by_name)]))
    assert ports(engine, CLIENT) == _with_fragments((UDP, 8080, 8080))
    assert ports(engine, WEB) == _with_fragments((TCP, 8080, 8080))


def _by_port(cells: Iterable[Cell]) -> dict[int, set[str]]:
    """The IPv4 addresses of peers by the port that leads to them, of DB's egress."""
    subjects, found = {}, {}
    for cell in cells:
        if isinstance(cell, SubjectCell) and cell.key.ports is not None and cell.key.ports.first >= 0:
            assert cell.key.stage.direction is Direction.EGRESS
            subjects.update(dict.fromkeys(cell.conjunctions, cell.key.ports.first))
    for cell in cells:
        if isinstance(cell, PeerCell) and cell.key.network.version == 4:
            for number in cell.conjunctions:
                found.setdefault(subjects[number], set()).add(str(cell.key.network))
    return found


def out(*to: dict[str, Any], **fields: Any) -> Any:
    """DB may go to ports named "http" of these peers, and nowhere else."""
    rules = [{"to": list(to), "ports": [{"port": "http"}]}]
    return network_policy(podSelector=labels(role="db"), policyTypes=["Egress"], egress=rules, **fields)


def of_db(engine: PolicyEngine) -> dict[int, set[str]]:
    return _by_port(engine.cells("node-1").values())


def test_for_egress_a_name_is_a_rule_for_each_number_that_peers_have() -> None:
    engine = engine_with(out({"podSelector": {}}))
    assert of_db(engine) == {8080: {"10.244.1.5/32"}, 9000: {"10.244.2.4/32"}}
    assert len({cell.key for cell in of(engine, "node-1", RuleCell)}) == 2
    assert {cell.rule for cell in of(engine, "node-1", RuleCell)} == {"egress[0]"}
    # A pod with another number under the name.
    engine.put_pod(dataclasses.replace(JOB, named_ports=(NamedPort("http", TCP, 8080),)))
    assert of_db(engine) == {8080: {"10.244.1.5/32", "10.244.2.4/32"}}
    engine.remove_pod(WEB.key)
    assert of_db(engine) == {8080: {"10.244.2.4/32"}}


def test_for_egress_to_everybody_a_name_is_that_of_any_pod() -> None:
    engine = engine_with(out())
    assert of_db(engine) == {8080: {"10.244.1.5/32"}, 9000: {"10.244.2.4/32"}}
    engine.put_pod(dataclasses.replace(STRAY, named_ports=(NamedPort("http", TCP, 1),)))
    assert of_db(engine)[1] == {"10.244.2.6/32"}


def test_for_egress_to_a_block_a_name_is_that_of_pods_in_it() -> None:
    engine = engine_with(out({"ipBlock": {"cidr": "10.244.2.0/24", "except": ["10.244.2.6/32"]}}))
    engine.put_pod(dataclasses.replace(STRAY, named_ports=(NamedPort("http", TCP, 1),)))
    assert of_db(engine) == {9000: {"10.244.2.4/32"}}


def test_beside_a_port_s_number_its_name_adds_nothing() -> None:
    rules = [{"ports": [{"port": "http"}, {"port": 9000}]}]
    engine = engine_with(network_policy(podSelector=labels(role="db"), policyTypes=["Egress"], egress=rules))
    assert of_db(engine) == {8080: {"10.244.1.5/32"}, 9000: {"0.0.0.0/0"}}


def test_peers_by_a_port_s_name_follow_the_labels_of_pods_and_of_namespaces() -> None:
    engine = engine_with(out({"podSelector": labels(role="web"), "namespaceSelector": labels(team="red")}))
    assert of_db(engine) == {8080: {"10.244.1.5/32"}}
    engine.put_pod(dataclasses.replace(WEB, labels={"role": "other"}))
    assert of_db(engine) == {}
    engine.put_pod(dataclasses.replace(JOB, labels={"role": "web"}))
    assert of_db(engine) == {9000: {"10.244.2.4/32"}}
    engine.put_namespace("shop", {"team": "blue"})
    assert of_db(engine) == {}
    engine.put_namespace("shop", {"team": "red"})
    assert of_db(engine) == {9000: {"10.244.2.4/32"}}


def test_rules_by_a_port_s_name_that_say_the_same_share_their_numbers() -> None:
    one = engine_with(out({"podSelector": {}}))
    engine = engine_with(out({"podSelector": {}}, name="b"), out({"podSelector": {}}, name="a"))
    numbers = {cell.key for cell in of(engine, "node-1", RuleCell)}
    assert numbers == {cell.key for cell in of(one, "node-1", RuleCell)}
    assert {cell.owner.name for cell in of(engine, "node-1", RuleCell)} == {"a"}
    engine.take()
    engine.remove_policy(PolicyRef("NetworkPolicy", "shop", "a"))
    assert {cell.owner.name for cell in of(engine, "node-1", RuleCell)} == {"b"}
    engine.remove_policy(PolicyRef("NetworkPolicy", "shop", "b"))
    assert of(engine, "node-1", RuleCell) == []
    # Pods that come and go meanwhile are known to a policy that comes back before its end was taken.
    engine.remove_pod(WEB.key)
    engine.put_pod(dataclasses.replace(JOB, named_ports=(NamedPort("http", TCP, 7),)))
    engine.put_policy(out({"podSelector": {}}))
    assert of_db(engine) == {7: {"10.244.2.4/32"}}


def test_a_pod_that_comes_while_a_rule_by_a_port_s_name_ends_is_forgotten_with_it() -> None:
    engine = engine_with(out({"podSelector": {}}))
    engine.take()
    engine.remove_policy(POLICY)
    engine.put_pod(dataclasses.replace(JOB, named_ports=(NamedPort("http", TCP, 7),)))
    engine.take()
    assert engine._book.collected == {}
