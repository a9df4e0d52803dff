# SPDX-License-Identifier: Apache-2.0
"""Any NetworkPolicy or ClusterNetworkPolicy that is as the API has it comes back as it was; any other document is
refused in words, or comes back as it was.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sdn.model import InvalidObjectError, parse, to_document

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def some(must: dict[str, st.SearchStrategy[Any]], **may: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(must, optional=may)


def one_of_fields(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A map with exactly one of the fields."""
    return st.one_of(*(st.fixed_dictionaries({name: field}) for name, field in fields.items()))


words = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,6}[a-z0-9])?", fullmatch=True)
keys = words | st.builds("{}.example/{}".format, words, words)
values = st.just("") | words
port_names = st.sampled_from(["http", "a", "x-1", "9p", "dns-tcp"])
ports = st.integers(1, 65535)
requirements = st.builds(
    lambda key, operator, several: {
        "key": key,
        "operator": operator,
        **({"values": several} if operator in ("In", "NotIn") else {}),
    },
    keys,
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.lists(values, min_size=1, max_size=3),
)
selectors = some(
    {},
    matchLabels=st.dictionaries(keys, values, min_size=1, max_size=3),
    matchExpressions=st.lists(requirements, min_size=1, max_size=3),
)


def ranges(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> st.SearchStrategy[str]:
    """Ranges inside of this one, smaller than it."""
    width = network.max_prefixlen
    return st.builds(
        lambda length, bits: str(
            type(network)(
                (int(network.network_address) | (bits >> (network.prefixlen)), length), strict=False
            )
        ),
        st.integers(network.prefixlen + 1, width),
        st.integers(0, 2**width - 1),
    )


networks = ranges(ipaddress.ip_network("0.0.0.0/0")) | ranges(ipaddress.ip_network("2000::/3"))


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    cidr = draw(networks)
    network = ipaddress.ip_network(cidr)
    if network.prefixlen == network.max_prefixlen or draw(st.booleans()):
        return {"cidr": cidr}
    return {"cidr": cidr, "except": draw(st.lists(ranges(network), min_size=1, max_size=2))}


policy_peers = (
    some({"podSelector": selectors}, namespaceSelector=selectors)
    | st.fixed_dictionaries({"namespaceSelector": selectors})
    | st.fixed_dictionaries({"ipBlock": blocks()})
)
protocols = st.sampled_from(["TCP", "UDP", "SCTP"])
numbered = st.lists(ports, min_size=2, max_size=2).map(lambda two: {"port": min(two), "endPort": max(two)})
policy_ports = st.builds(
    lambda head, tail: {**head, **tail},
    some({}, protocol=protocols),
    st.just({}) | st.fixed_dictionaries({"port": ports | port_names}) | numbered,
)
port_lists = st.lists(policy_ports, min_size=1, max_size=3)
peer_lists = st.lists(policy_peers, min_size=1, max_size=3)
policy_specs = some(
    {"podSelector": selectors},
    policyTypes=st.lists(st.sampled_from(["Ingress", "Egress"]), min_size=1, max_size=2),
    ingress=st.lists(some({}, **{"from": peer_lists, "ports": port_lists}), min_size=1, max_size=3),
    egress=st.lists(some({}, to=peer_lists, ports=port_lists), min_size=1, max_size=3),
)

selected_pods = st.fixed_dictionaries({"namespaceSelector": selectors, "podSelector": selectors})
domains = st.builds("{}{}.{}{}".format, st.sampled_from(["", "*."]), words, words, st.sampled_from(["", "."]))
destination_ports = st.fixed_dictionaries(
    {
        "destinationPort": one_of_fields(
            number=ports,
            range=st.lists(ports, min_size=2, max_size=2, unique=True).map(
                lambda two: {"start": min(two), "end": max(two)}
            ),
        )
    }
)
by_protocol = {"tcp": destination_ports, "udp": destination_ports, "sctp": destination_ports}
rule_names = st.text(min_size=1, max_size=100)
actions = st.sampled_from(["Accept", "Deny", "Pass"])
inside = {"namespaces": selectors, "pods": selected_pods}
outside = {
    "nodes": selectors,
    "networks": st.lists(networks, min_size=1, max_size=3, unique=True),
}
named = one_of_fields(**by_protocol, destinationNamedPort=port_names)


def cluster_rules(
    field: str,
    peers: dict[str, st.SearchStrategy[Any]],
    said: st.SearchStrategy[str],
    port_items: st.SearchStrategy[Any],
) -> st.SearchStrategy[Any]:
    return some(
        {"action": said, field: st.lists(one_of_fields(**peers), min_size=1, max_size=3)},
        name=rule_names,
        protocols=st.lists(port_items, min_size=1, max_size=3),
    )


cluster_specs = some(
    {
        "tier": st.sampled_from(["Admin", "Baseline"]),
        "priority": st.integers(0, 1000),
        "subject": one_of_fields(**inside),
    },
    ingress=st.lists(cluster_rules("from", inside, actions, named), min_size=1, max_size=3),
    egress=st.lists(
        cluster_rules("to", inside, actions, named)
        | cluster_rules("to", {**inside, **outside}, actions, one_of_fields(**by_protocol))
        | cluster_rules(
            "to",
            {**outside, "domainNames": st.lists(domains, min_size=1, max_size=3, unique=True)},
            st.just("Accept"),
            one_of_fields(**by_protocol),
        ),
        min_size=1,
        max_size=3,
    ),
)
annotations = some(
    {},
    **{
        "sdn/audit": st.sampled_from(["accept", "deny", "accept,deny", "deny, accept"]),
        "sdn/staged": st.sampled_from(["true", "false"]),
    },
).filter(bool)


def policies(
    version: str, kind: str, namespace: str, specs: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    head = {"name": st.just("a")} | ({"namespace": st.just(namespace)} if namespace else {})
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just(version),
            "kind": st.just(kind),
            "metadata": some(head, annotations=annotations),
            "spec": specs,
        }
    )


