# SPDX-License-Identifier: Apache-2.0
"""A policy with all that is behind it: its pods, what its rules come to, what each node's switch holds and counts.

As with Services (:mod:`controller.services.description`): nodes are asked beside each other, a few at a time, each for
a bounded time, and one that does not answer is told with the reason.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from controller.engine import Engine
from controller.errors import NotFoundError, UnavailableError
from controller.policies import policy_node
from controller.services.convert import to_struct
from controller.services.description import AT_ONCE, read_switch
from controller.services.policyflows import Count, Counted, names_any, read
from controller.services.policyrules import (
    MOST,
    Rule,
    Surroundings,
    isolates,
    pod_message,
    rule_message,
    rules_of,
)
from controller.turns import Turns
from sdn.model import InvalidObjectError
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy, ClusterNetworkPolicyPeer
from sdn.model.networkpolicy import NetworkPolicy, audited, staged
from sdn.policy.cells import Cell
from sdn.policy.descriptions import RuleInForce
from sdn.policy.evaluator import policy_ref
from sdn.policy.values import TIER_NAMES, Direction, PolicyPod
from sdn.policy.verdict import Policy, tier_of
from sdn.v1 import inspection_pb2

KINDS: Final = (NetworkPolicy.KIND, ClusterNetworkPolicy.KIND)
#: Flows of one node that are shown, where all nodes are asked and where only it is.
_FLOWS: Final = 100
_FLOWS_OF_ONE: Final = 1_000


@dataclass(frozen=True, slots=True)
class PolicyDescriber:
    """Reads switches, and does what takes long, in ``threads``; ``elsewhere`` asks what the owner of a node's switch
    says of a policy on it (kind, namespace, name, node), None: there is nobody else to ask.
    """

    engine: Engine
    threads: Executor
    elsewhere: Callable[[str, str, str, str], Awaitable[inspection_pb2.DescribePolicyResponse | None]]

    async def describe(
        self, kind: str, namespace: str, name: str, node: str
    ) -> inspection_pb2.DescribePolicyResponse:
        """``node`` empty: as all nodes have it. InvalidObjectError, NotFoundError."""
        if kind not in KINDS:
            raise InvalidObjectError("kind", f"{kind!r} is none of {', '.join(KINDS)}")
        policy = self.engine.cluster.objects[kind].get((namespace, name))
        document = self.engine.watchers.document(kind, namespace, name)
        if not isinstance(policy, NetworkPolicy | ClusterNetworkPolicy) or document is None:
            raise NotFoundError(f"{kind} {f'{namespace}/{name}' if namespace else name} does not exist")
        if node and node not in self.engine.cluster.nodes:
            raise NotFoundError(f"Node {node} is not registered")
        rules = rules_of(policy)
        in_force = await self._in_force(policy)
        selected = self.engine.policies.engine.selected_pods(policy_ref(policy))
        on_nodes, counted, told = await self._on_nodes(policy, in_force, selected, node)
        answer = inspection_pb2.DescribePolicyResponse(
            policy=to_struct(document),
            tier=TIER_NAMES[tier_of(policy)],
            staged=staged(policy.metadata),
            audit=sorted(audited(policy.metadata)),
            pods=[self._pod(pod) for pod in selected[:MOST]],
            pod_total=len(selected),
            isolation=_isolation(policy, counted),
            nodes=on_nodes,
            events=[to_struct(event) for event in self.engine.events.about(kind, namespace, name)],
        )
        around = self._around(rules)
        answer.rules.extend(
            await asyncio.get_running_loop().run_in_executor(
                self.threads,
                lambda: [
                    _counted(
                        rule_message(policy, rule, in_force[rule.text], selected, around), in_force, counted
                    )
                    for rule in rules
                ],
            )
        )
        for other in told:
            _add(answer, other)
        return answer

    async def _in_force(self, policy: Policy) -> dict[str, list[RuleInForce]]:
        """What the engine makes of each rule, by the rule's text."""
        found: dict[str, list[RuleInForce]] = defaultdict(list)
        turns = Turns()
        for one in self.engine.policies.engine.bodies_of(policy_ref(policy)):
            found[one.rule].append(one)
            await turns.pause()
        return found

    def _pod(self, pod: PolicyPod) -> inspection_pb2.PolicyPod:
        """A pod of the policy, and how many policies isolate it."""
        answer = pod_message(pod)
        answer.isolating_ingress = self._isolating(pod, Direction.INGRESS)
        answer.isolating_egress = self._isolating(pod, Direction.EGRESS)
        return answer

    def _isolating(self, pod: PolicyPod, direction: Direction) -> int:
        cell = self.engine.policies.engine.isolation(pod.key, direction)
        return 0 if cell is None else cell.policies

    def _around(self, rules: Sequence[Rule]) -> Surroundings:
        """What the rules name besides pods, where they name any."""
        peers = [peer for rule in rules for peer in rule.peers if isinstance(peer, ClusterNetworkPolicyPeer)]
        cluster = self.engine.cluster
        nodes = cluster.nodes.values() if any(peer.nodes is not None for peer in peers) else ()
        return Surroundings(
            nodes=[policy_node(cluster, record) for record in nodes],
            domains=self.engine.policies.engine.domains() if any(peer.domain_names for peer in peers) else {},
        )

    # What switches have.

    async def _on_nodes(
        self,
        policy: Policy,
        in_force: dict[str, list[RuleInForce]],
        selected: Sequence[PolicyPod],
        node: str,
    ) -> tuple[list[inspection_pb2.PolicyOnNode], Counted, list[inspection_pb2.DescribePolicyResponse]]:
        """The nodes; what is counted on those that are asked here, and what was told of the others."""
        pods: dict[str, list[PolicyPod]] = defaultdict(list)
        for pod in selected:
            pods[pod.node].append(pod)
        numbers = {one.conjunction for rules in in_force.values() for one in rules}
        names = [node] if node else sorted(pods)
        gate = asyncio.Semaphore(AT_ONCE)
        told: list[inspection_pb2.DescribePolicyResponse] = []

        async def ask(name: str) -> tuple[inspection_pb2.PolicyOnNode, Counted]:
            async with gate:
                # A request for this node alone would have gone to its owner as it was.
                if not node and (there := await self._told(policy, name)) is not None:
                    told.append(there)
                    return there.nodes[0], Counted()
                cells = self._counting(policy, numbers, pods[name])
                # To find what else there is takes long for the asyncio thread.
                if pods[name] and len(names) <= AT_ONCE:
                    cells += [cell for cell in self.engine.policies.on_node(name) if names_any(cell, numbers)]
                answer, counted = await self._ask(name, cells, _FLOWS_OF_ONE if node else _FLOWS)
            answer.pods = len(pods[name])
            return answer, counted

        answers = await asyncio.gather(*map(ask, names))
        total = Counted()
        for _, counted in answers:
            total.add(counted)
        return [answer for answer, _ in answers], total, told

    async def _told(self, policy: Policy, node: str) -> inspection_pb2.DescribePolicyResponse | None:
        """What the owner of a node's switch says, where it has to be asked: of this node, with as many flows as are
        shown.
        """
        metadata = policy.metadata
        try:
            told = await self.elsewhere(policy.KIND, metadata.namespace, metadata.name, node)
        except UnavailableError as problem:
            unknown = inspection_pb2.PolicyOnNode(node=node, error=str(problem))
            return inspection_pb2.DescribePolicyResponse(nodes=[unknown])
        if told is None or not told.nodes:
            return None
        del told.nodes[0].flows[_FLOWS:]
        return told

    def _counting(self, policy: Policy, numbers: Iterable[int], pods: Sequence[PolicyPod]) -> list[Cell]:
        """The cells of a policy whose flows count, on a node with these of its pods."""
        if not pods:
            return []
        engine = self.engine.policies.engine
        found: list[Cell | None] = [engine.rule(number) for number in sorted(numbers)]
        for direction in isolates(policy):
            found += [engine.isolation(pod.key, direction, staged=staged(policy.metadata)) for pod in pods]
        return [cell for cell in found if cell is not None]

    async def _ask(
        self, node: str, cells: Sequence[Cell], most: int
    ) -> tuple[inspection_pb2.PolicyOnNode, Counted]:
        answer = inspection_pb2.PolicyOnNode(node=node)
        if not cells:
            return answer, Counted()
        try:
            entries, answer.flow_total, counted = await read_switch(
                self.engine, node, self.threads, lambda connection: read(connection, cells, most)
            )
        except UnavailableError as problem:
            answer.error = str(problem)
            return answer, Counted()
        answer.flows.extend(entries)
        return answer, counted


