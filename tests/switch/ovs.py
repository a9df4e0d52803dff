# SPDX-License-Identifier: Apache-2.0
"""A real Open vSwitch of a test's own: its ovsdb-server, its ovs-vswitchd, one bridge, one folder, nothing
shared.

The datapath is ``dummy`` by default: the userspace datapath complete with conntrack and recirculation, on
ports that exist only inside the process. No network namespace, no interface and no root network rights are
needed, and switches of several tests run side by side. With ``datapath="netdev"`` the ports are real (run
inside a network namespace then).

OpenFlow is spoken in two ways: :meth:`PrivateSwitch.ofctl` runs the C tool, :meth:`PrivateSwitch.connect`
opens a raw connection over the bridge's management socket (``<folder>/br0.mgmt``) that sends and receives
plain bytes.

    with PrivateSwitch() as switch:
        switch.add_port("p1", 1)
        switch.ofctl("add-flow", "in_port=1,actions=drop")
        with switch.connect() as connection:
            connection.transact(message_bytes)
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
VERSION = 6  # OpenFlow 1.5 on the wire
OFPT_HELLO, OFPT_ERROR, OFPT_ECHO_REQUEST, OFPT_ECHO_REPLY = 0, 1, 2, 3
OFPT_BARRIER_REQUEST, OFPT_BARRIER_REPLY = 20, 21
_HEADER = struct.Struct("!BBHI")
_PATIENCE = 60.0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Poll until ``condition`` holds; fail naming what never came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def listens(path: Path) -> bool:
    """Whether somebody listens on a Unix socket, which is there a moment before."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        return connection.connect_ex(str(path)) == 0


class Message(NamedTuple):
    """One OpenFlow message as received: ``body`` is what follows the eight bytes of header."""

    type: int
    xid: int
    body: bytes


class SwitchError(Exception):
    """The switch answered with an OpenFlow error message."""

    def __init__(self, message: Message) -> None:
        self.type, self.code = struct.unpack_from("!HH", message.body)
        self.xid = message.xid
        super().__init__(
            f"error type {self.type} code {self.code} for xid {message.xid:#x}: {message.body[4:].hex()}"
        )


