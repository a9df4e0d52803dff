# SPDX-License-Identifier: Apache-2.0
"""Endpoints come and go fifty times a second while clients ask all the time, a new connection for each request.

Three kinds of change at once: endpoints of slices made by hand, readiness of pods, and pods that are really made and
removed. What must hold of every request: it is answered, unless a pod was taken away without warning just then; and
never by an endpoint that had been removed for more than a second when the request began.
"""

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sdn.lab.state import PodRecord
from sdn.lab.waiting import patience
from tests.lab import service_objects as objects
from tests.lab.service_clients import Load
from tests.lab.service_lab import FAMILIES, TRANSPORTS, ServiceLab, serving
from tests.lab.service_sockets import Answer, Request

pytestmark = pytest.mark.alone

CHANGES_A_SECOND = 50
SECONDS = 20
#: At most one datagram of so many may be lost.
LOST_DATAGRAMS = 4000
GRACE = 1.0
"""Seconds after which a removed endpoint must not get anything new."""
SLICE_PORTS = range(9000, 9008)
"""Each is the port of one slice, whose endpoints are the pods; so there are many more endpoints than pods."""
STEADY = ("web-1", "web-2", "web-3")
"""Always ready in the Service with a selector, so that it never is without endpoints."""
FICKLE = tuple(f"fickle-{number}" for number in range(1, 7))
"""Pods that are ready now and then."""
REQUEST_SECONDS = 2.0


