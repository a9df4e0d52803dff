# SPDX-License-Identifier: Apache-2.0
"""Clients that ask for a switch's flows and do not read them cost a few listings for a while, and no more."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from controller.services.portions import AT_ONCE
from sdn.v1 import inspection_pb2
from tests.switch.controller_process import AgentStream, ControllerProcess, connect_switch, node_info
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until

#: Of somebody else, a kilobyte each: far more than the streams themselves may hold.
FLOWS = 20_000
ACTIONS = ",".join(f"set_field:0x{number + 1:032x}->xxreg{number % 4}" for number in range(20))

switch = pytest.fixture(scope="module")(running_switch)


@pytest.fixture(scope="module")
def controller(switch: PrivateSwitch) -> Iterator[ControllerProcess]:
    """It lists the flows of node-1, which are many."""
    with (
        ControllerProcess(repair_at_once="false") as process,
        AgentStream(process, node_info(1)) as agent,
    ):
        connect_switch(switch, process, agent.node.datapath_id)
        assert agent.answer(agent.full_state()) is None
        process.wait_synchronized("node-1")
        flows = (
            f"table=0,priority=1,ip,nw_src=192.0.{number >> 8}.{number & 255},actions={ACTIONS}"
            for number in range(FLOWS)
        )
        switch.ofctl("add-flows", "-", stdin="\n".join(flows))
        yield process


def listing(controller: ControllerProcess, method: str = "ListFlows") -> grpc.Call:
    request = {"ListFlows": inspection_pb2.ListFlowsRequest, "ListGroups": inspection_pb2.ListGroupsRequest}
    return getattr(controller.inspection(), method)(request[method](node="node-1"), timeout=120)


def code_of(call: grpc.Call) -> grpc.StatusCode:
    """How a listing ends that is read."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.code()
    return grpc.StatusCode.OK


def test_those_that_do_not_read_are_given_up_and_others_served(controller: ControllerProcess) -> None:
    assert len(controller.flows("node-1")) > FLOWS
    silent = [listing(controller) for _ in range(AT_ONCE)]
    for call in silent:
        assert next(call).flows
    # More of them wait for their turn, and while nobody is given up yet it does not come.
    more = [listing(controller, method) for method in ("ListFlows", "ListGroups")]
    assert {code_of(call) for call in more} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    wait_until(
        lambda: code_of(listing(controller)) is grpc.StatusCode.OK, "those that do not read to be given up"
    )
    assert {code_of(call) for call in silent} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(controller.flows("node-1")) > FLOWS
