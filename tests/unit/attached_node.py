# SPDX-License-Identifier: Apache-2.0
"""The agent's verbs on a node whose parts fail when they are told to: state, attachments and namespaces are real, the
switch and the controller stand in. No pod gets a link, which is tests/node's; those that a test makes are real.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.attachments import Attachments
from agent.cni.request import Call
from agent.netlink import Netlink
from agent.netns import NODE, Netns, inside
from agent.nodesetup.facts import Assignment, NodeFacts
from agent.ovsdb import OvsdbRefused
from agent.reconcile import Reconciler
from agent.settings import AgentSettings
from agent.state import Record, State, StateError, Wanted
from agent.unanswered import Confirmation
from agent.verbs import Verbs

FULL = "state file: database or disk is full"


@contextmanager
def namespace() -> Iterator[str]:
    """The path of a network namespace of its own."""
    holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
    path = f"/proc/{holder.pid}/ns/net"
    try:
        deadline = time.monotonic() + 60
        while True:
            with Netns(path) as found:
                if found.identity != NODE.identity:
                    break
            assert time.monotonic() < deadline, "no namespace was made"
            time.sleep(0.005)
        yield path
    finally:
        holder.kill()
        holder.wait()


class FullState(State):
    """On a disk that refuses what is named in `refuses`: a phase, "allocate", "release"."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.refuses: set[str] = set()

    def _look(self, what: str) -> None:
        if what in self.refuses:
            raise StateError(FULL)

    def allocate(self, wanted: Wanted, ranges: Any) -> Record:
        self._look("allocate")
        return super().allocate(wanted, ranges)

    def set_phase(self, record: Record, phase: str) -> Record:
        self._look(phase)
        return super().set_phase(record, phase)

    def release(self, record: Record) -> None:
        self._look("release")
        super().release(record)


class Switch:
    """An Open vSwitch without ports. `problem` is what comes of each change of `refuses`, none named: of every one."""

    connected = True

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.refuses: set[str] = set()

    def read(self, look: Callable[[Any], Any]) -> Any:
        if self.problem is not None and not self.refuses:
            raise self.problem
        return look(SimpleNamespace(rows=lambda _table: [], named=lambda _table, _name: None))

    def begin(self, _apply: object, key: str = "") -> Future[None]:
        done: Future[None] = Future()
        if self.problem is not None and (not self.refuses or key in self.refuses):
            done.set_exception(self.problem)
        else:
            done.set_result(None)
        return done

    def change(self, _what: str, apply: object) -> None:
        self.begin(apply).result()

    def result(self, done: Future[None], seconds: float, _what: str) -> None:
        done.result(seconds)


class Controller:
    """Confirms every attachment at once, or refuses it with `reason`; `detached` is called when one is said to go."""

    connected = True
    controllers = ("here",)

    def __init__(self) -> None:
        self.reason: str | None = None
        self.detached: Callable[[tuple[str, str]], None] = lambda _key: None

    def attach(self, _record: Record) -> Confirmation:
        confirmation = Confirmation()
        confirmation.settle(self.reason)
        return confirmation

    def detach(self, container_id: str, ifname: str) -> None:
        self.detached((container_id, ifname))


class _Attachments(Attachments):
    """In a node's namespace of its own."""

    node: Netns
    netlink_problem: OSError | None = None

    @contextmanager
    def netlink(self) -> Iterator[Netlink]:
        if self.netlink_problem is not None:
            raise self.netlink_problem
        with inside(self.node):
            socket = Netlink()
        with socket:
            yield socket


class _Verbs(Verbs):
    def _wire(self, *_: object) -> None:
        """No link is made."""


class AttachedNode:
    """See the module."""

    def __init__(self, folder: Path, node: str, pod: str) -> None:
        self.path, self.pod = node, pod
        self.state = FullState(folder)
        self.switch = Switch()
        self.controller = Controller()
        address = ipaddress.ip_address("172.31.0.11")
        setup: Any = SimpleNamespace(
            wait_complete=lambda _seconds: True,
            complete=True,
            trouble="",
            assignment=Assignment(["10.9.8.0/24"], ["10.9.0.0/16"], []),
            facts=NodeFacts(
                "node-1",
                "uid",
                (address,),
                address,
                "0a:00:00:00:01:01",
                "eth0",
                "eth0",
                "geneve",
                "netdev",
                1400,
            ),
        )
        switch: Any = self.switch
        controller: Any = self.controller
        self.attachments = _Attachments(self.state, switch, setup)
        self.attachments.node = Netns(node)
        self.attachments.reporter = controller
        vswitchd: Any = SimpleNamespace(running=lambda: True)
        self.verbs = _Verbs(
            AgentSettings(node_name="node-1", controllers=["unix:/here"]),
            self.state,
            switch,
            vswitchd,
            setup,
            controller,
            self.attachments,
        )
        self.reconciler = Reconciler(self.state, switch, self.attachments)
        self.attachments.on_unfinished = self.reconciler.retry

    def close(self) -> None:
        self.reconciler.close()
        self.attachments.node.close()
        self.state.close()

    def call(
        self, verb: str, name: str = "", awaited: Callable[[], bool] = lambda: True, **config: object
    ) -> tuple[int, str]:
        """A verb about the pod of this name: (code, the error's text)."""
        document = {"cniVersion": "1.1.0", "name": "pods", "type": "sdn-cni", **config}
        args = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"
        text = json.dumps(document).encode()
        call = Call(verb, f"c-{name}", self.pod, "eth0", args, config=text, awaited=awaited)
        code, output = self.verbs.answer(call)
        return code, json.loads(output)["msg"] if code else ""

    def add(self, name: str) -> Record:
        """An attachment, as ADD makes it."""
        assert self.call("ADD", name) == (0, "")
        record = self.state.attachment(f"c-{name}", "eth0")
        assert record is not None
        return record

    def link(self, record: Record) -> None:
        """Give an attachment its node's end."""
        self._ip("link", "add", record.host_interface, "type", "veth", "peer", "name", "other")

    def links(self) -> set[str]:
        """Names of all interfaces of the node."""
        return {link["ifname"] for link in json.loads(self._ip("-json", "link"))}

    def _ip(self, *words: str) -> str:
        command = ["nsenter", f"--net={self.path}", "ip", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def refuse(self, *interfaces: str) -> None:
        """The switch refuses what is asked of these interfaces; none named: of every one."""
        self.switch.problem = OvsdbRefused("not now")
        self.switch.refuses = set(interfaces)

    def heal(self) -> None:
        """Everything can be done again."""
        self.state.refuses = set()
        self.switch.problem = None
        self.controller.reason = None
        self.attachments.netlink_problem = None