@dataclass
class History:
    """Which endpoint was gone when, by its name: spans from a confirmed removal to its being asked for again."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    gone: dict[str, list[list[float]]] = field(default_factory=dict)
    #: Spans in which pods were taken away without warning.
    abrupt: list[tuple[float, float]] = field(default_factory=list)
    #: What happened to pods, and when.
    told: list[tuple[float, str]] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)

    def removed(self, name: str) -> None:
        with self.lock:
            self.gone.setdefault(name, []).append([time.monotonic(), float("inf")])

    def comes(self, name: str) -> None:
        with self.lock:
            spans = self.gone.get(name, [])
            if spans and spans[-1][1] == float("inf"):
                spans[-1][1] = time.monotonic()

    def too_late(self, answer: Answer) -> bool:
        """Whether it was answered by one that had been gone for longer than GRACE when the request began."""
        return any(
            began + patience(GRACE) < answer.began < answer.ended < ended
            for began, ended in self.gone.get(answer.name, ())
        )

    def tell(self, what: str) -> None:
        self.told.append((time.monotonic(), what))

    def around(self, answer: Answer) -> str:
        """What happened to pods while a request was under way, and shortly before: seconds from its begin."""
        near = [
            f"{when - answer.began:+.3f} {what}"
            for when, what in self.told
            if answer.began - 2.5 < when < answer.ended + 0.5
        ]
        return ", ".join(near)

    def excused(self, answer: Answer, receiver: str) -> bool:
        """Whether a request that failed hit what was being removed: a pod that was taken away without warning, or, if
        it was received, an endpoint whose tracked datagrams were forgotten before its answer came through.
        """
        if any(began <= answer.ended and answer.began <= ended for began, ended in self.abrupt):
            return True
        return any(
            answer.began - 0.1 <= began <= answer.began + patience(GRACE)
            for began, _ in self.gone.get(receiver, ())
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("churn") as found:
        for number, name in enumerate(FICKLE):
            found.add(name, f"node-{number % 3 + 1}", {"app": "web"})
        yield found


def slice_of(port: int, family: str, pods: Iterable[PodRecord]) -> objects.Document:
    """The slice of one port: these pods are its endpoints."""
    index = FAMILIES.index(family)
    endpoints = [
        {"addresses": [pod.addresses[index]], "nodeName": pod.node, "conditions": {"ready": True}}
        for pod in pods
    ]
    ports = [{"name": f"{t}-80", "protocol": t.upper(), "port": port} for t in TRANSPORTS]
    return objects.endpoint_slice("manual", family, endpoints, ports, f"manual-{family.lower()}-{port}")


class Churn:
    """The threads that change things."""

    def __init__(self, cluster: ServiceLab, seed: int) -> None:
        self.cluster = cluster
        self.history = History()
        self.end = threading.Event()
        self.problems: list[str] = []
        self._random = random.Random(seed)
        self._members = {
            (port, family): set(FICKLE) | set(STEADY) for port in SLICE_PORTS for family in FAMILIES
        }
        self._ready = dict.fromkeys(FICKLE, True)
        self._known = {name: cluster.lab.pod(name) for name in (*FICKLE, *STEADY)}
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,)) for work in (self._flip_all, self._pods)
        ]

    def __enter__(self) -> "Churn":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as problem:  # noqa: BLE001 - told in the test's own thread
            self.problems.append(f"{type(problem).__name__}: {problem}")

    def _flip_all(self) -> None:
        """One change after the other, at a pace that is made up for when it could not be kept."""
        begun = time.monotonic()
        with objects.Applier(self.cluster.lab) as apply:
            for number in itertools.count(1):
                if self.end.is_set():
                    return
                if self._random.random() < 0.8:
                    self._flip_slice(apply)
                else:
                    self._flip_pod(apply)
                self.end.wait(max(0.0, begun + number / CHANGES_A_SECOND - time.monotonic()))

    def _flip_slice(self, apply: objects.Applier) -> None:
        port, family = self._random.choice(list(self._members))
        members = self._members[port, family]
        pod = self._random.choice([*FICKLE, *STEADY])
        name = f"{pod}:{port}/{family}"
        if pod in members:
            # The first slice's steady ones stay, so that the Service never is without endpoints.
            if port == SLICE_PORTS[0] and pod in STEADY:
                return
            members.discard(pod)
            apply(slice_of(port, family, self._records(members)))
            self.history.removed(name)
        else:
            self.history.comes(name)
            members.add(pod)
            apply(slice_of(port, family, self._records(members)))
        self.history.changes["slice"] += 1

    def _records(self, names: set[str]) -> list[PodRecord]:
        return [self._known[name] for name in sorted(names)]

    def _flip_pod(self, apply: objects.Applier) -> None:
        pod = self._random.choice(FICKLE)
        self._ready[pod] = not self._ready[pod]
        if self._ready[pod]:
            self.history.comes(pod)
            apply(self.cluster.told(pod))
        else:
            apply(self.cluster.told(pod, False))
            self.history.removed(pod)
        self.history.changes["readiness"] += 1

    def _pods(self) -> None:
        """Pods that are made, serve, and are removed: in turn with a warning, and without."""
        number = 0
        while not self.end.is_set():
            number += 1
            name = f"real-{number}"
            # Not ready before it serves.
            node, labels = f"node-{number % 3 + 1}", {"name": name, "app": "web"}
            objects.apply(self.cluster.lab, objects.pod(name, node, labels, ready=False))
            self.cluster.add(name, node, {"app": "web"})
            objects.apply(self.cluster.lab, self.cluster.told(name))
            self.history.tell(f"{name} ready")
            self.end.wait(0.5)
            if number % 2:
                self.cluster.ready(name, False)
                self.history.removed(name)
                self.history.tell(f"{name} not ready")
                # What was on its way is answered before the pod ends, as its grace period is for.
                time.sleep(patience(GRACE))
                self.history.tell(f"{name} ends")
                self.cluster.remove(name)
                self.history.tell(f"{name} ended")
            else:
                begun = time.monotonic()
                self.history.tell(f"{name} ends abruptly")
                self.cluster.remove(name)
                self.history.tell(f"{name} ended abruptly")
                self.history.removed(name)
                self.history.abrupt.append((begun, time.monotonic() + patience(GRACE)))
            self.history.changes["pod"] += 2
            self.cluster.forget_pod(name)


def requests(cluster: ServiceLab) -> list[Request]:
    """Every kind of client, family and transport, to both Services, and to a node's port from outside."""
    found = []
    node = cluster.lab.spec.node("node-1")
    for family in FAMILIES:
        for transport in TRANSPORTS:
            options = {"timeout": REQUEST_SECONDS, "attempts": 1}
            for service in ("web", "manual"):
                address = cluster.cluster_ip(service, family)
                found += [
                    cluster.request(client, address, 80, transport, **options)
                    for client in ("client-1", "client-2", "client-3", "node-1")
                ]
            port = objects.node_port(cluster.lab, "web", transport)
            address = node.ipv4 if family == "IPv4" else node.ipv6
            found.append(cluster.request("outside", address, port, transport, **options))
    return found


