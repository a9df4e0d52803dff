# SPDX-License-Identifier: Apache-2.0
"""Each fault of os-ken that controller/osken.py mends, and the behaviour that takes its place."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from os_ken.base import app_manager
from os_ken.lib import hub
from os_ken.ofproto import ofproto_v1_5, ofproto_v1_5_parser

from controller import osken
from tests.unit.openflow_peer import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ERROR,
    FEATURES_REPLY,
    HELLO,
    MULTIPART_REPLY,
    OpenFlowSide,
    message,
    openflow_side,
    wait_for,
)


@pytest.fixture
def side() -> Iterator[OpenFlowSide]:
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


def test_a_lost_connection_is_told_and_leaves_no_thread(side: OpenFlowSide) -> None:
    before = set(threading.enumerate())
    for number in range(5):
        side.switch(number).close()
    wait_for(lambda: len(side.recorder.went) == 5, "all disconnections to be told")
    wait_for(lambda: set(threading.enumerate()) <= before, "the connections' threads to end")


def test_an_exception_in_a_handler_does_not_end_the_event_loop(side: OpenFlowSide) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a defect in an application")

    side.recorder.on_connected = fail
    side.switch(1)
    side.switch(2)
    assert [connection.datapath_id for connection in side.recorder.came] == [1, 2]


def test_task_exit_is_no_ordinary_exception() -> None:
    osken.install()
    assert not issubclass(hub.TaskExit, Exception)


def test_a_nicira_action_is_as_long_as_it_declares() -> None:
    osken.install()
    nat = ofproto_v1_5_parser.NXActionNAT(flags=1, range_ipv4_min="10.0.0.1", range_proto_min=80)
    action = ofproto_v1_5_parser.NXActionCT(1, "", 0, 255, 0, [nat])
    buffer = bytearray()
    action.serialize(buffer, 0)
    assert len(buffer) == struct.unpack_from("!H", buffer, 2)[0]


def test_padding_does_not_lengthen_what_is_long_enough() -> None:
    osken.install()
    buffer = bytearray()
    for _ in range(2):
        ofproto_v1_5_parser.NXActionResubmitTable(table_id=3).serialize(buffer, len(buffer))
    assert len(buffer) == 32


@pytest.mark.parametrize(
    "hello",
    [
        message(HELLO, struct.pack("!HH4x", 1, 0)),
        message(HELLO, struct.pack("!HH4x", 9, 0)),
        message(HELLO, struct.pack("!HH4x", 1, 3)),
        message(HELLO, struct.pack("!HH4x", 1, 60000)),
        message(HELLO, b"\0\1"),
        message(HELLO, bytes(40000)),
        message(HELLO, length=0),
        message(HELLO, length=7),
        message(HELLO, struct.pack("!HHI", 1, 8, 1 << 4), version=4),
        message(99, bytes(64)),
        message(ERROR),
        message(MULTIPART_REPLY, bytes(8)),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_malformed_handshake_ends_only_its_connection(side: OpenFlowSide, hello: bytes) -> None:
    peer = side.peer()
    peer.send(hello)
    assert peer.closed_by_controller()
    side.switch(7)
    assert [connection.datapath_id for connection in side.recorder.came] == [7]


def test_features_of_a_wrong_length_end_the_connection(side: OpenFlowSide) -> None:
    peer = side.peer()
    peer.send(message(HELLO, struct.pack("!HHI", 1, 8, 1 << 6)))
    peer.send(message(FEATURES_REPLY, bytes(4)))
    assert peer.closed_by_controller()


def test_ports_are_not_parsed(side: OpenFlowSide) -> None:
    """A port description with a port of length zero loops for ever in os-ken's parser."""
    peer = side.peer()
    peer.send(message(HELLO, struct.pack("!HHI", 1, 8, 1 << 6)))
    peer.receive()
    _, xid, _ = peer.receive()
    peer.send(message(FEATURES_REPLY, struct.pack("!QIBB2xII", 5, 0, 254, 0, 0x4F, 0), xid))
    _, xid, body = peer.receive()
    peer.send(message(MULTIPART_REPLY, body[:2] + bytes(6) + bytes(40), xid))
    wait_for(lambda: side.recorder.came, "the switch to be known")


def test_only_the_given_address_is_listened_on(side: OpenFlowSide) -> None:
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    ports = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    assert ports == {side.listener.port}


