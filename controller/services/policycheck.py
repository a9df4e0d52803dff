# SPDX-License-Identifier: Apache-2.0
"""What policies say of a connection that somebody asks about: the answer of the reference (sdn/policy/evaluator.py).

It is computed from the declared objects alone, not from what the engine or a switch made of them, so it also tells
when these are wrong. What the answer depends on is taken in the asyncio thread, and is little: the ends, their
namespaces and nodes, and the policies that can be for them. All else is done in a worker thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from controller.cluster import Cluster
from controller.engine import Engine
from controller.errors import PreconditionError
from controller.policies import policy_node
from controller.services.policyends import Ends, Place, Target
from sdn.model import InvalidObjectError
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.model.service import FAMILIES
from sdn.policy.evaluator import evaluate, would_deny
from sdn.policy.matching import selects_pod, subject_matches
from sdn.policy.values import ICMP, ICMPV6, TIER_NAMES, PolicyPod, Protocol
from sdn.policy.verdict import Connection, Decision, End, Policy, PolicyCluster, protocol_text
from sdn.v1 import inspection_pb2

_ICMP_OF: Final = {4: ICMP, 6: ICMPV6}
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Checker:
    """Evaluates in ``threads``."""

    engine: Engine
    threads: Executor

    async def check(self, request: inspection_pb2.CheckPolicyRequest) -> inspection_pb2.CheckPolicyResponse:
        """InvalidObjectError, NotFoundError, PreconditionError."""
        protocol = _protocol(request.protocol)
        if request.port > _MAX_PORT or (request.port and protocol is None):
            raise InvalidObjectError("port", "must be 1 to 65535, and is not for ICMP")
        if request.family and request.family not in FAMILIES:
            raise InvalidObjectError("family", f"{request.family!r} is none of {', '.join(FAMILIES)}")
        ends = Ends(self.engine, request.namespace or "default")
        sources = ends.source(request.source)
        targets = ends.targets(request.destination, protocol, request.port, sources[0].node)
        asked = list(_asked(sources, targets.chosen, FAMILIES.get(request.family)))
        if not asked:
            of_family = f"an {request.family} address each" if request.family else "a family in common"
            raise PreconditionError(f"{request.source} and {request.destination} do not have {of_family}")
        cluster = _what_matters(self.engine, [place for pair in asked for place in pair[:2]])
        answer = inspection_pb2.CheckPolicyResponse(endpoint_total=targets.endpoints)
        answer.verdicts.extend(
            await asyncio.get_running_loop().run_in_executor(
                self.threads, lambda: list(_verdicts(cluster, asked, protocol))
            )
        )
        return answer


def _protocol(text: str) -> Protocol | None:
    """None: ICMP, of each family its own."""
    if text.lower() == "icmp":
        return None
    try:
        return Protocol[text.upper() or "TCP"]
    except KeyError:
        raise InvalidObjectError("protocol", f"{text!r} is none of tcp, udp, sctp, icmp") from None


def _asked(
    sources: Iterable[Place], targets: Iterable[Target], version: int | None
) -> Iterator[tuple[Place, Place, int]]:
    """From where to where, and the port: for each target in each family that is meant and that both ends have."""
    by_version = {place.address.version: place for place in sources}
    for target in targets:
        for place in target.places:
            its = place.address.version
            if version in (None, its) and its in by_version:
                yield by_version[its], place, target.port


# What a verdict depends on.


def _what_matters(engine: Engine, places: Iterable[Place]) -> PolicyCluster:
    """The cluster as far as connections between these places depend on it.

    Selectors are asked of pods at the ends only, so no other pod counts, and no other namespace. A NetworkPolicy is for
    pods of its own namespace. A node counts as an end's own, or as a peer by an address that is an end's.
    """
    cluster = engine.cluster
    pods = {place.end.key: place.end for place in places if isinstance(place.end, PolicyPod)}
    spaces = {pod.namespace for pod in pods.values()}
    addresses = {str(place.address) for place in places}
    own = {pod.node for pod in pods.values()}
    return PolicyCluster(
        namespaces={
            name: value.metadata.labels
            for name in spaces
            if (value := cluster.objects["Namespace"].get(("", name))) is not None
        },
        nodes=tuple(
            policy_node(cluster, record)
            for record in cluster.nodes.values()
            if record.name in own or not addresses.isdisjoint(record.addresses)
        ),
        pods=tuple(pods.values()),
        policies=tuple(_policies(cluster, spaces)),
        domains=engine.policies.engine.domains(),
    )


def _policies(cluster: Cluster, namespaces: set[str]) -> Iterator[Policy]:
    for (namespace, _), value in cluster.objects[NetworkPolicy.KIND].items():
        if namespace in namespaces and isinstance(value, NetworkPolicy):
            yield value
    for value in cluster.objects[ClusterNetworkPolicy.KIND].values():
        if isinstance(value, ClusterNetworkPolicy):
            yield value


class _Selecting:
    """Which policies are for a pod: others say nothing of it. So of thousands each connection is asked of a few, and a
    Service with many endpoints is answered in time. Pods with equal labels are looked at once.
    """

    def __init__(self, cluster: PolicyCluster) -> None:
        self._cluster = cluster
        self._known: dict[tuple[str, frozenset[tuple[str, str]]], set[int]] = {}

    def narrowed(self, *ends: End) -> PolicyCluster:
        """The cluster with the policies that are for one of these ends."""
        wanted: set[int] = set()
        for end in ends:
            if isinstance(end, PolicyPod):
                wanted |= self._of(end)
        policies = tuple(self._cluster.policies[place] for place in sorted(wanted))
        return dataclasses.replace(self._cluster, policies=policies)

    def _of(self, pod: PolicyPod) -> set[int]:
        key = pod.namespace, frozenset(pod.labels.items())
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = {
                place for place, policy in enumerate(self._cluster.policies) if self._is_for(policy, pod)
            }
        return found

    def _is_for(self, policy: Policy, pod: PolicyPod) -> bool:
        if isinstance(policy, NetworkPolicy):
            return policy.metadata.namespace == pod.namespace and selects_pod(policy.spec.pod_selector, pod)
        return subject_matches(self._cluster, policy.spec.subject, pod)


# The answer.


def _verdicts(
    cluster: PolicyCluster, asked: Iterable[tuple[Place, Place, int]], protocol: Protocol | None
) -> Iterator[inspection_pb2.PolicyVerdict]:
    selecting = _Selecting(cluster)
    for source, destination, port in asked:
        connection = Connection(
            source.end,
            destination.end,
            source.address,
            destination.address,
            _ICMP_OF[source.address.version] if protocol is None else protocol,
            port,
        )
        seen = selecting.narrowed(source.end, destination.end)
        yield _message(seen, connection, source.text, destination.text)


def _message(
    cluster: PolicyCluster, connection: Connection, source: str, destination: str
) -> inspection_pb2.PolicyVerdict:
    verdict = evaluate(cluster, connection)
    return inspection_pb2.PolicyVerdict(
        family=f"IPv{connection.version}",
        source=source,
        source_address=str(connection.source_address),
        destination=destination,
        destination_address=str(connection.destination_address),
        protocol=protocol_text(connection.protocol),
        port=connection.port,
        allowed=verdict.allowed,
        egress=_decision(verdict.egress),
        ingress=_decision(verdict.ingress),
        reason=verdict.describe(),
        would_deny=map(str, would_deny(cluster, connection)),
    )


def _decision(decision: Decision) -> inspection_pb2.PolicyDecision:
    answer = inspection_pb2.PolicyDecision(
        allowed=decision.allowed,
        reason=decision.reason.value,
        passed="" if decision.passed is None else str(decision.passed),
        isolating=map(str, decision.policies),
    )
    if decision.rule is not None:
        answer.policy = str(decision.rule.policy)
        answer.rule = decision.rule.rule
        answer.tier = TIER_NAMES[decision.rule.tier]
        answer.action = decision.rule.action.name.lower()
    return answer
