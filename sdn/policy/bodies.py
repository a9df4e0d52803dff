# SPDX-License-Identifier: Apache-2.0
"""Bodies: rules that are equal in everything but whose they are, kept once, each with its conjunction number.

A cluster has thousands of policies that a template made; a switch need not know how many say the same. The number is a
hash of what the body says, so that it is the same after a restart and in every controller, or the next one that is free
when two bodies hash alike. A body that nobody wants any more stays until its end was taken, and comes back with its
number when somebody wants it before.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection
from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

from sdn.policy import networks
from sdn.policy.groups import PodGroup, Source
from sdn.policy.portcodes import Ports, blocks, resolved
from sdn.policy.values import Action

if TYPE_CHECKING:
    from sdn.policy.addresses import AddressBook
    from sdn.policy.index import LabelIndex
    from sdn.policy.journal import Journal
    from sdn.policy.members import Pod

#: Whose a rule is: kind, namespace and name of the policy, the rule's index among its policy's, and its text.
Owner: TypeAlias = tuple[str, str, str, int, str]

Ended = TypeVar("Ended")

_LARGEST: Final = 0xFFFF_FFFF


class Content(NamedTuple):
    """What a body says. ``sources`` and ``networks`` are its peers."""

    stage: int
    action: Action
    log: bool
    subject: PodGroup
    sources: tuple[Source, ...]
    networks: frozenset[int]
    ports: Ports

    def text(self) -> str:
        """The same in every process, and in every version of this program that knows the same of rules."""
        subject, sources = self.subject.content, [source.content for source in self.sources]
        numbers = (self.stage, int(self.action), self.log)
        return repr((*numbers, subject, sources, sorted(self.networks), tuple(self.ports)))


class Body:
    """See the module. ``owners`` ascend; ``alive``: it is in force."""

    __slots__ = ("_lengths", "alive", "content", "number", "owners")

    def __init__(self, content: Content, number: int, owners: list[Owner]) -> None:
        self.content = content
        self.number = number
        self.owners = owners
        self.alive = False
        self._lengths: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def owner(self) -> Owner | None:
        """The first of those whose it is."""
        return self.owners[0] if self.owners else None

    @property
    def staged(self) -> bool:
        return bool(self.content.stage & 1)

    def reaches(self, code: int) -> bool:
        """Whether this address, or exactly this range, is one of its peers."""
        content = self.content
        return code in content.networks or any(source.contains(code) for source in content.sources)

    def codes(self) -> Collection[int]:
        """The addresses and ranges of its peers, each once."""
        content = self.content
        if not content.sources:
            return content.networks
        if len(content.sources) == 1 and not content.networks:
            return content.sources[0].codes()
        return content.networks.union(*(source.codes() for source in content.sources))

    def holds(self, code: int) -> bool:
        """Whether this address is in one of its ranges."""
        if not self.content.networks:
            return False
        if self._lengths is None:
            self._lengths = networks.lengths_of(self.content.networks)
        return networks.holds(self.content.networks, self._lengths, code)

    def port_codes(self, pod: Pod) -> Collection[int]:
        """The ports that it is for at a pod that is its subject."""
        ports = self.content.ports
        if not ports.names:
            return ports.codes
        return (*ports.codes, *sorted(resolved(ports, pod.spec.named_ports)))

    def subject_codes(self, pod: Pod) -> tuple[int, ...]:
        """The same as the cells of its subjects have them. Denying needs no fragments: they are useless alone."""
        return blocks(tuple(self.port_codes(pod)), fragments=self.content.action is not Action.DENY)

    def fixed_codes(self) -> tuple[int, ...]:
        """Those that are alike for all pods, when it has no names of ports."""
        return blocks(self.content.ports.codes, fragments=self.content.action is not Action.DENY)


class Bodies:
    """All bodies, by what they say and by number."""

    def __init__(self, index: LabelIndex, book: AddressBook, journal: Journal) -> None:
        self._index = index
        self._book = book
        self._journal = journal
        self._by_content: dict[Content, Body] = {}
        self.by_number: dict[int, Body] = {}
        #: Those in force no more, with the change that ended them, in this order.
        self._gone: dict[Body, int] = {}

    def claim(self, content: Content, owner: Owner) -> Body:
        """The body that says this is one owner's more."""
        body = self.body(content, [])
        self._journal.note_body(body)
        insort(body.owners, owner)
        if not body.alive:
            self.came(body)
        return body

    def give_up(self, body: Body, owner: Owner) -> None:
        """A body is one owner's less."""
        self._journal.note_body(body)
        body.owners.remove(owner)
        if not body.owners:
            self.went(body)

    def body(self, content: Content, owners: list[Owner]) -> Body:
        """The body that says this; when there is none one is made, with these owners."""
        body = self._by_content.get(content)
        if body is None:
            body = self._by_content[content] = Body(content, self._number(content), owners)
            self.by_number[body.number] = body
            self._register(body)
        return body

    def came(self, body: Body) -> None:
        """When a body is in force that was not."""
        self._index.version += 1
        body.alive = True
        self._gone.pop(body, None)

    def went(self, body: Body) -> None:
        """When a body is in force no more."""
        self._index.version += 1
        body.alive = False
        self._gone.pop(body, None)
        self._gone[body] = self._journal.clock

    def _number(self, content: Content) -> int:
        digest = blake2b(content.text().encode(), digest_size=4).digest()
        number = int.from_bytes(digest) or 1
        while number in self.by_number:
            number = number % _LARGEST + 1
        return number

    def _register(self, body: Body) -> None:
        content = body.content
        if not content.subject.subject_of:
            content.subject.begin_span()
        content.subject.subject_of.append(body)
        for source in content.sources:
            source.peer_of.append(body)
        for code in content.networks:
            self._book.declare(code, body)

    def purge(self, before: int) -> list[Source]:
        """Forgets bodies that ended before a change; gives the groups and other sources that they needed."""
        needed: list[Source] = []
        for body in ended(self._gone, before):
            content = body.content
            del self._by_content[content]
            del self.by_number[body.number]
            content.subject.subject_of.remove(body)
            for source in content.sources:
                source.peer_of.remove(body)
            for code in content.networks:
                self._book.withdraw(code, body)
            needed.extend((content.subject, *content.sources))
        return needed


def ended(gone: dict[Ended, int], before: int) -> list[Ended]:
    """Takes out what ended before a change; changes ascend."""
    found = list(takewhile(lambda one: gone[one] < before, gone))
    for one in found:
        del gone[one]
    return found
