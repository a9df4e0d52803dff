# SPDX-License-Identifier: Apache-2.0
"""Who was a switch's master, and who wrote to it: the account that its own log gives (tests/lab/switchlog.py).

The rules of roles are reckoned again from what was asked (OpenFlow 1.5.1, 6.3.6), and each answer of the switch must
agree with them; so it is known at each moment whose word counts. What our controllers believe plays no part in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.lab.switchlog import Message

EQUAL, PRIMARY, SECONDARY = "equal", "primary", "secondary"
ACCEPTED = "accepted"
#: The connection ended before the switch could say, or the log.
UNANSWERED = "unanswered"
#: Open vSwitch's names of the errors that tell a deposed controller so.
IS_SECONDARY, STALE = "OFPBRC_IS_SECONDARY", "OFPRRFC_STALE"
#: What changes the switch at once. Of a bundle only its commit does.
_WRITES = frozenset(
    (
        "OFPT_FLOW_MOD",
        "OFPT_GROUP_MOD",
        "OFPT_METER_MOD",
        "OFPT_PORT_MOD",
        "OFPT_TABLE_MOD",
        "OFPT_PACKET_OUT",
    )
)
_FLUSH = "NXT_CT_FLUSH"
_ROLE = re.compile(r"role=(\w+)(?: generation_id=(\d+))?")
#: What Open vSwitch answers before it has seen one.
_NO_GENERATION = (1 << 64) - 1


@dataclass(slots=True)
class Grant:
    """The switch has made somebody its master."""

    when: str
    connection: str
    generation: int


@dataclass(slots=True)
class Write:
    """Something that changes the switch, as it was received."""

    when: str
    connection: str
    kind: str
    xid: int
    #: The role of whoever sent it, at that moment. None: not known, the connection is older than the log.
    role: str | None
    #: ACCEPTED, UNANSWERED, or the name of an error.
    answer: str = UNANSWERED

    def __str__(self) -> str:
        return (
            f"{self.when} {self.kind} xid {self.xid:#x} from {self.connection} ({self.role}): {self.answer}"
        )


@dataclass(slots=True)
class Refusal:
    """The switch has refused what was sent under this number."""

    when: str
    connection: str
    xid: int


@dataclass(slots=True)
class Account:
    """What one switch tells. Controllers only: what came over the bridge's own socket is left out."""

    grants: list[Grant] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    #: Flushes of the connection tracker, which Open vSwitch takes from everybody; and those before which the sender was
    #: not told that it is the master, since the switch had last confirmed something.
    flushes: list[Write] = field(default_factory=list)
    unasked: list[Write] = field(default_factory=list)
    #: Each time the switch refused something since another one is its master: parts of bundles count one by one.
    refusals: list[Refusal] = field(default_factory=list)
    #: Role requests that were refused with STALE.
    stale: list[Grant] = field(default_factory=list)
    #: How often each controller's connection was made.
    connected: Counter[str] = field(default_factory=Counter)
    #: Where an answer of the switch is another one than the rules give.
    contradictions: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> list[Write]:
        return [write for write in self.writes if write.answer == ACCEPTED]

    @property
    def changes(self) -> int:
        """How often another one than before became the master."""
        return sum(a.connection != b.connection for a, b in zip(self.grants, self.grants[1:], strict=False))


