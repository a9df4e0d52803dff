# SPDX-License-Identifier: Apache-2.0
"""What a policy comes to in this cluster, rule by rule: for people who ask what it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdn.model.address import Range
from sdn.policy.bodies import Body
from sdn.policy.cells import PortMatch, Stage
from sdn.policy.compiled import stage_of
from sdn.policy.groups import PodGroup
from sdn.policy.named import NamedEgress
from sdn.policy.networks import range_of
from sdn.policy.portcodes import ALL_TRAFFIC, port_match
from sdn.policy.program import policy_of
from sdn.policy.values import Action, PolicyPod, PolicyRef

if TYPE_CHECKING:
    from sdn.policy.members import Pod
    from sdn.policy.policies import Policy


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """A rule of a policy as switches have it. A rule with names of ports for egress is there once for each port that
    its peers have under these names.

    ``subjects`` are the pods that it is for, ``pods`` the peers that are pods, ``networks`` all other peers: ranges as
    declared, less their exceptions, addresses of nodes and of domains. ``ports`` None: all traffic; ``names``: names of
    ports that each subject has numbers of its own for. ``policies``: whose rule it is, this policy's and others'.
    """

    stage: Stage
    rule: str
    action: Action
    log: bool
    conjunction: int
    subjects: tuple[PolicyPod, ...]
    pods: tuple[PolicyPod, ...]
    networks: tuple[Range, ...]
    ports: tuple[PortMatch, ...] | None
    names: tuple[str, ...]
    policies: tuple[PolicyRef, ...]


def rules_in_force(policy: Policy, pods_at: dict[int, tuple[Pod, ...]]) -> tuple[RuleInForce, ...]:
    """Every rule of a policy, in its order."""
    described: list[RuleInForce] = []
    for part, owner in policy.parts:
        bodies = part.bodies() if isinstance(part, NamedEgress) else [part]
        described.extend(_described(body, owner[4], pods_at) for body in bodies)
    return tuple(described)


def _described(body: Body, rule: str, pods_at: dict[int, tuple[Pod, ...]]) -> RuleInForce:
    content = body.content
    pods: set[Pod] = set()
    networks: set[int] = set(content.networks)
    for source in content.sources:
        if isinstance(source, PodGroup):
            pods.update(source.pods())
            continue
        for code in source.codes():
            if code in pods_at:
                pods.update(pods_at[code])
            else:
                networks.add(code)
    codes = content.ports.codes
    ports = None if ALL_TRAFFIC in codes else tuple(_matches(codes))
    return RuleInForce(
        stage=stage_of(content.stage),
        rule=rule,
        action=content.action,
        log=content.log,
        conjunction=body.number,
        subjects=specs(content.subject.pods()),
        pods=specs(pods),
        networks=tuple(range_of(code) for code in sorted(networks, key=lambda code: (code & 1, code))),
        ports=ports,
        names=tuple(dict.fromkeys(name for name, _protocol in content.ports.names)),
        policies=tuple(dict.fromkeys(map(policy_of, body.owners))),
    )


def _matches(codes: Iterable[int]) -> Iterator[PortMatch]:
    for code in codes:
        match = port_match(code)
        if match is not None:
            yield match


def specs(pods: Iterable[Pod]) -> tuple[PolicyPod, ...]:
    """Pods by namespace and name."""
    return tuple(
        sorted((pod.spec for pod in pods), key=lambda one: (one.namespace, one.name, one.node, one.ofport))
    )
