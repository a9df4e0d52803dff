# SPDX-License-Identifier: Apache-2.0
"""Declared Services: what is taken, what is filled in, what is refused and by which field's name."""

from __future__ import annotations

from typing import Any

import pytest

from sdn.model import InvalidObjectError, Service, defaulted, parse, to_document
from sdn.model.servicespec import MAX_SERVICE_PORTS
from sdn.pipeline.service import MAX_PORTS

WEB = [{"port": 80}]
TWO = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]


def document(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": WEB, **spec}}


def service(**spec: Any) -> Service:
    value = parse(document(**spec))
    assert isinstance(value, Service)
    return value


def load_balancer(**spec: Any) -> dict[str, Any]:
    return document(type="LoadBalancer", **spec)


def test_what_is_declared_is_kept_as_it_is() -> None:
    spec = {
        "type": "LoadBalancer",
        "selector": {"app": "web"},
        "ports": [
            {
                "name": "http",
                "protocol": "TCP",
                "appProtocol": "kubernetes.io/h2c",
                "port": 80,
                "targetPort": "http",
                "nodePort": 30080,
            },
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
        ],
        "clusterIP": "10.96.0.9",
        "clusterIPs": ["10.96.0.9", "fd00:10:96::9"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "PreferDualStack",
        "externalIPs": ["192.0.2.1", "2001:db8::1"],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Local",
        "healthCheckNodePort": 32000,
        "loadBalancerIP": "192.0.2.7",
        "loadBalancerClass": "example.com/lb",
        "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"],
        "allocateLoadBalancerNodePorts": False,
        "publishNotReadyAddresses": True,
        "trafficDistribution": "PreferSameZone",
    }
    value = service(**spec)
    assert to_document(value) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    }
    assert value.affinity_seconds == 60
    assert not value.headless


def test_what_kubectl_prints_can_be_applied() -> None:
    printed = document(clusterIP="10.96.0.9", clusterIPs=["10.96.0.9"], sessionAffinity="None")
    printed["metadata"] |= {
        "uid": "1",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [],
    }
    printed["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
    assert parse(printed) == service(clusterIP="10.96.0.9", clusterIPs=["10.96.0.9"], sessionAffinity="None")


def test_null_is_as_if_the_field_were_not_there() -> None:
    assert (
        service(
            selector=None,
            sessionAffinityConfig=None,
            externalIPs=None,
            trafficDistribution=None,
            ports=[{"port": 80, "name": None, "targetPort": None, "nodePort": None, "appProtocol": None}],
        )
        == service()
    )


def test_defaults_are_those_of_kubernetes() -> None:
    assert to_document(defaulted(service()))["spec"] == {
        "type": "ClusterIP",
        "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}],
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
    }


@pytest.mark.parametrize(
    ("spec", "filled_in"),
    [
        ({"type": "NodePort"}, {"externalTrafficPolicy": "Cluster"}),
        (
            {"type": "LoadBalancer"},
            {"externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": True},
        ),
        (
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
            {"externalTrafficPolicy": "Cluster"},
        ),
        ({"externalIPs": ["192.0.2.1"]}, {"externalTrafficPolicy": "Cluster"}),
        (
            {"sessionAffinity": "ClientIP"},
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
        ),
        (
            {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {}}},
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
        ),
        ({"clusterIP": "10.96.0.9"}, {"clusterIPs": ["10.96.0.9"]}),
        ({"clusterIP": "None"}, {"clusterIPs": ["None"]}),
    ],
)
def test_more_is_filled_in_where_it_applies(spec: dict[str, Any], filled_in: dict[str, Any]) -> None:
    plain = to_document(defaulted(service()))["spec"]
    assert to_document(defaulted(service(**spec)))["spec"] == plain | spec | filled_in


def test_what_is_given_is_not_overwritten() -> None:
    value = service(
        type="NodePort",
        ports=[{"port": 80, "targetPort": 8080, "protocol": "SCTP"}],
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 5}},
    )
    again = defaulted(value)
    assert again.spec.ports == value.spec.ports
    assert (again.spec.external_traffic_policy, again.spec.internal_traffic_policy) == ("Local", "Local")
    assert again.affinity_seconds == 5


