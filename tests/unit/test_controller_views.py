# SPDX-License-Identifier: Apache-2.0
"""Objects as people see them."""

from __future__ import annotations

from controller.cluster import Cluster
from controller.views import pod_document, service_document
from sdn.model import parse
from tests.unit.controller_intent import node_record, service


def test_a_service_shows_its_load_balancer_addresses() -> None:
    cluster = Cluster()
    assert service_document(cluster, "default", "web", ()) is None
    cluster.put_object(parse(service("web", type="LoadBalancer")))
    shown = service_document(cluster, "default", "web", ("192.0.2.1", "2001:db8::1"))
    assert shown is not None
    assert shown["status"] == {
        "loadBalancer": {
            "ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "2001:db8::1", "ipMode": "VIP"}]
        }
    }
    none = service_document(cluster, "default", "web", ())
    assert none is not None
    assert none["status"] == {"loadBalancer": {}}


def test_a_pod_shows_the_readiness_that_was_declared_and_none_that_was_not() -> None:
    cluster = Cluster()
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    }
    cluster.put_object(parse(document))
    shown = pod_document(cluster, "default", "web", set())
    assert shown is not None
    assert {one["type"]: one["status"] for one in shown["status"]["conditions"]} == {
        "Ready": "False",
        "Attached": "False",
    }
    del document["status"]
    cluster.put_object(parse(document))
    shown = pod_document(cluster, "default", "web", set())
    assert shown is not None
    assert [one["type"] for one in shown["status"]["conditions"]] == ["Attached"]


def test_a_pod_on_its_nodes_network_has_the_nodes_addresses() -> None:
    cluster = Cluster()
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "proxy", "namespace": "default"},
        "spec": {"nodeName": "node-1", "hostNetwork": True},
    }
    cluster.put_object(parse(document))
    shown = pod_document(cluster, "default", "proxy", set())
    assert shown is not None
    assert shown["status"]["phase"] == "Pending"
    cluster.put_node(node_record("node-1", "172.30.0.11", "fd00:30::11"))
    shown = pod_document(cluster, "default", "proxy", set())
    assert shown is not None
    assert shown["status"]["phase"] == "Running"
    assert shown["status"]["podIPs"] == [{"ip": "172.30.0.11"}, {"ip": "fd00:30::11"}]


def test_a_namespace_exists_by_what_it_holds() -> None:
    cluster = Cluster()
    assert not cluster.has_namespace("shop")
    cluster.put_object(parse(service("web", "shop")))
    cluster.put_object(parse(service("web", "shop", type="NodePort")))
    assert cluster.has_namespace("shop")
    assert ("", "shop") in cluster.names("Namespace")
    cluster.remove_object("Service", "shop", "web")
    cluster.remove_object("Service", "shop", "web")
    assert not cluster.has_namespace("shop")
    assert cluster.names("Namespace") == [("", "default")]
