# SPDX-License-Identifier: Apache-2.0
"""Egress to ports by their names: the number behind a name is the destination pod's own affair.

What a pod may be the subject of for ingress can be said at the pod: its own named ports are known. For egress the peers
differ, so a rule with names becomes one body for each protocol and number that peers have under these names; its peers
are the pods that have it. They come and go with the pods.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sdn.policy import networks
from sdn.policy.bodies import ended
from sdn.policy.groups import Collected, PodGroup, Source
from sdn.policy.networks import NOWHERE
from sdn.policy.portcodes import Ports, resolved

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.bodies import Bodies, Body, Content, Owner
    from sdn.policy.journal import Journal
    from sdn.policy.members import Pod

_NONE: Final[frozenset[int]] = frozenset()


class NamedEgress:
    """One rule with names of ports, as often as policies say it."""

    __slots__ = ("_at", "_bodies", "_book", "_journal", "_lengths", "_parts", "_text", "content", "owners")

    def __init__(self, content: Content, bodies: Bodies, book: AddressBook, journal: Journal) -> None:
        self.content = content
        self.owners: list[Owner] = []
        self._bodies = bodies
        self._book = book
        self._journal = journal
        self._text = content.text()
        self._lengths = networks.lengths_of(content.networks)
        #: What the bodies say, by the port that they are for; and the ports that an address has under the names.
        self._parts: dict[int, Content] = {}
        self._at: dict[int, frozenset[int]] = {}

    @property
    def wide(self) -> bool:
        """Whether a pod can be a peer without being in a group of the rule's, by its address alone."""
        return bool(self.content.networks) or any(
            not isinstance(source, PodGroup) for source in self.content.sources
        )

    def bodies(self) -> list[Body]:
        """Those in force."""
        if not self.owners:
            return []
        found = (
            self._bodies.body(part, self.owners) for part in self._parts.values() if _members(part).codes()
        )
        return [body for body in found if body.alive]

    def claim(self, owner: Owner) -> None:
        """One owner's more."""
        parts = [part for part in self._parts.values() if _members(part).codes()]
        bodies = [self._bodies.body(part, self.owners) for part in parts]
        for body in bodies:
            self._journal.note_body(body)
        insort(self.owners, owner)
        for body in bodies:
            if not body.alive:
                self._bodies.came(body)

    def give_up(self, owner: Owner) -> None:
        """One owner's less."""
        bodies = self.bodies()
        for body in bodies:
            self._journal.note_body(body)
        self.owners.remove(owner)
        if not self.owners:
            for body in bodies:
                self._bodies.went(body)

    def begin(self) -> None:
        """When the first policy says it."""
        sources = self.content.sources
        for source in sources:
            source.named.append(self)
        codes: set[int] = set()
        for source in sources:
            if isinstance(source, PodGroup):
                codes.update(code for pod in source.pods() if pod.spec.named_ports for code in pod.codes)
        if self.wide:
            for name in {name for name, _protocol in self.content.ports.names}:
                self._book.by_name.setdefault(name, []).append(self)
                for pod in self._book.pods_with_name.get(name, ()):
                    codes.update(pod.codes)
        for code in codes:
            self.look_again(code)

    def end(self) -> None:
        """When nobody needs it any more, nor the bodies that it was."""
        for part in self._parts.values():
            _members(part).forget_all()
        for source in self.content.sources:
            source.named.remove(self)
        if self.wide:
            for name in {name for name, _protocol in self.content.ports.names}:
                there = self._book.by_name[name]
                there.remove(self)
                if not there:
                    del self._book.by_name[name]

    def look_again(self, code: int) -> None:
        """After something may have changed that says which ports an address has under the names."""
        before = self._at.get(code, _NONE)
        pods = (pod for pod in self._book.pods.get(code, ()) if self._takes(pod, code))
        after = frozenset(port for pod in pods for port in resolved(self.content.ports, pod.spec.named_ports))
        if after == before:
            return
        if after:
            self._at[code] = after
        else:
            del self._at[code]
        for port in before - after:
            self._remove(port, code)
        for port in after - before:
            self._add(port, code)

    def _takes(self, pod: Pod, code: int) -> bool:
        for source in self.content.sources:
            if source.has(pod) if isinstance(source, PodGroup) else source.contains(code):
                return True
        return networks.holds(self.content.networks, self._lengths, code)

    def _add(self, port: int, code: int) -> None:
        part = self._parts.get(port)
        if part is None:
            members = Collected(("ports by name", self._text), self._book)
            part = self._parts[port] = self.content._replace(
                sources=(members,), networks=NOWHERE, ports=Ports((port,))
            )
        self._journal.note_source(_members(part), code)
        _members(part).add(code)
        if self.owners:
            body = self._bodies.body(part, self.owners)
            if not body.alive:
                self._journal.note_body(body)
                self._bodies.came(body)

    def _remove(self, port: int, code: int) -> None:
        part = self._parts[port]
        members = _members(part)
        self._journal.note_source(members, code)
        members.remove(code)
        if self.owners and not members.codes():
            body = self._bodies.body(part, self.owners)
            if body.alive:
                self._journal.note_body(body)
                self._bodies.went(body)


def _members(part: Content) -> Collected:
    """The peers of one of the bodies."""
    (members,) = part.sources
    if not isinstance(members, Collected):
        raise TypeError(f"{members} is not collected")
    return members


class NamedRules:
    """All rules with names of ports for egress. One that nobody wants any more stays until its end was taken."""

    def __init__(self, bodies: Bodies, book: AddressBook, journal: Journal) -> None:
        self._bodies = bodies
        self._book = book
        self._journal = journal
        self._by_content: dict[Content, NamedEgress] = {}
        #: With the change that ended them, in this order.
        self._gone: dict[NamedEgress, int] = {}

    def claim(self, content: Content, owner: Owner) -> NamedEgress:
        """The rule that says this is one owner's more."""
        rule = self._by_content.get(content)
        if rule is None:
            rule = self._by_content[content] = NamedEgress(content, self._bodies, self._book, self._journal)
            rule.begin()
        self._gone.pop(rule, None)
        rule.claim(owner)
        return rule

    def give_up(self, rule: NamedEgress, owner: Owner) -> None:
        """A rule is one owner's less."""
        rule.give_up(owner)
        if not rule.owners:
            self._gone[rule] = self._journal.clock

    def purge(self, before: int) -> list[Source]:
        """Forgets rules that ended before a change; gives the sources that they needed."""
        needed: list[Source] = []
        for rule in ended(self._gone, before):
            rule.end()
            del self._by_content[rule.content]
            needed.extend(rule.content.sources)
        return needed


def look_again(named: Iterable[NamedEgress], codes: Iterable[int]) -> None:
    """After pods with these addresses have changed."""
    for rule in named:
        for code in codes:
            rule.look_again(code)
