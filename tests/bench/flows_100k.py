# SPDX-License-Identifier: Apache-2.0
"""100,000 flows of ten fields each into a real switch and back, beside Open vSwitch's own C tool.

Ours goes the controller's whole way: flow values, as the compiler makes them, are handed to the
synchronizer, which encodes them and writes them as one atomic bundle over the connection that the switch
opened; the clock stops when the switch has answered the barrier. The peer, `ovs-ofctl -O OpenFlow15
--bundle add-flows`, starts at a file of text. Reading back is, for ours, what the synchronizer does on each
new connection: the request for all flow descriptions, cutting the answers into images and comparing them
with what is desired; for the peer, `ovs-ofctl dump-flows` with its output thrown away. Both work on one
switch, by turns, each into empty tables.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller import drift, osken
from controller.desired import Desired, Key, encode
from controller.listener import Listener
from controller.listening import listen
from controller.switchboard import Switchboard
from controller.synchronizer import Compile, Synchronizer
from sdn.openflow import format_flow, split_flow_descs
from sdn.pipeline.actions import Goto, set_field
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Feature, Owner, cookie
from tests.bench import frame, process
from tests.bench.frame import Figure, Report
from tests.switch.ovs import PrivateSwitch, wait_until

FLOWS: Final = 100_000
QUICK_FLOWS: Final = 5_000
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 1
DATAPATH_ID: Final = 0xBE9C
WAIT_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Times:
    """Seconds of one round. `images` and `write` make up `install`; `read` and `compare` make up `readback`."""

    install: float
    readback: float
    #: Processor seconds of installing: whoever writes, and the switch.
    writer_cpu: float
    switch_cpu: float
    images: float = 0.0
    write: float = 0.0
    read: float = 0.0
    compare: float = 0.0


def make_flows(count: int) -> list[Flow]:
    """So many different flows, each with ten fields, an owner of its own and two actions."""
    flows = []
    for number in range(count):
        owner = Owner("Pod", "bench", f"pod-{number}")
        flows.append(
            Flow(
                table=1 + number % 8,
                priority=100,
                match=match(
                    in_port=16 + number % 60_000,
                    reg0=number % 3,
                    eth_src=0x0A58_0000_0000 + number,
                    eth_dst=0x0A58_0100_0000 + number,
                    eth_type=0x0800,
                    ip_src=0x0A00_0000 + number,
                    ip_dst=0x0A80_0000 + number,
                    nw_proto=6,
                    tcp_src=1024 + number % 50_000,
                    tcp_dst=number % 1024,
                ),
                actions=(set_field(reg1=number), Goto(10)),
                cookie=cookie(Feature.BRIDGING, owner),
                owner=owner,
                why="one of many",
            )
        )
    return flows


def run(quick: bool) -> Report:
    count, rounds = (QUICK_FLOWS, QUICK_ROUNDS) if quick else (FLOWS, ROUNDS)
    flows = make_flows(count)
    desired = Desired()
    desired.replace("bench", encode(flows))
    with (
        tempfile.TemporaryDirectory(prefix="rc-flows-") as folder,
        PrivateSwitch() as switch,
        controlled(switch) as synchronizer,
    ):
        file = Path(folder) / "flows"
        file.write_text("".join(f"{format_flow(flow)}\n" for flow in flows))
        ours, peer = frame.interleave(
            lambda _: _ours(switch, synchronizer, flows, desired),
            lambda _: _peer(switch, file, count),
            rounds,
        )
    return Report(
        name="flows_100k",
        ours=f"synchronizer and codec, {count} flows",
        peer="ovs-ofctl --bundle add-flows, dump-flows",
        figures=(
            Figure("install", "s", _series(ours, "install"), _series(peer, "install"), aim=1.0),
            Figure("install, writer's CPU", "s", _series(ours, "writer_cpu"), _series(peer, "writer_cpu")),
            Figure("install, switch's CPU", "s", _series(ours, "switch_cpu"), _series(peer, "switch_cpu")),
            Figure(
                "read back and compare", "s", _series(ours, "readback"), _series(peer, "readback"), aim=1.5
            ),
        ),
        notes=(
            f"install: {_median(ours, 'images')} s to make images of the flows, {_median(ours, 'write')} s to "
            "work out what changed, send it and have it confirmed",
            f"read back: {_median(ours, 'read')} s to read and cut into images, {_median(ours, 'compare')} s to "
            "compare",
        ),
    )


@contextmanager
def controlled(switch: PrivateSwitch) -> Iterator[Synchronizer]:
    """The controller's OpenFlow side in this process, with the switch connected to it."""
    listener = Listener(listen("127.0.0.1:0"), osken.serve_connection)
    switchboard = Switchboard()
    # What the peer writes is not for it to put right.
    drift.set_watching(False)
    synchronizer = Synchronizer("bench")
    switchboard.claim(DATAPATH_ID, synchronizer)
    manager = osken.start(["controller.app"], listener.accept_forever, switchboard=switchboard)
    try:
        switch.vsctl(
            *("set", "bridge", switch.bridge, f"other-config:datapath-id={DATAPATH_ID:016x}", "--"),
            *("set-controller", switch.bridge, f"tcp:127.0.0.1:{listener.port}"),
        )
        wait_until(lambda: synchronizer.status.synchronized, "the switch to connect")
        yield synchronizer
    finally:
        synchronizer.stop()
        drift.set_watching(True)
        listener.close()
        switchboard.close()
        osken.stop(manager)


