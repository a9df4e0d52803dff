# SPDX-License-Identifier: Apache-2.0
"""os-ken as this controller runs it: every deviation from the library, in one place.

os-ken (the maintained continuation of Ryu) brings the handshake, the version negotiation, the message classes
and the event system. Its native-thread hub and its input handling have faults that a controller cannot live
with. They are mended here, at run time, for exactly the pinned version; ``tests/unit/test_osken_patches.py``
holds each one:

1.  A lost connection never fires the DEAD event, and two threads a connection leak: the receiving loop returns, and
    ``serve`` then waits for a sender that waits for its queue. Here a connection has one thread, which waits for its
    end, and a few threads read all connections (:mod:`controller.reading`).
2.  ``hub.TaskExit`` is ``Exception``, so the first exception in an application's handler ends its event loop silently.
3.  Nicira actions are not padded to the length that they declare (``ct`` with ``nat`` last in a bucket: BAD_LEN).
4.  Parsers loop for ever on an element of length zero, the HELLO's even before anybody has said who they are. Only the
    four messages of the handshake ever reach os-ken's parsers, and only after their lengths were checked.
5.  The controller listens on 6633 too, and learns of a taken port in a thread: here the sockets are opened by
    :mod:`controller.listener` beforehand.
6.  Echo keepalive is off by default, and counts only echoes: here anything received is a sign of life.
7.  Threads keep the process from ending: here they are daemons.
8.  Flow descriptions, bundle replies, barriers and errors are not parsed at all (17 s for 100,000 flows): once the
    handshake is done the raw messages go to the datapath's ``receiver``.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import controller as osken_controller
from os_ken.controller import ofp_event, ofp_handler
from os_ken.controller.handler import CONFIG_DISPATCHER, HANDSHAKE_DISPATCHER, MAIN_DISPATCHER
from os_ken.lib import hub
from os_ken.ofproto import ofproto_parser, ofproto_v1_5, ofproto_v1_5_parser

from controller.addresses import format_address
from controller.reading import Readers
from controller.transport import HEADER, ProtocolError, Transport
from sdn import logs

log = logs.get("controller.openflow")

#: A peer that has not finished the handshake after this many seconds is disconnected.
HANDSHAKE_SECONDS = 15.0
#: The longest HELLO that anybody sends is 16 bytes; newer ones may carry a few more elements.
MAX_HELLO = 256
_FEATURES_REPLY_LENGTH = 32
_MULTIPART_HEADER = struct.Struct("!HH4x")
_HELLO_ELEMENT = struct.Struct("!HH")
_ERROR = struct.Struct("!HH")

Accept = Callable[[], None]


#: The applications are being ended, or have been.
_stopping = threading.Event()
#: They read all connections.
_readers = Readers()


class TaskExit(BaseException):
    """Ends an os-ken thread; raised by nobody but os-ken itself."""


def install() -> None:
    """Put all patches in force. Safe to repeat. RuntimeError when os-ken does not run on native threads."""
    if hub.HUB_TYPE != "native":
        raise RuntimeError(
            f"os-ken's hub is {hub.HUB_TYPE!r}, not 'native': unset OSKEN_HUB_TYPE (gRPC deadlocks under eventlet)"
        )
    hub.TaskExit = TaskExit
    hub.HubThread.__init__ = _daemon_thread
    _pad_nicira_actions()
    datapath = osken_controller.Datapath
    datapath.__init__ = _datapath
    datapath.serve = _serve
    datapath.send = _send
    datapath.close = _close


def start(applications: list[str], accept: Accept, **contexts: object) -> app_manager.AppManager:
    """Start os-ken with its own handshake application and ``applications`` (module names).

    ``accept`` runs in a thread of os-ken's and hands each accepted socket to :func:`serve_connection`.
    ``contexts`` reach each application's constructor as keyword arguments. End it with :func:`stop`.
    """
    install()
    _stopping.clear()
    # The place where the handshake application takes the listening side from.
    ofp_handler.OpenFlowController = lambda: accept
    manager = app_manager.AppManager()
    manager.load_apps(["os_ken.controller.ofp_handler", *applications])
    manager.instantiate_apps(**manager.create_contexts(), **contexts)
    return manager


def stop(manager: app_manager.AppManager) -> None:
    """End the applications' event loops. The caller has closed the listener."""
    _stopping.set()
    manager.close()


