# SPDX-License-Identifier: Apache-2.0
"""Switches without packets: many of them in one process, each speaking as much OpenFlow as a controller asks for.

A switch takes bundles, describes what it holds, and keeps the order of its controllers by their generations, as Open
vSwitch 3.1 does it (tests/switch/test_codec_roles.py). What many switches hold alike they hold once.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

from sdn.openflow import Role
from sdn.openflow.bundle import BundleControl
from sdn.openflow.wire import (
    HEADER,
    OFP_VERSION,
    OFPMP_DESC,
    OFPMP_FLOW_DESC,
    OFPMP_GROUP_DESC,
    OFPMPF_REPLY_MORE,
    OFPT_BARRIER_REPLY,
    OFPT_BARRIER_REQUEST,
    OFPT_BUNDLE_ADD_MESSAGE,
    OFPT_BUNDLE_CONTROL,
    OFPT_ERROR,
    OFPT_FLOW_MOD,
    OFPT_GROUP_MOD,
    OFPT_MULTIPART_REPLY,
    OFPT_MULTIPART_REQUEST,
    OFPT_ROLE_REPLY,
    OFPT_ROLE_REQUEST,
    OFPT_ROLE_STATUS,
)
from sdn.pipeline.tables import EGRESS_POLICY, INGRESS_POLICY

_HELLO, _ECHO_REQUEST, _ECHO_REPLY, _FEATURES_REQUEST, _FEATURES_REPLY = 0, 2, 3, 5, 6
_ROLE: Final = struct.Struct("!IH2xQ")
_CONTROL: Final = struct.Struct("!IHH")
_GROUP_MOD: Final = struct.Struct("!HBxIH2xI")
_GROUP_DESC: Final = struct.Struct("!HBxIH6x")
_IS_SLAVE: Final = struct.pack("!HH", 1, 10)
_STALE: Final = struct.pack("!HH", 11, 0)
_NO_STATISTICS: Final = struct.pack("!HH4x", 0, 4)
_SOFTWARE: Final = struct.pack("!256s256s256s32s256s", b"", b"", b"3.1.0", b"", b"")
#: Bytes of descriptions in one reply.
_REPLY: Final = 60_000
#: Seconds after which a switch connects again, and by how much that varies.
BACKOFF: Final = (0.5, 1.0)
_DELETE_STRICT: Final = 4
_ADD_GROUP, _MODIFY_GROUP, _DELETE_GROUP, _INSERT_BUCKET, _REMOVE_BUCKET = 0, 1, 2, 3, 5
_POLICY_TABLES: Final = (EGRESS_POLICY.number, INGRESS_POLICY.number)

_known: dict[bytes, bytes] = {}


def _shared(data: bytes) -> bytes:
    """The same bytes as one object, whoever holds them."""
    return _known.setdefault(data, data)


class Switch:
    """What one switch holds, and its controllers' roles."""

    def __init__(self, datapath_id: int) -> None:
        self.datapath_id = datapath_id
        self.flows: dict[bytes, bytes] = {}
        self.groups: dict[int, bytes] = {}
        self.generation: int | None = None
        self.master: Connection | None = None
        self.connections: set[Connection] = set()
        #: When what policies say was changed last, on the monotonic clock.
        self.policies_at = 0.0
        #: Bundles that were taken, and flows that came in them.
        self.bundles = self.written = 0

    def take_role(self, connection: Connection, role: int, generation: int) -> bool:
        """False: the generation is stale."""
        if role in (Role.MASTER, Role.SLAVE):
            if self.generation is not None and generation < self.generation:
                return False
            self.generation = generation
        if role == Role.MASTER and self.master is not connection:
            former, self.master = self.master, connection
            if former is not None:
                former.role = Role.SLAVE
                former.send(OFPT_ROLE_STATUS, 0, struct.pack("!IB3xQ", Role.SLAVE, 0, generation))
        elif role != Role.MASTER and role != Role.NOCHANGE and self.master is connection:
            self.master = None
        if role != Role.NOCHANGE:
            connection.role = Role(role)
        return True

    def flow_mod(self, message: bytes) -> None:
        """``message`` without its header."""
        length = message[42] << 8 | message[43]
        end = 40 + (length + 7 & ~7)
        key = message[16:17] + b"\0" + message[22:24] + message[40:end]
        if key[0] in _POLICY_TABLES:
            self.policies_at = time.monotonic()
        if message[17] == _DELETE_STRICT:
            self.flows.pop(key, None)
        else:
            body = message[18:22] + message[36:40] + message[:8] + message[end:]
            self.flows[_shared(key)] = _shared(body)
        self.written += 1

    def group_mod(self, message: bytes) -> None:
        """``message`` without its header."""
        command, kind, number, length, bucket = _GROUP_MOD.unpack_from(message)
        if command == _DELETE_GROUP:
            self.groups.pop(number, None)
        elif command in (_ADD_GROUP, _MODIFY_GROUP):
            self.groups[number] = _shared(struct.pack("!BxH", kind, length) + message[_GROUP_MOD.size :])
        elif command in (_INSERT_BUCKET, _REMOVE_BUCKET):
            self._change_buckets(number, message[_GROUP_MOD.size :], bucket, command)

    def _change_buckets(self, number: int, buckets: bytes, bucket: int, command: int) -> None:
        body = self.groups[number]
        end = 4 + (body[2] << 8 | body[3])
        kept, position = b"", 4
        while position < end:
            length = body[position] << 8 | body[position + 1]
            its = int.from_bytes(body[position + 4 : position + 8], "big")
            if command != _REMOVE_BUCKET or its != bucket:
                kept += body[position : position + length]
            position += length
        kept += buckets if command == _INSERT_BUCKET else b""
        self.groups[number] = body[:2] + struct.pack("!H", len(kept)) + kept + body[end:]

    def describe_flows(self) -> Iterator[bytes]:
        """One description after the other."""
        for key, body in self.flows.items():
            length = 12 + len(key) + len(body)
            yield b"".join(
                (length.to_bytes(2, "big"), b"\0\0", key[:4], body[:16], key[4:], _NO_STATISTICS, body[16:])
            )

    def describe_groups(self) -> Iterator[bytes]:
        """One description after the other."""
        for number, body in self.groups.items():
            length = _GROUP_DESC.size + len(body) - 4
            head = _GROUP_DESC.pack(length, body[0], number, body[2] << 8 | body[3])
            yield head + body[4:]


