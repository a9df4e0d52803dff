# SPDX-License-Identifier: Apache-2.0
"""A lab whose pods serve: what tests of Services share.

Three nodes; on each a pod `web-N` that answers, and a pod `client-N` that asks. All answer on the ports of PORTS,
TCP and UDP, both families, with their own name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import wait_until
from tests.lab import labs
from tests.lab import service_objects as objects
from tests.lab.service_clients import Conversation, ask
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Answer, Request

PORTS = (8080, 8081)
FAMILIES = ("IPv4", "IPv6")
TRANSPORTS = ("tcp", "udp")
#: Every combination, for pytest.mark.parametrize(*EACH).
EACH = (
    ("family", "transport"),
    [(family, transport) for family in FAMILIES for transport in TRANSPORTS],
)

#: Requests after which each of three endpoints has answered, but for once in a thousand million times.
MANY = 60


class ServiceLab:
    """The lab, its servers, and calls that say what a test means."""

    def __init__(self, lab: Lab, servers: Servers) -> None:
        self.lab = lab
        self.servers = servers

    def add(self, name: str, node: str, labels: Mapping[str, str] | None = None) -> PodRecord:
        """A pod that serves."""
        pod = self.lab.pod_add(name, node=node, labels={"name": name, **(labels or {})})
        self.servers.everywhere(pod.netns, name, pod.addresses, PORTS)
        return pod

    def remove(self, name: str) -> None:
        """Remove the pod, as a runtime does: first its processes, then its network."""
        self.servers.close(name)
        self.lab.pod_delete(name)

    def forget_pod(self, name: str) -> None:
        """What was declared of a pod that is no more."""
        objects.delete(self.lab, "Pod", name)

    def ready(self, name: str, ready: bool = True, *, terminating: bool = False) -> None:
        """The pod's readiness from now on, in force on every switch."""
        self.declare(self.told(name, ready, terminating=terminating))

    def told(self, name: str, ready: bool = True, *, terminating: bool = False) -> objects.Document:
        """What the kubelet would tell of the pod."""
        pod = self.lab.pod(name)
        document = objects.pod(name, pod.node, pod.labels, ready=ready)
        if terminating:
            document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return document

    def declare(self, *documents: objects.Document) -> None:
        """Apply, and wait until every switch holds what follows."""
        objects.apply(self.lab, *documents)
        objects.settle(self.lab)

    def forget(self, *services: str) -> None:
        """Delete Services, and wait until no switch holds anything of them."""
        objects.delete(self.lab, "Service", *services)
        objects.settle(self.lab)

    @contextmanager
    def service(
        self, name: str, ports: list[objects.Document], selector: Mapping[str, str] | None, **spec: Any
    ) -> Iterator[str]:
        """A Service for the time of the `with` block; its name."""
        self.declare(objects.service(name, ports, selector, **spec))
        try:
            yield name
        finally:
            self.forget(name)

    def cluster_ip(self, service: str, family: str = "IPv4") -> str:
        return objects.cluster_ip(self.lab, service, family)

    def request(
        self, client: str, address: str, port: int = 80, transport: str = "tcp", **more: Any
    ) -> Request:
        """From a pod or machine of the lab."""
        return Request(self.lab.netns(client), transport, address, port, **more)

    def ask(
        self, client: str, address: str, port: int = 80, transport: str = "tcp", count: int = 1, **more: Any
    ) -> list[Answer]:
        """So many requests, each with a connection of its own."""
        return ask(*[self.request(client, address, port, transport, **more)] * count)

    def wait_for(
        self, client: str, address: str, port: int = 80, transport: str = "tcp", outcome: str = "answered"
    ) -> None:
        """Wait until it answers: a node's own rules follow the flows, and nobody tells when they are there."""
        wait_until(
            lambda: self.ask(client, address, port, transport, attempts=1)[0].outcome == outcome,
            f"an answer to {client} from {address} {transport} {port}",
            20,
        )

    def answerers(
        self, client: str, address: str, port: int = 80, transport: str = "tcp", count: int = MANY
    ) -> Counter[str]:
        """Who answered how often; AssertionError if a request was not answered."""
        answers = self.ask(client, address, port, transport, count)
        failed = [answer for answer in answers if answer.outcome != "answered"]
        assert not failed, f"{len(failed)} of {count} requests to {address}:{port} failed: {failed[0]}"
        return Counter(answer.name for answer in answers)

    def converse(
        self, client: str, address: str, port: int = 80, transport: str = "tcp", source_port: int = 0
    ) -> Conversation:
        """One connection that stays."""
        return Conversation(self.request(client, address, port, transport), source_port)


@contextmanager
def serving(short: str, **options: Any) -> Iterator[ServiceLab]:
    """The lab for the time of the `with` block."""
    with labs.running(short, nodes=3, **options) as lab, Servers() as servers:
        labs.compare_often(lab)
        found = ServiceLab(lab, servers)
        for number in (1, 2, 3):
            found.add(f"web-{number}", f"node-{number}", {"app": "web"})
            lab.pod_add(f"client-{number}", node=f"node-{number}", labels={"app": "client"})
        objects.settle(lab)
        yield found