def test_a_silent_switch_is_asked_and_then_given_up(side: OpenFlowSide) -> None:
    osken.set_keepalive(0.2, 2)
    peer = side.switch()
    assert peer.receive()[0] == ECHO_REQUEST
    assert peer.closed_by_controller()
    wait_for(lambda: side.recorder.went, "the disconnection to be told")


def test_a_switch_that_answers_echoes_stays(side: OpenFlowSide) -> None:
    osken.set_keepalive(0.1, 1)
    peer = side.switch()
    for _ in range(10):
        kind, xid, _ = peer.receive()
        assert kind == ECHO_REQUEST
        peer.send(message(ECHO_REPLY, xid=xid))
    assert not side.recorder.went


def test_any_message_is_a_sign_of_life(side: OpenFlowSide) -> None:
    """A switch that is busy sending a long answer gets to the echo late."""
    osken.set_keepalive(0.3, 1)
    peer = side.switch()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        peer.send(message(MULTIPART_REPLY, bytes(8), xid=0x70000000))
        time.sleep(0.05)
    assert not side.recorder.went


def test_the_switch_is_answered_with_its_own_echo(side: OpenFlowSide) -> None:
    peer = side.switch()
    peer.send(message(ECHO_REQUEST, b"who is there", xid=77))
    assert peer.receive() == (ECHO_REPLY, 77, b"who is there")


def test_a_peer_that_asks_and_never_reads_is_disconnected(side: OpenFlowSide) -> None:
    peer = side.switch()
    peer.socket.settimeout(60)
    flood = message(ECHO_REQUEST, bytes(60000)) * 16

    def send_for_ever() -> None:
        while True:
            peer.send(flood)

    with pytest.raises(OSError):
        send_for_ever()
    wait_for(lambda: side.recorder.went, "the disconnection to be told")


def test_an_unfinished_handshake_is_ended(side: OpenFlowSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osken, "HANDSHAKE_SECONDS", 0.5)
    osken.set_keepalive(0.2, 3)
    silent = side.peer()
    assert silent.closed_by_controller()


def test_a_defect_that_one_peer_finds_ends_only_its_connection(
    side: OpenFlowSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)

    def fail(_: bytes) -> bytes:
        raise KeyError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(osken, "_check_hello", fail)
        peer = side.peer()
        peer.send(message(HELLO))
        assert peer.closed_by_controller()
    side.switch(3)
    assert uncaught == []


class Leaving(dict[str, object]):
    """os-ken's applications as a thread sees them that looks for one just before it goes, and takes it just after."""

    def __contains__(self, name: object) -> bool:
        return True


def test_a_connection_that_ends_with_the_applications_is_no_defect(
    side: OpenFlowSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[BaseException | None] = []

    def serve(connection: object, address: tuple[object, ...]) -> None:
        try:
            osken.serve_connection(connection, address)
        except BaseException as problem:
            ended.append(problem)
            raise
        ended.append(None)

    monkeypatch.setattr(side.listener, "_serve", serve)
    peer = side.switch(1)
    side.end_applications()
    with monkeypatch.context() as leaving:
        leaving.setattr(app_manager, "SERVICE_BRICKS", Leaving())
        peer.close()
        wait_for(lambda: bool(ended), "the connection to end")
    assert ended == [None]


def test_flow_descriptions_reach_the_session_unparsed(side: OpenFlowSide) -> None:
    """Of a flow description of length zero os-ken's parser never returns."""
    peer = side.switch()
    received: list[tuple[int, int, bytes]] = []
    connection = side.recorder.came[0]
    body = struct.pack("!HH4x", ofproto_v1_5.OFPMP_FLOW_DESC, 0) + bytes(64)
    thread = threading.Thread(
        target=lambda: received.extend((0, 0, b) for b in connection.flow_descriptions())
    )
    thread.start()
    kind, xid, _ = peer.receive()
    assert kind == ofproto_v1_5.OFPT_MULTIPART_REQUEST
    peer.send(message(MULTIPART_REPLY, body, xid))
    thread.join(30)
    assert received == [(0, 0, bytes(64))]


def test_threads_do_not_keep_the_process_from_ending(side: OpenFlowSide) -> None:
    side.switch()
    ours = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert ours
    assert all(thread.daemon for thread in ours)


def test_another_hub_is_refused() -> None:
    code = "from controller import osken; osken.install()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OSKEN_HUB_TYPE": "eventlet"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "unset OSKEN_HUB_TYPE" in done.stderr
