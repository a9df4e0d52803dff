# SPDX-License-Identifier: Apache-2.0
"""The agent as a daemon: its sockets, health, reflection, log level, settings and end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sdn.v1 import agent_pb2, agent_pb2_grpc, inspection_pb2, inspection_pb2_grpc
from tests.node.controller import Controller
from tests.node.node import ROOT, Node, wait_until

pytestmark = pytest.mark.root


def channel(node: Node) -> grpc.Channel:
    return grpc.insecure_channel(f"unix:{node.socket.parent}/agent-grpc.sock")


def health(node: Node, service: str) -> int:
    with channel(node) as open_channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(open_channel).Check(request, timeout=30).status)


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_sockets_and_state_are_for_root_only(node: Node) -> None:
    for path, mode in (
        (node.socket, 0o600),
        (node.socket.parent / "agent-grpc.sock", 0o600),
        (node.folder / "state", 0o700),
        (node.folder / "state" / "agent.db", 0o600),
    ):
        assert path.stat().st_mode & 0o777 == mode, path


def test_the_verbs_are_the_same_over_grpc(node: Node) -> None:
    with node.pod("web") as pod, channel(node) as open_channel:
        stub = agent_pb2_grpc.AgentStub(open_channel)
        request = agent_pb2.CniRequest(
            container_id=pod.container_id,
            netns=pod.netns,
            ifname="eth0",
            args=pod.args,
            config=json.dumps(node.config()).encode(),
        )
        added = stub.Add(request, timeout=60)
        assert (added.code, json.loads(added.output)) == (0, node.cni("ADD", pod))
        request.config = json.dumps(node.config(prevResult=json.loads(added.output))).encode()
        assert stub.Check(request, timeout=60).code == 0
        assert stub.Status(request, timeout=60).code == 0
        assert json.loads(stub.Version(request, timeout=60).output)["cniVersion"] == "1.1.0"
        assert stub.GC(request, timeout=60).code == 7
        deleted = stub.Del(request, timeout=60)
        assert (deleted.code, deleted.output) == (0, b"")


def test_health_tells_whether_pods_can_be_added(node: Node, controller: Controller) -> None:
    assert health(node, "") == SERVING
    wait_until(lambda: health(node, "sdn.v1.Agent") == SERVING, "health of the agent's service")
    controller.stop()
    try:
        wait_until(lambda: health(node, "sdn.v1.Agent") == NOT_SERVING, "health to follow")
        assert health(node, "") == SERVING
    finally:
        controller.start()
    wait_until(lambda: health(node, "sdn.v1.Agent") == SERVING, "health to come back")


def test_reflection_lists_the_services(node: Node) -> None:
    with channel(node) as open_channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(open_channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=30)
        names = {service.name for service in answer.list_services_response.service}
    assert {"sdn.v1.Agent", "sdn.v1.Daemon", "grpc.health.v1.Health"} <= names


def test_the_log_level_can_be_changed_while_it_runs(node: Node) -> None:
    with channel(node) as open_channel:
        stub = inspection_pb2_grpc.DaemonStub(open_channel)
        request = inspection_pb2.SetLogLevelRequest
        assert stub.SetLogLevel(request(level="warning"), timeout=30).previous == "info"
        before = len(node.log())
        node.cni("STATUS")
        assert len(node.log()) == before
        assert stub.SetLogLevel(request(level="info"), timeout=30).previous == "warning"
        node.cni("STATUS")
        assert '"verb":"STATUS"' in node.log()[before:]
        with pytest.raises(grpc.RpcError) as caught:
            stub.SetLogLevel(request(level="loud"), timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert stub.GetVersion(inspection_pb2.GetVersionRequest(), timeout=30).name == "sdn-agent"


def test_every_line_of_the_log_is_an_event(node: Node) -> None:
    for line in node.log().splitlines():
        assert {"time", "level", "logger", "event"} <= set(json.loads(line)), line


def test_sigterm_ends_it_cleanly_and_touches_nothing_that_forwards(node: Node) -> None:
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        before = node.exec("ip", "addr"), node.vsctl("show")
        assert node.kill("agent", signal.SIGTERM) == 0
        assert (node.exec("ip", "addr"), node.vsctl("show")) == before
        assert not node.socket.exists()
        node.start_agent()
        node.wait_able()
        assert node.cni("ADD", pod) == result
        node.cni("DEL", pod)


def test_a_second_agent_on_the_same_state_is_refused(node: Node) -> None:
    done = agent(
        "--controllers=unix:/nowhere",
        f"--state-dir={node.folder}/state",
        f"--socket={node.folder}/other/agent.sock",
    )
    assert done.returncode == 1
    assert "is in use by process" in done.stderr
    node.cni("STATUS")


def agent(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.main", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)


def test_help_names_every_setting_and_version_is_told() -> None:
    text = agent("--help").stdout
    for flag in ("--uplink", "--encapsulation", "--add-timeout", "SDN_AGENT_SOCKET", "--config"):
        assert flag in text
    assert agent("--version").stdout.startswith("sdn-agent ")


def test_wrong_settings_end_it_with_code_2_and_their_name(tmp_path: Path) -> None:
    for flags, name in ((["--mtu=big"], "mtu"), (["--nonsense=1"], "--nonsense"), ([], "controllers")):
        done = agent(*flags)
        assert done.returncode == 2
        assert name in done.stderr
        assert len(done.stderr.splitlines()) == 1
