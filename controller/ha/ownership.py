# SPDX-License-Identifier: Apache-2.0
"""Whose each switch is: what the store says of it, and what this controller takes.

A switch's owner is one key, taken by compare-and-swap. The revision of that write is the owner's *generation*: it grows
with each change of owner, and it is the generation_id of the role request (OpenFlow 1.5, 6.3.6), so the switch itself
refuses whoever owned it before. Safety hangs on this alone. A takeover need not wait for a lease to run out, and taking
is one-sided: the new owner takes, the former one learns it, from the store or from the switch.

A switch that has seen higher generations than the store can have given (one that was lost, or restored from a backup)
is taken once more, with what it has seen as the *base* on which its owners' revisions count from then on.

Which controllers are there is for :mod:`controller.ha.members` to say.

A lease that is lost is a *pause* at first: nothing is written, and what is known of the switches is kept, so that one
that is regained while nobody has taken them costs a question for the role each. What another has taken meanwhile is
lost at once, by what the store says or by what the switch does; all of it when the pause has lasted for a while.

A controller alone with its store is the only member, and owns everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.cluster import Cluster
from controller.ha.assignment import REBALANCE_SECONDS, preferred, wanted
from controller.ha.marks import Marks
from controller.ha.members import LINGER_SECONDS, Members
from controller.ha.news import NO_NODE, News
from controller.ledger import Ledger, under
from controller.records import (
    DOWN,
    MEMBERS,
    OWNERS,
    MemberRecord,
    OwnerRecord,
    decode,
    encode,
    owner_key,
)
from controller.store import ConflictError, Entry, Put, StoreError
from sdn import logs

log = logs.get("controller.ownership")

#: Switches that are taken in one write.
_AT_ONCE = 48
#: Seconds for which this controller keeps what it owns, without writing it, after its lease was lost.
PAUSE_SECONDS = 5.0
#: Seconds for which a new node waits for the controller that it belongs to, before another one takes it.
_PATIENCE = 1.0
_RETRY_SECONDS = 0.2
#: Seconds until more is taken from older controllers: most often a switch that refuses the pipeline does so by then.
_UPGRADE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a switch, as of which revision of the store."""

    record: OwnerRecord
    revision: int

    @property
    def generation(self) -> int:
        """Of two owners of a switch the later one has the higher."""
        return self.record.base + self.revision

    @property
    def controller(self) -> str:
        return self.record.controller


#: Told the node, in the asyncio thread.
OnNode = Callable[[str], None]


