# SPDX-License-Identifier: Apache-2.0
"""Renewing leases at a member that is not what it takes itself for.

A leader that was stopped, or cut off, renews leases until it learns that it was deposed. That lasts
milliseconds, so here a server answers as such a member was seen to.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from etcd3 import etcdrpc

from controller.store import LeaseGoneError, StoreError
from controller.store.etcd import EtcdStore


class Member(etcdrpc.KVServicer, etcdrpc.LeaseServicer):  # type: ignore[misc]
    """Answers reads in ``terms``, one after the other (None: with an error, for want of a majority), the last
    one again and again; and renewals with ``times``."""

    def __init__(self, terms: list[int | None], times: list[int]) -> None:
        self._terms = terms
        self._times = times

    def Range(  # noqa: N802 - the name in the protocol
        self, request: etcdrpc.RangeRequest, context: grpc.ServicerContext
    ) -> etcdrpc.RangeResponse:
        term = self._terms.pop(0) if len(self._terms) > 1 else self._terms[0]
        if term is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        return etcdrpc.RangeResponse(header=etcdrpc.ResponseHeader(raft_term=term))

    def LeaseKeepAlive(  # noqa: N802 - the name in the protocol
        self, requests: Iterator[etcdrpc.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[etcdrpc.LeaseKeepAliveResponse]:
        for request in requests:
            yield etcdrpc.LeaseKeepAliveResponse(ID=request.ID, TTL=self._times.pop(0))


def renew(terms: list[int | None], times: list[int]) -> float:
    """What a store says of a lease that it renews there; its opening takes the first of ``terms``."""
    server = grpc.server(ThreadPoolExecutor(4))
    member = Member(terms, times)
    etcdrpc.add_KVServicer_to_server(member, server)
    etcdrpc.add_LeaseServicer_to_server(member, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    store = EtcdStore([f"127.0.0.1:{port}"])
    try:
        return store.renew(5)
    finally:
        store.close()
        server.stop(0)


def test_a_renewal_counts_when_the_term_stays() -> None:
    assert renew([7, 7, 7], [60]) == 60


def test_a_renewal_that_a_change_of_leader_overtook_is_asked_for_again() -> None:
    assert renew([7, 7, 8, 8], [60, 30]) == 30
    with pytest.raises(LeaseGoneError):
        renew([7, 7, 8, 8], [60, 0])


def test_an_end_that_a_change_of_leader_overtook_is_asked_for_again() -> None:
    assert renew([7, 7, 8, 8], [0, 60]) == 60


def test_a_renewal_by_a_leader_without_a_majority_counts_for_nothing() -> None:
    with pytest.raises(StoreError, match="no leader") as refused:
        renew([7, 7, None], [60] * 1000)
    assert not isinstance(refused.value, LeaseGoneError)
