# SPDX-License-Identifier: Apache-2.0
"""Policies do in a real switch what the evaluator says and the simulator does: every flow is accepted, and each first
packet meets the same tables, on the switch where it begins and on the one where it ends.

Which of several rules of one level Open vSwitch chooses is its own affair, so flows are not compared, but the tables
that the packet meets: they are what is decided. ``SDN_POLICY_TRACES`` sets how many packets are traced (default 1,000).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from sdn.pipeline.actions import Goto
from sdn.pipeline.match import Match
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import GATEWAY_PORT, TUNNEL_PORT
from sdn.pipeline.tables import CLASSIFICATION, INGRESS_POLICY
from sdn.policy.evaluator import evaluate
from sdn.policy.values import PolicyPod, Protocol
from sdn.simulator.conntrack import NEW, own_tuple
from sdn.simulator.journey import Journey, StepKind
from sdn.simulator.packet import Packet, tcp
from sdn.simulator.switch import SimulatedSwitch
from tests.property.policy_clusters import FIRST_OFPORT, PolicyCase, policy_clusters
from tests.property.policy_network import Network, Passage
from tests.switch.simulated import Both, both_switches
from tests.unit.test_pipeline_policy_shares import PEER, POD, flows_for

TRACES = int(os.environ.get("SDN_POLICY_TRACES", "1000"))
CONNECTIONS_EACH = 12
_MOST_PODS = 8
_MOST_PASSES = 4


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    ports = (GATEWAY_PORT, *range(FIRST_OFPORT, FIRST_OFPORT + _MOST_PODS))
    with both_switches(ports, TUNNEL_PORT) as pair:
        yield pair
        print(f"traced {pair.compared} packets through policies")


def told(packet: Packet) -> Packet:
    """``ofproto/trace`` does not know where a tracked connection began, so the packet says it."""
    original = own_tuple(packet)
    family = "ct_nw" if packet["eth_type"] == 0x0800 else "ct_ipv6"
    ports = {"ct_tp_src": original.source_port, "ct_tp_dst": original.destination_port}
    return packet.with_(
        **{f"{family}_src": original.source, f"{family}_dst": original.destination},
        **(ports if original.protocol in tuple(Protocol) else {}),
        ct_state=NEW,
        ct_nw_proto=original.protocol,
    )


def tables(journey: Journey) -> list[int]:
    """The tables that a packet met, in order."""
    return [step.table for step in journey.steps if step.kind in (StepKind.MATCH, StepKind.MISS)]


@settings(
    max_examples=max(1, TRACES // CONNECTIONS_EACH),
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_evaluator_simulator_and_switch_agree(both: Both, case: PolicyCase) -> None:
    network = Network(case.cluster)
    passages: dict[str, list[tuple[str, Passage]]] = {}
    for connection in case.connections:
        if not any(isinstance(end, PolicyPod) for end in (connection.source, connection.destination)):
            continue
        ways = list(network.passages(connection))
        allowed = evaluate(case.cluster, connection).allowed
        assert allowed == (not any(way.denied for way in ways)), f"{connection}"
        for way in ways:
            passages.setdefault(way.node, []).append((str(connection), way))
    for node, ways_here in passages.items():
        both.load(network.flows(node))
        assert both.refused == 0
        both.reach(*(str(other.addresses[0]) for other in case.cluster.nodes if other.name != node))
        for connection_text, way in ways_here:
            trace = both.trace(told(way.journey.packet), NEW, _MOST_PASSES)
            met = [table for one in trace.passes for table, _ in one.met]
            assert met == tables(way.journey), f"{connection_text}\n{way.journey}\n--- real:\n{trace.text}"


@pytest.mark.parametrize("fitting", [1, 4001, 9000])
def test_a_rule_holds_whichever_of_a_peers_flows_names_it(both: Both, fitting: int) -> None:
    start = CLASSIFICATION.flow(
        Match(), (Goto(INGRESS_POLICY.number),), owner=Owner("Node", "", "node-1"), why="to the rules"
    )
    flows = [start, *flows_for(fitting)]
    both.load(flows)
    assert both.refused == 0
    packet = tcp(in_port=GATEWAY_PORT, ip_src=PEER, ip_dst=str(POD), tcp_dst=80, ct_state=NEW)
    journey = SimulatedSwitch(flows).run(packet)
    trace = both.trace(told(packet), NEW, _MOST_PASSES)
    met = [table for one in trace.passes for table, _ in one.met]
    assert met == tables(journey), f"{journey}\n--- real:\n{trace.text}"
    assert "ingress[0]" in str(journey)
