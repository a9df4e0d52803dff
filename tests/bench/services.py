# SPDX-License-Identifier: Apache-2.0
"""10,000 Services of ten endpoints each on a switch: programming it, changing one, connecting through one.

A real controller with a store on disk serves one real switch (userspace datapath) with eleven pods. Services
are declared over gRPC as Kubernetes would (ClusterIP, IPv4, one TCP port, an EndpointSlice of ten endpoints):
10, then 1,000, then 10,000 of them. With each number of them this measures

- one endpoint that goes or comes, and a pod that becomes ready or not: from before Apply until the switch has
  confirmed; a relay between switch and controller counts messages and bytes. The peer is the smallest number of
  Services: the cost of a change must not depend on how many there are;
- a new connection from a pod to an endpoint on the same node through a Service, beside one straight to the
  endpoint's pod: the time of TCP's connect. "First" is after all datapath flows were removed, so that every
  packet of the handshake meets the pipeline; the others find the flows of connections before them;
- memory of the controller and of ovs-vswitchd.

With the greatest number, the controller is started anew on its store (load), and the emptied switch is programmed
through OpenFlow, beside `ovs-ofctl --bundle` writing the same groups and flows from files. At last, new
connections a second through one Service, its group spreading by dp_hash, as it does, beside the same group with
selection_method=hash, of which each connection takes a datapath flow of its own.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench import connecting, frame, process, programming
from tests.bench.frame import Figure, Report
from tests.bench.relay import Relay
from tests.bench.services_node import (
    ENDPOINTS,
    PORT,
    STRAIGHT_PORT,
    Document,
    Node,
    accepting,
    pod_document,
    relayed,
    selecting_service,
    service_address,
    service_documents,
    services_node,
    slice_document,
)

SIZES: Final = (10, 1_000, 10_000)
QUICK_SIZES: Final = (5, 50)
CHANGES: Final = 200
"""Of each kind with each number of Services; half of them take an endpoint away, half give one."""
QUICK_CHANGES: Final = 4
CONNECTIONS: Final = 600
QUICK_CONNECTIONS: Final = 10
FIRST_CONNECTIONS: Final = 60
QUICK_FIRST_CONNECTIONS: Final = 3
ROUNDS: Final = 3
QUICK_ROUNDS: Final = 1
MANY: Final = 10_000
"""Connections of a round that counts how many there can be a second: no more than ports that a client has."""
QUICK_MANY: Final = 200
WAIT_SECONDS: Final = 60.0
FLAT: Final = 1.25
"""What the ratio of the greatest to the smallest number of Services should be at most."""


@dataclass(frozen=True)
class Changes:
    """What changes of one kind cost."""

    milliseconds: tuple[float, ...]
    messages: float
    bytes: float
    #: Milliseconds of processor time a change.
    controller_cpu: float
    switch_cpu: float


@dataclass
class Size:
    """What was measured with one number of Services. Connecting is in milliseconds, ours and the peer's."""

    services: int
    declared_seconds: float
    declared: int
    controller: float
    switch: float
    lists: Changes
    pods: Changes
    connect: tuple[tuple[float, ...], tuple[float, ...]] = field(default=((), ()))
    first: tuple[tuple[float, ...], tuple[float, ...]] = field(default=((), ()))


def run(quick: bool) -> Report:
    sizes = QUICK_SIZES if quick else SIZES
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with (
        services_node() as node,
        accepting(node),
        tempfile.TemporaryDirectory(prefix="rc-services-") as folder,
    ):
        node.apply(selecting_service())
        declared = 0
        measured = []
        for services in sizes:
            measured.append(_size(node, declared, services, quick))
            declared = services
        rates = _rates(node, QUICK_MANY if quick else MANY, rounds)
        start, filled = programming.measure(node, Path(folder), rounds)
    return Report(
        name="services",
        ours=f"{sizes[-1]} Services of {ENDPOINTS} endpoints, IPv4, TCP",
        peer=f"changes: with {sizes[0]} Services; connections: pod to pod; programming: ovs-ofctl --bundle",
        figures=(
            *programming.figures(start, filled),
            *(figure for one in measured for figure in _change_figures(one, measured[0])),
            *(figure for one in measured for figure in _connect_figures(one)),
            *connecting.figures(rates),
            *(figure for one in measured for figure in _size_figures(one)),
        ),
        notes=(*programming.notes(start, filled), *map(_note, measured)),
    )


def _size(node: Node, before: int, services: int, quick: bool) -> Size:
    """Declare what is missing, and measure."""
    documents = [
        document
        for number in range(before, services)
        for document in service_documents(number, node.endpoints)
    ]
    began = time.perf_counter()
    node.apply_all(documents)
    programming.wait_synchronized(node)
    seconds = time.perf_counter() - began
    changes = QUICK_CHANGES if quick else CHANGES
    chosen = random.Random(services)
    with relayed(node) as relay:
        lists = _changes(
            node, relay, [_list_change(node, chosen.randrange(services)) for _ in range(changes)]
        )
        pods = _changes(node, relay, [_pod_change(node, chosen.randrange(ENDPOINTS)) for _ in range(changes)])
    size = Size(
        services,
        seconds,
        len(documents),
        programming.proportional_megabytes(node.controller.pid),
        programming.proportional_megabytes(node.switch.vswitchd_pid),
        lists,
        pods,
    )
    client, address = node.client, service_address(chosen.randrange(services))
    _settle(node)
    size.connect = frame.interleave(
        lambda _: connecting.connect(client, address, PORT),
        lambda _: connecting.connect(client, chosen.choice(node.endpoints), STRAIGHT_PORT),
        QUICK_CONNECTIONS if quick else CONNECTIONS,
    )
    size.first = frame.interleave(
        lambda _: _first(node, service_address(chosen.randrange(services)), PORT),
        lambda _: _first(node, chosen.choice(node.endpoints), STRAIGHT_PORT),
        QUICK_FIRST_CONNECTIONS if quick else FIRST_CONNECTIONS,
    )
    return size


