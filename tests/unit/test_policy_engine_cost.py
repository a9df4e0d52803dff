# SPDX-License-Identifier: Apache-2.0
"""A change costs what it touches: as many calls of functions in a large cluster as in a small one."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sdn.model.address import Address
from sdn.policy import peers
from sdn.policy.engine import PolicyEngine
from sdn.policy.values import NamedPort, PolicyPod, PolicyRef
from tests.unit.policy_world import TCP, cluster_policy, labels, network_policy, rule

Change = Callable[[PolicyEngine], Any]


def _calls(change: Callable[[], object]) -> int:
    """How many functions a change calls, as a measure of its work that no other process disturbs."""
    count = 0

    def counting(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counting)
    try:
        change()
    finally:
        sys.setprofile(None)
    return count


def _crowded(namespaces: int) -> PolicyEngine:
    """Namespaces that are alike: with four pods on four nodes of their own, isolated, two of them reach each other."""
    engine = PolicyEngine()
    for number in range(namespaces):
        for each in range(4):
            engine.subscribe(f"node-{number}-{each}")
    engine.put_policy(
        cluster_policy("for-monitors", ingress=[rule("Accept", {"namespaces": labels(monitor="yes")})])
    )
    for number in range(namespaces):
        name = f"ns-{number}"
        engine.put_namespace(name, {"team": f"team-{number}"})
        for each in range(4):
            engine.put_pod(_crowded_pod(number, each))
        engine.put_policy(network_policy("deny", name))
        team = [{"podSelector": labels(app="web"), "namespaceSelector": labels(team=f"team-{number}")}]
        engine.put_policy(
            network_policy("web", name, podSelector=labels(app="web"), ingress=[{"from": team}])
        )
    engine.take()
    return engine


def _crowded_pod(namespace: int, number: int) -> PolicyPod:
    return PolicyPod(
        key=(namespace, number),
        namespace=f"ns-{namespace}",
        name=f"pod-{number}",
        node=f"node-{namespace}-{number % 4}",
        labels={"app": "web" if number % 2 else "db"},
        addresses=(Address(4, (10 << 24) + namespace * 256 + number),),
        ofport=16 + number,
        named_ports=(NamedPort("http", TCP, 80),),
    )


def _settled(change: Change) -> Change:
    """The change, with what is told of it."""

    def settled(engine: PolicyEngine) -> None:
        change(engine)
        assert engine.take().cells

    return settled


@pytest.mark.parametrize(
    "change",
    [
        _settled(lambda engine: engine.put_pod(_crowded_pod(1, 5))),
        _settled(lambda engine: engine.remove_pod((1, 1))),
        _settled(
            lambda engine: engine.put_pod(dataclasses.replace(_crowded_pod(1, 1), labels={"app": "db"}))
        ),
        _settled(lambda engine: engine.put_namespace("ns-1", {"team": "none"})),
        _settled(
            lambda engine: engine.put_policy(
                network_policy("more", "ns-1", podSelector=labels(app="db"), ingress=[{}])
            )
        ),
        _settled(lambda engine: engine.remove_policy(PolicyRef("NetworkPolicy", "ns-1", "web"))),
        lambda engine: engine.allows(Address(4, (10 << 24) + 257), Address(4, (10 << 24) + 259), TCP, 80),
        lambda engine: engine.cells("node-1-1"),
    ],
    ids=("pod comes", "pod goes", "labels", "namespace", "policy comes", "policy goes", "verdict", "cells"),
)
def test_a_change_costs_no_more_in_a_cluster_that_is_twenty_times_as_large(change: Change) -> None:
    # Once before, so that what is remembered of selectors and ports is remembered for both.
    change(_crowded(5))
    small, large = (_crowded(namespaces) for namespaces in (5, 100))
    assert _calls(lambda: change(large)) <= _calls(lambda: change(small)) + 10


def test_a_rule_for_everybody_costs_no_more_where_thousands_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_RULES_A_NODE", 10)
    more = network_policy("more", "ns-1", podSelector=labels(app="web"), ingress=[{"ports": [{"port": 80}]}])
    change = _settled(lambda engine: engine.put_policy(more))
    engines = [_crowded(namespaces) for namespaces in (20, 20, 100)]
    for engine in engines:
        for name in sorted(engine._index.namespaces):
            engine.put_policy(network_policy("all", name, podSelector=labels(app="web"), ingress=[{}]))
        engine.take()
    _before, small, large = [_calls(lambda engine=engine: change(engine)) for engine in engines]
    assert large <= small + 10


def _wide(nodes: int) -> PolicyEngine:
    """Nodes with twenty pods each, all of one namespace."""
    engine = PolicyEngine()
    for node in range(nodes):
        engine.subscribe(f"node-{node}")
        for number in range(20):
            engine.put_pod(
                PolicyPod(
                    key=(node, number),
                    namespace="ns",
                    name=f"pod-{node}-{number}",
                    node=f"node-{node}",
                    labels={"app": "web"},
                    addresses=(Address(4, (10 << 24) + node * 256 + number),),
                    ofport=16 + number,
                )
            )
    engine.take()
    return engine


def _pieces(engine: PolicyEngine, change: Change) -> list[int]:
    """What each piece of the work costs, from the change itself until nothing waits."""
    told: list[int] = []

    def begin() -> None:
        change(engine)
        told.append(len(engine.take_new().cells))

    costs = [_calls(begin)]
    while engine.waiting:
        costs.append(_calls(lambda: told.append(len(engine.take_waiting().cells))))
    assert sum(told) == len(engine._nodes.by_index)
    return costs


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"ingress": [{"ports": [{"port": 80}]}]},
        {"ingress": [{"from": [{"podSelector": labels(app="db")}]}]},
    ],
    ids=("isolation", "ports", "peers"),
)
def test_a_policy_for_all_pods_is_told_in_pieces_that_are_no_larger_where_there_are_more_nodes(
    spec: dict[str, Any],
) -> None:
    policy = network_policy("all", "ns", policyTypes=["Ingress"], **spec)
    few, many = (_pieces(_wide(nodes), lambda engine: engine.put_policy(policy)) for nodes in (40, 200))
    assert len(many) > len(few) > 3
    assert max(many) <= max(few) * 1.2
