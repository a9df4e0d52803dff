# SPDX-License-Identifier: Apache-2.0
"""Reading and checking the ``spec`` of a NetworkPolicy, as a Kubernetes API server does.

Sources: Kubernetes API reference (networking.k8s.io/v1 NetworkPolicySpec), documentation "Network Policies".
"""

from __future__ import annotations

from sdn.model.names import (
    PROTOCOLS,
    InvalidObjectError,
    Network,
    check_cidr,
    check_port,
    check_port_name,
)
from sdn.model.networkpolicy import (
    EGRESS,
    INGRESS,
    IPBlock,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from sdn.model.reading import Fields, check_choice
from sdn.model.selector import LabelSelectorSpec
from sdn.model.selectorspec import read_selector

_TYPES = (INGRESS, EGRESS)


def read_network_policy_spec(document: object) -> NetworkPolicySpec:
    """The checked spec, as declared. InvalidObjectError names the field."""
    fields = Fields("spec", document, "a NetworkPolicy's spec")
    spec = NetworkPolicySpec(
        pod_selector=read_selector(fields, "podSelector") or LabelSelectorSpec(),
        ingress=tuple(
            _read_ingress(Fields(path, rule, "an ingress rule")) for path, rule in fields.items("ingress")
        ),
        egress=tuple(
            _read_egress(Fields(path, rule, "an egress rule")) for path, rule in fields.items("egress")
        ),
        policy_types=fields.texts("policyTypes"),
    )
    fields.finish()
    if len(spec.policy_types) > len(_TYPES):
        raise InvalidObjectError("spec.policyTypes", f"{len(spec.policy_types)} types; at most {len(_TYPES)}")
    for index, text in enumerate(spec.policy_types):
        check_choice(f"spec.policyTypes[{index}]", text, _TYPES)
    return spec


def _read_ingress(fields: Fields) -> NetworkPolicyIngressRule:
    rule = NetworkPolicyIngressRule(from_=_read_peers(fields, "from"), ports=_read_ports(fields))
    fields.finish()
    return rule


def _read_egress(fields: Fields) -> NetworkPolicyEgressRule:
    rule = NetworkPolicyEgressRule(to=_read_peers(fields, "to"), ports=_read_ports(fields))
    fields.finish()
    return rule


def _read_peers(rule: Fields, name: str) -> tuple[NetworkPolicyPeer, ...]:
    return tuple(_read_peer(Fields(path, peer, "a peer"), path) for path, peer in rule.items(name))


def _read_peer(fields: Fields, path: str) -> NetworkPolicyPeer:
    peer = NetworkPolicyPeer(
        pod_selector=read_selector(fields, "podSelector"),
        namespace_selector=read_selector(fields, "namespaceSelector"),
        ip_block=_read_block(fields.inner("ipBlock", "an ipBlock")),
    )
    fields.finish()
    by_labels = peer.pod_selector is not None or peer.namespace_selector is not None
    if by_labels and peer.ip_block is not None:
        raise InvalidObjectError(path, "ipBlock is not possible beside podSelector or namespaceSelector")
    if not by_labels and peer.ip_block is None:
        raise InvalidObjectError(path, "podSelector, namespaceSelector or ipBlock must be given")
    return peer


def _read_block(fields: Fields | None) -> IPBlock | None:
    if fields is None:
        return None
    cidr, exceptions = fields.text("cidr"), fields.texts("except")
    fields.finish()
    if not cidr:
        raise InvalidObjectError(fields.path("cidr"), "must be given")
    network = check_cidr(fields.path("cidr"), cidr)
    return IPBlock(
        cidr=str(network),
        except_=tuple(
            str(_check_exception(f"{fields.path('except')}[{index}]", text, network))
            for index, text in enumerate(exceptions)
        ),
    )


def _check_exception(path: str, text: str, network: Network) -> Network:
    exception = check_cidr(path, text)
    if (
        exception.prefixlen <= network.prefixlen
        or exception.supernet(new_prefix=network.prefixlen) != network
    ):
        raise InvalidObjectError(path, f"{text!r} must be a part of {network}, and not all of it")
    return exception


def _read_ports(rule: Fields) -> tuple[NetworkPolicyPort, ...]:
    return tuple(_read_port(Fields(path, port, "a port")) for path, port in rule.items("ports"))


def _read_port(fields: Fields) -> NetworkPolicyPort:
    protocol = fields.text("protocol")
    if fields.given("protocol"):
        check_choice(fields.path("protocol"), protocol, PROTOCOLS)
    port = fields.text("port") if isinstance(fields.raw("port"), str) else fields.integer("port")
    if isinstance(port, str):
        check_port_name(fields.path("port"), port)
    elif port is not None:
        check_port(fields.path("port"), port)
    end = fields.integer("endPort")
    fields.finish()
    if end is not None:
        _check_end(fields.path("endPort"), port, end)
    return NetworkPolicyPort(protocol=protocol, port=port, end_port=end or 0)


def _check_end(path: str, port: int | str | None, end: int) -> None:
    if port is None:
        raise InvalidObjectError(path, "is not possible without port")
    if isinstance(port, str):
        raise InvalidObjectError(path, f"is not possible for a port that has a name, {port!r}")
    check_port(path, end)
    if end < port:
        raise InvalidObjectError(path, f"{end} must not be less than port, {port}")
