# SPDX-License-Identifier: Apache-2.0
"""1,000 switches with 30,000 pods at three controllers on three members of etcd: how long things take, what they cost.

The controllers and etcd are real processes; the switches speak OpenFlow but forward nothing, and their agents hold
sessions as real ones do (tests/bench/simulated_node.py). Everything shares one machine, the simulated nodes too, so
times are the whole's: how busy each part was is in the notes.

1. Full sync: controllers start on a full store while all switches and agents connect at once, until each switch holds
   all that it must and each agent's list of pods is confirmed.
2. One policy for all pods: until it is in the last switch.
3. All switches lose all connections at once: until all are connected and owned again.
4. A controller is killed: until its switches are another one's.

Throughout, a pod comes and goes on some node, echoes are asked for, and each controller's heartbeats are measured as
another controller would.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import msgspec
from google.protobuf import json_format, struct_pb2

from controller.checks import check_attachment, check_node
from controller.ha import wire
from controller.ha.heartbeat import SILENCE_SECONDS
from controller.records import RangeRecord, attachment_key, encode, encode_attachment, node_key, range_key
from controller.store import Operation, Put, open_store
from controller.store.contract import MAX_OPERATIONS
from sdn.v1 import inspection_pb2
from tests.bench import frame
from tests.bench.frame import Figure, Report
from tests.bench.process import cpu_seconds
from tests.bench.simulated_node import ranged
from tests.ports import unused_port
from tests.switch.controller_process import ROOT, ControllerProcess, attachment
from tests.unit.etcd_process import Etcd

NODES: Final = 1_000
PODS_A_NODE: Final = 30
QUICK_NODES, QUICK_PODS = 6, 3
PROCESSES: Final = 2
POLICIES: Final = 3
WAIT_SECONDS: Final = 900.0
#: An agent gives up an ADD after this time, and a controller asks a silent switch.
ADD_LIMIT, ECHO_LIMIT = 10.0, 5.0


class Simulation:
    """One process of simulated nodes."""

    def __init__(self, controllers: list[ControllerProcess]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.simulated_node"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self._say({"controllers": [(one.grpc_port, one.openflow_port) for one in controllers]})

    def do(self, what: str, **arguments: Any) -> Any:
        """Have something done; the answer."""
        self._say({"do": what, **arguments})
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def _say(self, what: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Beats(threading.Thread):
    """How long a controller takes to answer a heartbeat."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._ended = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError), socket.create_connection(wire.endpoint(self._address)[1], 5) as link:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.sendall(wire.Greeting("bench", str(uuid.uuid4())).encode())
                link.recv(1024)
                self._measure(link)
            self._ended.wait(0.2)

    def _measure(self, link: socket.socket) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            link.sendall(wire.BEAT)
            if not link.recv(1024):
                return
            self.seconds.append(time.monotonic() - began)
            self._ended.wait(0.02)

    def take(self) -> float:
        """The longest since the last time."""
        seconds, self.seconds = self.seconds, []
        return max(seconds, default=0.0)

    def close(self) -> None:
        self._ended.set()
        self.join()


