# SPDX-License-Identifier: Apache-2.0
"""TLS towards switches and towards agents, with certificates required of both."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.switch.controller_process import AgentStream, ControllerProcess, attachment, node_info
from tests.switch.ovs import PrivateSwitch, wait_until


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate signed by it for each side; another authority's for the stranger."""
    folder = tmp_path_factory.mktemp("keys")
    for authority in ("ca", "strange-ca"):
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *(
                "-subj",
                f"/CN={authority}",
                "-keyout",
                f"{folder}/{authority}.key",
                "-out",
                f"{folder}/{authority}.pem",
            ),
        )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name, authority in (
        ("controller", "ca"),
        ("switch", "ca"),
        ("agent", "ca"),
        ("stranger", "strange-ca"),
    ):
        openssl(
            *(
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr"),
        )
        openssl(
            *(
                "x509",
                "-req",
                "-in",
                f"{folder}/{name}.csr",
                "-CA",
                f"{folder}/{authority}.pem",
                "-days",
                "2",
            ),
            *("-CAkey", f"{folder}/{authority}.key", "-CAcreateserial", "-extfile", f"{folder}/names"),
            *("-out", f"{folder}/{name}.pem"),
        )
    return folder


@pytest.fixture(scope="module")
def controller(keys: Path) -> Iterator[ControllerProcess]:
    settings = {
        f"{part}_{what}": f"{keys}/{file}"
        for part in ("openflow", "grpc")
        for what, file in (("certificate", "controller.pem"), ("key", "controller.key"), ("ca", "ca.pem"))
    }
    process = ControllerProcess(**settings)
    pair = ((keys / "agent.key").read_bytes(), (keys / "agent.pem").read_bytes())
    process.credentials = grpc.ssl_channel_credentials((keys / "ca.pem").read_bytes(), *pair)
    with process:
        yield process


def connect(
    switch: PrivateSwitch, controller: ControllerProcess, keys: Path, name: str, datapath_id: int
) -> None:
    switch.vsctl("set", "bridge", switch.bridge, f"other-config:datapath-id={datapath_id:016x}")
    switch.vsctl("set-ssl", f"{keys}/{name}.key", f"{keys}/{name}.pem", f"{keys}/ca.pem")
    switch.vsctl("set-controller", switch.bridge, f"ssl:127.0.0.1:{controller.openflow_port}")


def test_switch_and_agent_with_certificates_are_served(controller: ControllerProcess, keys: Path) -> None:
    with AgentStream(controller, node_info(1)) as agent, PrivateSwitch() as switch:
        assert list(agent.welcome.openflow_targets) == [f"ssl:127.0.0.1:{controller.openflow_port}"]
        connect(switch, controller, keys, "switch", agent.node.datapath_id)
        pods = [attachment(agent.node, number) for number in range(100)]
        assert agent.answer(agent.full_state(*pods)) is None
        controller.wait_synchronized("node-1")
        assert len(controller.flows("node-1")) == len(switch.dump_flows()) > 1000
        switch.appctl("bridge/reconnect", switch.bridge)
        for number in range(100, 120):
            assert agent.answer(agent.attach(attachment(agent.node, number))) is None


def test_a_switch_with_a_strangers_certificate_is_refused(controller: ControllerProcess, keys: Path) -> None:
    with AgentStream(controller, node_info(2)) as agent, PrivateSwitch() as switch:
        connect(switch, controller, keys, "stranger", agent.node.datapath_id)
        wait_until(
            lambda: any(
                "certificate" in line["reason"].lower() for line in controller.log("connection refused")
            ),
            "the refusal to be logged",
        )
        assert not controller.switch("node-2").connected


def test_a_switch_without_tls_is_refused(controller: ControllerProcess) -> None:
    with AgentStream(controller, node_info(3)) as agent, PrivateSwitch() as switch:
        before = len(controller.log("connection refused"))
        switch.vsctl(
            "set", "bridge", switch.bridge, f"other-config:datapath-id={agent.node.datapath_id:016x}"
        )
        switch.vsctl("set-controller", switch.bridge, f"tcp:127.0.0.1:{controller.openflow_port}")
        wait_until(lambda: len(controller.log("connection refused")) > before, "the refusal to be logged")
        assert not controller.switch("node-3").connected


def test_a_client_without_a_certificate_is_refused(controller: ControllerProcess, keys: Path) -> None:
    authority = (keys / "ca.pem").read_bytes()
    stranger = ((keys / "stranger.key").read_bytes(), (keys / "stranger.pem").read_bytes())
    for credentials in (
        grpc.ssl_channel_credentials(authority),
        grpc.ssl_channel_credentials(authority, *stranger),
    ):
        with grpc.secure_channel(f"127.0.0.1:{controller.grpc_port}", credentials) as channel:
            stub = inspection_pb2_grpc.InspectionStub(channel)
            with pytest.raises(grpc.RpcError) as error:
                stub.Get(inspection_pb2.GetRequest(kind="Node"), timeout=30)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