def _series(times: tuple[Times, ...], phase: str) -> tuple[float, ...]:
    return tuple(float(getattr(one, phase)) for one in times)


def _median(times: tuple[Times, ...], phase: str) -> str:
    return f"{frame.percentile(_series(times, phase), 0.5):.2f}"


def _ours(switch: PrivateSwitch, synchronizer: Synchronizer, flows: list[Flow], desired: Desired) -> Times:
    encoded: list[float] = []

    def compile() -> Iterator[Flow]:
        yield from flows
        encoded.append(time.perf_counter())

    busy, switch_busy = time.process_time(), process.cpu_seconds(switch.vswitchd_pid)
    start = time.perf_counter()
    submit(synchronizer, compile)
    installed = time.perf_counter()
    writer_cpu = time.process_time() - busy
    switch_cpu = process.cpu_seconds(switch.vswitchd_pid) - switch_busy

    connection = synchronizer.connection
    assert connection is not None
    reading = time.perf_counter()
    held: dict[Key, bytes] = {}
    for body in connection.flow_descriptions():
        held.update(split_flow_descs(body))
    read = time.perf_counter()
    differing = desired.differing(held)
    compared = time.perf_counter()
    if differing or len(held) != len(flows):
        raise AssertionError(
            f"{len(flows)} flows were asked for, the switch holds {len(held)}, {differing} differ"
        )
    submit(synchronizer, None)
    return Times(
        install=installed - start,
        readback=compared - reading,
        writer_cpu=writer_cpu,
        switch_cpu=switch_cpu,
        images=encoded[0] - start,
        write=installed - encoded[0],
        read=read - reading,
        compare=compared - read,
    )


def submit(synchronizer: Synchronizer, compile: Compile | None) -> None:
    """Replace the bench's flows; returns when the switch has confirmed it."""
    done = threading.Event()
    problems: list[str] = []

    def finish(problem: str | None) -> None:
        problems.extend([problem] if problem else [])
        done.set()

    synchronizer.submit("bench", compile, finish)
    if not done.wait(WAIT_SECONDS) or problems:
        raise AssertionError(f"the flows are not in force: {problems or f'after {WAIT_SECONDS} s'}")


def _peer(switch: PrivateSwitch, file: Path, count: int) -> Times:
    tool = ["ovs-ofctl", "-O", "OpenFlow15", "-vconsole:err"]
    busy, switch_busy = process.children_cpu_seconds(), process.cpu_seconds(switch.vswitchd_pid)
    start = time.perf_counter()
    subprocess.run([*tool, "--bundle", "add-flows", switch.management, str(file)], check=True)
    added = time.perf_counter()
    writer_cpu = process.children_cpu_seconds() - busy
    switch_cpu = process.cpu_seconds(switch.vswitchd_pid) - switch_busy
    subprocess.run([*tool, "dump-flows", switch.management], check=True, stdout=subprocess.DEVNULL)
    dumped = time.perf_counter()
    held = len(switch.dump_flows())
    if held != count:
        raise AssertionError(f"ovs-ofctl was given {count} flows, the switch holds {held}")
    switch.clear()
    return Times(added - start, dumped - added, writer_cpu, switch_cpu)


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
