# SPDX-License-Identifier: Apache-2.0
"""A node of a test's own: a network namespace with an uplink, an Open vSwitch and an agent, all as processes.

    with Underlay() as underlay, Node(underlay, 1, controllers=["unix:/..."]) as node:
        node.start_agent()
        with node.pod("web") as pod:
            result = node.cni("ADD", pod)

The kernel ends every process should the test run be killed; namespaces are named after the test process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc

from sdn.v1 import agent_pb2, agent_pb2_grpc
from tests.switch.ovs import listens

ROOT: Final = Path(__file__).resolve().parents[2]
PLUGIN: Final = ROOT / "agent" / "cni" / "sdn-cni"
SCHEMA: Final = "/usr/share/openvswitch/vswitch.ovsschema"
PATIENCE: Final = 60.0
NETWORK: Final = "pods"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Poll until `condition` holds; fail naming what never came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def run(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """What a command printed; AssertionError with its error output when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


class Underlay:
    """A bridge in a namespace, which the uplinks of nodes end in; it also stands for the world outside."""

    def __init__(self) -> None:
        self.name = f"ag-{os.getpid()}-under"

    def __enter__(self) -> Self:
        run("ip", "netns", "add", self.name)
        for command in (
            "link set lo up",
            "link add br0 type bridge",
            "link set br0 up",
            "addr add 172.31.0.1/24 dev br0",
            "addr add fd00:31::1/64 dev br0 nodad",
        ):
            run("ip", "-n", self.name, *command.split())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run("ip", "netns", "delete", self.name)

    def exec(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.name, *command, check=check)


@dataclass
class Pod:
    """A network namespace, and what a runtime would call it."""

    name: str
    namespace: str
    netns_name: str
    container_id: str
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.netns_name}"

    @property
    def args(self) -> str:
        return (
            f"K8S_POD_NAMESPACE={self.namespace};IgnoreUnknown=1;K8S_POD_NAME={self.name};"
            f"K8S_POD_INFRA_CONTAINER_ID={self.container_id};K8S_POD_UID=uid-{self.name};SOMETHING=else"
        )

    def exec(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.netns_name, *command, check=check)

    def addresses(self) -> set[str]:
        """Global addresses of eth0 with prefix lengths."""
        links = json.loads(self.exec("ip", "-json", "addr", "show", "dev", "eth0"))
        return {f"{a['local']}/{a['prefixlen']}" for a in links[0]["addr_info"] if a["scope"] == "global"}

    def addresses_if_any(self) -> set[str]:
        """As `addresses`; nothing when there is no eth0."""
        links = json.loads(self.exec("ip", "-json", "link"))
        return self.addresses() if any(link["ifname"] == "eth0" for link in links) else set()