class Connection(asyncio.Protocol):
    """A switch's connection to one controller."""

    def __init__(self, switch: Switch, on_lost: Callable[[], None]) -> None:
        self.switch = switch
        self.role = Role.EQUAL
        self.transport: asyncio.Transport | None = None
        self.ready = False
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._bundles: dict[int, list[bytes]] = {}
        self._asked_at: dict[int, float] = {}
        #: Seconds that the controller took for each echo.
        self.echoes: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.switch.connections.add(self)
        self.send(_HELLO, 0, struct.pack("!HHI", 1, 8, 1 << OFP_VERSION))

    def connection_lost(self, problem: Exception | None) -> None:
        self.switch.connections.discard(self)
        if self.switch.master is self:
            self.switch.master = None
        self._on_lost()

    def send(self, kind: int, xid: int, body: bytes = b"") -> None:
        """One message."""
        assert self.transport is not None
        self.transport.write(HEADER.pack(OFP_VERSION, kind, HEADER.size + len(body), xid) + body)

    def ask_echo(self) -> None:
        """See how long the controller takes to answer."""
        xid = 0x40000000 + len(self.echoes)
        self._asked_at[xid] = time.monotonic()
        self.send(_ECHO_REQUEST, xid)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        view = bytes(buffer)
        offset, end = 0, len(view)
        while end - offset >= 8:
            length = view[offset + 2] << 8 | view[offset + 3]
            if end - offset < length:
                break
            xid = int.from_bytes(view[offset + 4 : offset + 8], "big")
            self._take(view[offset + 1], xid, view[offset + 8 : offset + length])
            offset += length
        del buffer[:offset]

    def _take(self, kind: int, xid: int, body: bytes) -> None:
        if kind == OFPT_BUNDLE_ADD_MESSAGE:
            bundle = self._bundles.get(int.from_bytes(body[:4], "big"))
            if self.role is Role.SLAVE or bundle is None:
                self.send(OFPT_ERROR, xid, _IS_SLAVE)
            else:
                bundle.append(body[8:])
        elif kind == OFPT_BUNDLE_CONTROL:
            self._control(xid, *_CONTROL.unpack_from(body))
        elif kind == OFPT_BARRIER_REQUEST:
            self.send(OFPT_BARRIER_REPLY, xid)
        elif kind == _ECHO_REQUEST:
            self.send(_ECHO_REPLY, xid, body)
        elif kind == _ECHO_REPLY and xid in self._asked_at:
            self.echoes.append(time.monotonic() - self._asked_at.pop(xid))
        elif kind == OFPT_ROLE_REQUEST:
            self._change_role(xid, body)
        elif kind == OFPT_MULTIPART_REQUEST:
            self._describe(xid, body)
        elif kind == _FEATURES_REQUEST:
            features = struct.pack("!QIBB2xII", self.switch.datapath_id, 0, 254, 0, 0x4F, 0)
            self.send(_FEATURES_REPLY, xid, features)
            self.ready = True

    def _change_role(self, xid: int, body: bytes) -> None:
        role, _, generation = _ROLE.unpack(body)
        if not self.switch.take_role(self, role, generation):
            self.send(OFPT_ERROR, xid, _STALE)
            return
        seen = self.switch.generation
        self.send(OFPT_ROLE_REPLY, xid, _ROLE.pack(self.role, 0, (1 << 64) - 1 if seen is None else seen))

    def _control(self, xid: int, number: int, kind: int, flags: int) -> None:
        if self.role is Role.SLAVE:
            self.send(OFPT_ERROR, xid, _IS_SLAVE)
            return
        if kind == BundleControl.OPEN_REQUEST:
            self._bundles[number] = []
        elif kind == BundleControl.COMMIT_REQUEST:
            self._commit(self._bundles.pop(number))
        elif kind == BundleControl.DISCARD_REQUEST:
            self._bundles.pop(number, None)
        self.send(OFPT_BUNDLE_CONTROL, xid, _CONTROL.pack(number, kind + 1, flags))

    def _commit(self, messages: list[bytes]) -> None:
        self.switch.bundles += 1
        for message in messages:
            if message[1] == OFPT_FLOW_MOD:
                self.switch.flow_mod(message[8:])
            elif message[1] == OFPT_GROUP_MOD:
                self.switch.group_mod(message[8:])

    def _describe(self, xid: int, body: bytes) -> None:
        kind = body[0] << 8 | body[1]
        if kind == OFPMP_FLOW_DESC:
            self._reply(xid, kind, self.switch.describe_flows())
        elif kind == OFPMP_GROUP_DESC:
            self._reply(xid, kind, self.switch.describe_groups())
        else:
            self._reply(xid, kind, iter((_SOFTWARE,) if kind == OFPMP_DESC else ()))

    def _reply(self, xid: int, kind: int, parts: Iterator[bytes]) -> None:
        waiting: list[bytes] = []
        size = 0
        for part in parts:
            if size + len(part) > _REPLY:
                head = struct.pack("!HH4x", kind, OFPMPF_REPLY_MORE)
                self.send(OFPT_MULTIPART_REPLY, xid, head + b"".join(waiting))
                waiting, size = [], 0
            waiting.append(part)
            size += len(part)
        self.send(OFPT_MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, 0) + b"".join(waiting))


class Connector:
    """Keeps a switch connected to one controller, as Open vSwitch does."""

    def __init__(self, switch: Switch, port: int) -> None:
        self._switch = switch
        self._port = port
        self._lost = asyncio.Event()
        self.connection: Connection | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            connection = Connection(self._switch, self._lost.set)
            try:
                await loop.create_connection(lambda made=connection: made, "127.0.0.1", self._port)  # type: ignore[misc]
                self.connection = connection
                await self._lost.wait()
            except OSError:
                pass
            self.connection = None
            await asyncio.sleep(random.uniform(*BACKOFF))

    def cut(self) -> None:
        """End the connection; it is made again after a moment."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.abort()
