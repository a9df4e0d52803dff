# SPDX-License-Identifier: Apache-2.0
"""An etcd that is wiped under running controllers, which start anew, and a switch that has seen their generations."""

from __future__ import annotations

from contextlib import ExitStack

import grpc
import pytest

from controller.store import Put, open_store
from tests.ports import unused_port
from tests.switch.controller_process import (
    PATIENCE,
    AgentStream,
    ControllerProcess,
    attachment,
    connect_switch,
    node_info,
)
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until
from tests.unit.etcd_process import Etcd

pytestmark = pytest.mark.switch

switch = pytest.fixture(running_switch)


def test_pods_are_programmed_again_without_hands(switch: PrivateSwitch) -> None:
    """Also below generations that the switch has seen: the new store's revisions are far below the old one's."""
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        store = open_store(etcd.url)
        for number in range(500):
            store.write([Put("/elsewhere", str(number).encode())])
        store.close()
        controllers = [
            ControllerProcess(store=etcd.url, name=name, peers_address=f"127.0.0.1:{unused_port()}")
            for name in ("one", "two")
        ]
        for controller in controllers:
            stack.callback(controller.close)
            controller.start()
        one, two = controllers
        with AgentStream(one, node_info(1)) as agent:
            targets = [f"tcp:127.0.0.1:{controller.openflow_port}" for controller in controllers]
            connect_switch(switch, one, agent.node.datapath_id)
            switch.vsctl("set-controller", switch.bridge, *targets)
            owner, other = (one, two) if one.switch("node-1").owner == "one" else (two, one)
        wait_until(lambda: are_programmed(owner, 1), "a pod to be programmed")
        flows = switch.dump_flows()
        etcd.kill(0)
        etcd.wipe(0)
        for controller in (owner, other):
            assert controller.process is not None
            assert controller.process.wait(PATIENCE) == 1
        assert switch.dump_flows() == flows
        owner.start()
        wait_until(lambda: are_programmed(owner, 1, 2), "the pods to be programmed")
        assert owner.terminate() == 0


def are_programmed(controller: ControllerProcess, *numbers: int) -> bool:
    """Whether a session of the agent tells of pods and hears that they are in force; it may be ended before, as when
    the owner has to take the switch once more.
    """
    try:
        with AgentStream(controller, node_info(1)) as session:
            told = session.full_state(*(attachment(session.node, number) for number in numbers))
            wait_until(lambda: session.answered(told) or session.ended, "an answer, or an end")
            return session.answered(told) and session.answer(told) is None
    except grpc.RpcError:
        return False
