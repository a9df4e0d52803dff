# SPDX-License-Identifier: Apache-2.0
"""What is asked of policies, and what the answer is: a cluster, a connection, and the verdict with its reasons."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import ADMIN, ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.policy.values import (
    PROTOCOL_NAMES,
    TIER_NAMES,
    Action,
    Direction,
    PolicyNode,
    PolicyPod,
    PolicyRef,
    Tier,
)

Policy: TypeAlias = NetworkPolicy | ClusterNetworkPolicy
#: An end of a connection: a pod, or an address that is no pod's (a node's, or one outside the cluster).
End: TypeAlias = PolicyPod | Address


def tier_of(policy: Policy) -> Tier:
    """In which tier a policy is asked."""
    if isinstance(policy, NetworkPolicy):
        return Tier.NETWORK_POLICY
    return Tier.ADMIN if policy.spec.tier == ADMIN else Tier.BASELINE


@dataclass(frozen=True, slots=True)
class PolicyCluster:
    """All that a verdict depends on. ``namespaces``: labels of namespaces as declared, by name; others may have pods.
    ``domains``: the addresses that answers of the DNS gave for a name.
    """

    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    nodes: tuple[PolicyNode, ...] = ()
    pods: tuple[PolicyPod, ...] = ()
    policies: tuple[Policy, ...] = ()
    domains: Mapping[str, frozenset[Address]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as it begins, after a Service was translated to its endpoint. ``protocol`` is the IP protocol
    number, ``port`` the destination port, 0 where the protocol has none. Raises ValueError when an address is not the
    pod's or both are not of one version.
    """

    source: End
    destination: End
    source_address: Address
    destination_address: Address
    protocol: int
    port: int = 0

    def __post_init__(self) -> None:
        if self.source_address.version != self.destination_address.version:
            raise ValueError(f"{self.source_address} and {self.destination_address} are not of one version")
        for end, address in (
            (self.source, self.source_address),
            (self.destination, self.destination_address),
        ):
            if address not in (end.addresses if isinstance(end, PolicyPod) else (end,)):
                raise ValueError(f"{address} is not an address of {end_text(end)}")

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.source_address.version

    def __str__(self) -> str:
        to = f"{end_text(self.destination)} {protocol_text(self.protocol)}"
        return f"{end_text(self.source)} to {to}" + (f" {self.port}" if self.port else "")


def connection_between(
    cluster: PolicyCluster, source: Address, destination: Address, protocol: int, port: int = 0
) -> Connection:
    """The connection from one address to another: its ends are the pods that have them, where there are any.
    Raises ValueError when both are not of one version.
    """
    return Connection(_end(cluster, source), _end(cluster, destination), source, destination, protocol, port)


def _end(cluster: PolicyCluster, address: Address) -> End:
    return next((pod for pod in cluster.pods if address in pod.addresses), address)


class Reason(enum.Enum):
    """Why a direction is allowed or denied."""

    #: No pod of the cluster is at that end, so no policy is asked.
    NO_POD = "no pod"
    #: A pod reaches itself.
    ITSELF = "itself"
    #: The other end is the pod's own node.
    OWN_NODE = "own node"
    #: A rule says so.
    RULE = "rule"
    #: NetworkPolicies isolate the pod, and none of their rules allows it.
    ISOLATED = "isolated"
    #: No policy of this direction selects the pod: allowed.
    UNSELECTED = "unselected"
    #: Policies select the pod, but neither isolate it nor decide this connection: allowed.
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class RuleRef:
    """A rule of a policy. ``rule`` is as :func:`rule_text` names it."""

    tier: Tier
    policy: PolicyRef
    rule: str
    action: Action

    def __str__(self) -> str:
        return f"{self.rule} of {self.policy}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a connection in one direction. ``rule``: the one that decides (reason RULE). ``passed``: the rule
    of the Admin tier that passed it on before. ``policies``: the NetworkPolicies that isolate the pod in this direction
    where that was asked (reasons RULE, in the tier of NetworkPolicies, and ISOLATED), by name.
    """

    direction: Direction
    allowed: bool
    reason: Reason
    rule: RuleRef | None = None
    passed: RuleRef | None = None
    policies: tuple[PolicyRef, ...] = ()

    @property
    def checked(self) -> bool:
        """Whether policies were asked for the answer."""
        return self.reason not in (Reason.NO_POD, Reason.ITSELF, Reason.OWN_NODE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a connection: it is allowed when both directions are."""

    connection: Connection
    egress: Decision
    ingress: Decision

    @property
    def allowed(self) -> bool:
        return self.egress.allowed and self.ingress.allowed

    def describe(self) -> str:
        """Why, in a sentence or two: one for each end that is a pod."""
        connection = self.connection
        if self.egress.reason is Reason.ITSELF:
            return f"Pod {end_text(connection.source)} always reaches itself."
        ends = ((self.egress, connection.source), (self.ingress, connection.destination))
        sentences = [_sentence(decision, end) for decision, end in ends if isinstance(end, PolicyPod)]
        return " ".join(sentences) or "No pod is at either end, so policies do not apply."


def rule_text(direction: Direction, index: int, name: str = "") -> str:
    """A rule as people name it: ``ingress[0]``, or ``ingress[0] (dns)`` when it has a name."""
    return f"{direction.name.lower()}[{index}]" + (f" ({name})" if name else "")


def end_text(end: End) -> str:
    """An end as people name it: a pod's namespace and name, or the address."""
    return f"{end.namespace}/{end.name}" if isinstance(end, PolicyPod) else str(end)


def protocol_text(protocol: int) -> str:
    """A protocol as people name it."""
    return PROTOCOL_NAMES.get(protocol) or f"protocol {protocol}"


def _sentence(decision: Decision, pod: PolicyPod) -> str:
    if decision.direction is Direction.EGRESS:
        may = "may open the connection" if decision.allowed else "may not open the connection"
    else:
        may = "lets the connection in" if decision.allowed else "does not let the connection in"
    after = f", after {decision.passed} passed it on" if decision.passed else ""
    return f"Pod {end_text(pod)} {may}: {_because(decision)}{after}."


_VERBS = {Action.DENY: "denies it", Action.ACCEPT: "accepts it", Action.PASS: "passes it on"}


def _because(decision: Decision) -> str:
    if decision.rule is not None:
        return f"{decision.rule} (tier {TIER_NAMES[decision.rule.tier]}) {_VERBS[decision.rule.action]}"
    direction = decision.direction.name.lower()
    match decision.reason:
        case Reason.ISOLATED:
            names = ", ".join(map(str, decision.policies))
            verb = "isolates" if len(decision.policies) == 1 else "isolate"
            return f"{names} {verb} it for {direction} and no rule allows it"
        case Reason.OWN_NODE:
            return "the other end is its own node"
        case Reason.UNSELECTED:
            return f"no policy selects it for {direction}"
        case Reason.UNMATCHED:
            return f"no rule for {direction} decides it, and nothing isolates the pod"
        case _:
            return "no policy is asked"