class Ownership:
    """Make it inside the running event loop. ``me`` is this controller."""

    def __init__(self, ledger: Ledger, cluster: Cluster, me: MemberRecord | None) -> None:
        self._ledger = ledger
        self._cluster = cluster
        self._me = me
        self._loop = asyncio.get_running_loop()
        self._owners: dict[str, Owner] = {}
        #: The highest generation that each node's owner ever had, as far as this controller knows.
        self._highest: dict[str, int] = {}
        self.members = Members(me)
        #: Nodes that this controller owns, and writes while it has its lease.
        self._held: set[str] = set()
        #: Those of them that are to be taken once more, with a generation above this.
        self._again: dict[str, int] = {}
        self._may_write = me is None
        #: Ends the pause for which they are kept without a lease; None: there is no pause.
        self._pausing: asyncio.TimerHandle | None = None
        self._draining = False
        self._stable_since = self._loop.time()
        self._look = asyncio.Event()
        self._marks = Marks(ledger, self.members, self._look, self._members_changed)
        self._news = News()
        self._task: asyncio.Task[None] | None = None
        #: The node because of whose switch nothing is taken from older controllers.
        self._refusing: str | None = None
        #: When something is taken from older controllers again, in the terms of the loop's time.
        self._upgrade_at = 0.0
        #: Set when this controller has taken for the first time what was its to take.
        self.begun = asyncio.Event()
        #: Told of a node that this controller owns from now on, or does not own any longer.
        self.on_held: OnNode = lambda _node: None
        self.on_lost: OnNode = lambda _node: None
        #: Told that nothing may be written, whatever is owned, or that it may be again.
        self.on_pause: Callable[[bool], None] = lambda _paused: None
        #: A node whose switch is this controller's and refuses its pipeline, if there is one.
        self.refusing: Callable[[], str | None] = lambda: None
        #: Whether a node's switch is let in here. One that others have just registered may not be yet: it would be
        #: refused by whoever took it. Told by :meth:`nodes_changed` when it is.
        self.claimed: Callable[[str], bool] = lambda _node: True
        #: Told of a node that has another owner, whoever it is.
        self.on_owner: OnNode = lambda _node: None
        #: Told when other controllers have come, gone or changed.
        self.on_members: Callable[[], None] = lambda: None

    # What others ask.

    def owns(self, node: str) -> bool:
        """Whether this controller owns the node's switch. It writes it while it has its lease."""
        return self._me is None or node in self._held

    def generation_of(self, node: str) -> int | None:
        """The generation with which this controller owns a node; None: it does not. 0: nobody else could."""
        if self._me is None:
            return 0
        return self._owners[node].generation if node in self._held else None

    def revision_of(self, node: str) -> int | None:
        """The revision at which the store says that this controller owns a node; None: it does not. 0: it need not."""
        if self._me is None:
            return 0
        return self._owners[node].revision if node in self._held else None

    def owner(self, node: str) -> Owner | None:
        """Who owns a node; None: nobody who is there."""
        owner = self._owners.get(node)
        return owner if owner is not None and self.members.is_there(owner.record) else None

    def owners(self) -> Mapping[str, Owner]:
        """By node who owns its switch, whether the owner is there or not."""
        return self._owners

    def preferred(self) -> dict[str, str]:
        """By node the controller that it belongs to while all is well."""
        return preferred(
            self._cluster.nodes, self.members.takers(), self._records(), there=self.members.all()
        )

    def openflow_targets(self, node: str) -> list[str]:
        """Where a node's switch reaches the controllers that it is connected to; none where this one is alone."""
        owner = self._owners.get(node)
        return self.members.openflow_targets(node, owner.controller if owner is not None else None)

    def next_change(self) -> Coroutine[Any, Any, object]:
        """Waits until an owner or a member is another than it was when this was called."""
        return self._news.next()

    def change_of(self, node: str) -> asyncio.Event:
        """Is set when the node's owner or a member is another than now."""
        # Anybody may ask for any name: what is kept grows with the nodes that there are.
        there = node in self._cluster.nodes or node in self._owners
        return self._news.of(node if there else NO_NODE)

    # What is stored.

    def load(self, entries: Iterable[Entry]) -> None:
        """Take in what is stored; ``entries`` are all of it. CorruptRecordError."""
        stored = list(entries)
        for prefix, take in (
            (MEMBERS, self.member_stored),
            (DOWN, self.down_stored),
            (OWNERS, self.owner_stored),
        ):
            for entry in under(prefix, stored):
                take(entry.key.removeprefix(prefix), entry)

    def owner_stored(self, node: str, entry: Entry | None) -> None:
        """Another controller has taken a switch, or a node is forgotten. CorruptRecordError."""
        if entry is None:
            self._set_owner(node, None)
        else:
            record = decode(OwnerRecord, entry)
            self._set_owner(node, Owner(record, entry.revision))

    def member_stored(self, name: str, entry: Entry | None) -> None:
        """A controller has come, changed, or its lease has ended. CorruptRecordError."""
        if self.members.member_stored(name, entry):
            log.info("controllers", there=sorted(self.members.all()), changed=name)
        if entry is None:
            self._marks.gone(name)
            # Switches are told of it no longer then, whatever else happens or does not.
            self._loop.call_later(LINGER_SECONDS + _RETRY_SECONDS, self._news.members)
        self._members_changed()

    def down_stored(self, name: str, entry: Entry | None) -> None:
        """A controller was found silent, or is back. CorruptRecordError."""
        self.members.down_stored(name, entry)
        self._members_changed()

    def nodes_changed(self) -> None:
        """Nodes were registered or forgotten."""
        self._look.set()

    # What this controller finds.

    def silent(self, name: str, incarnation: str, why: str) -> None:
        """A controller is not heard any more."""
        self._marks.silent(name, incarnation, why)

    def heard(self, name: str, incarnation: str) -> None:
        """A controller is heard again."""
        self._marks.heard(name, incarnation)

    def lease(self, held: bool) -> None:
        """This controller's lease was lost, or regained: without it nothing is written."""
        if held == self._may_write:
            return
        self._may_write = held
        log.info("lease regained" if held else "lease lost: nothing is written any more")
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self.on_pause(not held)
        if held:
            self._judge_all()
        else:
            self._pausing = self._loop.call_later(PAUSE_SECONDS, self._end_pause)
            for node in self._again.keys() & self._held:
                self._give_up(node)
        self._look.set()

    def _end_pause(self) -> None:
        self._pausing = None
        self._judge_all()

    def deposed(self, node: str, generation: int, seen: int) -> None:
        """The switch has seen a higher generation than this one: ``seen``, 0 when that is not known. If the store does
        not say whose after a while, it is taken again, with a generation above.
        """
        log.warning("deposed by the switch", node=node, generation=generation, seen=seen)

        def look() -> None:
            owner = self._owners.get(node)
            if self._mine(owner) and owner is not None and owner.generation == generation:
                if not self._may_write:
                    # The store may not be heard. Whoever has the switch is found by the node's agent.
                    self._give_up(node)
                self._again[node] = max(seen, self._again.get(node, 0))
                self._look.set()

        self._loop.call_later(_PATIENCE, look)

    def drain(self, draining: bool) -> None:
        """Whether this controller hands over what it has, as its record says."""
        self._draining = draining
        self._look.set()

    # Taking.

    def start(self) -> None:
        """Begin to take."""
        self._task = self._loop.create_task(self._run())

    def stop(self) -> None:
        """Take nothing any more."""
        if self._task is not None:
            self._task.cancel()
        if self._pausing is not None:
            self._pausing.cancel()

    async def settle(self, node: str) -> Owner | None:
        """The owner of a registered node; one that nobody has is taken, by whom it belongs to. None: it could not
        be.
        """
        deadline = self._loop.time() + _PATIENCE
        while self._me is not None and self.owner(node) is None:
            belongs = self.preferred().get(node)
            mine = belongs in (None, self.members.name) or self._loop.time() >= deadline
            if mine and self._can_take() and self.members.may_take() and self.claimed(node):
                await self._take([node])
            if self.owner(node) is None:
                changed = asyncio.ensure_future(self.next_change())
                await asyncio.wait([changed], timeout=_RETRY_SECONDS)
                changed.cancel()
            if self._loop.time() > deadline + _PATIENCE:
                break
        return self.owner(node)

    async def handed_over(self, seconds: float) -> bool:
        """Wait until nothing is left of what this controller had, or for so long."""
        deadline = self._loop.time() + seconds
        while self._held and self.members.takers():
            left = deadline - self._loop.time()
            if left <= 0:
                break
            changed = asyncio.ensure_future(self.next_change())
            await asyncio.wait([changed], timeout=left)
            changed.cancel()
        return not self._held

    async def _run(self) -> None:
        while True:
            self._look.clear()
            pause: float | None = _RETRY_SECONDS
            try:
                if self._may_write:
                    await self._marks.rise_in_time()
                if self._may_write:
                    await self._marks.mark_silent()
                pause = await self._take_wanted()
            except ConflictError as conflict:
                await self._ledger.seen(conflict)
            except StoreError as problem:
                log.warning("switches cannot be taken", error=str(problem))
            except Exception:
                # A defect must not leave a controller that others take for alive, and that takes nothing.
                log.exception("taking switches failed")
            looking = asyncio.ensure_future(self._look.wait())
            await asyncio.wait([looking], timeout=pause)
            looking.cancel()

    def _can_take(self) -> bool:
        return self._may_write and not self._draining and self._me is not None and self.members.standing()

    async def _take_wanted(self) -> float | None:
        """Take what is this controller's to take; seconds until there may be more, None: until something changes."""
        if not self._can_take():
            return None
        stable = self._loop.time() - self._stable_since
        takers, keepers = self.members.takers(), self.members.keepers()
        newer = self.members.name in takers and takers.keys() != keepers.keys()
        upgrading = not newer or self._may_upgrade()
        nodes = wanted(
            self.members.name,
            self._cluster.nodes,
            takers,
            self._records(),
            stable,
            keepers=keepers,
            there=self.members.all(),
            upgrading=upgrading,
        )
        nodes = list(filter(self.claimed, nodes))
        if newer and upgrading and nodes:
            self._upgrade_at = self._loop.time() + _UPGRADE_SECONDS
        nodes += sorted(self._again.keys() & self._held)
        for start in range(0, len(nodes), _AT_ONCE):
            # While it was written a lease may have ended, or the hand-over have begun.
            if not self._can_take():
                return None
            await self._take(nodes[start : start + _AT_ONCE])
        self.begun.set()
        if stable < REBALANCE_SECONDS:
            return REBALANCE_SECONDS - stable
        if nodes:
            return _RETRY_SECONDS
        return None if upgrading else _UPGRADE_SECONDS

    def _may_upgrade(self) -> bool:
        """Whether to take switches of older controllers now: not while one that was taken refuses the pipeline, or may
        be about to.
        """
        before, self._refusing = self._refusing, self.refusing()
        if self._refusing is not None and before is None:
            log.warning(
                "older controllers keep their switches: one refuses this pipeline", node=self._refusing
            )
        return self._refusing is None and self._loop.time() >= self._upgrade_at

    async def _take(self, nodes: Sequence[str]) -> None:
        known = {node: self._owners[node] for node in nodes if node in self._owners}
        records = {
            node: self._record(known.get(node), max(self._again.get(node, 0), self._highest.get(node, 0)))
            for node in nodes
        }
        puts = [
            Put(owner_key(node), encode(record), expect=known[node].revision if node in known else 0)
            for node, record in records.items()
        ]
        try:
            revision = await self._ledger.write([*puts, *self.members.fence()])
        except ConflictError as conflict:
            await self._ledger.seen(conflict)
            self._look.set()
            return
        for node, record in records.items():
            self._again.pop(node, None)
            if self._ledger.stands(owner_key(node), revision):
                self._set_owner(node, Owner(record, revision))

    def _record(self, before: Owner | None, seen: int) -> OwnerRecord:
        """This controller's as the next owner, with a generation above the one before and what the switch has seen."""
        assert self._me is not None
        base = before.record.base if before is not None else 0
        # The write's revision is above all that are known.
        known = max(self._ledger.revision, before.revision if before is not None else 0)
        base = max(base, seen - known)
        return OwnerRecord(controller=self._me.name, incarnation=self._me.incarnation, base=base)

    # Consequences.

    def _records(self) -> dict[str, OwnerRecord]:
        return {node: owner.record for node, owner in self._owners.items()}

    def _members_changed(self) -> None:
        self._stable_since = self._loop.time()
        self._look.set()
        self._news.members()
        self.on_members()

    def _set_owner(self, node: str, owner: Owner | None) -> None:
        before = self._owners.get(node)
        if owner == before:
            return
        if owner is None:
            self._owners.pop(node)
        elif before is None or owner.revision > before.revision:
            self._owners[node] = owner
            self._highest[node] = max(owner.generation, self._highest.get(node, 0))
        self._judge(node, again=True)
        self._look.set()
        self._news.owner(node)
        self.on_owner(node)

    def _mine(self, owner: Owner | None) -> bool:
        """Whether the store says that this start of this controller owns a node, held or not."""
        me = self._me
        return me is not None and owner is not None and owner.record.is_of(me.name, me.incarnation)

    def _judge(self, node: str, *, again: bool = False) -> None:
        """Whether this controller holds a node, and who has to know; ``again``: its generation is another one."""
        me, owner = self._me, self._owners.get(node)
        if me is None:
            return
        kept = self._pausing is not None and node in self._held
        holds = self._mine(owner) and (self._may_write or kept)
        if not self._mine(owner):
            self._again.pop(node, None)
        if not holds:
            self._give_up(node)
        elif again or node not in self._held:
            self._held.add(node)
            self.on_held(node)

    def _judge_all(self) -> None:
        for node in list(self._owners):
            self._judge(node)

    def _give_up(self, node: str) -> None:
        """It is not held any longer."""
        if node in self._held:
            self._held.discard(node)
            self.on_lost(node)
