# SPDX-License-Identifier: Apache-2.0
"""Which endpoints a Service has, and that finding them looks at nothing that is not concerned."""

from __future__ import annotations

import random
from typing import Any

import pytest

from controller.loadbalancing import index as index_module
from controller.loadbalancing.index import EndpointIndex, ServiceKey
from sdn.model import Service, parse
from sdn.pipeline.service import Protocol
from sdn.pipeline.topology import Address
from sdn.services.endpoints import PodView, ServiceEndpoint, endpoint_of

WEB = ("default", "web")


def service(name: str, selector: dict[str, str] | None, namespace: str = "default", **spec: Any) -> Service:
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector, "clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec},
    }
    value = parse(document)
    assert isinstance(value, Service)
    return value


def pod(number: int, namespace: str = "default", ready: bool = True, **labels: str) -> PodView:
    address = Address(4, 0x0AF40000 + number)
    return PodView(namespace, f"pod-{number}", "node-1", "", (address,), labels, ready=ready)


def listed(number: int) -> ServiceEndpoint:
    return ServiceEndpoint(Address(4, 0xC0000200 + number), (("", Protocol.TCP, 80),), pod=False)


def targets(index: EndpointIndex, key: ServiceKey = WEB) -> set[str]:
    return {endpoint.target or str(endpoint.address) for endpoint in index.endpoints(key)}


def test_a_pod_is_an_endpoint_of_each_service_that_selects_it() -> None:
    index = EndpointIndex()
    index.put_service(WEB, service("web", {"app": "web"}))
    index.put_service(("default", "all"), service("all", {"tier": "front"}))
    index.put_service(("other", "web"), service("web", {"app": "web"}, "other"))
    changed = index.put_pod(pod(1, app="web", tier="front"))
    assert changed == {WEB, ("default", "all")}
    assert targets(index) == targets(index, ("default", "all")) == {"Pod/default/pod-1"}
    assert targets(index, ("other", "web")) == set()


def test_a_pod_that_is_there_before_its_service_is_found() -> None:
    index = EndpointIndex()
    index.put_pod(pod(1, app="web", tier="front"))
    index.put_pod(pod(2, app="web"))
    index.put_service(WEB, service("web", {"app": "web", "tier": "front"}))
    assert targets(index) == {"Pod/default/pod-1"}


def test_a_pod_leaves_with_its_labels_and_with_itself() -> None:
    index = EndpointIndex()
    index.put_service(WEB, service("web", {"app": "web"}))
    index.put_pod(pod(1, app="web"))
    assert index.put_pod(pod(1, app="web")) == set(), "nothing has changed"
    assert index.put_pod(pod(1, app="web", version="2")) == set(), "no selector looks at it"
    assert index.put_pod(pod(1, app="db")) == {WEB}
    assert targets(index) == set()
    assert index.put_pod(pod(1, app="web")) == {WEB}
    assert index.selecting(("default", "pod-1")) == {WEB}
    assert index.remove_pod(("default", "pod-1")) == {WEB}
    assert index.remove_pod(("default", "pod-1")) == set()
    assert targets(index) == set()


def test_a_pod_that_is_not_ready_stays_an_endpoint_that_is_not_ready() -> None:
    index = EndpointIndex()
    index.put_service(WEB, service("web", {"app": "web"}))
    index.put_pod(pod(1, app="web"))
    assert index.put_pod(pod(1, ready=False, app="web")) == {WEB}
    (endpoint,) = index.endpoints(WEB)
    assert not endpoint.ready


def test_a_changed_selector_takes_other_pods() -> None:
    index = EndpointIndex()
    index.put_pod(pod(1, app="web"))
    index.put_pod(pod(2, app="db"))
    index.put_service(WEB, service("web", {"app": "web"}))
    index.put_service(WEB, service("web", {"app": "db"}))
    assert targets(index) == {"Pod/default/pod-2"}
    assert index.put_pod(pod(1, ready=False, app="web")) == set()
    index.remove_service(WEB)
    assert index.endpoints(WEB) == ()
    assert index.put_pod(pod(2, ready=False, app="db")) == set()