class Bench:
    """Everything that runs, and what was measured."""

    def __init__(self, nodes: int, pods: int, stack: ExitStack) -> None:
        self.nodes, self.pods = nodes, pods
        etcd = stack.enter_context(Etcd(3))
        _fill(etcd.url, nodes, pods)
        self.controllers = [_controller(etcd.url, number, stack) for number in (1, 2, 3)]
        self.began = time.monotonic()
        for one in self.controllers:
            one.spawn()
        self.simulations = [Simulation(self.controllers) for _ in range(PROCESSES)]
        for simulation in self.simulations:
            stack.callback(simulation.close)
        self.beats = [Beats(one.settings["peers_address"]) for one in self.controllers]
        for beats in self.beats:
            beats.start()
            stack.callback(beats.close)
        self.adds: list[float] = []
        self.echoes: list[float] = []
        self.silences: list[float] = []
        self.notes: list[str] = []

    def stats(self, since: float = 0.0) -> dict[str, Any]:
        """All processes' figures as one."""
        each = [one.do("stats", since=since) for one in self.simulations]
        for one in each:
            self.adds += one["adds"]
            self.echoes += one["echoes"]
        total = {
            key: sum(one[key] for one in each)
            for key in ("welcomed", "pods", "masters", "connections", "policies", "written", "flows")
        }
        held = {count for one in each for count in one["flows_each"]}
        return {**total, "held": held, "policies_last": max(one["policies_last"] for one in each)}

    def until(self, what: str, reached: Callable[[dict[str, Any]], bool], since: float) -> float:
        """Seconds from ``since`` on until something is reached. RuntimeError: it was not."""
        while not reached(stats := self.stats()):
            for controller in self.controllers:
                if why := controller.ended_by_itself():
                    raise RuntimeError(f"{controller.settings['name']}: {why}")
            if time.monotonic() - since > WAIT_SECONDS:
                raise RuntimeError(f"waited {WAIT_SECONDS:.0f} s for {what}: {stats}")
            time.sleep(min(0.5, self.nodes / 1000))
        seconds = time.monotonic() - since
        self.phase(what, seconds)
        return seconds

    def phase(self, what: str, seconds: float) -> None:
        """Something is over: how the controllers were meanwhile."""
        slowest = max(beats.take() for beats in self.beats)
        self.silences.append(slowest)
        alive = [one.process for one in self.controllers if one.process and one.process.poll() is None]
        used = ", ".join(f"{cpu_seconds(one.pid):.0f}" for one in alive)
        held = ", ".join(f"{_resident_megabytes(one.pid):.0f}" for one in alive)
        simulated = sum(cpu_seconds(one.process.pid) for one in self.simulations)
        self.notes.append(
            f"{what}: {seconds:.1f} s; slowest heartbeat {slowest * 1000:.0f} ms; processor seconds so far: "
            f"controllers {used}, simulated nodes {simulated:.0f}; resident MB: {held}"
        )
        print(f"  {self.notes[-1]}", file=sys.stderr, flush=True)

    def whole(self, stats: dict[str, Any]) -> bool:
        """Whether every switch is owned and holds as much as all others, and all pods are confirmed."""
        least = 9 * (self.nodes - 1) + 30 * self.pods
        return (
            stats["masters"] == self.nodes
            and stats["welcomed"] == self.nodes
            and stats["pods"] >= self.nodes * self.pods
            and len(stats["held"]) == 1
            and min(stats["held"]) > least
        )


def run(quick: bool) -> Report:
    nodes, pods = (QUICK_NODES, QUICK_PODS) if quick else (NODES, PODS_A_NODE)
    with ExitStack() as stack:
        return _run(nodes, pods, Bench(nodes, pods, stack))


def _run(nodes: int, pods: int, bench: Bench) -> Report:
    each = nodes // PROCESSES
    for number, simulation in enumerate(bench.simulations):
        simulation.do("begin", first=1 + number * each, count=each, pods=pods)
    sync = bench.until("full sync", bench.whole, bench.began)
    flows = bench.stats()["flows"]
    processes = [one.process for one in bench.controllers if one.process is not None]
    memory = sum(_resident_megabytes(one.pid) for one in processes)
    cpu = sum(cpu_seconds(one.pid) for one in processes)
    for simulation in bench.simulations:
        simulation.do("probe")
    time.sleep(1.0 if nodes < NODES else 5.0)
    bench.phase("at rest", 0.0)
    policies = [_policy(bench, number) for number in range(POLICIES)]
    for simulation in bench.simulations:
        simulation.do("cut")
    again = bench.until(
        "all connections cut at once",
        lambda stats: stats["masters"] == nodes and stats["connections"] == 3 * nodes,
        time.monotonic(),
    )
    bench.controllers[2].kill()
    taken = bench.until(
        "a controller killed",
        lambda stats: stats["masters"] == nodes and stats["connections"] == 2 * nodes,
        time.monotonic(),
    )
    time.sleep(1.0)
    bench.stats()
    bench.notes += _complaints(bench.controllers)
    figures = (
        Figure("full sync from a cold start", "s", (sync,)),
        Figure("full sync", "flows/s", (flows / sync,), better="higher"),
        Figure("controllers' processor time for it, a switch", "ms", (cpu / nodes * 1e3,)),
        Figure("a controller's memory, a switch", "MB", (memory / 3 / nodes,)),
        Figure("a policy for all pods, in the last switch", "s", tuple(policies)),
        Figure("all switches back after a cut", "s", (again,)),
        Figure("switches of a killed controller taken over", "s", (taken,)),
        Figure("slowest heartbeat / silence", "s", tuple(bench.silences), (SILENCE_SECONDS,), aim=1.0),
        Figure("ADD elsewhere / its limit", "s", tuple(bench.adds), (ADD_LIMIT,), aim=1.0),
        Figure("echo / when one is asked for", "s", tuple(bench.echoes), (ECHO_LIMIT,), aim=1.0),
    )
    ours = f"{nodes} switches, {nodes * pods} pods, 3 controllers"
    return Report("scale", ours, "limits", figures, tuple(bench.notes))


