# SPDX-License-Identifier: Apache-2.0
"""The node's own switch over the bridge's management socket: being told of changes, reading all of it, writing it.

Flows and groups are the controllers'. So nothing is written here but into a switch that is empty, see
`agent.alone.keeper`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.alone.image import SwitchImage
from agent.management import Management
from sdn.openflow import (
    BundleControl,
    FlowCommand,
    GroupCommand,
    bundle,
    bundle_commit,
    bundle_discard,
    decode_bundle_reply,
    decode_error,
    flow_desc_request,
    flow_mod,
    group_desc_request,
    group_mod,
    is_notice,
    multipart_body,
    notice_requests,
    split_flow_descs,
    split_group_descs,
    tells_change,
)
from sdn.openflow.wire import OFPT_BUNDLE_CONTROL, OFPT_ERROR

#: Of a flow's body: idle and hard time-out. Flows that the switch makes itself have one, a controller's never.
_TIMEOUTS: Final = slice(0, 4)
_NEVER: Final = bytes(4)
_BUNDLE: Final = 1


class RefusedError(Exception):
    """The switch refused what was written: nothing of it is in force."""


class LocalSwitch(Management):
    """One connection, until it breaks. For one thread. LocalSwitchError from everything."""

    def __init__(self, path: Path) -> None:
        #: Told of a change that nobody has asked for yet.
        self._changed = False
        super().__init__(path, notice_requests)

    def notice(self, message: bytes) -> bool:
        if not is_notice(message):
            return False
        self._changed = self._changed or tells_change(message)
        return True

    def changed(self, seconds: float) -> bool:
        """Whether flows or groups have changed since this was asked last; waits for it so long."""
        self.wait(lambda: self._changed, seconds)
        changed, self._changed = self._changed, False
        return changed

    def is_empty(self) -> bool:
        """Whether it has no flow and no group."""
        groups = group_desc_request(self.next_xid())
        if any(multipart_body(message) for message in self.answers(groups)):
            return False
        # Mostly the first table tells, without all of the others being described.
        for table in (0, None):
            flows = flow_desc_request(self.next_xid(), table=table)
            if any(multipart_body(message) for message in self.answers(flows)):
                return False
        return True

    def read(self, datapath_id: int) -> SwitchImage | None:
        """All that it holds, but for what it has made itself; None when it was changed meanwhile.

        Open vSwitch describes all flows as they were at one moment, and all groups likewise; that nobody was told of a
        change between makes them of the same moment.
        """
        self._changed = False
        image = SwitchImage(datapath_id)
        requests = group_desc_request(self.next_xid())
        for message in self.answers(requests):
            image.groups.update(split_group_descs(multipart_body(message)))
        requests = flow_desc_request(self.next_xid())
        for message in self.answers(requests):
            for key, body in split_flow_descs(multipart_body(message)):
                if body[_TIMEOUTS] == _NEVER:
                    image.flows[key] = body
        return None if self._changed else image

    def write(self, image: SwitchImage) -> None:
        """Add everything, in one atomic bundle. RefusedError: nothing of it is in force."""
        messages = [group_mod(GroupCommand.ADD, number, body) for number, body in image.groups.items()]
        messages += (flow_mod(FlowCommand.ADD, key, body) for key, body in image.flows.items())
        self._xid = first = self._xid + 1
        self._xid += len(messages) + 2
        for chunk in bundle(_BUNDLE, messages, first):
            self.send(chunk)
        closed = self._until_closed()
        stroke = bundle_discard if closed else bundle_commit
        errors = closed + self.ask(stroke(_BUNDLE, self.next_xid()))
        if errors:
            raise RefusedError("; ".join(errors[:3]))

    def _until_closed(self) -> list[str]:
        errors: list[str] = []
        while True:
            message = self.next_answer()
            if message[1] == OFPT_ERROR:
                error = decode_error(message)
                errors.append(str(error))
                # In place of an answer to the request that closes the bundle.
                if error.data[1:2] == bytes([OFPT_BUNDLE_CONTROL]):
                    return errors
            elif (
                message[1] == OFPT_BUNDLE_CONTROL
                and decode_bundle_reply(message).type is BundleControl.CLOSE_REPLY
            ):
                return errors
