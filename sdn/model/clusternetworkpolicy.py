# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicy: an administrator's rules above and below NetworkPolicies (policy.networking.k8s.io/v1alpha2).

Fields and meanings are those of the Network Policy API, apis/v1alpha2/clusternetworkpolicy_types.go. Of two policies
of one tier with one priority the API leaves open which one decides; here it is the rule with the lower index, and of
those the one whose action comes first in :mod:`sdn.policy.precedence`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from sdn.model.meta import ObjectMeta
from sdn.model.selector import LabelSelectorSpec

ADMIN = "Admin"
BASELINE = "Baseline"
TIERS = (ADMIN, BASELINE)
ACCEPT = "Accept"
DENY = "Deny"
PASS = "Pass"
ACTIONS = (ACCEPT, DENY, PASS)
MAX_PRIORITY = 1000
#: Members of ingress, egress, from, to, protocols, networks and domainNames, at most.
MAX_ITEMS = 25
MAX_RULE_NAME = 100


class NamespacedPods(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Pods that one selector takes, in namespaces that the other takes (NamespacedPod in the API)."""

    namespace_selector: LabelSelectorSpec = msgspec.field(default_factory=LabelSelectorSpec)
    pod_selector: LabelSelectorSpec = msgspec.field(default_factory=LabelSelectorSpec)


class Subject(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The pods that the policy is for: exactly one of both is given."""

    namespaces: LabelSelectorSpec | None = None
    pods: NamespacedPods | None = None


class ClusterNetworkPolicyPeer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The other end: exactly one field is given. ``nodes``, ``networks`` and ``domain_names`` are for egress. Networks
    are in their canonical form, without bits set after the prefix.
    """

    namespaces: LabelSelectorSpec | None = None
    pods: NamespacedPods | None = None
    nodes: LabelSelectorSpec | None = None
    networks: tuple[str, ...] = ()
    domain_names: tuple[str, ...] = ()


class PortRange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Ports from ``start`` to ``end``, both included."""

    start: int
    end: int


class DestinationPort(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One port, or a range: exactly one is given. ``number`` 0: not given."""

    number: int = 0
    range: PortRange | None = None


class ProtocolPorts(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Ports of a protocol; None: all of them. In a declaration they are given, if only as 1 to 65535."""

    destination_port: DestinationPort | None = None


class ClusterNetworkPolicyProtocol(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """A protocol and its ports, or the name of a port of the pod that the connection goes to: exactly one is given."""

    tcp: ProtocolPorts | None = None
    udp: ProtocolPorts | None = None
    sctp: ProtocolPorts | None = None
    destination_named_port: str = ""


class ClusterNetworkPolicyIngressRule(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """What becomes of connections from these peers."""

    name: str = ""
    action: str
    from_: tuple[ClusterNetworkPolicyPeer, ...] = msgspec.field(name="from")
    protocols: tuple[ClusterNetworkPolicyProtocol, ...] = ()


class ClusterNetworkPolicyEgressRule(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """What becomes of connections to these peers."""

    name: str = ""
    action: str
    to: tuple[ClusterNetworkPolicyPeer, ...]
    protocols: tuple[ClusterNetworkPolicyProtocol, ...] = ()


class ClusterNetworkPolicySpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``priority`` 0 to 1000; the lower one is looked at first."""

    tier: str
    priority: int
    subject: Subject
    ingress: tuple[ClusterNetworkPolicyIngressRule, ...] = ()
    egress: tuple[ClusterNetworkPolicyEgressRule, ...] = ()


class ClusterNetworkPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """See the module."""

    KIND: ClassVar[str] = "ClusterNetworkPolicy"
    API_VERSION: ClassVar[str] = "policy.networking.k8s.io/v1alpha2"
    NAMESPACED: ClassVar[bool] = False

    metadata: ObjectMeta
    spec: ClusterNetworkPolicySpec
