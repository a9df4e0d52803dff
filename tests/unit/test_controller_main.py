# SPDX-License-Identifier: Apache-2.0
"""sdn-controller as a process: its settings, its start, its end."""

from __future__ import annotations

import os
import shlex
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from google.protobuf import json_format

from controller.settings import ControllerSettings
from sdn import settings
from sdn.v1 import inspection_pb2
from sdn.version import VERSION
from tests.ports import unused_port
from tests.switch.controller_process import (
    AgentStream,
    ControllerProcess,
    node_info,
)
from tests.switch.ovs import wait_until
from tests.unit.etcd_process import Etcd

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SDN_")}
    return subprocess.run(
        [sys.executable, "-m", "controller.main", *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_and_version() -> None:
    help_text = run("--help")
    assert help_text.returncode == 0
    for field in settings.describe(ControllerSettings, "sdn-controller"):
        assert field.flag in help_text.stdout
        assert field.environment in help_text.stdout
    version = run("--version")
    assert version.stdout.strip() == f"sdn-controller {VERSION}"


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--openflow-address=nowhere", "setting openflow_address: 'nowhere' is no address and port"),
        ("--grpc-address=1.2.3.4:99999", "setting grpc_address"),
        ("--store=mysql://x", "setting store: 'mysql://x' names no store"),
        ("--cluster-ranges=10.0.0.1/16", "setting cluster_ranges: 10.0.0.1/16 has host bits set"),
        (
            "--cluster-ranges=10.0.0.0/16,10.1.0.0/16",
            "setting cluster_ranges: 10.1.0.0/16: a second IPv4 range",
        ),
        ("--node-prefix-ipv4=15", "setting cluster_ranges: 10.244.0.0/16: node ranges of /15"),
        ("--openflow-targets=172.30.0.1:6653", "setting openflow_targets: '172.30.0.1:6653' is no target"),
        ("--openflow-certificate=/x", "setting openflow_key: belongs to openflow_certificate"),
        ("--grpc-ca=/x", "setting grpc_ca: needs grpc_certificate and grpc_key"),
        ("--openflow-echo-seconds=0", "openflow_echo_seconds"),
        ("--name=A b", "setting name"),
        (
            "--service-ranges=10.244.1.0/24",
            "setting service_ranges: 10.244.1.0/24 overlaps 10.244.0.0/16 of cluster_r",
        ),
        ("--service-ranges=10.0.0.0/11", "setting service_ranges: 10.0.0.0/11: must be /12 to /30"),
        (
            "--service-ranges=10.0.0.0/16,10.1.0.0/16",
            "setting service_ranges: 10.1.0.0/16: a second IPv4 range",
        ),
        (
            "--load-balancer-ranges=10.96.1.0/24",
            "setting load_balancer_ranges: 10.96.1.0/24 overlaps 10.96.0.0/16",
        ),
        ("--node-port-range=80-90", "setting node_port_range: 80-90: must lie within 9216-65535"),
        ("--node-port-range=many", "setting node_port_range: 'many' is no range of ports"),
        ("--cluster-domain=Local", "setting cluster_domain"),
        ("--dns-addresses=10.97.0.10", "setting dns_addresses: 10.97.0.10 is not inside service_ranges"),
        ("--openflow-address=::1:6653", "setting openflow_address: '::1:6653' is no address and port"),
        ("--store=sqlite:///proc/sdn#1.db", "setting store: 'sqlite:///proc/sdn#1.db': neither '?' nor '#'"),
        ("--store=sqlite:///proc/sdn.db?mode=ro", "setting store: 'sqlite:///proc/sdn.db?mode=ro': neither"),
        ("--store=etcd://h:2379?x=1", "setting store: 'etcd://h:2379?x=1': neither '?' nor '#'"),
        ("--store=etcd://::1:2379", "'::1:2379' is no address and port"),
        ("--store=etcd://[::1:2379", "'[::1:2379' is no address and port"),
        (
            "--store=etcd://me:secret@h:2379",
            "setting store: etcd://HOST:PORT,... names no user: give store_user",
        ),
        ("--nonsense=1", "flag --nonsense is no setting"),
    ],
)
def test_a_wrong_setting_is_named(flag: str, says: str) -> None:
    done = run(flag)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("controller-1:6655", "'controller-1' is no IP address: write the address at which the other"),
        ("localhost:6655", "'localhost' is no IP address"),
        ("0.0.0.0:6655", "is no address at which others reach this controller"),
    ],
)
def test_one_of_several_is_reached_at_an_ip_address(address: str, says: str) -> None:
    """To look up a name takes time in which it would be found silent."""
    done = run("--store=etcd://h:1", f"--peers-address={address}")
    assert done.returncode == 2
    assert "setting peers_address: " in done.stderr
    assert says in done.stderr


