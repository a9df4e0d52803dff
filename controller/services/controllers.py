# SPDX-License-Identifier: Apache-2.0
"""Controllers as people are shown them: what this one knows of each, and what each says of itself.

A lease is known to its holder alone, and how much of the store a controller has taken in nobody else can see. So each
is asked, all beside each other and for a bounded time; one that does not answer is shown with the rest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

from controller.engine import Engine
from controller.errors import NotFoundError
from controller.ha.colleagues import Colleagues
from sdn.v1 import inspection_pb2

#: The largest number of the fields that have 32 bits.
_MOST: Final = (1 << 32) - 1

#: By name and incarnation how many switches a controller owns.
_Owned = Mapping[tuple[str, str], int]


class Controllers:
    """Runs in the asyncio thread."""

    def __init__(self, engine: Engine, colleagues: Colleagues) -> None:
        self._engine = engine
        self._colleagues = colleagues

    async def list(self, own_only: bool) -> inspection_pb2.ListControllersResponse:
        """As they are now, by name; ``own_only``: this one, and nobody is asked."""
        members = self._engine.ownership.members
        me = members.name
        # From before the others are asked: what comes while they answer is nobody's lag.
        newest = self._engine.ledger.revision
        told: dict[str, inspection_pb2.ListControllersResponse | None] = {}
        if not own_only:
            others = sorted(members.all().keys() - {me})
            told = dict(zip(others, await asyncio.gather(*map(self._colleagues.itself, others)), strict=True))
        owners = self._engine.ownership.owners().values()
        owned = Counter((owner.record.controller, owner.record.incarnation) for owner in owners)
        belong = Counter(self._engine.ownership.preferred().values())
        names = {me} if own_only else members.all().keys() | {name for name, _ in owned}
        # One that is alone has no name, and is no controller among others.
        listed = [self._known(name, owned, belong[name]) for name in sorted(names) if name]
        for status in listed:
            if status.name == me:
                self._say(status)
            elif status.name in told:
                newest = max(newest, _take(status, told[status.name]))
        for status in listed:
            if status.HasField("revision"):
                status.lag = min(max(0, newest - status.revision), _MOST)
        return inspection_pb2.ListControllersResponse(
            controllers=listed, answered_by=me, store_revision=newest
        )

    async def drain(self, name: str, draining: bool) -> inspection_pb2.DrainControllerResponse:
        """Let a controller hand over its switches, or take some again. NotFoundError, StoreError; ColleagueError."""
        members = self._engine.ownership.members
        if name != members.name:
            if name not in members.all():
                raise NotFoundError(f"Controller {name} does not exist")
            return await self._colleagues.drain(name, draining)
        await self._engine.drain(draining)
        answer = inspection_pb2.DrainControllerResponse()
        if draining and not members.takers(without=name):
            answer.warning = (
                f"no other controller can take over now: Controller {name} keeps its switches until one can, and takes "
                "no more"
            )
        return answer

    def _known(self, name: str, owned: _Owned, preferred: int) -> inspection_pb2.ControllerStatus:
        """What this controller knows of one."""
        ownership = self._engine.ownership
        members = ownership.members.all()
        member, mine = members.get(name), members.get(ownership.members.name)
        status = inspection_pb2.ControllerStatus(
            name=name,
            alive=member is not None,
            preferred=preferred,
            # What a former start of it had, nobody owns any more.
            switches=sum(
                count
                for (controller, incarnation), count in owned.items()
                if controller == name and (member is None or incarnation == member.record.incarnation)
            ),
        )
        if member is not None:
            record = member.record
            status.grpc_address = record.grpc_address
            status.openflow_target = record.openflow_target
            status.version = record.version
            status.draining = record.draining
            if mine is not None:
                status.differing_settings.update(mine.record.differing(record))
            if record.started_at:
                status.started_at.FromJsonString(record.started_at)
        if (down := ownership.members.down(name)) is not None:
            status.down_by = down.by
        if name != ownership.members.name and (seconds := self._engine.heard(name)) is not None:
            status.heard_ms = min(round(seconds * 1000), _MOST)
        return status

    def _say(self, status: inspection_pb2.ControllerStatus) -> None:
        """What this controller says of itself."""
        status.revision = self._engine.ledger.followed_to
        if (lease := self._engine.lease()) is not None:
            status.lease_left_ms = round(lease.left * 1000)
            status.lease_ms = round(lease.seconds * 1000)


def _take(
    status: inspection_pb2.ControllerStatus, answer: inspection_pb2.ListControllersResponse | None
) -> int:
    """What another one says of itself; gives the highest revision that it knows of, 0: it does not say."""
    # At an address that was another one's before, another one may answer.
    if answer is None or answer.answered_by != status.name:
        status.unanswering = True
        return 0
    for said in answer.controllers:
        if said.name == status.name:
            for field in ("revision", "lease_left_ms", "lease_ms"):
                if said.HasField(field):
                    setattr(status, field, getattr(said, field))
    return max(answer.store_revision, status.revision)
