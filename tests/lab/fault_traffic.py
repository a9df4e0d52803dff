# SPDX-License-Identifier: Apache-2.0
"""Traffic that is to go on whatever happens to controllers, their store and agents: what of it was lost, and when.

Numbered datagrams on ways that policies allow and on one that they deny, and requests to Services, each with one
endpoint, so that of everything that is lost it is known which switches had a part in it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sdn.lab import probe
from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import patience, wait_until
from tests.lab import policy_documents as documents
from tests.lab import service_objects as objects
from tests.lab.fault_windows import Outages, Stalls, overlaps
from tests.lab.policy_stream import Stream, Way
from tests.lab.service_clients import ask
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Request

#: Datagrams a second on each way.
RATE = 30
_PORTS = (7000, 7001)
SERVED = 8080
#: So long one process sends, seconds: it keeps its record in memory. The next one begins before it ends.
_SEGMENT = 60.0
_OVERLAP = 2.0
_ASK_EVERY = 0.3
_REQUEST_SECONDS = 5.0
_FORWARDING_SECONDS = 60.0


@dataclass(frozen=True)
class Steady:
    """Pods that nobody touches: open-1, open-2, open-3, each on its node; closed, to which only open-1 and open-2 may
    speak; stranger, which may not, on the same node.
    """

    open: tuple[PodRecord, ...]
    closed: PodRecord
    stranger: PodRecord

    @property
    def allowed(self) -> list[tuple[PodRecord, PodRecord]]:
        pairs = [(one, other) for one in self.open for other in self.open if one is not other]
        return [*pairs, (self.open[0], self.closed), (self.open[1], self.closed)]

    @property
    def denied(self) -> list[tuple[PodRecord, PodRecord]]:
        return [(self.stranger, self.closed), (self.open[2], self.closed)]

    @property
    def pods(self) -> list[PodRecord]:
        return [*self.open, self.closed, self.stranger]


def make(lab: Lab, servers: Servers) -> Steady:
    """The pods, the policy and the Services (only-1 to only-3), all in force."""
    numbers = range(1, len(lab.spec.node_machines) + 1)
    opened = tuple(
        lab.pod_add(f"open-{n}", node=f"node-{n}", labels={"steady": f"open-{n}", "friend": str(n < 3)})
        for n in numbers
    )
    closed = lab.pod_add("closed", node="node-1", labels={"steady": "closed", "friend": "no"})
    stranger = lab.pod_add("stranger", node="node-1", labels={"steady": "stranger", "friend": "no"})
    friends = {"from": [{"podSelector": documents.labelled(friend="True")}]}
    policy = documents.network_policy(
        "friends-only", "default", documents.labelled(steady="closed"), ingress=[friends]
    )
    for pod in opened:
        servers.everywhere(pod.netns, pod.name, pod.addresses, [SERVED])
    services = [
        objects.service(f"only-{n}", objects.both(80, SERVED), {"steady": f"open-{n}"}) for n in numbers
    ]
    documents.declare(lab, [policy, *services])
    return Steady(opened, closed, stranger)


def wait_forwarding(steady: Steady, node: str) -> None:
    """Wait until the node's switch forwards again, between its pod and those of all other nodes, both families."""
    probes = [
        probe.Probe(source.netns, address)
        for source in steady.open
        for target in steady.open
        if source is not target and node in (source.node, target.node)
        for address in target.addresses
    ]
    wait_until(
        lambda: all(found.reachable for found in probe.ping(probes, attempts=1, timeout=0.5)),
        f"{node} to forward again",
        _FORWARDING_SECONDS,
    )


@dataclass(frozen=True)
class Loss:
    """What did not come through, sent or asked at `begin`, given up at `end` (time.monotonic())."""

    what: str
    nodes: tuple[str, ...]
    begin: float
    end: float


