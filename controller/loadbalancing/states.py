# SPDX-License-Identifier: Apache-2.0
"""Services as agents are told of them, and which node announces their LoadBalancer addresses.

What all nodes are told alike is made once for each change of a Service. The endpoints themselves are told of
headless Services only: they are what such a name stands for in DNS, and nothing else on a node needs them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from controller.cluster import Cluster
from controller.loadbalancing.election import GRACE_SECONDS, Candidates, beats, elect
from controller.loadbalancing.feed import ServiceFeed
from controller.loadbalancing.index import EndpointIndex, ServiceKey
from controller.loadbalancing.runtime import Allocated
from sdn.model import Service
from sdn.model.service import EXTERNAL_NAME, FAMILIES, LOCAL
from sdn.services.endpoints import ServiceEndpoint
from sdn.services.selection import NodeView, local_ready
from sdn.v1 import controller_pb2

#: Told which node announces a Service from now on; empty: none can.
OnElected = Callable[[ServiceKey, str], None]


class ServiceStates:
    """Runs in the asyncio thread."""

    def __init__(
        self,
        cluster: Cluster,
        index: EndpointIndex,
        allocated: Allocated,
        on_elected: OnElected,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._allocated = allocated
        self._on_elected = on_elected
        self.candidates = Candidates(self._candidate_changed, grace_seconds)
        #: Told when a node can announce, or cannot any longer.
        self.on_candidates: Callable[[], None] = lambda: None
        self._feeds: set[ServiceFeed] = set()
        #: What all nodes are told alike, and ready endpoints by node; made when somebody is told.
        self._common: dict[ServiceKey, controller_pb2.ServiceState] = {}
        self._local: dict[ServiceKey, dict[str, int]] = {}
        #: The announcing node of each Service that has LoadBalancer addresses; empty: there is none.
        self._announcers: dict[ServiceKey, str] = {}

    def announcer(self, key: ServiceKey) -> str:
        """The node that announces a Service's LoadBalancer addresses; empty: none does."""
        return self._announcers.get(key, "")

    def changed(self, key: ServiceKey) -> None:
        """A Service, or its endpoints, may be others than before."""
        self._common.pop(key, None)
        self._local.pop(key, None)
        self._elect(key)
        self._tell(key)

    def open(self, node: str) -> ServiceFeed:
        """A feed for an agent; end it with :meth:`close`."""
        feed = ServiceFeed(self._index.services, lambda key: self.state(key, node))
        self._feeds.add(feed)
        return feed

    def close(self, feed: ServiceFeed) -> None:
        self._feeds.discard(feed)

    def state(self, key: ServiceKey, node: str) -> controller_pb2.ServiceState | None:
        """A Service as an agent is told of it; None: there is no such Service, or it must not be served."""
        service = self._index.services.get(key)
        if service is None or self._allocated.conflict(*key):
            return None
        state = controller_pb2.ServiceState()
        state.CopyFrom(self._common_state(key, service))
        local = self._local.get(key)
        if local is None:
            local = self._local[key] = _ready_by_node(service, self._index.endpoints(key))
        state.local_endpoints = local.get(node, 0)
        state.announce = self.announcer(key) == node
        return state

    def _common_state(self, key: ServiceKey, service: Service) -> controller_pb2.ServiceState:
        state = self._common.get(key)
        if state is None:
            state = self._common[key] = _state(
                key,
                service,
                list(map(str, self._allocated.load_balancer_addresses(*key))),
                self._index.endpoints(key) if service.headless else (),
            )
        return state

    def _tell(self, key: ServiceKey) -> None:
        for feed in self._feeds:
            feed.changed(key)

    # Elections.

    def _candidate_changed(self, node: str) -> None:
        self.on_candidates()
        came = node in self.candidates
        for key, announcer in list(self._announcers.items()):
            # Of a thousand nodes and as many Services most have nothing to do with each other.
            concerned = beats(*key, node, announcer) if came else node == announcer
            if concerned and self._elect(key):
                self._tell(key)

    def _elect(self, key: ServiceKey) -> bool:
        """Whether another node announces than before."""
        service = self._index.services.get(key)
        addresses = self._allocated.load_balancer_addresses(*key)
        if service is None or not addresses or self._allocated.conflict(*key):
            return bool(self._announcers.pop(key, ""))
        candidates: Iterable[str] = (node for node in self._cluster.nodes if node in self.candidates)
        if service.spec.external_traffic_policy == LOCAL:
            serving = {endpoint.node for endpoint in self._index.endpoints(key) if endpoint.ready}
            candidates = (node for node in candidates if node in serving)
        before, after = self._announcers.get(key), elect(*key, candidates)
        self._announcers[key] = after
        if after == (before or ""):
            return False
        self._on_elected(key, after)
        return True


def _ready_by_node(service: Service, endpoints: Iterable[ServiceEndpoint]) -> dict[str, int]:
    by_node: dict[str, list[ServiceEndpoint]] = defaultdict(list)
    for endpoint in endpoints:
        by_node[endpoint.node].append(endpoint)
    return {node: local_ready(service, own, NodeView(node, "", ())) for node, own in by_node.items()}


def _state(
    key: ServiceKey, service: Service, load_balancer_ips: Sequence[str], endpoints: Iterable[ServiceEndpoint]
) -> controller_pb2.ServiceState:
    spec = service.spec
    state = controller_pb2.ServiceState(
        namespace=key[0],
        name=key[1],
        type=spec.type or "ClusterIP",
        cluster_ips=() if spec.type == EXTERNAL_NAME else spec.addresses,
        external_ips=spec.external_ips,
        load_balancer_ips=load_balancer_ips,
        external_name=spec.external_name,
        external_local=spec.external_traffic_policy == LOCAL,
        health_check_node_port=spec.health_check_node_port,
    )
    for port in spec.ports:
        state.ports.add(
            name=port.name, protocol=port.protocol or "TCP", port=port.port, node_port=port.node_port
        )
    families = {FAMILIES[family] for family in spec.ip_families} or {4, 6}
    for endpoint in sorted(endpoints, key=lambda one: (one.address.version, one.address.value)):
        if endpoint.address.version in families and (endpoint.ready or spec.publish_not_ready_addresses):
            state.endpoints.add(
                address=str(endpoint.address),
                hostname=endpoint.hostname,
                ports={name: number for name, _, number in endpoint.ports},
            )
    return state