def test_an_external_name_needs_no_port() -> None:
    value = service(type="ExternalName", externalName="db.example.com.", ports=None)
    assert value.spec.external_name == "db.example.com."
    spec = defaulted(value).spec
    assert (spec.ports, spec.cluster_ips, spec.internal_traffic_policy) == ((), (), "")


def test_a_headless_service_needs_no_port() -> None:
    value = service(clusterIP="None", ports=None)
    assert value.headless
    assert value.spec.addresses == ()


def test_the_same_number_may_serve_two_protocols() -> None:
    ports = [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "port": 53}]
    assert len(service(ports=ports).spec.ports) == 2


def test_two_ports_may_lead_to_the_same_target() -> None:
    ports = [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 8080}]
    assert len(service(ports=ports).spec.ports) == 2


def test_a_source_range_may_have_host_bits_as_in_kubernetes() -> None:
    value = parse(load_balancer(loadBalancerSourceRanges=["192.0.2.7/24"]))
    assert isinstance(value, Service)
    assert value.spec.load_balancer_source_ranges == ("192.0.2.7/24",)


def test_as_many_ports_are_taken_as_the_switch_can_number() -> None:
    assert MAX_SERVICE_PORTS == MAX_PORTS


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None"}, 0),
        ({"sessionAffinity": "ClientIP"}, 10800),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}},
            },
            86400,
        ),
    ],
)
def test_affinity_lasts_as_long_as_declared(spec: dict[str, Any], seconds: int) -> None:
    assert service(**spec).affinity_seconds == seconds


@pytest.mark.parametrize(
    ("spec", "uses_node_ports", "needs_health_check"),
    [
        ({}, False, False),
        ({"type": "NodePort"}, True, False),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, True, False),
        ({"type": "LoadBalancer"}, True, False),
        ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, False, False),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, True, True),
    ],
)
def test_which_node_ports_it_needs(
    spec: dict[str, Any], uses_node_ports: bool, needs_health_check: bool
) -> None:
    value = service(**spec).spec
    assert (value.uses_node_ports, value.needs_health_check_node_port) == (
        uses_node_ports,
        needs_health_check,
    )