class Traffic:
    """All of it, for the time of the `with` block."""

    def __init__(self, lab: Lab, steady: Steady, outages: Outages, folder: Path) -> None:
        self._steady = steady
        self._outages = outages
        self._folder = folder
        self._nodes = {pod.name: pod.node for pod in steady.pods}
        self._requests = self._to_services(lab)
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._kept, args=(work,)) for work in (self._stream, self._ask)
        ]
        self._stalls = Stalls(lab, folder / "stalls")
        self.problems: list[str] = []
        self.lost: list[Loss] = []
        self.sent = 0
        self.denied = 0
        #: Datagrams that came through though a policy denies them.
        self.leaked: list[str] = []
        self.answers: Counter[str] = Counter()

    def _to_services(self, lab: Lab) -> list[tuple[Request, tuple[str, str]]]:
        found = []
        for number, server in enumerate(self._steady.open, 1):
            client = self._steady.open[number % len(self._steady.open)]
            for family in ("IPv4", "IPv6"):
                address = objects.cluster_ip(lab, f"only-{number}", family)
                for transport in ("tcp", "udp"):
                    request = Request(
                        client.netns, transport, address, 80, timeout=_REQUEST_SECONDS, attempts=1
                    )
                    found.append((request, (client.node, server.node)))
        return found

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._stalls.__exit__(kind, value, trace)

    def _kept(self, work: object) -> None:
        try:
            assert callable(work)
            work()
        except Exception as problem:  # noqa: BLE001 - told in the test's own thread
            self.problems.append(f"{type(problem).__name__}: {problem}")

    # Datagrams.

    def _ways(self, pairs: Sequence[tuple[PodRecord, PodRecord]], port: int) -> list[Way]:
        return [
            Way(
                source.name,
                target.name,
                source.netns,
                target.netns,
                address,
                port,
                source.node == target.node,
            )
            for source, target in pairs
            for address in target.addresses
        ]

    def _stream(self) -> None:
        """One process after the other, of which each begins before the last one ends."""
        number = 0
        with ExitStack() as last:
            while True:
                port = _PORTS[number % len(_PORTS)]
                allowed = self._ways(self._steady.allowed, port)
                denied = self._ways(self._steady.denied, port)
                stream = Stream([*allowed, *denied], RATE, self._folder / f"stream-{number}")
                begun = ExitStack()
                begun.callback(self._judge, stream, allowed, denied)
                begun.enter_context(stream)
                self._end.wait(_OVERLAP)
                last.close()
                last.push(begun.pop_all())
                number += 1
                if self._end.wait(_SEGMENT):
                    return

    def _judge(self, stream: Stream, allowed: Sequence[Way], denied: Sequence[Way]) -> None:
        """Keep what was lost."""
        ends = [one.sent for sent in stream.record.values() for one in sent]
        # The last ones may still be on their way; the next process sends by then.
        end = max(ends, default=0.0) - _OVERLAP / 2
        for way in allowed:
            nodes = (self._nodes[way.source], self._nodes[way.destination])
            for one in stream.record.get(way, ()):
                if one.sent < end:
                    self.sent += 1
                    # What comes back to a socket that does not stay may come too late for it.
                    if not one.received or (one.steady and not one.answered):
                        half = "the answer to it" if one.received else "it"
                        what = f"{way.source} -> {way.destination} {way.address}: {half} was lost"
                        self.lost.append(Loss(what, nodes, one.sent, one.sent))
        for way in denied:
            for one in stream.record.get(way, ()):
                self.denied += 1
                if one.received:
                    self.leaked.append(f"{way.source} -> {way.destination} {way.address} at {one.sent:.3f}")

    # Requests.

    def _ask(self) -> None:
        while not self._end.wait(_ASK_EVERY):
            answers = ask(*(request for request, _ in self._requests))
            for (request, nodes), answer in zip(self._requests, answers, strict=True):
                self.answers[answer.outcome] += 1
                if answer.outcome != "answered":
                    what = f"{request.netns} {request.transport} {request.address}: {answer.outcome} {answer.error}"
                    self.lost.append(Loss(what, nodes, answer.began, answer.ended))

    # What of it counts, once the block has ended.

    def unexcused(self) -> list[Loss]:
        """What was lost while both switches of its way were up, and were let run by the machine and its kernel."""
        margin = patience(0.1)
        return [
            loss
            for loss in self.lost
            if not self._outages.covers(loss.nodes, loss.begin, loss.end)
            and not overlaps(self._stalls.spans, loss.nodes, loss.begin, loss.end + margin)
        ]

    def told(self) -> str:
        """In a few lines."""
        restarts = [loss for loss in self.lost if self._outages.covers(loss.nodes, loss.begin, loss.end)]
        bad = self.unexcused()
        return (
            f"{self.sent} datagrams on ways that are allowed, {self.denied} on ways that are not"
            f" ({len(self.leaked)} came through), requests to Services: {dict(self.answers)}\n"
            f"lost: {len(restarts)} while a switch of the way was restarted,"
            f" {len(self.lost) - len(restarts) - len(bad)} while the machine did not let one run,"
            f" {len(bad)} otherwise\n{self._outages.told()}; {self._stalls.told()}"
        )