def test_no_request_is_lost_or_answered_by_an_endpoint_that_is_long_gone(
    cluster: ServiceLab, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SDN_TEST_SEED", random.randrange(1 << 32)))
    print(f"\nseed {seed}: SDN_TEST_SEED={seed} repeats the same changes")
    pods = [cluster.lab.pod(name) for name in (*FICKLE, *STEADY)]
    for family in FAMILIES:
        for pod in pods:
            address = pod.addresses[FAMILIES.index(family)]
            for port in SLICE_PORTS:
                cluster.servers.everywhere(pod.netns, f"{pod.name}:{port}/{family}", [address], [port])
    cluster.declare(
        objects.service("web", objects.both(80, 8080), {"app": "web"}, type="NodePort"),
        objects.service("manual", objects.both(80), None),
        *(slice_of(port, family, pods) for port in SLICE_PORTS for family in FAMILIES),
    )
    wanted = requests(cluster)
    shuffled = random.Random(seed).sample(wanted, len(wanted))
    load = Load(shuffled, 6, tmp_path / "answers")
    try:
        with Churn(cluster, seed) as churn:
            time.sleep(SECONDS)
        answers = load.end()
    finally:
        load.kill()
    assert not churn.problems, churn.problems
    history = churn.history
    outcomes = Counter((request.transport, answer.outcome) for request, answer in answers)
    slowest = max(answer.seconds for _, answer in answers if answer.outcome == "answered")
    print(f"{history.changes.total() / SECONDS:.0f} changes a second: {dict(history.changes)}")
    print(f"{len(answers)} requests: {dict(outcomes)}")
    print(f"slowest answer {slowest * 1000:.0f} ms, {len({a.name for _, a in answers})} endpoints answered")
    objects.settle(cluster.lab)
    late = [(request, answer) for request, answer in answers if history.too_late(answer)]
    assert not late, f"{len(late)} were answered by endpoints long gone: {late[:3]}"
    failed = [(request, answer) for request, answer in answers if answer.outcome != "answered"]
    received = cluster.servers.seen(*(answer.token for _, answer in failed))
    lost = [
        (request, answer)
        for request, answer in failed
        if not history.excused(answer, received.get(answer.token, ""))
    ]
    for request, answer in lost:
        print(
            f"{request.netns} {request.transport} {request.address} {request.port} {answer.outcome} after"
            f" {answer.seconds:.3f} s; received by {received.get(answer.token)}; around it: {history.around(answer)}"
        )
    # Seen about once in 12,000: an endpoint has answered, and its datagram did not arrive. Entries of the connection
    # table are flushed some fifty times a second here. Streams repeat what is lost: none may fail.
    datagrams = [request for request, _ in lost if request.transport == "udp"]
    assert len(datagrams) == len(lost), f"{len(lost)} of {len(answers)} failed"
    assert len(datagrams) <= len(answers) / LOST_DATAGRAMS, (
        f"{len(datagrams)} datagrams of {len(answers)} lost"
    )
    assert len(answers) > 1000
