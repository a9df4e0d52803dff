# SPDX-License-Identifier: Apache-2.0
"""Pods, Services and policies that come and go while things fail; what was wanted last, to be compared with what is.

A request may fail while no controller can serve it, and is made again. What it is answered must say so: a CNI error
with code 11, or UNAVAILABLE. Anything else is a problem.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf import struct_pb2

from sdn.lab.errors import CniError, LabError
from sdn.lab.lab import Lab
from sdn.lab.pods import TRY_AGAIN
from sdn.lab.state import PodRecord
from sdn.lab.waiting import patience
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import policy_documents as documents
from tests.lab import service_objects as objects

SERVED = 8080
SLOTS = ("a", "b", "c")
_PODS = 9
_SERVICES = tuple(f"brief-{number}" for number in range(1, 6))
_POLICIES = tuple(f"brief-{number}" for number in range(1, 6))
_PAUSES = {"pods": 0.5, "services": 0.4, "policies": 0.5}
#: An answer takes longer only where whoever was asked has been frozen or cut off meanwhile.
_ANSWER = 5.0
#: What is asked for again and again must be had by then, seconds: longer than any fault and what follows from it.
_AT_LAST = 240.0
#: Nobody could be asked, or could write; or he was silent.
EXPLAINED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

T = TypeVar("T")


@dataclass(frozen=True)
class Grant:
    """A policy's meaning: pods of the kind `guarded` in slot `to` may be reached by pods in slot `by`, on SERVED."""

    to: str
    by: str

    def document(self, name: str) -> objects.Document:
        rule = {
            "from": [{"podSelector": documents.labelled(churn="yes", slot=self.by)}],
            "ports": documents.ports(SERVED),
        }
        selector = documents.labelled(kind="guarded", slot=self.to)
        return documents.network_policy(name, "default", selector, policyTypes=["Ingress"], ingress=[rule])


def labels(kind: str, slot: str) -> dict[str, str]:
    return {"churn": "yes", "kind": kind, "slot": slot}


