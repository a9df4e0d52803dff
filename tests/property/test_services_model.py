# SPDX-License-Identifier: Apache-2.0
"""Any declared Service, EndpointSlice or Pod comes back as it was, or is refused in words."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sdn.model import InvalidObjectError, Service, defaulted, parse, to_document

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each field or not."""
    return st.fixed_dictionaries({}, optional={name: field | st.none() for name, field in fields.items()})


@st.composite
def few(draw: st.DrawFn, **fields: st.SearchStrategy[Any]) -> dict[str, Any]:
    """At most three of the fields, so that what they demand of each other is often fulfilled."""
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=3))
    return {name: draw(fields[name]) for name in chosen}


names = st.sampled_from(["a", "http", "b-2"])
protocols = st.sampled_from(["TCP", "UDP", "SCTP"])
addresses = st.sampled_from(["10.96.0.1", "10.96.0.2", "fd00::1", "192.0.2.1", "None", "x"])
ports = st.fixed_dictionaries(
    {"name": names, "port": st.sampled_from([1, 80, 443, 65535])},
    optional={
        "protocol": protocols,
        "targetPort": st.sampled_from([0, 80, "http", None]),
        "nodePort": st.sampled_from([0, 30000, 30001]),
        "appProtocol": names,
    },
)
policies = st.sampled_from(["Cluster", "Local"])
port_lists = st.lists(ports, min_size=1, max_size=3, unique_by=(lambda p: p["name"], lambda p: p["port"]))
service_specs = st.builds(
    lambda kind, port_list, more: {"type": kind, "ports": port_list, **more},
    st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    port_lists,
    few(
        selector=st.dictionaries(names, names, max_size=2),
        clusterIP=addresses,
        clusterIPs=st.lists(addresses, max_size=2),
        ipFamilies=st.lists(st.sampled_from(["IPv4", "IPv6"]), max_size=2),
        ipFamilyPolicy=st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        externalIPs=st.lists(addresses, max_size=2),
        externalName=names,
        sessionAffinity=st.sampled_from(["None", "ClientIP"]),
        sessionAffinityConfig=some(clientIP=some(timeoutSeconds=st.integers(0, 90000))),
        externalTrafficPolicy=policies,
        internalTrafficPolicy=policies,
        healthCheckNodePort=st.sampled_from([0, 32000]),
        loadBalancerIP=addresses,
        loadBalancerClass=names,
        loadBalancerSourceRanges=st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8", "1.2.3.4"]), max_size=2),
        allocateLoadBalancerNodePorts=st.booleans(),
        publishNotReadyAddresses=st.booleans(),
        trafficDistribution=st.sampled_from(["PreferClose", "PreferSameZone", "PreferSameNode"]),
    ),
)
slices = st.fixed_dictionaries(
    {"addressType": st.sampled_from(["IPv4", "IPv6", "FQDN"])},
    optional={
        "endpoints": st.lists(
            st.fixed_dictionaries(
                {
                    "addresses": st.lists(
                        st.sampled_from(["192.0.2.1", "192.0.2.2"]) | addresses, min_size=1, max_size=2
                    )
                },
                optional={
                    "conditions": some(ready=st.booleans(), serving=st.booleans(), terminating=st.booleans()),
                    "hostname": names,
                    "nodeName": names,
                    "zone": names,
                    "hints": some(
                        forZones=st.lists(st.fixed_dictionaries({"name": names}), max_size=2),
                        forNodes=st.lists(st.fixed_dictionaries({"name": names}), max_size=2),
                    ),
                    "targetRef": some(kind=names, namespace=names, name=names, uid=names),
                },
            ),
            max_size=3,
        ),
        "ports": st.lists(some(name=names, protocol=protocols, port=st.integers(1, 65535)), max_size=3),
    },
)
pod_specs = some(
    nodeName=names,
    hostNetwork=st.booleans(),
    hostname=names,
    subdomain=names,
    containers=st.lists(
        some(
            name=names,
            ports=st.lists(
                some(name=names, containerPort=st.integers(1, 65535), protocol=protocols), max_size=3
            ),
        ),
        max_size=2,
    ),
)
pod_statuses = some(
    conditions=st.lists(
        some(
            type=st.sampled_from(["Ready", "Initialized"]), status=st.sampled_from(["True", "False", "yes"])
        ),
        max_size=2,
    )
)


def objects(kind: str, version: str, fields: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Any]:
    head = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}}
    return fields.map(lambda given: {**head, **given})


documents = (
    objects("Service", "v1", st.fixed_dictionaries({"spec": service_specs}))
    | objects("EndpointSlice", "discovery.k8s.io/v1", slices)
    | objects("Pod", "v1", st.fixed_dictionaries({"spec": pod_specs}, optional={"status": pod_statuses}))
    | objects(
        "Service",
        "v1",
        st.fixed_dictionaries({"spec": some(ports=anything, type=anything, selector=anything)}),
    )
    | objects(
        "EndpointSlice", "discovery.k8s.io/v1", some(addressType=anything, endpoints=anything, ports=anything)
    )
    | objects("Pod", "v1", some(spec=some(containers=anything, initContainers=anything), status=anything))
)


@given(documents)
def test_a_document_is_refused_in_words_or_comes_back_as_it_was(document: dict[str, Any]) -> None:
    try:
        value = parse(document)
    except InvalidObjectError as problem:
        assert str(problem).startswith(document["kind"])
        assert problem.path
        return
    assert parse(to_document(value)) == value
    assert msgspec.json.decode(msgspec.json.encode(to_document(value))) == to_document(value)
    if value.KIND == "Pod":
        assert (value.named_ports, value.ready) is not None  # type: ignore[union-attr]


@given(objects("Service", "v1", st.fixed_dictionaries({"spec": service_specs})))
def test_defaults_are_valid_complete_and_overwrite_nothing(document: dict[str, Any]) -> None:
    try:
        value = parse(document)
    except InvalidObjectError:
        return
    assert isinstance(value, Service)
    full = defaulted(value)
    assert defaulted(full) == full
    assert parse(to_document(full)) == full
    declared, complete = to_document(value)["spec"], to_document(full)["spec"]
    for field in declared.keys() - {"ports", "sessionAffinityConfig"}:
        assert complete[field] == declared[field]
    assert (full.spec.type, full.spec.session_affinity) != ("", "")
    assert all(port.protocol and port.target_port for port in full.spec.ports)
