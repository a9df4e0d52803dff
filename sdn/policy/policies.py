# SPDX-License-Identifier: Apache-2.0
"""Policies in place: each with the group that it selects, what it makes of its pods, and the bodies of its rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from sdn.policy.bodies import Bodies, Body, Content, Owner
from sdn.policy.compiled import CompiledPolicy, CompiledRule
from sdn.policy.domains import Domain, Domains
from sdn.policy.groups import PodGroup, Source
from sdn.policy.named import NamedEgress, NamedRules
from sdn.policy.nodes import NodeGroup, Nodes
from sdn.policy.portcodes import Ports
from sdn.policy.postures import Posture, posture_of
from sdn.policy.values import Direction, PolicyRef

if TYPE_CHECKING:
    from sdn.policy.index import LabelIndex
    from sdn.policy.journal import Journal

#: A rule as a policy holds it, and under which name.
Part: TypeAlias = tuple[Body | NamedEgress, Owner]

_NO_RULES: Final[frozenset[Direction]] = frozenset()


class Policy:
    """See the module."""

    __slots__ = ("group", "parts", "posture", "ref", "rules_for")

    def __init__(self, compiled: CompiledPolicy, group: PodGroup, parts: tuple[Part, ...]) -> None:
        self.ref = compiled.ref
        self.group = group
        self.posture: Posture = posture_of(compiled)
        self.parts = parts
        #: Directions for which it has rules, where it is in force.
        self.rules_for: frozenset[Direction] = (
            _NO_RULES if compiled.staged else frozenset(rule.direction for rule in compiled.rules)
        )


class Policies:
    """All policies, by name."""

    def __init__(
        self,
        index: LabelIndex,
        nodes: Nodes,
        domains: Domains,
        bodies: Bodies,
        named: NamedRules,
        journal: Journal,
    ) -> None:
        self._index = index
        self._nodes = nodes
        self._domains = domains
        self._bodies = bodies
        self._named = named
        self._journal = journal
        self.by_ref: dict[PolicyRef, Policy] = {}
        #: Groups and other sources that may be needed no more.
        self._left: list[Source] = []

    def put(self, compiled: CompiledPolicy) -> None:
        """A policy is so now."""
        group = self._index.group(compiled.subject)
        self._note(group)
        parts: list[Part] = []
        for rule in compiled.rules:
            parts.extend(self._parts(compiled.ref, group, rule))
        policy = Policy(compiled, group, tuple(parts))
        before = self.by_ref.get(compiled.ref)
        self.by_ref[compiled.ref] = policy
        group.add_policy(policy)
        # What the old one shares with the new one is given up when the new one has it: it never goes.
        if before is not None:
            self._give_up(before)

    def remove(self, ref: PolicyRef) -> None:
        """A policy is gone; one that is not known, too."""
        policy = self.by_ref.pop(ref, None)
        if policy is not None:
            self._give_up(policy)

    def _note(self, group: PodGroup) -> None:
        if self._journal.on:
            for kin in group.classes:
                self._journal.note_class(kin)

    def _parts(self, ref: PolicyRef, subject: PodGroup, rule: CompiledRule) -> list[Part]:
        """The bodies of a rule. One that is for no peer or no port has none."""
        peers, ports = rule.peers, rule.ports
        sources: tuple[Source, ...] = (
            *map(self._index.group, peers.groups),
            *map(self._nodes.group, peers.nodes),
            *map(self._domains.domain, peers.domains),
        )
        if not sources and not peers.networks:
            return []
        owner = (ref.kind, ref.namespace, ref.name, rule.position, rule.text)
        content = Content(rule.stage, rule.action, rule.log, subject, sources, peers.networks, ports)
        if not ports.names or rule.direction is Direction.INGRESS:
            return [(self._bodies.claim(content, owner), owner)] if ports.codes or ports.names else []
        parts: list[Part] = [(self._named.claim(content, owner), owner)]
        if ports.codes:
            plain = content._replace(ports=Ports(ports.codes))
            parts.append((self._bodies.claim(plain, owner), owner))
        return parts

    def _give_up(self, policy: Policy) -> None:
        self._note(policy.group)
        policy.group.remove_policy(policy)
        self._left.append(policy.group)
        for part, owner in policy.parts:
            if isinstance(part, Body):
                self._bodies.give_up(part, owner)
            else:
                self._named.give_up(part, owner)

    def purge(self, before: int) -> None:
        """Forgets what nobody needs, and what ended before a change, since all were told of that."""
        needed = self._left
        self._left = []
        needed += self._bodies.purge(before)
        needed += self._named.purge(before)
        for source in needed:
            if isinstance(source, PodGroup):
                self._index.release(source)
            elif isinstance(source, NodeGroup):
                self._nodes.release(source)
            elif isinstance(source, Domain):
                self._domains.release(source)