def _add(answer: inspection_pb2.DescribePolicyResponse, told: inspection_pb2.DescribePolicyResponse) -> None:
    """Add what was counted elsewhere."""
    rules = {rule.rule: rule.count for rule in told.rules}
    for rule in answer.rules:
        if (count := rules.get(rule.rule)) is not None:
            _sum(rule.count, count)
    isolation = {one.direction: one for one in told.isolation}
    for one in answer.isolation:
        if (other := isolation.get(one.direction)) is not None:
            _sum(one.denied, other.denied)
            one.shared_total = max(one.shared_total, other.shared_total)


def _sum(count: inspection_pb2.PolicyCount, other: inspection_pb2.PolicyCount) -> None:
    count.connections += other.connections
    count.packets += other.packets
    count.bytes += other.bytes


def _isolation(policy: Policy, counted: Counted) -> list[inspection_pb2.PolicyIsolation]:
    return [
        inspection_pb2.PolicyIsolation(
            direction=direction.name.lower(),
            denied=counted.isolation[direction].message(),
            shared_total=counted.others[direction],
        )
        for direction in isolates(policy)
    ]


def _counted(
    rule: inspection_pb2.PolicyRule, in_force: dict[str, list[RuleInForce]], counted: Counted
) -> inspection_pb2.PolicyRule:
    """The rule with what was counted for it."""
    total = Count()
    for number in {one.conjunction for one in in_force[rule.rule]}:
        total.add(counted.rules[number])
    rule.count.CopyFrom(total.message())
    return rule