class Connection:
    """A raw OpenFlow 1.5 connection: the handshake is done, the rest is the caller's bytes."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rb", buffering=1 << 18)
        self._xid = 0x7F000000
        self.send(_HEADER.pack(VERSION, OFPT_HELLO, 8, 0))
        hello = self.receive()
        if hello.type != OFPT_HELLO:
            raise AssertionError(f"expected HELLO, got message type {hello.type}")

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole messages, any number of them."""
        self._socket.sendall(data)

    def receive(self) -> Message:
        """The next message; echo requests of the switch are answered on the way."""
        while True:
            header = self._stream.read(8)
            if len(header) < 8:
                raise ConnectionError("the switch closed the connection")
            _version, kind, length, xid = _HEADER.unpack(header)
            body = self._stream.read(length - 8)
            if kind == OFPT_ECHO_REQUEST:
                self.send(_HEADER.pack(VERSION, OFPT_ECHO_REPLY, length, xid) + body)
                continue
            return Message(kind, xid, body)

    def transact(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """Send messages and a barrier; return every answer that came before the barrier's reply.

        Raises SwitchError for the first error among them.
        """
        self._xid += 1
        self.send(data)
        self.send(_HEADER.pack(VERSION, OFPT_BARRIER_REQUEST, 8, self._xid))
        answers: list[Message] = []
        while True:
            message = self.receive()
            if message.type == OFPT_BARRIER_REPLY and message.xid == self._xid:
                break
            answers.append(message)
        for message in answers:
            if message.type == OFPT_ERROR:
                raise SwitchError(message)
        return answers

    def close(self) -> None:
        # A thread that waits for a message holds the stream; this ends its waiting.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PrivateSwitch:
    """One ovsdb-server, one ovs-vswitchd and one bridge, in a folder of their own that goes when the switch
    goes.
    """

    def __init__(self, datapath: str = "dummy", bridge: str = "br0") -> None:
        self.datapath = datapath
        self.bridge = bridge
        self.folder = Path(tempfile.mkdtemp(prefix="sdn-ovs-"))
        self._processes: list[subprocess.Popen[bytes]] = []

    # Life.

    def start(self) -> None:
        """Start the daemons and make the bridge. Leaves nothing behind when that fails."""
        try:
            self._run("ovsdb-tool", "create", str(self.folder / "conf.db"), str(SCHEMA))
            self._spawn(
                "ovsdb-server",
                str(self.folder / "conf.db"),
                f"--remote=punix:{self.folder}/db.sock",
                f"--unixctl={self.folder}/ovsdb.ctl",
            )
            wait_until(lambda: listens(self.folder / "db.sock"), "ovsdb-server's socket")
            self._run("ovs-vsctl", "--no-wait", f"--db=unix:{self.folder}/db.sock", "init")
            self._start_vswitchd()
            self.vsctl(
                *("add-br", self.bridge, "--", "set", "bridge", self.bridge),
                *(f"datapath_type={self.datapath}", "protocols=OpenFlow15", "fail_mode=secure"),
            )
            self._await_management()
        except BaseException:
            self.stop()
            raise

    def _start_vswitchd(self) -> None:
        control = self.folder / "vswitchd.ctl"
        self._spawn("ovs-vswitchd", f"unix:{self.folder}/db.sock", f"--unixctl={control}", "--enable-dummy")
        wait_until(lambda: listens(control), "ovs-vswitchd's control socket")

    def _await_management(self) -> None:
        wait_until(lambda: listens(self.folder / f"{self.bridge}.mgmt"), "the bridge's management socket")

    def restart_vswitchd(self) -> None:
        """End the switch and start it again on the same database: it holds no flows then."""
        process = self._processes.pop()
        process.terminate()
        process.wait(timeout=60)
        self._start_vswitchd()
        self._await_management()
        # It makes the listener anew when it has read the bridge's protocols, and breaks off what was asked before. A
        # change of the database is waited for until all of that is done.
        self.vsctl("set", "Open_vSwitch", ".", f"external_ids:restarted={time.monotonic_ns()}")

    def stop(self) -> None:
        """End both daemons, the switch first, and remove the folder."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def vswitchd_pid(self) -> int:
        return self._processes[-1].pid

    # Commands.

    def vsctl(self, *arguments: str) -> str:
        return self._run("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=60", *arguments)

    def ofctl(self, command: str, *arguments: str, stdin: str | None = None) -> str:
        """Run ``ovs-ofctl -O OpenFlow15 --no-names COMMAND BRIDGE ARGUMENTS`` and give what it prints."""
        return self._run(
            *("ovs-ofctl", "-O", "OpenFlow15", "--no-names", command, self.management, *arguments),
            stdin=stdin,
        )

    def appctl(self, *arguments: str) -> str:
        """Run ``ovs-appctl`` against the switch, for example ``appctl("ofproto/trace", "br0",
        "in_port=1")``.
        """
        return self._run("ovs-appctl", "-t", f"{self.folder}/vswitchd.ctl", *arguments)

    def add_port(self, name: str, ofport: int, kind: str = "dummy", **options: str) -> None:
        """Add a port with a fixed OpenFlow number; ``options`` go to the interface's options column."""
        extra = [f"options:{key}={value}" for key, value in options.items()]
        self.vsctl(
            *("add-port", self.bridge, name, "--", "set", "interface", name),
            *(f"type={kind}", f"ofport_request={ofport}", *extra),
        )
        got = int(self.vsctl("get", "interface", name, "ofport"))
        if got != ofport:
            raise AssertionError(f"port {name} got OpenFlow number {got}, not {ofport}")

    @property
    def management(self) -> str:
        """Where ovs-ofctl finds the bridge."""
        return f"unix:{self.folder}/{self.bridge}.mgmt"

    def connect(self) -> Connection:
        return Connection(self.folder / f"{self.bridge}.mgmt")

    def dump_flows(self) -> list[str]:
        """``ovs-ofctl dump-flows`` without counters, one line a flow, in the switch's order."""
        return [
            line.strip() for line in self.ofctl("dump-flows", "--no-stats").splitlines() if "actions=" in line
        ]

    def clear(self) -> None:
        """Empty the tables and groups, for the next test."""
        self.ofctl("del-flows")
        self.ofctl("del-groups")

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "OVS_RUNDIR": folder,
            "OVS_DBDIR": folder,
            "OVS_LOGDIR": folder,
            "OVS_SYSCONFDIR": folder,
        }

    def _spawn(self, program: str, *arguments: str) -> None:
        # The kernel ends the daemon should the test run be killed: no switch outlives its test.
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            program,
            *arguments,
            "--no-chdir",
            "-vconsole:off",
            "-vsyslog:off",
        ]
        command.append(f"--log-file={self.folder}/{program}.log")
        self._processes.append(
            subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def _run(self, *command: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            command,
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.strip()}")
        return done.stdout


def running_switch() -> Iterator[PrivateSwitch]:
    """The body of a pytest fixture: ``switch = pytest.fixture(scope="module")(running_switch)``."""
    with PrivateSwitch() as switch:
        yield switch


def leave_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of a pytest fixture: what a test changes in a switch stays until that connects anew. To be asked for
    before the switch is connected.
    """
    monkeypatch.setattr("controller.drift._watching", False)