def _policy(bench: Bench, number: int) -> float:
    """Apply a policy for all pods; seconds until the last switch has it."""
    rule = {
        "from": [{"ipBlock": {"cidr": "192.168.0.0/16"}}],
        "ports": [{"protocol": "TCP", "port": 80 + number}],
    }
    document = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"all-{number}", "namespace": "default"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]},
    }
    request = inspection_pb2.ApplyRequest(object=json_format.ParseDict(document, struct_pb2.Struct()))
    began = time.monotonic()
    bench.controllers[0].inspection().Apply(request, timeout=WAIT_SECONDS)
    while (stats := bench.stats(began))["policies"] < bench.nodes:
        if time.monotonic() - began > WAIT_SECONDS:
            raise RuntimeError(f"the policy is in {stats['policies']} switches of {bench.nodes}")
        time.sleep(0.02)
    seconds: float = stats["policies_last"] - began
    bench.phase(f"policy {number + 1}", seconds)
    return seconds


def _controller(store: str, number: int, stack: ExitStack) -> ControllerProcess:
    controller = ControllerProcess(
        store=store,
        name=f"controller-{number}",
        peers_address=f"127.0.0.1:{unused_port()}",
        log_level="info",
        # etcd has no processor of its own here: what it does not renew in time says nothing of the controllers.
        lease_seconds="30",
        cluster_ranges="10.128.0.0/9,fd00:11::/32",
    )
    stack.callback(controller.close)
    return controller


def _fill(url: str, nodes: int, pods: int) -> None:
    """Store nodes with their pods, as controllers would have."""
    with _opened(url) as write:
        for number in range(1, nodes + 1):
            info = ranged(number)
            record = msgspec.structs.replace(check_node(info), pod_ranges=tuple(info.pod_ranges))
            operations: list[Operation] = [Put(node_key(record.name), encode(record))]
            reserved = encode(RangeRecord(node=record.name))
            operations += [Put(range_key(text), reserved) for text in record.pod_ranges]
            for pod in range(pods):
                item = check_attachment(attachment(info, pod), record)
                key = attachment_key(record.name, item.container_id, item.interface_name)
                operations.append(Put(key, encode_attachment(item, pending=False)))
            write(operations)


@contextmanager
def _opened(url: str) -> Iterator[Callable[[list[Operation]], None]]:
    store = open_store(url)

    def write(operations: list[Operation]) -> None:
        for start in range(0, len(operations), MAX_OPERATIONS):
            store.write(operations[start : start + MAX_OPERATIONS])

    try:
        yield write
    finally:
        store.close()


def _complaints(controllers: list[ControllerProcess]) -> Iterator[str]:
    """What each controller has warned of, by how often."""
    for controller in controllers:
        said = Counter(
            line["event"] for line in controller.log() if line.get("level") in ("warning", "error")
        )
        if said:
            text = ", ".join(f"{event} ({count})" for event, count in said.most_common(8))
            yield f"{controller.settings['name']} said: {text}"


def _resident_megabytes(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1e3


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
