# SPDX-License-Identifier: Apache-2.0
"""The policy engine: which cells every node's switch must hold, kept while objects come, change and go.

Each change is applied at once, and costs what it touches: the groups that nearly take a pod, the rules of these groups,
the nodes on which these rules are. What it means for switches is worked out when changes are taken, for all changes
since the last time together. Cells are not kept; there would be hundreds of thousands, and a change finds those that
it concerns (:mod:`sdn.policy.changes`). What a change means for all pods of a thousand nodes takes seconds: so it can
be taken for some nodes at a time, while other changes come (:mod:`sdn.policy.cohorts`).

Changes are told of the nodes that are subscribed to, as those whose switches a controller programs. Before the first
subscription a cluster is taken in much faster. Objects can be told in any order. The engine does no I/O, knows no
clock, and belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

from sdn.model.address import Address
from sdn.model.clusternetworkpolicy import ClusterNetworkPolicy
from sdn.model.networkpolicy import NetworkPolicy
from sdn.policy.addresses import AddressBook
from sdn.policy.bodies import Bodies
from sdn.policy.cells import Cell, CellKey, IsolationCell, IsolationKey, RuleCell
from sdn.policy.changes import Changes
from sdn.policy.cohorts import Cohorts
from sdn.policy.compiled import compiled
from sdn.policy.decisions import Decisions
from sdn.policy.descriptions import RuleInForce, rules_in_force, specs
from sdn.policy.domains import Domains
from sdn.policy.groups import kin_posture
from sdn.policy.index import LabelIndex
from sdn.policy.journal import Journal
from sdn.policy.named import NamedRules
from sdn.policy.nodes import Nodes
from sdn.policy.pods import Pods
from sdn.policy.policies import Policies
from sdn.policy.postures import isolation_cell
from sdn.policy.program import program, rule_cell
from sdn.policy.values import Direction, PolicyNode, PolicyPod, PolicyRef

#: Work of some 2 ms, see :meth:`PolicyEngine.take_new`: with what is then done with it, half a turn.
STEPS: Final = 8_000


class PolicyEngine:
    """See the module."""

    def __init__(self) -> None:
        self._book = AddressBook()
        self._journal = Journal(self._book)
        self._index = LabelIndex(self._book, self._journal)
        self._nodes = Nodes(self._book, self._journal)
        self._domains = Domains(self._book, self._journal)
        self._pods = Pods(self._index, self._nodes, self._book, self._journal)
        self._bodies = Bodies(self._index, self._book, self._journal)
        named = NamedRules(self._bodies, self._book, self._journal)
        self._policies = Policies(self._index, self._nodes, self._domains, self._bodies, named, self._journal)
        self._decisions = Decisions(self._index, self._book)
        self._cohorts = Cohorts(self._journal, self._nodes, self._book, self._bodies)

    # What is.

    def put_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """A namespace is declared with these labels. It has the label with its name besides."""
        self._index.declare(name, labels)
        self._changed()

    def remove_namespace(self, name: str) -> None:
        """A namespace is not declared any more. It may have pods still."""
        self._index.declare(name, None)
        self._changed()

    def put_node(self, node: PolicyNode) -> None:
        """A node is so."""
        self._nodes.put(node)
        self._changed()

    def remove_node(self, name: str) -> None:
        """A node is gone. Its pods, if any, are there until they are removed."""
        self._nodes.remove(name)
        self._changed()

    def put_pod(self, pod: PolicyPod) -> None:
        """An attachment is so. When another one has its port of the switch, that one is taken to have ended; it comes
        back if this one is removed first.
        """
        self._pods.put(pod)
        self._changed()

    def remove_pod(self, key: Hashable) -> None:
        """An attachment is gone."""
        self._pods.remove(key)
        self._changed()

    def put_policy(self, policy: NetworkPolicy | ClusterNetworkPolicy) -> None:
        """A policy is so. Its fields must be valid (:mod:`sdn.model.parse`)."""
        self._policies.put(compiled(policy))
        self._changed()

    def remove_policy(self, ref: PolicyRef) -> None:
        """A policy is gone."""
        self._policies.remove(ref)
        self._changed()

    def put_domain(self, name: str, addresses: frozenset[Address]) -> None:
        """These are all addresses that the DNS gives for a name; none: it is forgotten."""
        self._domains.put(name, addresses)
        self._changed()

    def domains(self) -> dict[str, frozenset[Address]]:
        """What :meth:`put_domain` said, by name in lower case without a dot at the end."""
        return self._domains.known()

    def _changed(self) -> None:
        self._journal.clock += 1
        # What nobody was told of needs no end.
        if not self._journal.on:
            self._purge()

    def _purge(self) -> None:
        self._policies.purge(self._cohorts.oldest)
        self._nodes.purge()

    # What switches must hold.

    def subscribe(self, node: str) -> dict[CellKey, Cell]:
        """All cells of a node; from now on it is told what changes of them, until :meth:`unsubscribe`. The node need
        not be known yet.
        """
        there = self._nodes.node(node)
        self._nodes.subscribe(there)
        self._cohorts.join(there.bit)
        return self.cells(node)

    def unsubscribe(self, node: str) -> None:
        """Changes of a node are told no more."""
        there = self._nodes.by_name.get(node)
        if there is not None:
            self._nodes.unsubscribe(there)
            self._cohorts.leave(there.bit)

    def take(self) -> Changes:
        """What changed since the nodes were told last (see :class:`sdn.policy.changes.Changes`)."""
        return self._told(self._cohorts.take(-1))

    def take_new(self, steps: int = STEPS) -> Changes:
        """The same, as far as it can be told in about so many steps of work; what remains waits. A thousand steps take
        about 0.3 ms. Ask after each change: what came in between is told together.
        """
        return self._told(self._cohorts.take_new(steps))

    def take_waiting(self, steps: int = STEPS) -> Changes:
        """Some of what waits, as far as it can be told in about so many steps, but a node is told everything at once.
        As long as anything is :attr:`waiting` this is to be asked again, even if nothing was told.
        """
        return self._told(self._cohorts.take_waiting(steps))

    def take_of(self, node: str) -> Changes:
        """What changed on one node since it was told last."""
        there = self._nodes.by_name.get(node)
        return self._told([] if there is None else self._cohorts.take(there.bit))

    @property
    def waiting(self) -> bool:
        """Whether anything was left for :meth:`take_waiting`."""
        return self._cohorts.waiting

    def waits(self, node: str) -> bool:
        """Whether something may have changed on a node of which it was not told."""
        there = self._nodes.by_name.get(node)
        return there is not None and self._cohorts.waits(there.bit)

    def _told(self, parts: list[Changes]) -> Changes:
        self._purge()
        cells = {node: told for part in parts for node, told in part.cells.items()}
        shrunk = {node: ranges for part in parts for node, ranges in part.shrunk.items()}
        return Changes(
            {node: cells[node] for node in sorted(cells)}, {node: shrunk[node] for node in sorted(shrunk)}
        )

    def cells(self, node: str) -> dict[CellKey, Cell]:
        """All cells of a node as things are now, in a fixed order; none for a node that is not known."""
        there = self._nodes.by_name.get(node)
        return {} if there is None else program(there, self._book, self._bodies.by_number)

    # What becomes of connections.

    def allows(self, source: Address, destination: Address, protocol: int, port: int = 0) -> bool:
        """Whether a connection is allowed, from one address to another, between the pods that have them: what
        :func:`sdn.policy.evaluator.evaluate` says.
        """
        return self._decisions.allows(source, destination, protocol, port)

    # What policies do.

    def bodies_of(self, ref: PolicyRef) -> tuple[RuleInForce, ...]:
        """The rules of a policy in its order, with what they come to; none when it is not known. A rule that is for
        nobody by what it says itself is left out.
        """
        policy = self._policies.by_ref.get(ref)
        return () if policy is None else rules_in_force(policy, self._book.pods)

    def selected_pods(self, ref: PolicyRef) -> tuple[PolicyPod, ...]:
        """The pods that a policy selects, by namespace and name; none when it is not known."""
        policy = self._policies.by_ref.get(ref)
        return () if policy is None else specs(policy.group.pods())

    def rule(self, number: int) -> RuleCell | None:
        """The rule with this number; None when none that is in force has it."""
        body = self._bodies.by_number.get(number)
        return rule_cell(body) if body is not None and body.alive else None

    def isolation(self, pod: Hashable, direction: Direction, *, staged: bool = False) -> IsolationCell | None:
        """How policies isolate the pod with this key; None when they do not, or it is not known."""
        there = self._pods.by_key.get(pod)
        if there is None or there.kin is None:
            return None
        isolation = kin_posture(there.kin).isolations[direction + 2 * staged]
        if isolation is None:
            return None
        key = IsolationKey(direction, there.spec.ofport, staged)
        return isolation_cell(key, there.spec.addresses, isolation)

    def policies_of(self, pod: Hashable) -> tuple[PolicyRef, ...]:
        """The policies that select the pod with this key, staged ones among them; none when it is not known."""
        there = self._pods.by_key.get(pod)
        if there is None or there.kin is None:
            return ()
        return tuple(sorted(policy.ref for group in there.kin.groups for policy in group.policies))