def test_a_controller_with_nowhere_to_serve_is_refused() -> None:
    done = run("--grpc-address=", "--grpc-socket=")
    assert done.returncode == 2
    assert "grpc_address" in done.stderr


def fails_to_start(controller: ControllerProcess) -> str:
    """Start it; gives the one line that says why it could not."""
    try:
        assert controller.spawn().wait(120) == 1
        (line,) = controller.log("cannot start")
        return str(line["error"])
    finally:
        controller.close()


@pytest.mark.parametrize("setting", ["openflow_address", "grpc_address"])
def test_a_taken_port_is_named_with_its_setting(setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        why = fails_to_start(ControllerProcess(**{setting: address}))
    assert why == f"setting {setting}: {address}: taken by another process"


def test_an_address_of_another_host_is_named() -> None:
    why = fails_to_start(ControllerProcess(openflow_address="192.0.2.1:6653"))
    assert why == "setting openflow_address: 192.0.2.1:6653: Cannot assign requested address"


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("not a database at all, " * 100)
    why = fails_to_start(ControllerProcess(store=f"sqlite://{tmp_path}/store.db"))
    assert why.startswith(f"setting store: store {tmp_path}/store.db: damaged or no store")


def test_a_store_in_use_is_named() -> None:
    with ControllerProcess() as first:
        why = fails_to_start(ControllerProcess(store=first.settings["store"]))
    assert "locked by another process: is a second controller running on it?" in why


def test_a_socket_in_use_is_named_and_a_stale_one_is_replaced() -> None:
    with ControllerProcess() as first:
        path = first.settings["grpc_socket"]
        why = fails_to_start(ControllerProcess(grpc_socket=path))
        assert why == f"setting grpc_socket: {path}: in use by another process"
        first.kill()
        assert Path(path).is_socket(), "a killed process leaves its socket behind"
        first.start()
        assert first.get("Namespace")


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    why = fails_to_start(ControllerProcess(openflow_certificate=missing, openflow_key=missing))
    assert why.startswith("setting openflow_certificate")
    why = fails_to_start(ControllerProcess(grpc_certificate=missing, grpc_key=missing))
    assert why.startswith("setting grpc_certificate")


def test_sigterm_ends_it_with_code_zero_and_removes_its_socket() -> None:
    with ControllerProcess() as controller:
        assert controller.terminate() == 0
        assert not Path(controller.settings["grpc_socket"]).exists()
        (line,) = controller.log("ended")
        assert line["reason"] == "SIGTERM"


def test_readiness_is_told_to_the_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with ControllerProcess() as controller:
            assert manager.recv(4096).startswith(b"READY=1")
            assert controller.terminate() == 0
            assert manager.recv(4096).startswith(b"STOPPING=1")


def test_every_event_is_one_json_line() -> None:
    with ControllerProcess() as controller:
        controller.get("Namespace")
        controller.terminate()
        lines = controller.log_text().splitlines()
        assert lines
        assert len(controller.log()) == len(lines)


@pytest.fixture
def entering() -> Iterator[tuple[ControllerProcess, Etcd]]:
    """A controller that listens and is not one of the controllers yet, since its store has fallen silent."""
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        controller = ControllerProcess(
            store=etcd.url, lease_seconds="4", peers_address=f"127.0.0.1:{unused_port()}"
        )
        stack.callback(controller.close)
        controller.start()
        # Where the former start was, nothing answers: its lease is waited for, time enough to silence the store.
        controller.kill()
        controller.settings["peers_address"] = f"127.0.0.1:{unused_port()}"
        controller.spawn()
        wait_until(lambda: _accepts(controller.openflow_port), "the controller to listen")
        etcd.pause(0)
        waits = "not among the controllers yet: the store is asked again"
        wait_until(lambda: bool(controller.log(waits)), "the controller to say that it waits")
        yield controller, etcd


def test_a_store_that_is_away_while_a_controller_enters_is_asked_again(
    entering: tuple[ControllerProcess, Etcd],
) -> None:
    """What has loaded and listens does not let go of everybody for a moment in which the store says nothing."""
    controller, etcd = entering
    assert not controller.log("ready")
    etcd.resume(0)
    wait_until(lambda: bool(controller.log("ready")), "the controller to be ready")


def test_one_that_waits_for_its_store_ends_when_it_is_told_to(
    entering: tuple[ControllerProcess, Etcd],
) -> None:
    controller, _ = entering
    assert controller.terminate() == 0
    assert not controller.log("ready")


@pytest.mark.parametrize("how", ["wiped", "restored"])
def test_a_controller_whose_store_becomes_another_one_ends_and_starts_anew(tmp_path: Path, how: str) -> None:
    """What it knows counts no more, and it would hear of nothing before the revisions are where they were."""
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        controller = ControllerProcess(store=etcd.url, peers_address=f"127.0.0.1:{unused_port()}")
        stack.callback(controller.close)
        controller.start()
        etcd.save(tmp_path / "backup")
        AgentStream(controller, node_info(1)).close()
        for number in range(20):
            declare(controller, f"web-{number}")
        etcd.kill(0)
        if how == "wiped":
            etcd.wipe(0)
        else:
            etcd.restore(tmp_path / "backup")
        assert controller.process is not None
        assert controller.process.wait(120) == 1
        (line,) = controller.log("the store is another one: this controller must start anew")
        assert "wiped or restored from a backup" in line["error"]
        assert not [line for line in controller.log() if "traceback" in line]
        controller.start()
        assert not controller.get("Service", namespace="default")
        AgentStream(controller, node_info(1)).close()
        declare(controller, "web")
        assert controller.terminate() == 0


def test_a_key_that_is_no_text_keeps_no_controller_from_starting() -> None:
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        etcd.ctl("put", b"/sdn/objects/\xff".decode(errors="surrogateescape"), "1")
        controller = ControllerProcess(store=etcd.url, peers_address=f"127.0.0.1:{unused_port()}")
        stack.callback(controller.close)
        controller.start()
        assert controller.get("Namespace")
        assert controller.log("the store has a key that is no text: left aside: b'/sdn/objects/\\xff'")
        assert controller.terminate() == 0


def unreadable(controller: ControllerProcess, key: str) -> str:
    """Start it; gives the command that it names for getting past the value of a key."""
    assert controller.spawn().wait(120) == 1
    (line,) = controller.log("cannot start")
    assert str(line["error"]).startswith(f"setting store: store: the value of {key} cannot be read: ")
    assert "If a newer build wrote it, start that one; else remove it" in line["error"]
    return str(line["error"]).rpartition(", by: ")[2]


KEY = "/sdn/objects/Service/default/it's"


def test_a_value_that_cannot_be_read_is_named_with_what_removes_it(tmp_path: Path) -> None:
    controller = ControllerProcess(store=f"sqlite://{tmp_path}/a store.db")
    try:
        controller.start()
        assert controller.terminate() == 0
        with closing(sqlite3.connect(tmp_path / "a store.db")) as database, database:
            database.execute("INSERT INTO entries VALUES (?, ?, 1)", (KEY, b'{"kind": "Newer"}'))
        program, path, statement = shlex.split(unreadable(controller, KEY))
        assert program == "sqlite3"
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(statement)
        controller.start()
        assert controller.terminate() == 0
    finally:
        controller.close()


def test_so_is_one_in_etcd() -> None:
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        controller = ControllerProcess(store=etcd.url, peers_address=f"127.0.0.1:{unused_port()}")
        stack.callback(controller.close)
        etcd.ctl("put", KEY, "[]")
        program, *arguments = shlex.split(unreadable(controller, KEY))
        assert program == "etcdctl"
        etcd.ctl(*arguments)
        controller.start()
        assert controller.terminate() == 0


def declare(controller: ControllerProcess, name: str) -> None:
    """A Service, told to the controller as sdnctl does."""
    spec = {"ports": [{"port": 80}], "selector": {"app": name}}
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": spec,
    }
    request = inspection_pb2.ApplyRequest()
    json_format.ParseDict(document, request.object)
    controller.inspection().Apply(request, timeout=60)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
