# SPDX-License-Identifier: Apache-2.0
"""Which controller of a lab is asked, and whose word counts: sockets with real gRPC servers, none, or silent ones."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sdn.lab import controllers, processes
from sdn.lab import health as lab_health
from sdn.lab.programs import controller_socket
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder
from sdn.lab.waiting import wait_until
from sdn.v1 import inspection_pb2, inspection_pb2_grpc

LISTENS = """
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
time.sleep(600)
"""
SPEC = LabSpec(name="x", nodes=2, controllers=3, store="etcd")


class Answers(inspection_pb2_grpc.InspectionServicer):
    """Tells of switches what a test wants."""

    def __init__(self, switches: list[inspection_pb2.Switch]) -> None:
        self._switches = switches

    def ListSwitches(  # noqa: N802 - the RPC's name
        self, request: inspection_pb2.ListSwitchesRequest, context: grpc.ServicerContext
    ) -> inspection_pb2.ListSwitchesResponse:
        return inspection_pb2.ListSwitchesResponse(switches=self._switches)


class Rig:
    """Sockets where the controllers of a lab have theirs."""

    def __init__(self, path: Path) -> None:
        self.folder = Folder("x")
        self.folder.path = path
        self._servers: list[grpc.Server] = []

    def serve(self, controller: str, *switches: inspection_pb2.Switch, healthy: bool = True) -> None:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        inspection_pb2_grpc.add_InspectionServicer_to_server(Answers(list(switches)), server)
        liveness = health.HealthServicer()
        states = health_pb2.HealthCheckResponse
        liveness.set("", states.SERVING if healthy else states.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
        path = controller_socket(self.folder, controller)
        path.parent.mkdir()
        server.add_insecure_port(f"unix:{path}")
        server.start()
        self._servers.append(server)

    def close(self) -> None:
        for server in self._servers:
            server.stop(0).wait()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def switch(
    node: str, connected: bool = False, synchronized: bool = False, owner: str = "", generation: int = 0
) -> inspection_pb2.Switch:
    return inspection_pb2.Switch(
        node=node, connected=connected, synchronized=synchronized, owner=owner, generation=generation
    )


def test_the_first_that_serves_is_asked(rig: Rig) -> None:
    assert controllers.one_to_ask(SPEC, rig.folder) == "controller-1", "nobody is there: any is told"
    rig.serve("controller-3", healthy=False)
    assert controllers.one_to_ask(SPEC, rig.folder) == "controller-3", "it can at least say what is wrong"
    rig.serve("controller-2")
    assert controllers.one_to_ask(SPEC, rig.folder) == "controller-2"
    assert controllers.serving(SPEC, rig.folder) == ("controller-2",)
    rig.serve("controller-1")
    assert controllers.one_to_ask(SPEC, rig.folder) == "controller-1"
    assert controllers.serving(SPEC, rig.folder) == ("controller-1", "controller-2")


def test_one_that_accepts_connections_and_answers_nothing_is_passed_over(rig: Rig) -> None:
    path = controller_socket(rig.folder, "controller-1")
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        rig.serve("controller-2", switch("node-1", True, True))
        assert controllers.one_to_ask(SPEC, rig.folder) == "controller-2"
        assert set(controllers.switches(SPEC, rig.folder)) == {"node-1"}


def test_a_frozen_process_does_not_listen(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with subprocess.Popen([sys.executable, "-c", LISTENS, str(path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            server.send_signal(signal.SIGSTOP)
            process = processes.identify(server.pid)
            assert process is not None
            wait_until(lambda: processes.frozen(process), "it to stand", 10)
            assert not lab_health.listens(path)
            server.send_signal(signal.SIGCONT)
            wait_until(lambda: not processes.frozen(process), "it to go on", 10)
            assert lab_health.listens(path)
        finally:
            server.kill()


def test_a_socket_whose_queue_is_full_is_no_reason_to_wait_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(0)
        assert lab_health.listens(path)
        assert not lab_health.listens(path)


def test_a_switch_is_as_ready_as_the_controller_says_that_knows_most(rig: Rig) -> None:
    rig.serve("controller-1", switch("node-1"), switch("node-2", True))
    rig.serve("controller-3", switch("node-1", True, True), switch("node-2"))
    found = controllers.switches(SPEC, rig.folder)
    assert (found["node-1"].connected, found["node-1"].synchronized) == (True, True)
    assert (found["node-2"].connected, found["node-2"].synchronized) == (True, False)


def test_of_a_switch_its_owner_is_believed_and_of_two_owners_the_later(rig: Rig) -> None:
    rig.serve("controller-1", switch("node-1", True, True, "controller-1", 7))
    rig.serve("controller-2", switch("node-1", True, False, "controller-2", 8))
    rig.serve("controller-3", switch("node-2", True, True, "controller-2", 9))
    found = controllers.switches(SPEC, rig.folder)
    assert set(found) == {"node-1"}, "of node-2 its owner did not speak"
    assert (found["node-1"].owner, found["node-1"].synchronized) == ("controller-2", False)


def test_nobody_answers_for_any_switch(rig: Rig) -> None:
    assert controllers.switches(SPEC, rig.folder) == {}
