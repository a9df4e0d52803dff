# SPDX-License-Identifier: Apache-2.0
"""gRPC channels to controllers, and the pauses between attempts: what all of the agent's streams have in common."""

from __future__ import annotations

import random
from typing import Final

import grpc

#: An idle connection is asked for a sign of life this often. Controllers end connections that ask oftener than
#: every two seconds.
_KEEPALIVE_MILLISECONDS: Final = 2000
#: What the other end's kernel has not taken for so long ends the connection (TCP_USER_TIMEOUT): a controller behind a
#: cut network is noticed after 1.5 to 3.5 seconds. That is for what is shown, and for where there is no other
#: controller: of a change of owner the others tell at once.
_TAKEN_MILLISECONDS: Final = 1500
#: One that takes what is sent and does not answer hangs, or is very busy: noticed after 4 to 6 seconds, since with less
#: a busy one would be left by all of its agents at once. (gRPC 1.85 waits a minute unless it is told this, whatever
#: keepalive_timeout says.)
_ANSWERED_MILLISECONDS: Final = 4000
#: How long an attempt to connect may take, so that one that was begun while the network was cut holds up none after.
_CONNECT_MILLISECONDS: Final = 2000
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", _TAKEN_MILLISECONDS),
    ("grpc.http2.ping_timeout_ms", _ANSWERED_MILLISECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Connecting, with gRPC's own chance in it (20 %).
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", _CONNECT_MILLISECONDS),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

#: A stream that lasted so long was a good one, and its end no reason to wait long.
SETTLED_SECONDS: Final = 2.0

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
#: The shortest pause, as a part of the longest that it could have been.
_SPREAD: Final = 0.1


def channel(target: str) -> grpc.Channel:
    """A channel to HOST:PORT, [IPv6]:PORT or unix:/PATH, not connected yet."""
    return grpc.insecure_channel(target, options=_OPTIONS)


def problem(error: grpc.RpcError) -> str:
    """An error of a call, in a line."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)


def code(error: grpc.RpcError) -> grpc.StatusCode:
    """The status of a call that failed."""
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


class Pause:
    """Pauses between attempts (seconds), each at most twice as long as the one before. How long exactly is left to
    chance: a thousand agents that lose one controller at one moment must not come back at one moment.
    """

    def __init__(self, first: float = _FIRST_PAUSE, longest: float = _LONGEST_PAUSE) -> None:
        self._first = first
        self._longest = longest
        self._most = first

    def next(self) -> float:
        """How long to wait now."""
        most, self._most = self._most, min(self._most * 2, self._longest)
        return random.uniform(most * _SPREAD, most)

    def reset(self) -> None:
        """An attempt was successful: the next pause is a short one."""
        self._most = self._first