valid = policies("networking.k8s.io/v1", "NetworkPolicy", "shop", policy_specs) | policies(
    "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", cluster_specs
)


@given(valid)
def test_what_is_as_the_api_has_it_comes_back_as_it_was(document: dict[str, Any]) -> None:
    value = parse(document)
    assert to_document(value) == document
    assert parse(to_document(value)) == value
    assert msgspec.json.decode(msgspec.json.encode(to_document(value))) == document


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all parts of a document, itself but for the first."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield (*path, key)
        yield from places(member, (*path, key))


@st.composite
def nearly_valid(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document of which some parts are replaced, missing, there twice, or more."""
    document: dict[str, Any] = copy.deepcopy(draw(valid))
    for _ in range(draw(st.integers(1, 2))):
        found = list(places(document))
        deep = [path for path in found if path[0] == "spec" and len(path) > 1]
        *way, last = draw(st.sampled_from(deep or found) | st.sampled_from(found))
        parent: Any = document
        for key in way:
            parent = parent[key]
        change = draw(st.sampled_from(["replace", "remove", "move", "add"]))
        if change == "replace":
            parent[last] = draw(anything)
        elif change == "remove":
            del parent[last]
        elif change == "move":
            # Something that is valid elsewhere.
            other: Any = document
            for key in draw(st.sampled_from(list(places(document)) or [()])):
                other = other[key]
            parent[last] = copy.deepcopy(other)
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8) | st.sampled_from([str(key) for *_, key in found]))] = draw(
                anything
            )
        else:
            parent.append(draw(anything))
        if not document:
            break
    return document


@given(nearly_valid())
def test_what_is_nearly_valid_is_refused_in_words_or_comes_back_as_it_was(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    try:
        value = parse(document)
    except InvalidObjectError as problem:
        assert problem.path
    else:
        assert parse(to_document(value)) == value
        assert msgspec.json.decode(msgspec.json.encode(to_document(value))) == to_document(value)
    assert repr(document) == repr(before)
