# SPDX-License-Identifier: Apache-2.0
"""The controller's memory for each 1,000 pods, and how fast it takes them in.

A controller of its own, with an embedded store, serves light agents: each opens a session as a node's agent
does, registers, and reports 250 attachments with both families. Their switches are bridges of one real Open
vSwitch, so every attachment counts only once its flows are committed and confirmed. What is measured is the
resident memory of the controller's process. There is no peer; the figure is for planning.
"""

from __future__ import annotations

import ipaddress
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import grpc

from sdn.v1 import controller_pb2, controller_pb2_grpc, types_pb2
from tests.bench import frame, netns
from tests.bench.frame import Figure, Report
from tests.switch.ovs import PrivateSwitch, wait_until

NETNS: Final = "rc-memory"
PODS_A_NODE: Final = 250
STEPS: Final = (0, 1_000, 5_000)
QUICK_STEPS: Final = (0, 50)
OPENFLOW: Final = "127.0.0.1:6653"
FIRST_PORT: Final = 16
WAIT_SECONDS: Final = 300.0


class LightAgent:
    """One node's session with the controller: what an agent says, without a node behind it."""

    def __init__(self, number: int, channel: grpc.Channel) -> None:
        self.datapath_id = 0xBE9C_0000 + number
        self.name = f"light-{number}"
        self._number = number
        self._sequence = 0
        self._outbox: queue.SimpleQueue[controller_pb2.AgentMessage | None] = queue.SimpleQueue()
        self._answers = controller_pb2_grpc.ControllerStub(channel).Session(iter(self._outbox.get, None))
        self._outbox.put(controller_pb2.AgentMessage(hello=controller_pb2.Hello(node=self._node())))
        welcome = next(answer for answer in self._answers if answer.HasField("welcome")).welcome
        ranges = (ipaddress.ip_network(text) for text in welcome.node.pod_ranges)
        self._ranges = sorted(ranges, key=lambda network: network.version)
        self._outbox.put(
            controller_pb2.AgentMessage(full_state=controller_pb2.FullState(sequence=self._next_sequence()))
        )

    def attach(self, count: int) -> None:
        """Reports so many attachments at once; returns when all of them are in force."""
        for index in range(count):
            message = controller_pb2.Attach(
                sequence=self._next_sequence(), attachment=self._attachment(index)
            )
            self._outbox.put(controller_pb2.AgentMessage(attach=message))
        waiting = set(range(1, self._sequence + 1))
        while waiting:
            answer = next(self._answers)
            if answer.HasField("rejected"):
                raise RuntimeError(f"{self.name}: rejected: {answer.rejected.reason}")
            if answer.HasField("programmed"):
                waiting.discard(answer.programmed.sequence)

    def close(self) -> None:
        """Ends the session."""
        self._outbox.put(None)
        self._answers.cancel()

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _node(self) -> types_pb2.NodeInfo:
        address = str(ipaddress.ip_address("192.0.2.1") + self._number)
        return types_pb2.NodeInfo(
            name=self.name,
            uid=f"00000000-0000-4000-8000-{self._number:012x}",
            addresses=[address],
            tunnel_address=address,
            tunnel_mac=f"02:00:00:00:00:{self._number:02x}",
            encapsulation=types_pb2.ENCAPSULATION_GENEVE,
            datapath=types_pb2.DATAPATH_NETDEV,
            datapath_id=self.datapath_id,
            mtu=1450,
            agent_version="bench",
        )

    def _attachment(self, index: int) -> types_pb2.Attachment:
        addresses = [str(network[2 + index]) for network in self._ranges]
        return types_pb2.Attachment(
            container_id=f"{self._number:032x}{index:032x}",
            interface_name="eth0",
            pod_namespace=f"namespace-{index % 10}",
            pod_name=f"pod-{self._number}-{index}",
            pod_uid=f"00000000-0000-4000-9000-{self._number:06x}{index:06x}",
            ofport=FIRST_PORT + index,
            mac="0a:58:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(addresses[0]).packed[-4:]),
            addresses=addresses,
            labels={"app": f"app-{index % 20}", "tier": "backend"},
            host_interface=f"sdn{self._number}-{index}",
            netns=f"/run/netns/pod-{index}",
        )


def run(quick: bool) -> Report:
    steps = QUICK_STEPS if quick else STEPS
    memory: list[float] = []
    rates: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="rc-memory-") as folder,
        netns.namespace(NETNS),
        _controller(Path(folder)) as controller,
        netns.entered(NETNS),
        PrivateSwitch() as switch,
        grpc.insecure_channel(f"unix:{folder}/controller.sock") as channel,
        ExitStack() as agents,
    ):
        attached = number = 0
        for step in steps:
            began = time.perf_counter()
            while attached < step:
                number += 1
                agent = LightAgent(number, channel)
                agents.callback(agent.close)
                _add_bridge(switch, agent)
                agent.attach(min(PODS_A_NODE, step - attached))
                attached += min(PODS_A_NODE, step - attached)
            rates.append(time.perf_counter() - began)
            memory.append(_resident_megabytes(controller.pid))
    figures = [Figure(f"resident, {steps[0]} pods", "MB", (memory[0],))]
    for before, after, used_before, used, seconds in zip(
        steps, steps[1:], memory, memory[1:], rates[1:], strict=False
    ):
        figures.append(Figure(f"resident, {after} pods", "MB", (used,)))
        figures.append(
            Figure(
                f"for each 1,000 pods, {before} to {after}",
                "MB",
                ((used - used_before) / (after - before) * 1e3,),
            )
        )
        figures.append(
            Figure(f"taken in, {before} to {after}", "pods/s", ((after - before) / seconds,), better="higher")
        )
    return Report("controller_memory", f"sdn-controller, {PODS_A_NODE} pods a node", "", tuple(figures))


@contextmanager
def _controller(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A controller in the benchmark's namespace, serving on a socket in the folder."""
    command = [
        *(sys.executable, "-m", "controller.main", "--name=bench", "--grpc-address=127.0.0.1:50051"),
        *(f"--grpc-socket={folder}/controller.sock", f"--openflow-address={OPENFLOW}"),
        *(f"--store=sqlite://{folder}/store.db", "--cluster-ranges=10.128.0.0/9,fd00:11::/32"),
    ]
    with (folder / "log").open("wb") as log, netns.entered(NETNS):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(
            lambda: (folder / "controller.sock").exists() or process.poll() is not None,
            "the controller's socket",
        )
        if process.poll() is not None:
            raise RuntimeError(f"the controller ended: {(folder / 'log').read_text(errors='replace')}")
        yield process
    finally:
        process.terminate()
        process.wait()


def _add_bridge(switch: PrivateSwitch, agent: LightAgent) -> None:
    """The switch of a light agent's node."""
    name = f"br-{agent.name}"
    switch.vsctl(
        *("add-br", name, "--", "set", "bridge", name, f"datapath_type={switch.datapath}"),
        *("protocols=OpenFlow15", "fail_mode=secure"),
        *(f"other-config:datapath-id={agent.datapath_id:016x}", "--"),
        *("set-controller", name, f"tcp:{OPENFLOW}"),
    )


def _resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) / 1e3


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