#: A change and what undoes it.
Change = tuple[Document, Document]


def _list_change(node: Node, number: int) -> Change:
    return slice_document(number, node.endpoints[:-1]), slice_document(number, node.endpoints)


def _pod_change(node: Node, number: int) -> Change:
    pod = node.pods[1 + number]
    return pod_document(pod, ready=False), pod_document(pod, ready=True)


def _changes(node: Node, relay: Relay, changes: Sequence[Change]) -> Changes:
    """Each change and its undoing, one after the other."""
    for document in changes[0]:  # warm, and as it is undone
        _confirmed(node, relay, document)
    times = []
    sent, pids = relay.sent(), (node.controller.pid, node.switch.vswitchd_pid)
    busy = [process.cpu_seconds(pid) for pid in pids]
    for change in changes[: len(changes) // 2]:
        times += [_confirmed(node, relay, document) * 1e3 for document in change]
    used = [(process.cpu_seconds(pid) - was) * 1e3 / len(times) for pid, was in zip(pids, busy, strict=True)]
    now = relay.sent()
    return Changes(
        tuple(times),
        (now.messages - sent.messages) / len(times),
        (now.bytes - sent.bytes) / len(times),
        *used,
    )


def _confirmed(node: Node, relay: Relay, document: Document) -> float:
    """Seconds from before Apply to the switch's confirmation."""
    number = relay.confirmations
    began = time.perf_counter()
    node.apply(document)
    return relay.confirmed(number, WAIT_SECONDS) - began


def _first(node: Node, address: str, port: int) -> float:
    """Milliseconds of a connection that no datapath flow is there for."""
    node.switch.appctl("revalidator/purge")
    return connecting.connect(node.client, address, port)


def _settle(node: Node) -> None:
    """Until ARP is resolved and the servers take connections."""
    for address in node.endpoints:
        connecting.connect(node.client, address, STRAIGHT_PORT)


def _rates(node: Node, count: int, rounds: int) -> connecting.Rates:
    """Through one Service; its group is written as it was at the end."""
    group = programming.group_to(node, service_address(0))
    other = group.replace("selection_method=dp_hash", "selection_method=hash")
    if other == group:
        raise AssertionError(f"the group does not spread by dp_hash: {group}")

    def rate(as_written: str) -> Callable[[int], connecting.Rate]:
        def measure(_round: int) -> connecting.Rate:
            node.switch.ofctl("mod-group", as_written)
            return connecting.rate(node.client, service_address(0), PORT, count, node.switch)

        return measure

    ours, peer = frame.interleave(rate(group), rate(other), rounds)
    node.switch.ofctl("mod-group", group)
    straight = tuple(
        connecting.rate(node.client, node.endpoints[0], STRAIGHT_PORT, count, node.switch)
        for _ in range(rounds)
    )
    return connecting.Rates(ours, peer, straight)


def _change_figures(size: Size, smallest: Size) -> list[Figure]:
    figures = []
    for name, ours, peer in (
        ("an endpoint changes", size.lists, smallest.lists),
        ("a pod's readiness changes", size.pods, smallest.pods),
    ):
        compare = size is not smallest
        figures.append(
            Figure(
                f"{name}, {size.services} Services",
                "ms",
                ours.milliseconds,
                peer.milliseconds if compare else (),
                aim=FLAT if compare else None,
            )
        )
        figures.append(
            Figure(
                f"{name}, {size.services} Services: controller's CPU",
                "ms",
                (ours.controller_cpu,),
                (peer.controller_cpu,) if compare else (),
            )
        )
        figures.append(
            Figure(
                f"{name}, {size.services} Services: switch's CPU",
                "ms",
                (ours.switch_cpu,),
                (peer.switch_cpu,) if compare else (),
            )
        )
    return figures


def _connect_figures(size: Size) -> list[Figure]:
    return [
        Figure(f"new connection, {size.services} Services", "ms", *size.connect),
        Figure(f"first connection, {size.services} Services", "ms", *size.first),
    ]


def _size_figures(size: Size) -> list[Figure]:
    return [
        Figure(f"controller, {size.services} Services", "MB", (size.controller,)),
        Figure(f"ovs-vswitchd, {size.services} Services", "MB", (size.switch,)),
        Figure(
            f"declared and in force, up to {size.services} Services",
            "objects/s",
            (size.declared / size.declared_seconds,),
            better="higher",
        ),
    ]


def _note(size: Size) -> str:
    lists, pods = size.lists, size.pods
    return (
        f"{size.services} Services: an endpoint's change is {lists.messages:.1f} messages, {lists.bytes:.0f} bytes; "
        f"a pod's readiness {pods.messages:.1f} messages, {pods.bytes:.0f} bytes"
    )


if __name__ == "__main__":
    sys.exit(frame.main(run, __doc__))
