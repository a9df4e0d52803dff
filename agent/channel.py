# SPDX-License-Identifier: Apache-2.0
"""gRPC channels to a controller: what all of the agent's streams have in common."""

from __future__ import annotations

from typing import Final

import grpc

#: A controller that is gone without a word is noticed after about this long.
_KEEPALIVE_MILLISECONDS: Final = 5000
_ANSWER_SECONDS: Final = 2.0
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Our own pauses decide when a controller is tried again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def channel(target: str) -> grpc.Channel:
    """A channel to HOST:PORT, [IPv6]:PORT or unix:/PATH, not connected yet."""
    return grpc.insecure_channel(target, options=_OPTIONS)


def answers(open_channel: grpc.Channel) -> bool:
    """Whether the other end takes the connection within two seconds."""
    try:
        grpc.channel_ready_future(open_channel).result(timeout=_ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        return False
    return True


def problem(error: grpc.RpcError) -> str:
    """An error of a call, in a line."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
