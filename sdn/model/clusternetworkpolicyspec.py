# SPDX-License-Identifier: Apache-2.0
"""Reading and checking the ``spec`` of a ClusterNetworkPolicy, as an API server does that has its definition.

Source: Network Policy API, config/crd/experimental (v1alpha2). What the definition leaves to the implementation is
checked here: selectors, and names of ports and domains that nothing could have. As its text says, domain names are for
Accept only.
"""

from __future__ import annotations

import re

from sdn.model.clusternetworkpolicy import (
    ACCEPT,
    ACTIONS,
    MAX_ITEMS,
    MAX_PRIORITY,
    MAX_RULE_NAME,
    TIERS,
    ClusterNetworkPolicyEgressRule,
    ClusterNetworkPolicyIngressRule,
    ClusterNetworkPolicyPeer,
    ClusterNetworkPolicyProtocol,
    ClusterNetworkPolicySpec,
    DestinationPort,
    NamespacedPods,
    PortRange,
    ProtocolPorts,
    Subject,
)
from sdn.model.names import InvalidObjectError, check_cidr, check_port, check_port_name
from sdn.model.reading import Fields
from sdn.model.selector import LabelSelectorSpec
from sdn.model.selectorspec import read_selector

_BY_LABELS = ("namespaces", "pods")
_EGRESS_PEERS = (*_BY_LABELS, "nodes", "networks", "domainNames")
_PROTOCOLS = ("tcp", "udp", "sctp", "destinationNamedPort")
#: RFC 1035, section 2.3.4: octets of a name as people write it, without the final dot.
_MAX_DOMAIN_NAME = 253
_DOMAIN_LABEL = r"[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9])?"
_DOMAIN_NAME = re.compile(rf"(\*\.)?({_DOMAIN_LABEL}\.)+{_DOMAIN_LABEL}\.?")


def read_cluster_network_policy_spec(document: object) -> ClusterNetworkPolicySpec:
    """The checked spec, as declared. InvalidObjectError names the field."""
    fields = Fields("spec", document, "a ClusterNetworkPolicy's spec")
    spec = ClusterNetworkPolicySpec(
        tier=fields.chosen("tier", TIERS),
        priority=_read_priority(fields),
        subject=_read_subject(fields.inner("subject", "a subject")),
        ingress=tuple(
            _read_ingress(Fields(path, rule, "an ingress rule")) for path, rule in _at_most(fields, "ingress")
        ),
        egress=tuple(
            _read_egress(Fields(path, rule, "an egress rule")) for path, rule in _at_most(fields, "egress")
        ),
    )
    fields.finish()
    return spec


def _read_priority(fields: Fields) -> int:
    path, priority = fields.path("priority"), fields.integer("priority")
    if priority is None:
        raise InvalidObjectError(path, f"must be given: 0 to {MAX_PRIORITY}")
    if not 0 <= priority <= MAX_PRIORITY:
        raise InvalidObjectError(path, f"{priority} must be 0 to {MAX_PRIORITY}")
    return priority


def _read_subject(fields: Fields | None) -> Subject:
    if fields is None:
        raise InvalidObjectError("spec.subject", f"must be given, with {' or '.join(_BY_LABELS)}")
    fields.only(_BY_LABELS)
    return Subject(namespaces=read_selector(fields, "namespaces"), pods=_read_pods(fields))


def _read_pods(parent: Fields) -> NamespacedPods | None:
    fields = parent.inner("pods", "a selection of pods")
    if fields is None:
        return None
    namespaces, pods = read_selector(fields, "namespaceSelector"), read_selector(fields, "podSelector")
    fields.finish()
    if pods is None:
        raise InvalidObjectError(fields.path("podSelector"), "must be given; {} selects all pods")
    return NamespacedPods(namespace_selector=namespaces or LabelSelectorSpec(), pod_selector=pods)


def _read_ingress(fields: Fields) -> ClusterNetworkPolicyIngressRule:
    rule = ClusterNetworkPolicyIngressRule(
        name=_read_rule_name(fields),
        action=fields.chosen("action", ACTIONS),
        from_=tuple(
            _read_peer(Fields(path, peer, "an ingress peer"), _BY_LABELS)
            for path, peer in _some(fields, "from")
        ),
        protocols=_read_protocols(fields),
    )
    fields.finish()
    return rule


def _read_egress(fields: Fields) -> ClusterNetworkPolicyEgressRule:
    rule = ClusterNetworkPolicyEgressRule(
        name=_read_rule_name(fields),
        action=fields.chosen("action", ACTIONS),
        to=tuple(
            _read_peer(Fields(path, peer, "an egress peer"), _EGRESS_PEERS)
            for path, peer in _some(fields, "to")
        ),
        protocols=_read_protocols(fields),
    )
    fields.finish()
    for index, peer in enumerate(rule.to):
        if peer.domain_names and rule.action != ACCEPT:
            raise InvalidObjectError(
                f"{fields.path('to')}[{index}].domainNames", f"is only for action {ACCEPT}"
            )
    if any(peer.namespaces is None and peer.pods is None for peer in rule.to):
        _refuse_named_ports(fields.path("protocols"), rule.protocols)
    return rule


