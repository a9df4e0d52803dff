# SPDX-License-Identifier: Apache-2.0
"""A peer or a pod of more rules than one flow can name has several flows, and all rules hold."""

from __future__ import annotations

import pytest

from sdn.openflow import flow_image
from sdn.pipeline.compiler import policy_flows
from sdn.pipeline.flow import Flow
from sdn.pipeline.tables import INGRESS_POLICY
from sdn.pipeline.topology import Address, Range
from sdn.policy.cells import PeerCell, PeerKey, RuleCell, RuleKey, Stage, SubjectCell, SubjectKey
from sdn.policy.values import Action, Direction, PolicyRef, Tier
from sdn.simulator.conntrack import NEW
from sdn.simulator.packet import tcp
from sdn.simulator.switch import SimulatedSwitch

RULES = tuple(range(1, 9001))
POD = Address.parse("10.244.1.5")
PEER = "10.9.9.9"
OWNER = PolicyRef("NetworkPolicy", "shop", "many")
STAGE = Stage(Direction.INGRESS, Tier.NETWORK_POLICY, 1)


def flows_for(fitting: int) -> list[Flow]:
    """The peer is named by all rules, and the pod by one alone."""
    cells = (
        PeerCell(PeerKey(STAGE, Range.parse(f"{PEER}/32")), RULES, OWNER),
        SubjectCell(SubjectKey(STAGE, 16, None), (POD,), (fitting,), OWNER),
        RuleCell(RuleKey(fitting), STAGE, Action.ACCEPT, OWNER, "ingress[0]"),
    )
    return [flow for cell in cells for flow in policy_flows(cell)]


def test_each_flow_can_be_sent_and_none_is_there_twice() -> None:
    flows = flows_for(1)
    assert len({flow.key for flow in flows}) == len(flows)
    for flow in flows:
        flow_image(flow)


@pytest.mark.parametrize("fitting", [1, 4000, 4001, 8001, 9000])
def test_the_rule_holds_whichever_flow_names_it(fitting: int) -> None:
    switch = SimulatedSwitch(flows_for(fitting))
    packet = tcp(in_port=1, ip_src=PEER, ip_dst=str(POD), tcp_dst=80, ct_state=NEW)
    journey = switch.run(packet, table=INGRESS_POLICY.number)
    assert "ingress[0]" in str(journey), str(journey)
