# SPDX-License-Identifier: Apache-2.0
"""Leases of etcd.

They have connections of their own and one second in all: whoever lives by a lease must know soon whether it
holds, whatever else is being read or written.

A member that was deposed as the leader and has not noticed yet (it was stopped, or is cut off) still renews
leases, by a clock that nobody else goes by. So a renewal counts only when the member that was asked has
answered a linearizable read before and after it in one and the same term: then the leader of that term, who
did the renewing, was still confirmed by a majority afterwards.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import grpc
from etcd3 import etcdrpc

from controller.store.contract import LEASE_CALL_SECONDS, LeaseGoneError
from controller.store.endpoints import Endpoints, Member, RefusedError, Turn, is_unanswered

#: A key that need not exist: reading it shows who leads.
_PROBE = b"/sdn-writers/"


class EtcdLeases:
    """``endpoints`` are for leases only."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        #: The member that answered a linearizable read last, and in which term.
        self._confirmed: tuple[Member | None, int] = (None, 0)

    def grant(self, seconds: float) -> int:
        if seconds <= 0:
            raise ValueError(f"a lease lasts longer than {seconds} seconds")
        return grant(self._endpoints, seconds, LEASE_CALL_SECONDS)

    def renew(self, lease: int) -> float:
        def attempt(turn: Turn) -> float:
            while True:
                before = self._confirmed if self._confirmed[0] is turn.member else self._confirm(turn)
                answer = turn.ask(turn.member.keep_alive, etcdrpc.LeaseKeepAliveRequest(ID=lease))
                if self._confirm(turn) != before:
                    continue
                if answer.TTL <= 0:
                    raise LeaseGoneError(lease)
                return float(answer.TTL)

        return self._endpoints.ask(attempt, LEASE_CALL_SECONDS)

    def _confirm(self, turn: Turn) -> tuple[Member, int]:
        answer = turn.ask(turn.member.kv.Range, etcdrpc.RangeRequest(key=_PROBE, count_only=True))
        confirmed = (turn.member, int(answer.header.raft_term))
        self._confirmed = confirmed
        return confirmed

    def revoke(self, lease: int) -> None:
        revoke(self._endpoints, lease, LEASE_CALL_SECONDS)


def grant(endpoints: Endpoints, seconds: float, limit: float) -> int:
    """Begin a lease of ``seconds``, rounded up, within ``limit`` seconds; gives its id. StoreError."""
    # Chosen here: when an answer is lost, what was granted is found again, and none is left over.
    lease = secrets.randbits(62) + 1
    request = etcdrpc.LeaseGrantRequest(TTL=math.ceil(seconds), ID=lease)
    in_doubt = False

    def attempt(turn: Turn) -> Any:
        nonlocal in_doubt
        try:
            return turn.ask(turn.member.lease.LeaseGrant, request)
        except grpc.RpcError as error:
            if in_doubt and "already exists" in (error.details() or ""):
                return None
            in_doubt = in_doubt or is_unanswered(error)
            raise

    endpoints.ask(attempt, limit)
    return lease


def revoke(endpoints: Endpoints, lease: int, limit: float) -> None:
    """End a lease, if it has not ended. StoreError."""
    request = etcdrpc.LeaseRevokeRequest(ID=lease)
    try:
        endpoints.ask(lambda turn: turn.ask(turn.member.lease.LeaseRevoke, request), limit)
    except RefusedError as refusal:
        if refusal.code is not grpc.StatusCode.NOT_FOUND:
            raise
