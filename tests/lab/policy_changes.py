# SPDX-License-Identifier: Apache-2.0
"""A small cluster whose pods speak all the time, to see what passes while policies change.

On each of two nodes: a pod of role x and one of role y that send, one of role r that receives on all ports, and one
that belongs to nobody. See policy_scenarios.py.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from tests.lab import labs
from tests.lab import policy_documents as documents
from tests.lab import service_objects as objects
from tests.lab.policy_scenarios import BACK, FRONT, PORTS, Q, Scenario
from tests.lab.policy_stream import Stream, Way
from tests.lab.policy_timeline import Change, Findings, Timeline
from tests.lab.service_clients import Conversation, Load
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Answer, Listener, Request

#: Datagrams a second on each way.
RATE = 40
#: Seconds that a connection waits which a change may have closed, and one that none closes.
SHORT, LONG = 0.4, 15.0
#: Connections that are waited for at the same time.
WINDOW = 8
NODES = ("node-1", "node-2")


class PolicyLab:
    """The lab, its pods and its servers."""

    def __init__(self, lab: Lab, servers: Servers) -> None:
        self.lab = lab
        self.pods: dict[str, PodRecord] = {}
        for number, node in enumerate(NODES, 1):
            for role in "xyr":
                name = f"{role}{number}"
                self.pods[name] = lab.pod_add(
                    name, BACK if role == "r" else FRONT, node, {"role": role}, retry_seconds=60
                )
            self.pods[f"free{number}"] = lab.pod_add(f"free{number}", "default", node)
        for name in ("r1", "r2"):
            pod = self.pods[name]
            servers.listen(
                *(
                    Listener(pod.netns, name, "tcp", address, port)
                    for address in pod.addresses
                    for port in PORTS
                )
            )

    def ways(self) -> list[Way]:
        """From each sender to each port of each receiver."""
        return [
            Way(source, target, self.pods[source].netns, self.pods[target].netns, address, port, near)
            for port in PORTS
            for source in ("x1", "y1", "x2", "y2")
            for target in ("r1", "r2")
            for address in self.pods[target].addresses
            for near in (self.pods[source].node == self.pods[target].node,)
        ]

    def labelled(self, value: str) -> dict[str, documents.Document]:
        """What is declared of the senders of role x, with the label `may`."""
        return {name: documents.pod(self.pods[name], {"role": "x", "may": value}) for name in ("x1", "x2")}

    @contextmanager
    def scenario(self, scenario: Scenario, state: str = "A") -> Iterator[None]:
        """Declared, in one of its states, for the time of the `with` block; then nothing is left of it."""
        documents.declare(self.lab, [*scenario.always, *scenario.states[state].declared])
        try:
            yield
        finally:
            documents.delete(self.lab, scenario.documents())
            objects.settle(self.lab)


@contextmanager
def running() -> Iterator[PolicyLab]:
    """For the time of the `with` block. Nodes' ranges are so small that addresses are soon given again."""
    options = {
        "cluster_ranges": ("10.244.0.0/24", "fd00:10:244::/112"),
        "node_prefix_ipv4": 28,
        "node_prefix_ipv6": 124,
    }
    with labs.running("enforce", nodes=2, **options) as lab, Servers() as servers:
        found = PolicyLab(lab, servers)
        objects.settle(lab)
        yield found


@dataclass
class Asked:
    """What came of connections."""

    answered: int = 0
    failed: int = 0
    #: Answered though no state allowed it; not answered though all did.
    leaked: list[tuple[Way, Answer]] = field(default_factory=list)
    lost: list[tuple[Way, Answer]] = field(default_factory=list)


class Traffic:
    """All that is said while something changes: datagrams; with `tcp` also short connections, and some that stay."""

    def __init__(
        self, cluster: PolicyLab, scenario: Scenario, state: str, folder: Path, *, tcp: bool = True
    ) -> None:
        self.cluster = cluster
        self.scenario = scenario
        self.timeline = Timeline(state)
        self._ways = cluster.ways()
        self._folder = folder
        self._tcp = tcp
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._converse)
        self._load: Load | None = None
        #: Connections that were cut, and exchanges that were made.
        self.cut: list[str] = []
        self.exchanges = 0
        self.findings = Findings()
        self.asked = Asked()

    def __enter__(self) -> Traffic:
        self._stream = Stream(self._ways, RATE, self._folder / f"stream-{time.monotonic_ns()}")
        if self._tcp:
            requests = [
                Request(way.netns, "tcp", way.address, way.port, timeout=self._patience(way), attempts=1)
                for way in self._ways
            ]
            random.shuffle(requests)
            self._load = Load(requests, WINDOW, self._folder / f"load-{time.monotonic_ns()}")
            self._thread.start()
        return self

    def change(self, state: str) -> Change:
        """Ask for another state. Not confirmed yet."""
        wanted = self.scenario.states[state]
        change = self.timeline.change(state, time.monotonic())
        documents.delete(self.cluster.lab, wanted.removed)
        objects.apply(self.cluster.lab, *wanted.declared)
        return change

    def confirm(self, change: Change) -> None:
        """Wait until every switch has it."""
        change.confirmed = documents.confirmed(self.cluster.lab)

    def stay(self, change: Change, seconds: float) -> None:
        """Let things be as they are, until nothing is left of what was before and then for so long."""
        time.sleep(max(0.0, change.settled - time.monotonic()) + seconds)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        answers: list[tuple[Request, Answer]] = []
        try:
            self._stream.__exit__(kind, None, None)
            if self._load is not None:
                self._thread.join()
                if kind is None:
                    answers = self._load.end()
        finally:
            if self._load is not None:
                self._load.kill()
        if kind is None:
            self.findings = self.timeline.judge(self._stream.record, self.scenario.allows)
            self.asked = self._judge(answers)

    def _always(self, way: Way) -> bool:
        return all(self.scenario.allows(state, way) for state in self.scenario.states)

    def _patience(self, way: Way) -> float:
        return LONG if self._always(way) else SHORT

    def _judge(self, answers: list[tuple[Request, Answer]]) -> Asked:
        found = Asked()
        by_request = {(way.netns, way.address, way.port): way for way in self._ways}
        for request, answer in answers:
            way = by_request[request.netns, request.address, request.port]
            states = self.timeline.possible(answer.began, answer.ended)
            if answer.outcome == "answered":
                found.answered += 1
                if not any(self.scenario.allows(state, way) for state in states):
                    found.leaked.append((way, answer))
            else:
                found.failed += 1
                if self._always(way):
                    found.lost.append((way, answer))
        return found

    def _converse(self) -> None:
        """Connections to the port that stays open, asked again and again."""
        pods = self.cluster.pods
        conversations = [
            (
                f"{source} -> {target} {address}",
                Conversation(Request(pods[source].netns, "tcp", address, Q, timeout=LONG)),
            )
            for source, target in (("x1", "r1"), ("x1", "r2"), ("x2", "r1"))
            for address in pods[target].addresses
        ]
        try:
            while not self._ended.wait(0.05):
                for name, conversation in list(conversations):
                    try:
                        conversation.ask()
                        self.exchanges += 1
                    except OSError as problem:
                        self.cut.append(f"{name}: {problem}")
                        conversations.remove((name, conversation))
                        conversation.close()
        finally:
            for _, conversation in conversations:
                conversation.close()
