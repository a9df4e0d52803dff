# SPDX-License-Identifier: Apache-2.0
"""Controllers whose gRPC has TLS ask each other all the same what only a switch's owner knows."""

from __future__ import annotations

from pathlib import Path

import grpc

from sdn.v1 import inspection_pb2
from tests.switch.controller_process import AgentStream, ControllerProcess, node_info
from tests.switch.ovs import wait_until
from tests.unit.etcd_process import Etcd, Keys
from tests.unit.two_processes import controllers, drain, two_controllers


def agent_at(*processes: ControllerProcess) -> tuple[AgentStream, ControllerProcess]:
    """A node's agent, and the controller that has taken it."""
    for process in processes:
        try:
            return AgentStream(process, node_info(1)), process
        except grpc.RpcError as refused:
            assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
    raise AssertionError("nobody took the node")


def test_controllers_with_tls_hear_of_each_others_switches(tmp_path: Path) -> None:
    keys = Keys(tmp_path, "controller", "client")
    files = {
        "grpc_certificate": keys.certificate("controller"),
        "grpc_key": keys.key("controller"),
        "grpc_ca": keys.certificate("ca"),
    }
    credentials = grpc.ssl_channel_credentials(
        keys.certificate("ca").read_bytes(),
        keys.key("client").read_bytes(),
        keys.certificate("client").read_bytes(),
    )
    settings = {name: str(file) for name, file in files.items()}
    with Etcd() as etcd, two_controllers(etcd, credentials, **settings) as both:
        agent, owner = agent_at(*both)
        (another,) = (process for process in both if process is not owner)
        with agent:
            assert owner.switch("node-1").agent_connected
            wait_until(lambda: another.switch("node-1").agent_connected, "the owner to be asked")

            def connected() -> bool:
                (node,) = another.get("Node", name="node-1")
                conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
                return conditions["AgentConnected"] == "True"

            wait_until(connected, "the owner's word to come")
            shown = controllers(another)
            assert not any(status.unanswering for status in shown.values())
            assert all(status.lease_left_ms > 0 for status in shown.values())
            name = owner.settings["name"]
            assert drain(another, name) == ""
            wait_until(lambda: controllers(another)[name].draining, "the owner to drain")
            request = inspection_pb2.WatchVerdictsRequest()
            assert list(another.inspection().WatchVerdicts(request, timeout=60)) == []