def set_keepalive(interval_seconds: float, unanswered: int) -> None:
    """Ask a silent switch after ``interval_seconds``; give it up when it stays silent ``unanswered`` times
    more.
    """
    cfg.CONF.set_override("echo_request_interval", interval_seconds)
    cfg.CONF.set_override("maximum_unreplied_echo_requests", unanswered)


def serve_connection(connection: Any, address: tuple[Any, ...]) -> None:
    """Speak OpenFlow on an accepted socket until it closes; runs in a thread of the connection's own."""
    osken_controller.datapath_connection_factory(connection, address)


def _daemon_thread(thread: Any, target: Any, args: Any = (), kwargs: Any = None) -> None:
    thread.raise_error = kwargs.pop("raise_error", False)
    super(hub.HubThread, thread).__init__(target=target, args=args, kwargs=kwargs, daemon=True)


def _pad_nicira_actions() -> None:
    nicira_action = ofproto_v1_5_parser.NXAction
    original = nicira_action.serialize
    if getattr(original, "pads", False):
        return

    def serialize(action: Any, buffer: bytearray, offset: int) -> None:
        original(action, buffer, offset)
        # os-ken pads only while more actions follow; a declared length must be there in any case.
        buffer.extend(bytes(max(0, offset + action.len - len(buffer))))

    serialize.pads = True  # type: ignore[attr-defined]
    nicira_action.serialize = serialize


# The datapath: os-ken's object for one connection.


_original_datapath = osken_controller.Datapath.__init__


def _datapath(datapath: Any, connection: Any, address: Any) -> None:
    datapath.transport = None
    datapath.receiver = None
    datapath.refusal = ""
    _original_datapath(datapath, connection, address)
    datapath.transport = Transport(connection, _readers.next())


def _send(datapath: Any, buffer: bytes, close_socket: bool = False) -> bool:
    transport: Transport = datapath.transport
    transport.send(bytes(buffer))
    if close_socket:
        transport.close()
    return not transport.closed


def _close(datapath: Any) -> None:
    """Fires the DEAD event; called at the end of each connection, however it ended."""
    try:
        datapath.set_state(osken_controller.DEAD_DISPATCHER)
    except KeyError:
        # os-ken looks up an application that has ended: nobody is left who had to know.
        if not _stopping.is_set():
            raise
    finally:
        datapath.transport.close()


def _serve(datapath: Any) -> None:
    transport: Transport = datapath.transport
    liveness = _Liveness(datapath)
    try:
        datapath.send_msg(datapath.ofproto_parser.OFPHello(datapath))
        transport.receive(
            lambda version, kind, xid, message: _handle(datapath, liveness, version, kind, xid, message),
            datapath.echo_request_interval,
            liveness.idle,
        )
    except ProtocolError as problem:
        log.warning(
            "connection refused",
            peer=_peer(datapath),
            datapath_id=_datapath_id(datapath),
            reason=str(problem),
        )
    finally:
        datapath.is_active = False
        transport.release()


def _handle(datapath: Any, liveness: _Liveness, version: int, kind: int, xid: int, message: bytes) -> None:
    liveness.heard()
    state = datapath.state
    if state == MAIN_DISPATCHER:
        if version != ofproto_v1_5.OFP_VERSION:
            raise ProtocolError(f"a message of OpenFlow version {version:#x} after the handshake")
        if kind == ofproto_v1_5.OFPT_ECHO_REQUEST:
            datapath.transport.send(
                HEADER.pack(version, ofproto_v1_5.OFPT_ECHO_REPLY, len(message), xid) + message[8:]
            )
        elif datapath.receiver is not None and kind != ofproto_v1_5.OFPT_ECHO_REPLY:
            datapath.receiver(kind, xid, message)
        return
    liveness.check_handshake()
    checked = _check_handshake(state, kind, message)
    if checked is None:
        return
    parsed = ofproto_parser.msg(datapath, version, kind, len(checked), xid, checked)
    if parsed is None:
        raise ProtocolError(f"a malformed message of type {kind} in the handshake")
    event = ofp_event.ofp_msg_to_ev(parsed)
    for handler in datapath.ofp_brick.get_handlers(event, state):
        handler(event)


