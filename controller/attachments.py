# SPDX-License-Identifier: Apache-2.0
"""Attachments: what agents report, stored, programmed and answered.

An attachment is stored first and programmed then, so a controller that starts again computes the same flows
with no agent connected. Waiting for a switch is not part of the change: an *answer* comes later, when the
switch has confirmed what was stored. One that the switch refuses is taken back, so that nothing of it is in
force.

What is said on a node's stream counts as long as that is the node's stream (*live*).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from contextlib import suppress

from controller.checks import check_attachment
from controller.cluster import AttachmentKey, Cluster, key_of
from controller.confirmations import Confirmations, put
from controller.ledger import Ledger, whole
from controller.loadbalancing.runtime import LoadBalancing
from controller.policies import Policies
from controller.programs import Programs
from controller.records import AttachmentRecord, NodeRecord, attachment_key
from controller.store import Delete, Operation, StoreError
from controller.synchronizer import NOT_OWNER, Done
from controller.together import Answer, Asked, Live, Together
from controller.watchers import Watchers
from sdn import logs
from sdn.model import InvalidObjectError
from sdn.v1 import types_pb2

log = logs.get("controller.attachments")


class SupersededError(StoreError):
    """The stream that said this is not its node's any more: what is true now the next one says. Nothing was stored."""


def _always() -> bool:
    return True


def _check_live(node: str, live: Live) -> None:
    # With the ledger locked: a change that is begun again, since others were first, may be later than what a newer
    # stream has said.
    if not live():
        raise SupersededError(f"the stream that said it is not Node {node}'s any more")


