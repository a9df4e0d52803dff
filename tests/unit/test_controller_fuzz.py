# SPDX-License-Identifier: Apache-2.0
"""A hostile peer: whatever bytes it sends, its connection ends or goes on, and the others do not notice."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller import osken
from controller.connection import BundleRefusedError, SwitchConnection
from controller.transport import ConnectionClosedError, ProtocolError
from sdn.openflow import CodecError, split_flow_descs
from sdn.openflow.wire import OFPT_BARRIER_REPLY, OFPT_BUNDLE_CONTROL, OFPT_ERROR, OFPT_MULTIPART_REPLY
from tests.unit.openflow_peer import HELLO, OpenFlowSide, Peer, message, openflow_side, wait_for


@pytest.fixture(scope="module")
def side() -> Iterator[OpenFlowSide]:
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


kinds = st.integers(0, 40)
messages = st.builds(
    message,
    kind=kinds,
    body=st.binary(max_size=200),
    xid=st.integers(0, 20),
    version=st.sampled_from([6, 6, 6, 4, 1, 0, 255]),
    length=st.none() | st.integers(0, 300),
)
hellos = st.builds(lambda body: message(HELLO, body), st.binary(max_size=40))


# os-ken draws a random number for each connection, in a thread of its own.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(messages | hellos | st.binary(max_size=100), max_size=6), st.booleans())
def test_no_bytes_before_or_after_the_handshake_stop_the_controller(
    side: OpenFlowSide, stream: list[bytes], finished: bool
) -> None:
    peer = side.switch(1) if finished else side.peer()
    try:
        for part in stream:
            peer.send(part)
    except OSError:
        pass  # The controller was quicker to close than we to send.
    peer.close()
    wait_for(lambda: len(side.recorder.went) == len(side.recorder.came), "the connection to end")


def test_another_switch_is_still_served(side: OpenFlowSide) -> None:
    side.switch(99).close()


answers = st.lists(
    st.tuples(
        st.sampled_from([OFPT_ERROR, OFPT_MULTIPART_REPLY, OFPT_BUNDLE_CONTROL, OFPT_BARRIER_REPLY, 34]),
        st.integers(-1, 6),
        st.binary(max_size=64),
    ),
    max_size=8,
)


def asked(side: OpenFlowSide) -> tuple[Peer, SwitchConnection]:
    peer = side.switch(1)
    return peer, side.recorder.came[-1]


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(answers)
def test_any_answer_to_a_question_or_a_bundle_is_an_error_or_an_answer(
    side: OpenFlowSide, replies: list[tuple[int, int, bytes]]
) -> None:
    peer, connection = asked(side)
    outcomes: list[str] = []

    def ask() -> None:
        try:
            for body in connection.flow_descriptions():
                list(split_flow_descs(body))
            connection.commit([message(14, bytes(48))] * 2, 2)
        except (CodecError, ConnectionClosedError, BundleRefusedError, ProtocolError) as problem:
            outcomes.append(type(problem).__name__)
        else:
            outcomes.append("answered")

    thread = threading.Thread(target=ask)
    thread.start()
    _, xid, _ = peer.receive()
    try:
        for kind, offset, body in replies:
            peer.send(struct.pack("!BBHI", 6, kind, len(body) + 8, max(0, xid + offset)) + body)
    except OSError:
        pass
    peer.close()
    thread.join(30)
    assert len(outcomes) == 1
