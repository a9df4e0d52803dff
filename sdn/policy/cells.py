# SPDX-License-Identifier: Apache-2.0
"""Cells: what one switch must know of policies, in the smallest pieces that change by themselves.

A rule is a *conjunction* (ovs-fields(7), "Conjunctive Match Fields") with a number of its own: it holds for a packet
when the packet's peer is one of the rule's peers (clause 1) and its pod and destination port are among those that the
rule is for (clause 2). One address can be the peer of many rules, one pod's port the subject of many, so a cell is one
address, or one pod and port, with the numbers of all rules that it counts for: an address is there once, however
many rules share it.

Each cell has a key; a switch has at most one cell a key. All are values. sdn/pipeline/features/policy.py makes flows of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from sdn.model.address import Address, Range
from sdn.policy.values import Action, Direction, PolicyRef, Protocol, Tier


@dataclass(frozen=True, slots=True, order=True)
class Stage:
    """Where in the order of all rules a rule stands. ``level`` is :func:`sdn.policy.precedence.level`; in the tier of
    NetworkPolicies, where all rules accept, 0 for those that are reported and 1 for the others. Staged rules are asked
    beside those in force, and never decide.
    """

    direction: Direction
    tier: Tier
    level: int
    staged: bool = False


@dataclass(frozen=True, slots=True)
class PortMatch:
    """Destination ports ``first`` to ``last`` of a protocol: a block that one mask takes (:mod:`sdn.policy.ports`);
    0 to 65535: all of them. Both :data:`sdn.policy.ports.LATER_FRAGMENTS`: fragments of it that carry no port.
    """

    protocol: Protocol
    first: int = 0
    last: int = 65535


@dataclass(frozen=True, slots=True)
class PeerKey:
    """The other end is in this range: the source of ingress, the destination of egress."""

    stage: Stage
    network: Range


@dataclass(frozen=True, slots=True)
class PeerCell:
    """``conjunctions``: numbers of rules, ascending. ``owner``: the pod or node that has the address, else the first
    of the policies that name the range.
    """

    key: PeerKey
    conjunctions: tuple[int, ...]
    owner: PolicyRef


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A pod of this node, by its port of the switch; ``ports`` None: whatever the protocol and port."""

    stage: Stage
    ofport: int
    ports: PortMatch | None


@dataclass(frozen=True, slots=True)
class SubjectCell:
    """``addresses`` and ``owner`` are the pod's."""

    key: SubjectKey
    addresses: tuple[Address, ...]
    conjunctions: tuple[int, ...]
    owner: PolicyRef


@dataclass(frozen=True, slots=True)
class RuleKey:
    """A rule's number."""

    conjunction: int


@dataclass(frozen=True, slots=True)
class RuleCell:
    """What becomes of a packet for which the rule holds. ``owner`` is the first of the policies that say it, ``rule``
    the rule as people name it ("ingress[0]", with its name where it has one). ``log``: connections are reported.
    """

    key: RuleKey
    stage: Stage
    action: Action
    owner: PolicyRef
    rule: str
    log: bool = False


@dataclass(frozen=True, slots=True)
class IsolationKey:
    """A pod of this node is isolated in a direction by NetworkPolicies; ``staged``: by staged ones."""

    direction: Direction
    ofport: int
    staged: bool = False


@dataclass(frozen=True, slots=True)
class IsolationCell:
    """What no rule allows is denied. ``addresses`` are the pod's; ``owner`` is the first of the policies. ``log``: what
    is denied is reported, since one of them asks for it. ``policies`` is how many they are, for people: another number
    alone is no change, or one policy more for ten thousand pods would be ten thousand changes.
    """

    key: IsolationKey
    addresses: tuple[Address, ...]
    owner: PolicyRef
    policies: int = field(compare=False)
    log: bool = False


@dataclass(frozen=True, slots=True)
class GuardKey:
    """A pod of this node has policies (of any tier, in any direction, not staged)."""

    ofport: int


@dataclass(frozen=True, slots=True)
class GuardCell:
    """Of a pod that has policies, packets that begin no connection although they belong to none are dropped: else the
    answers of a connection that was cut would be taken for a new one in the other direction. ``owner`` is the pod.
    """

    key: GuardKey
    addresses: tuple[Address, ...]
    owner: PolicyRef


CellKey: TypeAlias = PeerKey | SubjectKey | RuleKey | IsolationKey | GuardKey
Cell: TypeAlias = PeerCell | SubjectCell | RuleCell | IsolationCell | GuardCell