@pytest.mark.parametrize(
    ("selector", "spec"),
    [
        (None, {}),
        ({}, {}),
        ({"app": "web"}, {"type": "ExternalName", "externalName": "example.org", "clusterIP": ""}),
    ],
)
def test_a_service_without_a_selector_takes_no_pod(
    selector: dict[str, str] | None, spec: dict[str, Any]
) -> None:
    index = EndpointIndex()
    index.put_pod(pod(1, app="web"))
    index.put_service(WEB, service("web", selector, **spec))
    assert index.endpoints(WEB) == ()


def test_lists_count_beside_pods_and_wait_for_their_service() -> None:
    index = EndpointIndex()
    assert index.put_list(WEB, "a", [listed(1), listed(2)]) == set(), "there is no such Service yet"
    index.put_service(WEB, service("web", {"app": "web"}))
    index.put_pod(pod(1, app="web"))
    assert targets(index) == {"Pod/default/pod-1", "192.0.2.1", "192.0.2.2"}
    assert index.put_list(WEB, "b", [listed(2), listed(3)]) == {WEB}
    assert len(index.endpoints(WEB)) == 4, "one that two lists name counts once"
    assert index.put_list(WEB, "a", [listed(1), listed(2)]) == set()
    assert index.put_list(WEB, "a", ()) == {WEB}
    assert targets(index) == {"Pod/default/pod-1", "192.0.2.2", "192.0.2.3"}
    assert {endpoint.target for endpoint in index.derived(WEB)} == {"Pod/default/pod-1"}
    index.remove_service(WEB)
    index.put_service(WEB, service("web", None))
    assert targets(index) == {"192.0.2.2", "192.0.2.3"}, "a list outlives its Service"


@pytest.mark.parametrize("services", [1, 2000])
def test_a_pod_is_compared_with_services_that_share_its_rarest_label_only(
    services: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = EndpointIndex()
    for number in range(services):
        # All share one label; each has one of its own, under which it is found.
        index.put_service(("default", f"s{number}"), service("s", {"team": "a", "app": f"app-{number}"}))
        index.put_pod(pod(number, team="a", app=f"app-{number}"))
    compared = []

    def counted(one: Service, view: PodView) -> tuple[ServiceEndpoint, ...]:
        compared.append(view.name)
        return endpoint_of(one, view)

    monkeypatch.setattr(index_module, "endpoint_of", counted)
    assert index.put_pod(pod(0, ready=False, team="a", app="app-0")) == {("default", "s0")}
    # The first Service was there when no label was rarer than another: it may be found under either.
    assert len(compared) <= 2
    compared.clear()
    index.put_service(("default", "new"), service("new", {"team": "a", "app": "app-0"}))
    assert len(compared) == 1


def test_whatever_order_changes_come_in_the_endpoints_are_those_that_are_selected() -> None:
    random_ = random.Random(7)
    index = EndpointIndex()
    pods: dict[tuple[str, str], PodView] = {}
    services: dict[ServiceKey, Service] = {}

    def labels() -> dict[str, str]:
        return {key: random_.choice("xy") for key in random_.sample(["a", "b", "c"], random_.randint(0, 3))}

    for _ in range(3000):
        number = random_.randrange(8)
        if random_.random() < 0.5:
            view = pod(number, random_.choice(["default", "other"]), random_.random() < 0.5, **labels())
            key = view.namespace, view.name
            before = {name: set(index.endpoints(name)) for name in services}
            if random_.random() < 0.3:
                pods.pop(key, None)
                changed = index.remove_pod(key)
            else:
                pods[key] = view
                changed = index.put_pod(view)
            after = {name: set(index.endpoints(name)) for name in services}
            assert changed == {name for name in services if before[name] != after[name]}
        else:
            name = random_.choice(["default", "other"]), f"s{number}"
            if random_.random() < 0.3:
                services.pop(name, None)
                index.remove_service(name)
            else:
                services[name] = service(name[1], labels() or None, name[0])
                index.put_service(name, services[name])
        for name, one in services.items():
            wanted = {endpoint for view in pods.values() for endpoint in endpoint_of(one, view)}
            assert set(index.endpoints(name)) == wanted