class PluginError(Exception):
    """The plugin printed an error object."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(str(document))
        self.code = document["code"]
        self.message = document["msg"]
        self.details = document.get("details", "")
        self.version = document["cniVersion"]


class Node:
    """One node; `number` gives its addresses 172.31.0.N and fd00:31::N."""

    def __init__(self, underlay: Underlay, number: int, controllers: list[str], **settings: str) -> None:
        """`settings`: more flags of the agent, "add_timeout" for --add-timeout."""
        self.name = f"node-{number}"
        self.netns = f"ag-{os.getpid()}-n{number}"
        self.ipv4 = f"172.31.0.{10 + number}"
        self.ipv6 = f"fd00:31::{10 + number}"
        self.folder = Path(tempfile.mkdtemp(prefix="ag-node-"))
        self._underlay = underlay
        self._port = f"n{number}"
        self._controllers = controllers
        self._settings = {"datapath": "netdev", "add_timeout": "15", **settings}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # --- life

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(f"--- log of {self.name}'s agent\n{self.log()[-12000:]}\n")
        self._end()

    def _start(self) -> None:
        run("ip", "netns", "add", self.netns)
        port = self._port
        under = self._underlay.name
        for command in (
            f"-n {self.netns} link set lo up",
            f"-n {self.netns} link add eth0 type veth peer name {port} netns {under}",
            f"-n {under} link set {port} master br0 up",
            f"-n {self.netns} link set eth0 up",
            f"-n {self.netns} addr add {self.ipv4}/24 dev eth0",
            f"-n {self.netns} addr add {self.ipv6}/64 dev eth0 nodad",
            f"-n {self.netns} route add default via 172.31.0.1",
            f"-n {self.netns} -6 route add default via fd00:31::1",
        ):
            run("ip", *command.split())
        # The frames of both sides are read as they are by userspace.
        run("ip", "netns", "exec", under, "ethtool", "-K", port, "tx", "off")
        run("ip", "netns", "exec", under, "ethtool", "-K", "br0", "tx", "off")
        run("ovsdb-tool", "create", str(self.folder / "conf.db"), SCHEMA)
        self.start_ovsdb()
        run("ovs-vsctl", "--no-wait", f"--db=unix:{self.folder}/db.sock", "init")
        self.start_vswitchd()

    def _end(self) -> None:
        for name in ("agent", "ovs-vswitchd", "ovsdb-server"):
            self.kill(name)
        # A namespace goes some time after its name; the port's name may be wanted again at once.
        run("ip", "-n", self._underlay.name, "link", "delete", self._port, check=False)
        run("ip", "netns", "delete", self.netns, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, name: str, *command: str) -> None:
        self.kill(name)
        line = ["ip", "netns", "exec", self.netns, "setpriv", "--pdeathsig", "KILL", *command]
        environment = {
            # First what a test puts in place of the system's programs.
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            **{f"OVS_{kind}DIR": str(self.folder) for kind in ("RUN", "DB", "LOG", "SYSCONF")},
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                line, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int | None:
        """End a daemon; its exit code, None when it does not run."""
        process = self._processes.pop(name, None)
        if process is None:
            return None
        process.send_signal(number)
        return process.wait(timeout=30)

    def running(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def start_ovsdb(self) -> None:
        (self.folder / "db.sock").unlink(missing_ok=True)
        self._spawn(
            "ovsdb-server",
            *("ovsdb-server", str(self.folder / "conf.db"), f"--remote=punix:{self.folder}/db.sock"),
            *(f"--unixctl={self.folder}/ovsdb.ctl", f"--pidfile={self.folder}/ovsdb-server.pid"),
            *("-vconsole:off", "-vsyslog:off", "--no-chdir"),
        )
        wait_until(lambda: listens(self.folder / "db.sock"), "ovsdb-server's socket")

    def start_vswitchd(self) -> None:
        (self.folder / "ovs-vswitchd.pid").unlink(missing_ok=True)
        self._spawn(
            "ovs-vswitchd",
            *("ovs-vswitchd", f"unix:{self.folder}/db.sock", f"--pidfile={self.folder}/ovs-vswitchd.pid"),
            *("-vconsole:off", "-vsyslog:off", "--no-chdir", f"--log-file={self.folder}/vswitchd.log"),
        )
        wait_until((self.folder / "ovs-vswitchd.pid").exists, "ovs-vswitchd's pid file")

    # --- the agent

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "agent.sock"

    def start_agent(self, *, wait: bool = True) -> None:
        """Start it, and wait until it serves."""
        before = self.log().count('"event":"ready"')
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in self._settings.items()]
        self._spawn(
            "agent",
            *(sys.executable, "-m", "agent.main", f"--node-name={self.name}", "--uplink=eth0"),
            *(f"--controllers={','.join(self._controllers)}", f"--state-dir={self.folder}/state"),
            *(f"--socket={self.socket}", f"--ovsdb=unix:{self.folder}/db.sock"),
            *(f"--ovs-rundir={self.folder}", *flags),
        )
        if wait:
            self.wait_for_event("ready", after=before + 1)

    def wait_for_event(self, event: str, after: int = 1) -> None:
        """Until the log tells of an event, `after` times in all."""

        def told() -> bool:
            if not self.running("agent"):
                raise AssertionError(f"the agent has ended; its log:\n{self.log()[-6000:]}")
            return self.log().count(f'"event":"{event}"') >= after

        wait_until(told, f"the agent's event {event!r}")

    def log(self) -> str:
        path = self.folder / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def state(self) -> agent_pb2.GetStateResponse:
        """What the agent says it holds."""
        with grpc.insecure_channel(f"unix:{self.folder}/run/agent-grpc.sock") as channel:
            return agent_pb2_grpc.AgentStub(channel).GetState(agent_pb2.GetStateRequest(), timeout=30)

    def wait_able(self) -> None:
        """Until an ADD can succeed."""
        wait_until(lambda: self._status() is None, f"STATUS of {self.name} to succeed")

    def _status(self) -> PluginError | None:
        try:
            self.cni("STATUS")
        except PluginError as error:
            return error
        return None

    # --- pods

    @contextmanager
    def pod(self, name: str, namespace: str = "default") -> Iterator[Pod]:
        """A namespace that a runtime made for a pod."""
        pod = Pod(name, namespace, f"{self.netns}-{name}", f"{name}-{os.urandom(6).hex()}")
        run("ip", "netns", "add", pod.netns_name)
        try:
            yield pod
        finally:
            run("ip", "netns", "delete", pod.netns_name, check=False)

    def config(self, version: str = "1.1.0", **more: Any) -> dict[str, Any]:
        return {
            "cniVersion": version,
            "name": NETWORK,
            "type": "sdn-cni",
            "agentSocket": str(self.socket),
            **more,
        }

    def cni(
        self,
        verb: str,
        pod: Pod | None = None,
        *,
        version: str = "1.1.0",
        environment: dict[str, str] | None = None,
        stdin: bytes | None = None,
        **more: Any,
    ) -> Any:
        """Run the plugin as a runtime does; what it printed. PluginError."""
        variables = {"CNI_COMMAND": verb, "CNI_PATH": "/opt/cni/bin"}
        if pod is not None:
            variables |= {
                "CNI_CONTAINERID": pod.container_id,
                "CNI_NETNS": pod.netns,
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": pod.args,
            }
            if pod.labels:
                pairs = [{"key": key, "value": value} for key, value in pod.labels.items()]
                more = {"args": {"cni": {"labels": pairs}}, **more}
        variables |= environment or {}
        text = stdin if stdin is not None else json.dumps(self.config(version, **more)).encode()
        done = subprocess.run(
            [PLUGIN], input=text, env=variables, capture_output=True, check=False, timeout=180
        )
        assert done.stderr == b"", done.stderr
        document = json.loads(done.stdout) if done.stdout else None
        if done.returncode != 0:
            assert document is not None, f"exit {done.returncode} without an error object"
            raise PluginError(document)
        return document

    # --- looking

    def exec(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.netns, *command, check=check)

    def exec_with_input(self, stdin: str, *command: str) -> str:
        return run("ip", "netns", "exec", self.netns, *command, stdin=stdin)

    def vsctl(self, *arguments: str) -> str:
        return run("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=60", *arguments).strip()

    def ofctl(self, *arguments: str) -> str:
        path = f"unix:{self.folder}/br-int.mgmt"
        return run("ovs-ofctl", "-O", "OpenFlow15", arguments[0], path, *arguments[1:])

    def appctl(self, *arguments: str) -> str:
        pid = (self.folder / "ovs-vswitchd.pid").read_text().strip()
        return run("ovs-appctl", "-t", f"{self.folder}/ovs-vswitchd.{pid}.ctl", *arguments)

    def pod_ports(self) -> set[str]:
        return {name for name in self.vsctl("list-ports", "br-int").split() if name.startswith("sdn-p")}

    def pod_links(self) -> set[str]:
        links = json.loads(self.exec("ip", "-json", "link"))
        return {link["ifname"] for link in links if link["ifname"].startswith("sdn-p")}