class Attachments:
    """Runs in the asyncio thread."""

    def __init__(
        self,
        ledger: Ledger,
        cluster: Cluster,
        programs: Programs,
        watchers: Watchers,
        services: LoadBalancing,
        policies: Policies,
    ) -> None:
        self._ledger = ledger
        self._cluster = cluster
        self._programs = programs
        self._watchers = watchers
        self._services = services
        self._policies = policies
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.confirmations = Confirmations(ledger, cluster, watchers, services)
        self._together = Together(self._attach)

    async def attach(
        self, node: str, attachment: types_pb2.Attachment, answer: Answer, live: Live = _always
    ) -> None:
        """Store and program an attachment; ``answer`` comes when the switch has confirmed it, or refused it.

        InvalidObjectError, SupersededError, StoreError: nothing of it is stored.
        """
        await self._together.store(Asked(node, attachment, answer, live, self._loop.create_future()))

    @whole
    async def _attach(self, together: Sequence[Asked]) -> None:
        """Store and program several. StoreError: none of them is stored."""
        async with self._ledger.lock:
            accepted = Cluster()
            right: list[tuple[Asked, AttachmentRecord]] = []
            wrong: list[tuple[Asked, Exception]] = []
            for asked in together:
                try:
                    _check_live(asked.node, asked.live)
                    record = check_attachment(asked.attachment, self._node(asked.node))
                    self._cluster.check_attachment(record)
                    accepted.check_attachment(record)
                    if key_of(record) in accepted.attachments:
                        raise InvalidObjectError("attachment", f"{record} is being attached")
                except (InvalidObjectError, SupersededError) as problem:
                    wrong.append((asked, problem))
                else:
                    accepted.put_attachment(record)
                    right.append((asked, record))
            attachments = self._cluster.attachments
            new = [record for _, record in right if attachments.get(key_of(record)) != record]
            if new:
                await self._ledger.write(
                    [put(one, pending=self._moves(attachments.get(key_of(one)), one)) for one in new],
                    nodes=dict.fromkeys(one.node for one in new),
                )
            for asked, record in right:
                known = attachments.get(key_of(record))
                if known == record:
                    record = known
                else:
                    self._cluster.put_attachment(record)
                    self._replaced(known, record)
                self.program(record, asked.answer, new=_other_addresses(known, record))
        for asked, why in wrong:
            asked.fail(why)
        for asked, record in right:
            log.info(
                "pod attached",
                node=record.node,
                pod=f"{record.pod_namespace}/{record.pod_name}",
                container=record.container_id,
                addresses=list(record.addresses),
                ofport=record.ofport,
            )
            self._watchers.changed("Pod", record.pod_namespace, record.pod_name)
            asked.succeed()

    @whole
    async def detach(
        self, node: str, container_id: str, interface_name: str, answer: Answer, live: Live = _always
    ) -> None:
        """Forget an attachment; ``answer`` comes when its flows are gone. An unknown one is no error.
        SupersededError, StoreError.
        """
        async with self._ledger.lock:
            _check_live(node, live)
            self._node(node)
            record = self._cluster.attachments.get((node, container_id, interface_name))
            if record is not None:
                await self._ledger.write([Delete(attachment_key(*key_of(record)))], node=node)
                self._forget(record)
            gone = record.addresses if record is not None else ()
            self._remove(node, container_id, interface_name, self._threadsafe(answer), gone)
        if record is not None:
            log.info(
                "pod detached",
                node=node,
                pod=f"{record.pod_namespace}/{record.pod_name}",
                container=container_id,
            )

    @whole
    async def full_state(
        self,
        node: str,
        attachments: Sequence[types_pb2.Attachment],
        answer: Answer,
        wrong: dict[int, str] | None = None,
        live: Live = _always,
    ) -> None:
        """Make the node's attachments exactly these; ``answer`` comes when the switch has confirmed all of
        it.

        What is wrong with single attachments, or refused by the switch, is told to ``answer`` too, as one text; the
        others are in force then. ``wrong`` holds it by index when ``answer`` is called. SupersededError, StoreError.
        """
        wrong = wrong if wrong is not None else {}
        async with self._ledger.lock:
            _check_live(node, live)
            accepted, problems = self._accept(self._node(node), attachments)
            wanted = {key_of(record): record for record in accepted.values()}
            present = {key_of(record): record for record in self._cluster.attachments_on(node)}
            gone = [record for key, record in present.items() if key not in wanted]
            changed = [record for key, record in wanted.items() if present.get(key) != record]
            operations: list[Operation] = [Delete(attachment_key(*key_of(record))) for record in gone]
            operations += [
                put(record, pending=self._moves(present.get(key_of(record)), record)) for record in changed
            ]
            await self._ledger.write(operations, node=node)
            for record in gone:
                self._forget(record)
                self._remove(node, *record.id, None, record.addresses)
            for record in changed:
                self._cluster.remove_attachment(key_of(record))
            for record in changed:
                self._cluster.put_attachment(record)
            for record in changed:
                known = present.get(key_of(record))
                self._replaced(known, record)
                # A pod may have the addresses of one that is gone only now.
                self.program(record, None, new=_other_addresses(known, record))

            def settled(refused: str | None) -> None:
                # What the switch said of each of them was taken in before.
                refusals = (
                    (index, self.confirmations.refusal(key_of(one))) for index, one in accepted.items()
                )
                of_switch = {index: why for index, why in refusals if why is not None}
                if refused is None:  # else nothing is in force, so there is nothing that the others are not
                    wrong.update(sorted((problems | of_switch).items()))
                answer(refused or "; ".join(wrong.values()) or None)

            done = self._threadsafe(settled)
            self._services.afterwards(functools.partial(self._programs.settled, node, done))
        log.info(
            "full state",
            node=node,
            attachments=len(wanted),
            changed=len(changed),
            gone=len(gone),
            rejected=list(problems.values()),
        )
        for record in changed:
            self._watchers.changed("Pod", record.pod_namespace, record.pod_name)

    def _accept(
        self, node: NodeRecord, attachments: Sequence[types_pb2.Attachment]
    ) -> tuple[dict[int, AttachmentRecord], dict[int, str]]:
        """The attachments that can be together on the node, and what is wrong with the others, by index."""
        right: dict[int, AttachmentRecord] = {}
        accepted = Cluster()
        problems: dict[int, str] = {}
        # What the node had does not count: only the list as a whole says what it has.
        former = frozenset(key_of(record) for record in self._cluster.attachments_on(node.name))
        for index, attachment in enumerate(attachments):
            path = f"attachments[{index}]"
            try:
                record = check_attachment(attachment, node, path)
                accepted.check_attachment(record, path)
                self._cluster.check_attachment(record, path, former)
            except InvalidObjectError as problem:
                problems[index] = str(problem)
            else:
                accepted.put_attachment(record)
                right[index] = record
        return right, problems

    def _node(self, name: str) -> NodeRecord:
        record = self._cluster.nodes.get(name)
        if record is None:
            raise InvalidObjectError("node", f"Node {name} is no longer registered")
        return record

    def program(self, record: AttachmentRecord, answer: Answer | None, *, new: bool = False) -> None:
        """Hand a stored attachment to its synchronizer; ``new``: nobody had its addresses before."""
        waiting = [answer] if answer is not None else []

        def confirmed(refused: str | None) -> None:
            # A switch that refused may take it later: then there is nobody left to answer.
            self._confirmed(record, waiting.pop() if waiting else None, refused)

        done = self._threadsafe(confirmed)
        put = functools.partial(self._programs.put_pod, record, done, new=new)
        self._services.afterwards(put)

    def _confirmed(self, record: AttachmentRecord, answer: Answer | None, refused: str | None) -> None:
        """The switch has confirmed an attachment, or refused it: then, if somebody waits, it is taken
        back.
        """
        if self._cluster.attachments.get(key_of(record)) is not record:
            # Gone or changed meanwhile. Who asked for it learns whether it was in force.
            if answer is not None:
                answer(refused)
            return
        if refused is None:
            if answer is not None:
                answer(None)
            self.confirmations.confirmed(record)
        elif answer is None:
            self.confirmations.refused(record, refused)
        else:
            task = self._loop.create_task(self._refuse(record, answer, refused))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _moves(self, before: AttachmentRecord | None, after: AttachmentRecord) -> bool:
        """Whether the switch has to confirm the attachment before others may send to it."""
        moved = before is None or _place(before) != _place(after)
        return moved or self.confirmations.pending(key_of(after))

    # What other controllers have stored.

    def stored(self, record: AttachmentRecord, pending: bool) -> None:
        """Another controller has stored an attachment."""
        key = key_of(record)
        known = self._cluster.attachments.get(key)
        if known != record:
            self._cluster.put_attachment(record)
            self._replaced(known, record)
            self.program(record, None, new=_other_addresses(known, record))
        else:
            record = known
        self.confirmations.stored(record, pending)
        self._watchers.changed("Pod", record.pod_namespace, record.pod_name)

    def removed(self, key: AttachmentKey) -> None:
        """Another controller has forgotten an attachment."""
        record = self._cluster.attachments.get(key)
        if record is not None:
            self._forget(record)
            self._remove(*key, None, record.addresses)

    def load(self, record: AttachmentRecord, pending: bool) -> None:
        """Take in what is stored; it is programmed later."""
        self._cluster.put_attachment(record)
        self.confirmations.loaded(key_of(record), pending)

    def owned(self, node: str) -> None:
        """This controller has become the node's: what its switch was still to confirm, it is to confirm to us."""
        for record in self._cluster.attachments_on(node):
            if self.confirmations.missing(key_of(record)):
                self.program(record, None)

    async def _refuse(self, record: AttachmentRecord, answer: Answer, refused: str) -> None:
        """Take back what the switch has refused, and tell who waits, whatever the store says."""
        try:
            await self._take_back(record)
        except StoreError as problem:
            # It stays known, too: the agent, which is told, detaches it.
            log.error("refused attachment stays stored", attachment=str(record), error=str(problem))
        finally:
            answer(refused)

    @whole
    async def _take_back(self, record: AttachmentRecord) -> None:
        """Forget an attachment, if it still is as it was. StoreError."""
        async with self._ledger.lock:
            if self._cluster.attachments.get(key_of(record)) is record:
                await self._ledger.write([Delete(attachment_key(*key_of(record)))], node=record.node)
                self._forget(record)
                self._remove(record.node, *record.id, None, record.addresses)

    def _replaced(self, before: AttachmentRecord | None, after: AttachmentRecord) -> None:
        """An attachment is new, or another than before. Where it leads stays in force when only what is said
        about the pod is new.
        """
        self.confirmations.replaced(key_of(after), before is None or _place(before) != _place(after))
        gone = [address for address in before.addresses if address not in after.addresses] if before else []
        if before is not None and (before.pod_namespace, before.pod_name) != (
            after.pod_namespace,
            after.pod_name,
        ):
            self._services.pod_changed(before.pod_namespace, before.pod_name, gone)
        self._services.pod_changed(after.pod_namespace, after.pod_name, gone)
        self._policies.pod_attached(after)

    def _remove(
        self, node: str, container_id: str, interface_name: str, done: Done | None, gone: Sequence[str]
    ) -> None:
        """Take an attachment's flows away, after its pod has left its Services; then its policies."""
        self._services.afterwards(
            functools.partial(self._programs.remove_pod, node, container_id, interface_name, done, gone)
        )
        detached = (node, container_id, interface_name)
        self._services.afterwards(functools.partial(self._policies.pod_detached, detached))

    def _forget(self, record: AttachmentRecord) -> None:
        self._cluster.remove_attachment(key_of(record))
        self.confirmations.forgotten(key_of(record))
        self._services.pod_changed(record.pod_namespace, record.pod_name, record.addresses)
        self._watchers.changed("Pod", record.pod_namespace, record.pod_name)

    def _threadsafe(self, answer: Answer) -> Answer:
        """The same callback, callable from a synchronizer's thread."""

        def call(refused: str | None) -> None:
            if refused == NOT_OWNER:
                # Nothing was refused, and what is stored stays. The agent asks whoever owns its switch now.
                return
            with suppress(RuntimeError):  # The loop has ended: nobody is left to be told.
                self._loop.call_soon_threadsafe(answer, refused)

        return call


def _other_addresses(before: AttachmentRecord | None, after: AttachmentRecord) -> bool:
    """Whether an attachment begins with its addresses."""
    return before is None or before.addresses != after.addresses


def _place(record: AttachmentRecord) -> tuple[object, ...]:
    """What the flows of an attachment are made of."""
    return record.ofport, record.mac, record.addresses
