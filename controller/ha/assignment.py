# SPDX-License-Identifier: Apache-2.0
"""Which controller should own which node's switch: evenly, and with as few moves as possible.

Plain rendezvous hashing is neither for few nodes: of ten nodes one of three controllers may well get six. So what a
live controller owns it keeps, up to its share (shares differ by one at most), and only what is over its share, and
what no live controller owns, is given to those who have room, in the order of rendezvous scores. This moves the least
number of nodes that evens the shares: when a controller goes, what it had; when one comes, its share.

The result depends on nothing but the sets of nodes and members and on who owns what, all of which every controller
follows in the store. And it does not change while it is being carried out, in whatever order: each member may take
what it should have by itself. Who takes from whom is settled by the store, so that two members whose views differ for
a moment cost a move at worst.

Taking is one-sided: the new owner takes, and the former one learns of it.

Where there are more controllers than a switch is connected to (controller/ha/connections.py), a node goes only to one
that its switch is connected to anyway, as long as one of these is there. Then shares cannot always differ by one at
most: they are as even as they become by giving nodes directly from one member to another that has two fewer. Each such
move makes them more even, whichever others are made before it, so that this ends as well, without a detour.

Only controllers with the highest version of the pipeline take anything. An older one keeps what it has until they come
for it, a few switches at a time like in any other move, and more a moment later; so a newer build that is no good shows
that with few of them. One of whose switches refuses its pipeline comes for no more. When none of the newer ones is
heard any more, the older ones take all that they had at once, and write the pipeline that they know. One that is back
comes for it anew, after the quiet seconds and a few at a time: one that ends again and again, or is heard now and then,
moves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from controller.ha import connections
from controller.records import OwnerRecord
from controller.rendezvous import score

#: Seconds without a change of the members after which nodes are taken from live owners: a controller that restarts
#: again and again moves nothing.
REBALANCE_SECONDS = 5.0
#: Nodes that one member takes from live owners in one go: what goes wrong with a move goes wrong for few.
MOVES_AT_ONCE = 10


def holder(owner: OwnerRecord | None, members: Mapping[str, str]) -> str | None:
    """The member that owns a node, in the incarnation that took it; None when no member does."""
    if owner is None or members.get(owner.controller) != owner.incarnation:
        return None
    return owner.controller


def preferred(
    nodes: Iterable[str],
    members: Mapping[str, str],
    owners: Mapping[str, OwnerRecord],
    there: Iterable[str] = (),
) -> dict[str, str]:
    """The member that should own each node; empty when there are no members.

    ``members`` are the incarnations, by name, of the controllers that should own anything: those that live and are
    not being drained. ``owners`` may know nodes and controllers that are not among the others.
    """
    if not members:
        return {}
    held: dict[str, list[str]] = {member: [] for member in members}
    homeless: list[str] = []
    chosen: dict[str, str] = {}
    for node in set(nodes):
        holding = holder(owners.get(node), members)
        if holding is None:
            homeless.append(node)
        else:
            held[holding].append(node)
            chosen[node] = holding
    everybody = frozenset(there)
    if connections.bounded(everybody):
        return _Spread(members, everybody).of(held, homeless)
    room = _shares({member: len(mine) for member, mine in held.items()}, len(homeless) + len(chosen))
    for member, mine in held.items():
        if len(mine) > room[member]:
            # The lowest scores go: those that are kept are the same after some of the others have gone.
            mine.sort(key=lambda node: (score(node, member), node), reverse=True)
            homeless += mine[room[member] :]
            del mine[room[member] :]
        room[member] -= len(mine)
    chosen.update(_placed(homeless, room))
    return chosen


def _shares(held: Mapping[str, int], nodes: int) -> dict[str, int]:
    """How many nodes each member should have. Where they cannot all have as many, one more goes to those who have it
    already, then by name.
    """
    share, more = divmod(nodes, len(held))
    order = sorted(held, key=lambda member: (held[member] <= share, member))
    return {member: share + (number < more) for number, member in enumerate(order)}


def _placed(homeless: list[str], room: dict[str, int]) -> dict[str, str]:
    """The nodes given to members with room for them, highest scores first."""
    pairs = [
        (score(node, member), node, member) for member, left in room.items() if left for node in homeless
    ]
    pairs.sort(reverse=True)
    placed: dict[str, str] = {}
    for _, node, member in pairs:
        if node not in placed and room[member]:
            placed[node] = member
            room[member] -= 1
    return placed


class _Spread:
    """Nodes over members of which each node's switch is connected to some only."""

    def __init__(self, members: Mapping[str, str], there: frozenset[str]) -> None:
        self._members = members
        self._there = there
        self._load = dict.fromkeys(members, 0)

    def of(self, held: Mapping[str, Collection[str]], homeless: Collection[str]) -> dict[str, str]:
        """The member that should have each node; ``held`` are those that members have, ``homeless`` the others."""
        chosen = {node: member for member, mine in held.items() for node in mine}
        for member, mine in held.items():
            self._load[member] = len(mine)
        near = {node: self._near(node) for node in homeless}
        # Who has least choice chooses first.
        for node in sorted(homeless, key=lambda node: (len(near[node]), node)):
            chosen[node] = max(
                near[node], key=lambda member: (-self._load[member], score(node, member), member)
            )
            self._load[chosen[node]] += 1
        self._even(chosen, frozenset(homeless))
        return chosen

    def _near(self, node: str) -> Collection[str]:
        """The members that may get a node: its candidates, or all where none of these is there."""
        candidates = connections.candidates(node, self._there)
        return [member for member in candidates if member in self._members] or self._members

    def _even(self, chosen: dict[str, str], homeless: frozenset[str]) -> None:
        """Members that have most give to those that have least, as long as they have two more. Who gives does not
        get, so that each of these moves is right whichever others have been made.
        """
        gave: set[str] = set()
        got: set[str] = set()
        givers = {member for member, load in self._load.items() if load - min(self._load.values()) > 1}
        nodes: dict[str, list[str]] = {member: [] for member in givers}
        for node, member in chosen.items():
            if member in givers:
                nodes[member].append(node)
        offers: dict[str, dict[str, list[str]]] = {}
        while givers := givers - got:
            giver = max(givers, key=lambda member: (self._load[member], member))
            if giver not in offers:
                offers[giver] = self._offers(giver, nodes[giver], homeless)
            able = [
                member
                for member, offered in offers[giver].items()
                if member not in gave and self._load[giver] - self._load[member] > 1 and offered
            ]
            if not able:
                # It has less from now on, and others more: it never will be able to.
                givers.discard(giver)
                continue
            getter = min(able, key=lambda member: (self._load[member], member))
            node = offers[giver][getter].pop()
            if chosen[node] != giver:
                continue  # Another has got it.
            chosen[node] = getter
            self._load[giver] -= 1
            self._load[getter] += 1
            gave.add(giver)
            got.add(getter)

    def _offers(self, giver: str, nodes: Iterable[str], homeless: frozenset[str]) -> dict[str, list[str]]:
        """By member what it may get from a giver: last what it gets first, nodes that move in any case, then those
        with the highest scores.
        """
        offers: dict[str, list[str]] = {}
        for node in nodes:
            for member in self._near(node):
                if member != giver:
                    offers.setdefault(member, []).append(node)
        for member, offered in offers.items():
            offered.sort(key=lambda node: (node in homeless, score(node, member), node))
        return offers


def wanted(
    me: str,
    nodes: Iterable[str],
    members: Mapping[str, str],
    owners: Mapping[str, OwnerRecord],
    stable_for: float,
    moves: int = MOVES_AT_ONCE,
    *,
    keepers: Mapping[str, str] | None = None,
    there: Iterable[str] = (),
    upgrading: bool = True,
) -> list[str]:
    """The nodes that this controller should take now, by name, those that no live member owns first.

    The others, at most ``moves`` of them, only when the members have been the same for :data:`REBALANCE_SECONDS`
    (``stable_for``, seconds); ask again when they are taken. For the other arguments see :func:`preferred`; a
    controller that is not among ``members`` takes nothing. ``keepers`` are those that keep what they own though they
    may not be among the members; None: the members. Unless ``upgrading``, nothing is taken from those that are not.
    """
    keepers = members if keepers is None else keepers
    orphans: list[str] = []
    others: list[str] = []
    for node, member in sorted(preferred(nodes, members, owners, there).items()):
        if member == me and (holding := holder(owners.get(node), keepers)) != me:
            if holding is None:
                orphans.append(node)
            elif upgrading or holding in members:
                others.append(node)
    return orphans + (others[:moves] if stable_for >= REBALANCE_SECONDS else [])