class Churn:
    """Threads that change things for the time of the `with` block."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.problems: list[str] = []
        #: What was done, and what was answered instead.
        self.counts: Counter[str] = Counter()
        #: What is wanted: pods by name; slots whose pods a Service is for; policies.
        self.pods: dict[str, PodRecord] = {}
        self.services: dict[str, str] = {}
        #: Types of these Services.
        self.types: dict[str, str] = {}
        self.grants: dict[str, Grant] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._number = 0
        works = (self._change_pod, self._change_pod, self._change_service, self._change_policy)
        self._threads = [
            threading.Thread(
                target=self._run, args=(work, random.Random(f"{seed} {number}")), name=work.__name__
            )
            for number, work in enumerate(works)
        ]

    def __enter__(self) -> Churn:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[random.Random], float], rng: random.Random) -> None:
        try:
            while not self._end.is_set():
                self._end.wait(work(rng) * rng.uniform(0.2, 1.8))
        except Exception as problem:  # noqa: BLE001 - told in the test's own thread
            self.problems.append(f"{work.__name__}: {type(problem).__name__}: {problem}")

    # Pods.

    def _change_pod(self, rng: random.Random) -> float:
        with self._lock:
            name = rng.choice(sorted(self.pods)) if self.pods else ""
            remove = bool(name) and rng.random() < len(self.pods) / _PODS
            pod = self.pods.pop(name) if remove else None
        if pod is not None:
            self.delete_pod(pod)
        else:
            node = rng.choice(self.lab.spec.node_machines).name
            made = self.add_pod(node, rng.choice(("guarded", "web")), rng.choice(SLOTS))
            with self._lock:
                self.pods[made.name] = made
        return _PAUSES["pods"]

    def new_name(self) -> str:
        with self._lock:
            self._number += 1
            return f"brief-{self._number}"

    def add_once(self, node: str, kind: str, slot: str) -> PodRecord:
        """One attempt; CniError if it fails. It is not among the wanted ones yet."""
        return self.lab.pod_add(self.new_name(), node=node, labels=labels(kind, slot), retry_seconds=0)

    def add_pod(self, node: str, kind: str, slot: str) -> PodRecord:
        """Until it is made."""
        return self._tried("ADD", lambda: self.add_once(node, kind, slot))

    def keep(self, pod: PodRecord) -> None:
        """It is one of those that come and go, from now on."""
        with self._lock:
            self.pods[pod.name] = pod

    def delete_pod(self, pod: PodRecord) -> None:
        self._tried("DEL", lambda: self.lab.pod_delete(pod.name, pod.namespace, retry_seconds=0))

    def _tried(self, verb: str, call: Callable[[], T]) -> T:
        """Again and again, while the plugin says "try again later"."""
        deadline = time.monotonic() + patience(_AT_LAST)
        while True:
            try:
                done = call()
            except CniError as problem:
                self.counts[f"{verb}: code {problem.code}"] += 1
                if problem.code != TRY_AGAIN:
                    self.problems.append(f"{verb} was answered code {problem.code}: {problem}")
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                self.counts[verb] += 1
                return done

    # Declarations.

    def _change_service(self, rng: random.Random) -> float:
        name = rng.choice(_SERVICES)
        if name in self.services and rng.random() < 0.4:
            self.remove("Service", name)
            del self.services[name], self.types[name]
        else:
            slot = rng.choice(SLOTS)
            ports = objects.both(80, SERVED)
            kind = rng.choice(("ClusterIP", "NodePort", "LoadBalancer"))
            self.declare(objects.service(name, ports, {"kind": "web", "slot": slot}, type=kind))
            self.services[name], self.types[name] = slot, kind
        return _PAUSES["services"]

    def _change_policy(self, rng: random.Random) -> float:
        name = rng.choice(_POLICIES)
        if name in self.grants and rng.random() < 0.4:
            self.remove("NetworkPolicy", name)
            del self.grants[name]
        else:
            grant = Grant(rng.choice(SLOTS), rng.choice(SLOTS))
            self.declare(grant.document(name))
            self.grants[name] = grant
        return _PAUSES["policies"]

    def declare(self, document: objects.Document) -> None:
        """Until it is accepted."""
        message = struct_pb2.Struct()
        message.update(document)
        request = inspection_pb2.ApplyRequest(object=message)
        self._asked("apply", lambda stub: stub.Apply(request, timeout=patience(_ANSWER)))

    def remove(self, kind: str, name: str) -> None:
        """Until it is gone; what was not there may have been removed by a request whose answer was lost."""
        request = inspection_pb2.DeleteRequest(kind=kind, namespace="default", name=name)
        self._asked("delete", lambda stub: stub.Delete(request, timeout=patience(_ANSWER)))

    def _asked(self, verb: str, question: Callable[[inspection_pb2_grpc.InspectionStub], object]) -> None:
        deadline = time.monotonic() + patience(_AT_LAST)
        unsure = False
        while True:
            try:
                with grpc.insecure_channel(self.lab.server) as channel:
                    question(inspection_pb2_grpc.InspectionStub(channel))
            except grpc.RpcError as problem:
                code = problem.code()
                if unsure and verb == "delete" and code == grpc.StatusCode.NOT_FOUND:
                    break
                self.counts[f"{verb}: {code.name}"] += 1
                if code not in EXPLAINED:
                    self.problems.append(f"{verb} was answered {code.name}: {problem.details()}")
                if time.monotonic() > deadline:
                    raise LabError(
                        f"{verb} was not accepted for {_AT_LAST:.0f} s: {problem.details()}"
                    ) from problem
                unsure = True
                time.sleep(0.3)
            else:
                break
        self.counts[verb] += 1

    # What follows from what is wanted.

    def may_speak(self, source: PodRecord, target: PodRecord) -> bool:
        """Whether `source` may reach `target` on SERVED."""
        if target.labels.get("kind") != "guarded":
            return True
        for_target = [grant for grant in self.grants.values() if grant.to == target.labels["slot"]]
        return not for_target or source.labels.get("slot") in {grant.by for grant in for_target}

    def endpoints(self, service: str) -> set[str]:
        """Names of the pods that a Service leads to."""
        return {
            pod.name
            for pod in self.pods.values()
            if pod.labels["kind"] == "web" and pod.labels["slot"] == self.services[service]
        }

    def clear(self) -> None:
        """Remove all of it, once the block has ended."""
        for name in list(self.services):
            self.remove("Service", name)
            del self.services[name], self.types[name]
        for name in list(self.grants):
            self.remove("NetworkPolicy", name)
            del self.grants[name]
        for pod in list(self.pods.values()):
            self.delete_pod(pod)
            del self.pods[pod.name]

    def told(self) -> str:
        """In one line."""
        return ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