def _check_handshake(state: str, kind: int, message: bytes) -> bytes | None:
    """The message as os-ken may parse it in this state; None when it does not concern the handshake."""
    if kind == ofproto_v1_5.OFPT_ERROR:
        error, code = _ERROR.unpack_from(message.ljust(12, b"\0"), 8)
        raise ProtocolError(f"the peer answered the handshake with error type {error} code {code}")
    if state == HANDSHAKE_DISPATCHER:
        if kind != ofproto_v1_5.OFPT_HELLO:
            raise ProtocolError(f"a message of type {kind} where HELLO must come first")
        return _check_hello(message)
    if state == CONFIG_DISPATCHER:
        if kind == ofproto_v1_5.OFPT_ECHO_REQUEST:
            return message
        if kind == ofproto_v1_5.OFPT_FEATURES_REPLY:
            if len(message) != _FEATURES_REPLY_LENGTH:
                raise ProtocolError(f"a FEATURES_REPLY of {len(message)} bytes")
            return message
        if kind == ofproto_v1_5.OFPT_MULTIPART_REPLY and len(message) >= 16:
            part, _flags = _MULTIPART_HEADER.unpack_from(message, 8)
            # The ports themselves are not used here, and parsing thousands of them takes seconds.
            if part == ofproto_v1_5.OFPMP_PORT_DESC:
                return HEADER.pack(message[0], kind, 16, int.from_bytes(message[4:8], "big")) + message[8:16]
    return None


def _check_hello(message: bytes) -> bytes:
    if len(message) > MAX_HELLO:
        raise ProtocolError(f"a HELLO of {len(message)} bytes")
    offset = HEADER.size
    while offset < len(message):
        if len(message) - offset < _HELLO_ELEMENT.size:
            raise ProtocolError("a HELLO with an incomplete element")
        kind, length = _HELLO_ELEMENT.unpack_from(message, offset)
        if length < _HELLO_ELEMENT.size or offset + length > len(message):
            raise ProtocolError(f"a HELLO with an element of type {kind} that declares {length} bytes")
        # Elements are padded to eight bytes; os-ken steps by their bare length, so it sees the first one
        # only.
        if length % 8 and offset + length < len(message):
            return HEADER.pack(message[0], message[1], offset + length, 0) + message[8 : offset + length]
        offset += length
    return message


class _Liveness:
    """Whether a peer still answers, and whether it gets on with the handshake."""

    def __init__(self, datapath: Any) -> None:
        self._datapath = datapath
        self._opened = time.monotonic()
        self._asked = 0

    def heard(self) -> None:
        """Anything received is a sign of life."""
        self._asked = 0

    def idle(self) -> None:
        """Nothing came for the keepalive's interval: ask, or give up."""
        if self._datapath.state != MAIN_DISPATCHER:
            self.check_handshake()
            return
        if self._asked > self._datapath.max_unreplied_echo_requests > 0:
            raise ProtocolError(f"no answer to {self._asked} echo requests")
        self._asked += 1
        self._datapath.send_msg(self._datapath.ofproto_parser.OFPEchoRequest(self._datapath))

    def check_handshake(self) -> None:
        """ProtocolError for a peer that takes too long to say who it is."""
        if time.monotonic() - self._opened > HANDSHAKE_SECONDS:
            raise ProtocolError(f"the handshake was not finished within {HANDSHAKE_SECONDS:.0f} s")


def _peer(datapath: Any) -> str:
    return format_address(datapath.address)


def _datapath_id(datapath: Any) -> str:
    return "" if datapath.id is None else f"{datapath.id:016x}"
