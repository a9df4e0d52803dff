# SPDX-License-Identifier: Apache-2.0
"""Which endpoints each Service has.

Endpoints come from two sources: pods that a Service's selector takes (derived here, as Kubernetes' endpoint
controllers do), and lists of endpoints that belong to a Service by name, such as EndpointSlices.

A change costs what it concerns. A pod finds its Services by its own labels: each Service is filed under one
label of its selector, the one that the fewest Services share, so only Services that the pod nearly fits are
looked at. A Service finds its pods the same way, by the label of its selector that the fewest pods carry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import TypeVar

from sdn.model import Service
from sdn.services.endpoints import PodView, ServiceEndpoint, endpoint_of

#: Namespace and name.
ServiceKey = tuple[str, str]
PodKey = tuple[str, str]
#: Namespace, label's key, label's value.
Label = tuple[str, str, str]

Item = TypeVar("Item")
Index = dict[Label, set[Item]]


class EndpointIndex:
    """See the module. Methods that take in a change give the Services whose endpoints it changed."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self._filed: dict[ServiceKey, Label] = {}
        self._services_by_label: Index[ServiceKey] = defaultdict(set)
        self._pods: dict[PodKey, PodView] = {}
        self._pods_by_label: Index[PodKey] = defaultdict(set)
        self._derived: dict[ServiceKey, dict[PodKey, tuple[ServiceEndpoint, ...]]] = {}
        self._selected_by: dict[PodKey, set[ServiceKey]] = {}
        #: Also of Services that do not exist (yet).
        self._listed: dict[ServiceKey, dict[Hashable, tuple[ServiceEndpoint, ...]]] = {}

    def endpoints(self, key: ServiceKey) -> tuple[ServiceEndpoint, ...]:
        """All endpoints of a Service, ready or not; one that several sources name counts once."""
        found: dict[tuple[object, ...], ServiceEndpoint] = {}
        for endpoints in (*self._derived.get(key, {}).values(), *self._listed.get(key, {}).values()):
            for endpoint in endpoints:
                found.setdefault((endpoint.address, endpoint.ports), endpoint)
        return tuple(found.values())

    def derived(self, key: ServiceKey) -> tuple[ServiceEndpoint, ...]:
        """Those of a Service's endpoints that its selector found."""
        return tuple(one for endpoints in self._derived.get(key, {}).values() for one in endpoints)

    # Services.

    def put_service(self, key: ServiceKey, service: Service) -> None:
        """A Service was declared, or changed."""
        self.remove_service(key)
        self.services[key] = service
        self._derived[key] = {}
        selector = _selector(key, service)
        if not selector:
            return
        label = min(selector, key=lambda one: len(self._services_by_label.get(one, ())))
        self._filed[key] = label
        self._services_by_label[label].add(key)
        rarest = min(selector, key=lambda one: len(self._pods_by_label.get(one, ())))
        for pod in self._pods_by_label.get(rarest, ()):
            self._derive(key, service, pod)

    def remove_service(self, key: ServiceKey) -> None:
        """A Service is gone; lists of endpoints under its name stay, as EndpointSlices do."""
        if self.services.pop(key, None) is None:
            return
        label = self._filed.pop(key, None)
        if label is not None:
            _discard(self._services_by_label, label, key)
        for pod in self._derived.pop(key):
            self._selected_by[pod].discard(key)

    # Pods.

    def pod(self, key: PodKey) -> PodView | None:
        """A pod as it was last put."""
        return self._pods.get(key)

    def selecting(self, key: PodKey) -> set[ServiceKey]:
        """The Services that have a pod among their endpoints, ready or not."""
        return set(self._selected_by.get(key, ()))

    def put_pod(self, pod: PodView) -> set[ServiceKey]:
        """A pod exists, or changed."""
        key = pod.namespace, pod.name
        before = self._pods.get(key)
        if before == pod:
            return set()
        if before is None or before.labels != pod.labels:
            self._file_pod(before, pod)
        self._pods[key] = pod
        candidates = set(self._selected_by.setdefault(key, set()))
        for label in _labels(pod):
            candidates |= self._services_by_label.get(label, set())
        return {
            candidate for candidate in candidates if self._derive(candidate, self.services[candidate], key)
        }

    def remove_pod(self, key: PodKey) -> set[ServiceKey]:
        """A pod is gone."""
        pod = self._pods.pop(key, None)
        if pod is None:
            return set()
        self._file_pod(pod, None)
        changed = self._selected_by.pop(key)
        for service in changed:
            del self._derived[service][key]
        return changed

    def _derive(self, key: ServiceKey, service: Service, pod: PodKey) -> bool:
        """Bring a pod's endpoints in a Service up to date; True when they changed."""
        endpoints = endpoint_of(service, self._pods[pod])
        derived = self._derived[key]
        before = derived.get(pod, ())
        if endpoints:
            derived[pod] = endpoints
            self._selected_by[pod].add(key)
        elif before:
            del derived[pod]
            self._selected_by[pod].discard(key)
        return endpoints != before

    def _file_pod(self, before: PodView | None, after: PodView | None) -> None:
        for pod in (before,) if before is not None else ():
            for label in _labels(pod):
                _discard(self._pods_by_label, label, (pod.namespace, pod.name))
        for pod in (after,) if after is not None else ():
            for label in _labels(pod):
                self._pods_by_label[label].add((pod.namespace, pod.name))

    # Lists.

    def put_list(
        self, key: ServiceKey, source: Hashable, endpoints: Iterable[ServiceEndpoint]
    ) -> set[ServiceKey]:
        """``source`` (an EndpointSlice's name) says that these are endpoints of a Service, whether it exists
        or not; none withdraws what it said.
        """
        lists = self._listed.setdefault(key, {})
        before, after = lists.get(source, ()), tuple(endpoints)
        if after:
            lists[source] = after
        else:
            lists.pop(source, None)
        if not lists:
            del self._listed[key]
        return {key} if before != after and key in self.services else set()


def _selector(key: ServiceKey, service: Service) -> list[Label]:
    """A Service's selector as labels."""
    return [(key[0], name, value) for name, value in (service.spec.selector or {}).items()]


def _labels(pod: PodView) -> list[Label]:
    return [(pod.namespace, name, value) for name, value in pod.labels.items()]


def _discard(index: Index[Item], label: Label, item: Item) -> None:
    items = index[label]
    items.discard(item)
    if not items:
        del index[label]
