# SPDX-License-Identifier: Apache-2.0
"""The node's own switch over the bridge's management socket: being told of changes, reading all of it, writing it.

Open vSwitch lets whoever may open the socket do everything, whatever role a controller has. So nothing is written here
but into a switch that is empty, see `agent.alone.keeper`.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.alone.image import MAX_BYTES, SwitchImage
from sdn.openflow import (
    BundleControl,
    CodecError,
    FlowCommand,
    Framer,
    GroupCommand,
    barrier_request,
    bundle,
    bundle_commit,
    bundle_discard,
    decode_bundle_reply,
    decode_error,
    decode_header,
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
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPT_BARRIER_REPLY,
    OFPT_BUNDLE_CONTROL,
    OFPT_ECHO_REPLY,
    OFPT_ECHO_REQUEST,
    OFPT_ERROR,
    OFPT_HELLO,
    OFPT_MULTIPART_REPLY,
)

_CONNECT_SECONDS: Final = 2.0
#: A switch that is busy with many flows answers late.
_ANSWER_SECONDS: Final = 60.0
_CHUNK: Final = 1 << 18
#: Of a flow's body: idle and hard time-out. Flows that the switch makes itself have one, a controller's never.
_TIMEOUTS: Final = slice(0, 4)
_NEVER: Final = bytes(4)
_BUNDLE: Final = 1


class LocalSwitchError(Exception):
    """The switch is not there, does not answer, or answers what cannot be understood."""


class RefusedError(Exception):
    """The switch refused what was written: nothing of it is in force."""


class LocalSwitch:
    """One connection, until it breaks. For one thread. LocalSwitchError from everything."""

    def __init__(self, path: Path) -> None:
        self._framer = Framer()
        self._pending: deque[bytes] = deque()
        self._xid = 0
        #: Told of a change that nobody has asked for yet.
        self._changed = False
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as problem:  # no descriptor is free
            raise LocalSwitchError(f"{path}: {problem}") from None
        try:
            self._socket.settimeout(_CONNECT_SECONDS)
            self._socket.connect(str(path))
            self._send(HEADER.pack(OFP_VERSION, OFPT_HELLO, HEADER.size, 0))
            hello = decode_header(self._receive(time.monotonic() + _ANSWER_SECONDS))
            if hello.type != OFPT_HELLO:
                raise LocalSwitchError(f"message type {hello.type} in place of a hello on {path}")
            self._send(notice_requests(self._next_xid()))
            self._ask(b"")
        except OSError as problem:
            self.close()
            raise LocalSwitchError(f"{path}: {problem}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def changed(self, seconds: float) -> bool:
        """Whether flows or groups have changed since this was asked last; waits for it so long."""
        deadline = time.monotonic() + seconds
        while not self._changed and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(_CHUNK)
            except TimeoutError:
                break
            except OSError as problem:
                raise LocalSwitchError(str(problem)) from None
            self._take(data)
        # Whatever comes outside of an answer is a notice, or nothing that concerns us.
        self._pending.clear()
        changed, self._changed = self._changed, False
        return changed

    def is_empty(self) -> bool:
        """Whether it has no flow and no group."""
        groups = group_desc_request(self._next_xid())
        if any(multipart_body(message) for message in self._answers(groups)):
            return False
        # Mostly the first table tells, without all of the others being described.
        for table in (0, None):
            flows = flow_desc_request(self._next_xid(), table=table)
            if any(multipart_body(message) for message in self._answers(flows)):
                return False
        return True

    def read(self, datapath_id: int) -> SwitchImage | None:
        """All that it holds, but for what it has made itself; None when it was changed meanwhile.

        Open vSwitch describes all flows as they were at one moment, and all groups likewise; that nobody was told of a
        change between makes them of the same moment.
        """
        self._changed = False
        image = SwitchImage(datapath_id)
        requests = group_desc_request(self._next_xid())
        for message in self._answers(requests):
            image.groups.update(split_group_descs(multipart_body(message)))
        requests = flow_desc_request(self._next_xid())
        for message in self._answers(requests):
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
            self._send(chunk)
        closed = self._until_closed()
        stroke = bundle_discard if closed else bundle_commit
        errors = closed + self._ask(stroke(_BUNDLE, self._next_xid()))
        if errors:
            raise RefusedError("; ".join(errors[:3]))

    # --- asking and receiving

    def _next_xid(self) -> int:
        self._xid += 1
        return self._xid

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.sendall(data)
        except OSError as problem:
            raise LocalSwitchError(str(problem)) from None

    def _answers(self, requests: bytes) -> Iterator[bytes]:
        """The multipart replies to requests. LocalSwitchError for an error, or for more than is kept."""
        barrier = self._next_xid()
        self._send(requests + barrier_request(barrier))
        received = 0
        while True:
            message = self._next()
            kind, xid = message[1], decode_header(message).xid
            received += len(message)
            if received > MAX_BYTES:
                raise LocalSwitchError(f"the switch describes more than {MAX_BYTES} bytes of entries")
            if kind == OFPT_BARRIER_REPLY and xid == barrier:
                return
            if kind == OFPT_ERROR:
                raise LocalSwitchError(f"the switch refused: {decode_error(message)}")
            if kind == OFPT_MULTIPART_REPLY:
                yield message

    def _ask(self, requests: bytes) -> list[str]:
        """The errors that come in answer."""
        barrier = self._next_xid()
        self._send(requests + barrier_request(barrier))
        errors: list[str] = []
        while True:
            message = self._next()
            if message[1] == OFPT_BARRIER_REPLY and decode_header(message).xid == barrier:
                return errors
            if message[1] == OFPT_ERROR:
                errors.append(str(decode_error(message)))

    def _until_closed(self) -> list[str]:
        errors: list[str] = []
        while True:
            message = self._next()
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

    def _next(self) -> bytes:
        return self._receive(time.monotonic() + _ANSWER_SECONDS)

    def _receive(self, deadline: float) -> bytes:
        while not self._pending:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(_CHUNK)
            except OSError as problem:
                raise LocalSwitchError(str(problem) or "no answer") from None
            self._take(data)
        return self._pending.popleft()

    def _take(self, data: bytes) -> None:
        """Sort what has come: answers wait to be taken, notices count, signs of life are returned."""
        if not data:
            raise LocalSwitchError("the switch ended the connection")
        try:
            for message in self._framer.feed(data):
                if is_notice(message):
                    self._changed = self._changed or tells_change(message)
                elif message[1] == OFPT_ECHO_REQUEST:
                    length, xid = decode_header(message)[2:]
                    self._send(
                        HEADER.pack(OFP_VERSION, OFPT_ECHO_REPLY, length, xid) + message[HEADER.size :]
                    )
                else:
                    self._pending.append(message)
        except CodecError as problem:
            raise LocalSwitchError(f"the switch answers nonsense: {problem}") from None