class _Switch:
    def __init__(self) -> None:
        self.account = Account()
        self._roles: dict[str, str] = {}
        self._greeted: set[str] = set()
        #: Who was told to be the master by the last answer.
        self._asked: set[str] = set()
        self._highest: int | None = None
        self._waiting: dict[tuple[str, int], Write] = {}
        #: Of role requests the answer that there must be: the role, and the highest generation, None: not known yet; or
        #: STALE.
        self._roles_asked: dict[tuple[str, int], tuple[str, int | None]] = {}

    def take(self, message: Message) -> None:
        if message.kind == "OFPT_HELLO":
            self._begun(message.connection)
            return
        self._greeted.discard(message.connection)
        if message.sent:
            self._sent(message)
        elif message.kind == "OFPT_ROLE_REQUEST":
            self._role_request(message)
        elif message.kind in _WRITES or "type=COMMIT_REQUEST" in message.text:
            self.account.writes.append(self._written(message))
        elif message.kind == _FLUSH:
            flush = self._written(message)
            self.account.flushes.append(flush)
            if message.connection not in self._asked:
                self.account.unasked.append(flush)

    def _begun(self, connection: str) -> None:
        if connection not in self._greeted:
            # Both ends greet; what comes next ends the greeting.
            self._greeted.add(connection)
            self.account.connected[connection] += 1
        self._roles[connection] = EQUAL
        self._asked.discard(connection)
        for waiting in (self._waiting, self._roles_asked):
            for key in [key for key in waiting if key[0] == connection]:
                del waiting[key]

    def _written(self, message: Message) -> Write:
        connection = message.connection
        write = Write(message.when, connection, message.kind, message.xid, self._roles.get(connection))
        self._waiting[connection, message.xid] = write
        return write

    def _role_request(self, message: Message) -> None:
        connection = message.connection
        asked = _ROLE.match(message.text)
        if asked is None:
            raise ValueError(f"{message.when}: a role request that cannot be read: {message.text}")
        role, generation = asked[1], int(asked[2] or 0)
        if role in (PRIMARY, SECONDARY):
            if self._highest is not None and _before(generation, self._highest):
                self.account.stale.append(Grant(message.when, connection, generation))
                self._roles_asked[connection, message.xid] = STALE, None
                return
            self._highest = generation
        if role == PRIMARY:
            for other, its in self._roles.items():
                if its == PRIMARY:
                    self._roles[other] = SECONDARY
            self.account.grants.append(Grant(message.when, connection, generation))
        if role != "nochange":
            self._roles[connection] = role
        if connection in self._roles:
            self._roles_asked[connection, message.xid] = self._roles[connection], self._highest

    def _sent(self, message: Message) -> None:
        connection, key = message.connection, (message.connection, message.xid)
        if message.kind == "OFPT_ROLE_REPLY" and message.text.startswith(f"role={PRIMARY} "):
            self._asked.add(connection)
        if message.kind == "OFPT_BARRIER_REPLY":
            self._asked.discard(connection)
            # All that came before it and was not refused is done.
            for waiting in [each for each in self._waiting if each[0] == connection]:
                self._waiting.pop(waiting).answer = ACCEPTED
            return
        error = message.text.split()[0] if message.kind == "OFPT_ERROR" else ""
        if error == IS_SECONDARY:
            self.account.refusals.append(Refusal(message.when, connection, message.xid))
        if (write := self._waiting.get(key)) is not None and (error or "type=COMMIT_REPLY" in message.text):
            write.answer = error or ACCEPTED
            del self._waiting[key]
        elif (expected := self._roles_asked.get(key)) is not None and (
            error or message.kind == "OFPT_ROLE_REPLY"
        ):
            del self._roles_asked[key]
            self._role_answered(message, error, *expected)

    def _role_answered(self, message: Message, error: str, role: str, generation: int | None) -> None:
        said = _ROLE.match(message.text)
        if not error and generation is None and said is not None:
            # The log is younger than the switch. This is the first word of what was before, if there was anything.
            generation = int(said[2])
            if self._highest is None and generation != _NO_GENERATION:
                self._highest = generation
        answer = error or message.text
        expected = role if role == STALE else f"role={role} generation_id={generation}"
        if answer != expected:
            self.account.contradictions.append(
                f"{message.when} {message.connection} xid {message.xid:#x}: {answer}, not {expected}"
            )


def account(logged: Iterable[Message]) -> Account:
    """What a log gives. ValueError: it has a role request that cannot be read."""
    switch = _Switch()
    for message in logged:
        if message.connection.startswith(("tcp:", "ssl:")):
            switch.take(message)
    return switch.account


def violations(told: Account, controllers: Mapping[str, str], owners: Mapping[int, str]) -> Iterator[str]:
    """What must not be, one line each. ``controllers`` are those at the ends of connections; ``owners`` are the
    controllers by generation that have owned the node, as the store has it.
    """
    yield from told.contradictions
    for write in told.writes:
        # A switch that did not come to answer a secondary has refused it; it has told so all others.
        if write.role != PRIMARY and (
            write.answer == ACCEPTED or (write.answer == UNANSWERED and write.role != SECONDARY)
        ):
            yield f"a write was accepted from one that is not the master: {write}"
    for flush in told.unasked:
        yield f"a flush came from one that had not asked whether it is the master: {flush}"
    before: Grant | None = None
    for grant in told.grants:
        controller = controllers.get(grant.connection, grant.connection)
        stored = owners.get(grant.generation, "nobody")
        if stored != controller:
            yield (
                f"{grant.when} {controller} became the master with generation {grant.generation}, which is "
                f"{stored}'s by the store"
            )
        if before is not None and (
            _before(grant.generation, before.generation)
            or (grant.generation == before.generation and grant.connection != before.connection)
        ):
            yield (
                f"{grant.when} {controller} became the master with generation {grant.generation} after "
                f"{controllers.get(before.connection, before.connection)} with {before.generation}"
            )
        before = grant


def late_flushes(told: Account) -> list[Write]:
    """Flushes by others than the master, which Open vSwitch does: they were on their way when their sender was deposed,
    or it did not ask (see Account.unasked).
    """
    return [flush for flush in told.flushes if flush.role != PRIMARY]


def _before(one: int, other: int) -> bool:
    """Generations are compared as the signed difference of 64-bit numbers."""
    return (one - other) & (1 << 63) != 0
