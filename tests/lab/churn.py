# SPDX-License-Identifier: Apache-2.0
"""Changes without end, whoever is there to take them: pods come and go, a Service's endpoints and a policy change.

What is refused since no controller can do it now is tried again, or counted. Anything else is a failure.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import grpc
from google.protobuf import struct_pb2

from sdn.lab.lab import Lab
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import service_objects as objects
from tests.lab.service_objects import Document

#: For which a pod's runtime tries again, seconds.
_PATIENCE = 600.0
_PAUSE = 0.1
#: How long a declaration may take, seconds.
_ANSWER = 5.0
#: What a controller answers that cannot do it just now, or does not come to answer.
_NOT_NOW = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.FAILED_PRECONDITION,
)
_SERVICE = "churn"


class Churn:
    """For the time of the `with` block; raises at its end what went wrong meanwhile."""

    def __init__(self, lab: Lab, rng: random.Random) -> None:
        self._lab = lab
        self._nodes = [machine.name for machine in lab.spec.node_machines]
        self._controllers = [machine.name for machine in lab.spec.controller_machines]
        self._end = threading.Event()
        self._problem: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(work, random.Random(rng.random())), name=name)
            for name, work in (("pods", self._pod), ("declarations", self._declare))
        ]
        self._steady = [pod.addresses[0] for pod in lab.pods()]
        #: Pods that were made and removed; declarations that were taken, and those that no controller could take.
        self.pods = 0
        self.declared = 0
        self.refused = 0

    def __enter__(self) -> Churn:
        objects.apply(self._lab, objects.service(_SERVICE, [objects.port(80)]))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raises what has gone wrong."""
        if self._problem is not None:
            raise self._problem

    def _run(self, work: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            while not self._end.wait(_PAUSE):
                work(rng)
        except Exception as problem:  # noqa: BLE001 - told in the test's own thread
            self._problem = problem

    def _pod(self, rng: random.Random) -> None:
        name = f"churn-{self.pods}"
        self._lab.pod_add(name, "default", rng.choice(self._nodes), {"churn": "yes"}, _PATIENCE)
        self._end.wait(rng.uniform(0, 0.5))
        self._lab.pod_delete(name, "default", retry_seconds=_PATIENCE)
        self.pods += 1

    def _declare(self, rng: random.Random) -> None:
        document = self._document(rng)
        message = struct_pb2.Struct()
        message.update(document)
        with grpc.insecure_channel(self._lab.server_of(rng.choice(self._controllers))) as channel:
            stub = inspection_pb2_grpc.InspectionStub(channel)
            try:
                stub.Apply(inspection_pb2.ApplyRequest(object=message), timeout=_ANSWER)
            except grpc.RpcError as problem:
                if problem.code() not in _NOT_NOW:
                    raise
                self.refused += 1
            else:
                self.declared += 1

    def _document(self, rng: random.Random) -> Document:
        if rng.random() < 0.5:
            chosen = rng.sample(self._steady, rng.randint(1, len(self._steady)))
            return objects.endpoint_slice(
                _SERVICE,
                "IPv4",
                [{"addresses": [address]} for address in chosen],
                [{"name": "tcp-80", "port": 80}],
            )
        # Nobody who is watched says anything to this port.
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": _SERVICE, "namespace": "default"},
            "spec": {
                "podSelector": {"matchLabels": {"churn": "yes"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"protocol": "TCP", "port": rng.randint(1, 60000)}]}],
            },
        }