def _refuse_named_ports(path: str, protocols: tuple[ClusterNetworkPolicyProtocol, ...]) -> None:
    for index, protocol in enumerate(protocols):
        if protocol.destination_named_port:
            raise InvalidObjectError(
                f"{path}[{index}].destinationNamedPort",
                "is not possible in a rule to nodes, networks or domainNames: only pods name their ports",
            )


def _read_rule_name(fields: Fields) -> str:
    name = fields.text("name")
    if len(name) > MAX_RULE_NAME:
        raise InvalidObjectError(fields.path("name"), f"{len(name)} characters; at most {MAX_RULE_NAME}")
    return name


def _read_peer(fields: Fields, kinds: tuple[str, ...]) -> ClusterNetworkPolicyPeer:
    match fields.only(kinds):
        case "namespaces":
            return ClusterNetworkPolicyPeer(namespaces=read_selector(fields, "namespaces"))
        case "pods":
            return ClusterNetworkPolicyPeer(pods=_read_pods(fields))
        case "nodes":
            return ClusterNetworkPolicyPeer(nodes=read_selector(fields, "nodes"))
        case "networks":
            ranges = [check_cidr(path, text) for path, text in _read_set(fields, "networks")]
            # Texts that differ may still name the same range.
            return ClusterNetworkPolicyPeer(networks=tuple(dict.fromkeys(map(str, ranges))))
    names = _read_set(fields, "domainNames")
    return ClusterNetworkPolicyPeer(domain_names=tuple(_check_domain_name(*name) for name in names))


def _check_domain_name(path: str, name: str) -> str:
    if len(name.removesuffix(".")) > _MAX_DOMAIN_NAME or not _DOMAIN_NAME.fullmatch(name):
        raise InvalidObjectError(
            path,
            f"{name!r} must be labels of letters, digits, '-' and '_' with dots between, at least two, "
            f"each at most 63, at most {_MAX_DOMAIN_NAME} in all, with an optional '*.' before",
        )
    return name


def _read_protocols(rule: Fields) -> tuple[ClusterNetworkPolicyProtocol, ...]:
    if not rule.given("protocols"):
        return ()
    return tuple(_read_protocol(Fields(path, item, "a protocol")) for path, item in _some(rule, "protocols"))


def _read_protocol(fields: Fields) -> ClusterNetworkPolicyProtocol:
    which = fields.only(_PROTOCOLS)
    if which == "destinationNamedPort":
        name = check_port_name(fields.path(which), fields.text(which))
        return ClusterNetworkPolicyProtocol(destination_named_port=name)
    ports = ProtocolPorts(destination_port=_read_destination_port(fields.inner(which, f"{which} ports")))
    return ClusterNetworkPolicyProtocol(
        tcp=ports if which == "tcp" else None,
        udp=ports if which == "udp" else None,
        sctp=ports if which == "sctp" else None,
    )


def _read_destination_port(protocol: Fields | None) -> DestinationPort | None:
    if protocol is None:
        return None
    fields = protocol.inner("destinationPort", "a destinationPort")
    protocol.finish()
    if fields is None:
        raise InvalidObjectError(
            protocol.path("destinationPort"), "must be given; all ports are the range from 1 to 65535"
        )
    if fields.only(("number", "range")) == "number":
        return DestinationPort(number=_read_port(fields, "number"))
    return DestinationPort(range=_read_range(fields.inner("range", "a range of ports")))


def _read_range(fields: Fields | None) -> PortRange | None:
    if fields is None:
        return None
    ports = PortRange(start=_read_port(fields, "start"), end=_read_port(fields, "end"))
    fields.finish()
    if ports.start >= ports.end:
        raise InvalidObjectError(fields.path("end"), f"{ports.end} must be greater than start, {ports.start}")
    return ports


def _read_port(fields: Fields, name: str) -> int:
    number = fields.integer(name)
    if number is None:
        raise InvalidObjectError(fields.path(name), "must be given")
    return check_port(fields.path(name), number)


def _read_set(fields: Fields, name: str) -> list[tuple[str, str]]:
    """A list of text, each with its path, none of them twice."""
    members = _some(fields, name)
    texts = fields.texts(name)
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise InvalidObjectError(members[index][0], f"{text!r} is given twice")
    return [(path, text) for (path, _), text in zip(members, texts, strict=True)]


def _some(fields: Fields, name: str) -> list[tuple[str, object]]:
    """The members of a list that has some, and not too many."""
    members = _at_most(fields, name)
    if not members:
        raise InvalidObjectError(fields.path(name), "at least one must be given")
    return members


def _at_most(fields: Fields, name: str) -> list[tuple[str, object]]:
    members = fields.items(name)
    if len(members) > MAX_ITEMS:
        raise InvalidObjectError(fields.path(name), f"{len(members)} members; at most {MAX_ITEMS}")
    return members