def port(**fields: Any) -> dict[str, Any]:
    return document(ports=[{"port": 80, **fields}])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        # Names and form.
        (document(name="1web"), "Service default/1web: metadata.name: '1web' must be lower-case letters"),
        (document(name="a.b"), "metadata.name: 'a.b' must be"),
        (document(name="a" * 64), "at most 63"),
        ({**document(), "apiVersion": "apps/v1"}, "'apps/v1' of kind Service is not known here; use 'v1'"),
        ({**document(), "spec": []}, "Service default/web: spec: must be a map, got a list"),
        ({**document(), "specs": {}}, "Service default/web: specs: is no field of a Service"),
        (document(prots=[]), "Service default/web: spec.prots: is no field of a Service's spec"),
        (document(ipFamily="IPv4"), "spec.ipFamily: is no field of a Service's spec"),
        (document(type="ClusterIp"), "spec.type: 'ClusterIp' must be ClusterIP or NodePort or"),
        (document(type=3), "spec.type: must be text, got a number"),
        (document(selector=["a"]), "spec.selector: must be a map, got a list"),
        (document(selector={"a": 1}), 'spec.selector["a"]: must be text, got a number'),
        (document(selector={"a": "-"}), """spec.selector["a"]: '-' is no label value"""),
        (document(publishNotReadyAddresses="yes"), "spec.publishNotReadyAddresses: must be true or false"),
        # Ports.
        (document(ports=None), "spec.ports: at least one port must be given"),
        (document(ports=[]), "spec.ports: at least one port must be given"),
        (document(ports={}), "spec.ports: must be a list, got a map"),
        (document(ports=[None]), "spec.ports[0]: must be a map, got null"),
        (document(ports=[{}]), "spec.ports[0].port: must be given"),
        (port(port=0), "spec.ports[0].port: 0 is no port number: 1 to 65535"),
        (port(port=65536), "spec.ports[0].port: 65536 is no port number"),
        (port(port="80"), "spec.ports[0].port: must be a whole number, got '80'"),
        (port(port=True), "spec.ports[0].port: must be a whole number, got a boolean"),
        (port(port=8.5), "spec.ports[0].port: must be a whole number, got 8.5"),
        (port(protocol="tcp"), "spec.ports[0].protocol: 'tcp' must be TCP or UDP or SCTP"),
        (port(targetPort=-1), "spec.ports[0].targetPort: -1 is no port number"),
        (port(targetPort=70000), "spec.ports[0].targetPort: 70000 is no port number"),
        (port(targetPort="80"), "spec.ports[0].targetPort: '80' must be lower-case letters"),
        (port(targetPort="a--b"), "spec.ports[0].targetPort: 'a--b' must be"),
        (port(targetPort="-a"), "spec.ports[0].targetPort: '-a' must be"),
        (port(targetPort="sixteen-letters-"), "spec.ports[0].targetPort"),
        (port(targetPort="a" * 16), "at most 15"),
        (port(targetPort=[80]), "spec.ports[0].targetPort: must be a whole number, got a list"),
        (port(name="Http"), "spec.ports[0].name: 'Http' must be lower-case"),
        (port(name="a.b"), "spec.ports[0].name: 'a.b' must be"),
        (port(appProtocol="a b"), "spec.ports[0].appProtocol: 'a b' is no label key"),
        (port(nodeport=30000), "spec.ports[0].nodeport: is no field of a Service's port"),
        (document(ports=[*TWO, {"port": 8}]), "spec.ports[2].name: must be given when there are several"),
        (
            document(ports=[*TWO, {"name": "http", "port": 8}]),
            "spec.ports[2].name: 'http' is the name of spec.ports[0], too",
        ),
        (
            document(ports=[*TWO, {"name": "other", "port": 443}]),
            "spec.ports[2].port: TCP port 443 is spec.ports[1]'s, too",
        ),
        (
            document(ports=[{"name": f"p{n}", "port": n + 1} for n in range(513)]),
            "spec.ports: 513 ports; at most 512",
        ),
        # Node ports.
        (port(nodePort=30000), "spec.ports[0].nodePort: is not possible for type ClusterIP"),
        (
            document(type="NodePort", ports=[{"port": 80, "nodePort": 65536}]),
            "spec.ports[0].nodePort: 65536 is no port number",
        ),
        (
            document(type="NodePort", ports=[{"port": 80, "nodePort": "x"}]),
            "spec.ports[0].nodePort: must be a whole number, got 'x'",
        ),
        (
            document(type="NodePort", ports=[{**one, "nodePort": 30000} for one in TWO]),
            "spec.ports[1].nodePort: TCP node port 30000 is spec.ports[0]'s, too",
        ),
        (
            load_balancer(ports=[{"port": 10250}]),
            "spec.ports[0].port: 10250 is the kubelet's port on every node",
        ),
        # Types.
        (
            document(type="NodePort", clusterIP="None"),
            "spec.clusterIP: 'None' is not possible for type NodeP",
        ),
        (load_balancer(clusterIP="None"), "spec.clusterIP: 'None' is not possible for type LoadBalancer"),
        (document(type="ExternalName"), "spec.externalName: must be given for type ExternalName"),
        (
            document(type="ExternalName", externalName="Db_1"),
            "spec.externalName: 'Db_1' must be lower-case letters",
        ),
        (
            document(type="ExternalName", externalName="a.b", clusterIP="10.96.0.1"),
            "spec.clusterIPs: is not possible for type ExternalName",
        ),
        (
            document(type="ExternalName", externalName="a.b", ipFamilies=["IPv4"]),
            "spec.ipFamilies: is not possible for type ExternalName",
        ),
        (
            document(type="ExternalName", externalName="a.b", ipFamilyPolicy="SingleStack"),
            "spec.ipFamilyPolicy: is not possible for type ExternalName",
        ),
        (
            document(type="ExternalName", externalName="a.b", ports=[{"port": 1, "nodePort": 30000}]),
            "spec.ports[0].nodePort: is not possible for type ExternalName",
        ),
        # Addresses and families.
        (document(clusterIP="10.96.0"), "spec.clusterIP: '10.96.0' is no IP address"),
        (document(clusterIP="none"), "spec.clusterIP: 'none' is no IP address"),
        (document(clusterIP="10.96.0.0/16"), "spec.clusterIP: '10.96.0.0/16' is no IP address"),
        (document(clusterIP="::ffff:1.2.3.4"), "spec.clusterIP: '::ffff:1.2.3.4' is an IPv6 address with"),
        (document(clusterIP="127.0.0.1"), "spec.clusterIP: '127.0.0.1' is a loopback address"),
        (
            document(clusterIPs=["10.96.0.1"]),
            "spec.clusterIPs: must be empty when spec.clusterIP is not given",
        ),
        (
            document(clusterIP="10.96.0.2", clusterIPs=["10.96.0.1"]),
            "spec.clusterIPs[0]: must be spec.clusterIP, '10.96.0.2'",
        ),
        (
            document(clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", "10.96.0.2"]),
            "spec.clusterIPs[1]: a second IPv4 address; one a family is possible",
        ),
        (
            document(clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", "fd00::1", "fd00::2"]),
            "spec.clusterIPs[2]: a second IPv6 address",
        ),
        (
            document(clusterIP="None", clusterIPs=["None", "10.96.0.1"]),
            "spec.clusterIPs: 'None' must be the only one",
        ),
        (
            document(clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", ""]),
            "spec.clusterIPs[1]: '' is no IP add",
        ),
        (
            document(clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", 6]),
            "spec.clusterIPs[1]: must be text, got a number",
        ),
        (
            document(clusterIP="10.96.0.1", ipFamilies=["IPv6"]),
            "spec.clusterIP: '10.96.0.1' is no IPv6 address, as spec.ipFamilies[0] says",
        ),
        (
            document(
                clusterIP="fd00::1", clusterIPs=["fd00::1", "10.96.0.1"], ipFamilies=["IPv6", "IPv4", "IPv6"]
            ),
            "spec.ipFamilies[2]: IPv6 is given twice",
        ),
        (document(ipFamilies=["ipv4"]), "spec.ipFamilies[0]: 'ipv4' must be IPv4 or IPv6"),
        (document(ipFamilies=["IPv4", "IPv4"]), "spec.ipFamilies[1]: IPv4 is given twice"),
        (document(ipFamilyPolicy="DualStack"), "spec.ipFamilyPolicy: 'DualStack' must be SingleStack or"),
        (
            document(ipFamilyPolicy="SingleStack", ipFamilies=["IPv4", "IPv6"]),
            "spec.ipFamilyPolicy: SingleStack does not go with two ipFamilies",
        ),
        (
            document(
                ipFamilyPolicy="SingleStack", clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", "fd00::1"]
            ),
            "spec.ipFamilyPolicy: SingleStack does not go with two clusterIPs",
        ),
        (document(externalIPs=["0.0.0.0"]), "spec.externalIPs[0]: '0.0.0.0' is the unspecified address"),
        (document(externalIPs=["192.0.2.1", "::1"]), "spec.externalIPs[1]: '::1' is a loopback address"),
        (document(externalIPs=["169.254.1.1"]), "spec.externalIPs[0]: '169.254.1.1' is a link-local address"),
        (document(externalIPs=["fe80::1"]), "spec.externalIPs[0]: 'fe80::1' is a link-local address"),
        (
            document(externalIPs=["fe80::1%eth0"]),
            "spec.externalIPs[0]: 'fe80::1%eth0' is an IPv6 address with",
        ),
        (document(externalIPs=["224.0.0.1"]), "spec.externalIPs[0]: '224.0.0.1' is a multicast address"),
        (document(externalIPs=["ff02::1"]), "spec.externalIPs[0]: 'ff02::1' is a multicast address"),
        (
            document(externalIPs=["255.255.255.255"]),
            "spec.externalIPs[0]: '255.255.255.255' is the broadcast",
        ),
        (document(externalIPs=["web"]), "spec.externalIPs[0]: 'web' is no IP address"),
        # Affinity.
        (document(sessionAffinity="Client"), "spec.sessionAffinity: 'Client' must be None or ClientIP"),
        (
            document(sessionAffinityConfig={"clientIP": {"timeoutSeconds": 9}}),
            "spec.sessionAffinityConfig: is only for sessionAffinity ClientIP",
        ),
        *(
            (
                document(
                    sessionAffinity="ClientIP",
                    sessionAffinityConfig={"clientIP": {"timeoutSeconds": seconds}},
                ),
                f"spec.sessionAffinityConfig.clientIP.timeoutSeconds: {seconds} must be 1 to 86400 seconds",
            )
            for seconds in (-1, 0, 86401)
        ),
        (
            document(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeout": 9}}),
            "spec.sessionAffinityConfig.clientIP.timeout: is no field of",
        ),
        (
            document(sessionAffinity="ClientIP", sessionAffinityConfig={"ClientIP": {}}),
            "spec.sessionAffinityConfig.ClientIP: is no field of",
        ),
        # Policies.
        (
            document(externalTrafficPolicy="Local"),
            "spec.externalTrafficPolicy: is only for Services that are",
        ),
        (
            document(type="NodePort", externalTrafficPolicy="local"),
            "spec.externalTrafficPolicy: 'local' must be Cluster or Local",
        ),
        (
            document(internalTrafficPolicy="Node"),
            "spec.internalTrafficPolicy: 'Node' must be Cluster or Local",
        ),
        (document(trafficDistribution="Close"), "spec.trafficDistribution: 'Close' must be PreferClose or"),
        (
            load_balancer(healthCheckNodePort=32000),
            "spec.healthCheckNodePort: is only for type LoadBalancer with externalTrafficPolicy Local",
        ),
        (
            document(type="NodePort", externalTrafficPolicy="Local", healthCheckNodePort=32000),
            "spec.healthCheckNodePort: is only for type LoadBalancer",
        ),
        (
            load_balancer(externalTrafficPolicy="Local", healthCheckNodePort=70000),
            "spec.healthCheckNodePort: 70000 is no port number",
        ),
        # Load balancers.
        (document(loadBalancerClass="a/b"), "spec.loadBalancerClass: is only for type LoadBalancer"),
        (load_balancer(loadBalancerClass="a b"), "spec.loadBalancerClass: 'a b' is no label key"),
        (
            document(loadBalancerSourceRanges=["192.0.2.0/24"]),
            "spec.loadBalancerSourceRanges: is only for type LoadBalancer",
        ),
        (
            load_balancer(loadBalancerSourceRanges=["192.0.2.0/24", "192.0.2.0"]),
            "spec.loadBalancerSourceRanges[1]: '192.0.2.0' is no range in CIDR notation",
        ),
        (
            load_balancer(loadBalancerSourceRanges=["192.0.2.0/33"]),
            "spec.loadBalancerSourceRanges[0]: '192.0.2.0/33' is no range in CIDR notation",
        ),
        (
            document(type="NodePort", allocateLoadBalancerNodePorts=True),
            "spec.allocateLoadBalancerNodePorts: is only for type LoadBalancer",
        ),
        (load_balancer(loadBalancerIP="lb"), "spec.loadBalancerIP: 'lb' is no IP address"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidObjectError) as refused:
        parse(wrong)
    assert says in str(refused.value)
    assert str(refused.value).startswith("Service ") or refused.value.path == "apiVersion"
