# SPDX-License-Identifier: Apache-2.0
"""The members of an etcd cluster: one is asked, and when it does not answer, the next.

A question has a time limit in all, and so has each attempt at one endpoint: a member that is stopped or cut
off, which does not even refuse, costs at most :data:`ATTEMPT_SECONDS`. The endpoint that answered last is
asked first. "hasleader" goes with every call: a member without a leader then says so at once instead of
holding the call, and ends its streams.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
from etcd3 import etcdrpc

from controller.store.access import AccessError, StoreAccess
from controller.store.contract import CompactedError, StoreError

#: Seconds that one endpoint gets for an answer while there are others.
ATTEMPT_SECONDS = 1.0
#: Pause before all endpoints are asked again.
ROUND_PAUSE_SECONDS = 0.05

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),
    # etcd takes pings more often than every five seconds for an attack.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long a connection may take to come about.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # The store is no web site: a proxy that the environment names is not meant for it.
    ("grpc.enable_http_proxy", 0),
]
_UNANSWERED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
)
#: What is said of calls that were not sent, or were not looked at (as "hasleader" asks for).
_NOT_BEGUN = ("failed to connect to all addresses", "etcdserver: no leader")
#: Answers that say only that another member, or another moment, is the right one.
_ELSEWHERE = ("too many requests", "not leader", "not supported for learner")
_FULL = "database space exceeded"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class NoAnswerError(StoreError):
    """No endpoint answered in time: what was asked may have happened or not."""


class RefusedError(StoreError):
    """The store said no: what was asked did not happen."""

    def __init__(self, text: str, code: grpc.StatusCode, details: str) -> None:
        super().__init__(text)
        self.code = code
        self.details = details


def is_unanswered(error: grpc.RpcError) -> bool:
    """Whether the call may have happened for all that this error says."""
    details = error.details() or ""
    return error.code() in _UNANSWERED and not any(word in details for word in _NOT_BEGUN)


class Member:
    """One endpoint's connection, and what can be called there."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.kv = etcdrpc.KVStub(channel)
        self.watch = etcdrpc.WatchStub(channel)
        self.lease = etcdrpc.LeaseStub(channel)
        self.auth = etcdrpc.AuthStub(channel)
        #: A stream by its definition. One question and one answer look the same on the wire as a call without.
        self.keep_alive = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=etcdrpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=etcdrpc.LeaseKeepAliveResponse.FromString,
        )


class Login:
    """Who the store takes us for: a token, fetched with user and password, again whenever it is not taken."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access
        self._token = ""
        #: Whether the cluster said that it knows no users; asked again when it refuses a call without a token.
        self._unused = not access.user

    def metadata(self, member: Member, until: float) -> list[tuple[str, str]]:
        """What goes with a call. grpc.RpcError, AccessError."""
        # Without a lock: two that ask at once do no harm, one that waits for another's silent member would.
        token = self._token
        if not token and not self._unused:
            token = self._token = self._fetch(member, until)
            self._unused = not token
        return [("hasleader", "true"), *([("token", token)] if token else [])]

    def _fetch(self, member: Member, until: float) -> str:
        request = etcdrpc.AuthenticateRequest(name=self._access.user, password=self._access.password())
        try:
            answer = member.auth.Authenticate(request, timeout=_left(until), metadata=[("hasleader", "true")])
        except grpc.RpcError as error:
            details = error.details() or ""
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION and "not enabled" in details:
                _log.warning(
                    "setting store_user: the store has no users: authentication is not enabled in etcd"
                )
                return ""
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT and "authentication failed" in details:
                raise AccessError("store_user", f"{self._access.user}: {details}") from None
            raise
        return str(answer.token)

    def refuses(self, error: grpc.RpcError) -> bool:
        """Whether a call failed for its token, or for having none."""
        details = error.details() or ""
        return bool(self._access.user) and (
            error.code() is grpc.StatusCode.UNAUTHENTICATED
            or "user name is empty" in details
            or "revision of auth store is old" in details
        )

    def forget(self) -> None:
        """The token is not taken any more."""
        self._token = ""
        self._unused = not self._access.user


class Turn:
    """One attempt at one member, until a moment of the monotonic clock."""

    def __init__(self, member: Member, login: Login, until: float) -> None:
        self.member = member
        self._login = login
        self._until = until

    def ask(self, method: Any, request: Any) -> Any:
        """Call one of the member's methods. grpc.RpcError, AccessError."""
        metadata = self._login.metadata(self.member, self._until)
        return method(request, timeout=_left(self._until), metadata=metadata)

    def open(self, method: Any, requests: Iterator[Any]) -> Any:
        """Open a stream at the member; it has no end of its own. grpc.RpcError, AccessError."""
        metadata = self._login.metadata(self.member, self._until)
        return method(requests, metadata=metadata)


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.001)


class Endpoints:
    """``addresses`` are "host:port"; ``name`` is that of the store, for its errors.

    With ``apart`` nothing else shares these connections: a long answer there holds up nothing here.
    """

    def __init__(
        self, name: str, addresses: Sequence[str], access: StoreAccess, login: Login, *, apart: bool = False
    ) -> None:
        self.name = name
        self.login = login
        options = [*_CHANNEL_OPTIONS, *([("grpc.use_local_subchannel_pool", 1)] if apart else [])]
        credentials = _channel_credentials(access)
        self.members = [
            Member(
                grpc.insecure_channel(address, options)
                if credentials is None
                else grpc.secure_channel(address, credentials, options)
            )
            for address in addresses
        ]
        #: The one that answered last.
        self.current = 0

    def ask(self, call: Callable[[Turn], T], seconds: float, *, attempts: bool = False) -> T:
        """``call`` one member after the other until one answers, for at most ``seconds``. ``attempts``: also a single
        member is asked several times in them, for a ``call`` that asks for less each time.

        NoAnswerError, RefusedError, CompactedError, AccessError, and what ``call`` raises itself.
        """
        end = time.monotonic() + seconds
        problem = "not asked: no time was left"
        logins = 0
        while True:
            for waiting in range(len(self.members), 0, -1):
                left = end - time.monotonic()
                if left <= 0:
                    raise NoAnswerError(f"{self.name}: {problem}")
                if attempts or len(self.members) > 1:
                    left = min(ATTEMPT_SECONDS, left / waiting)
                current = self.current
                try:
                    return call(Turn(self.members[current], self.login, time.monotonic() + left))
                except grpc.RpcError as error:
                    details = error.details() or ""
                    problem = f"{error.code().name.lower()}: {details}"
                    if self.login.refuses(error) and logins < 2:
                        # At the same member, if it is not for others to try first.
                        logins += 1
                        self.login.forget()
                        continue
                    self._check_refusal(error.code(), details)
                    self.current = (current + 1) % len(self.members)
                except ValueError as error:  # gRPC's word for a channel that was closed
                    raise StoreError(f"{self.name}: closed") from error
            time.sleep(max(0.0, min(ROUND_PAUSE_SECONDS, end - time.monotonic())))

    def _check_refusal(self, code: grpc.StatusCode, details: str) -> None:
        """Raise what a final answer means; return when another member may answer differently."""
        if code in _UNANSWERED or any(word in details for word in _ELSEWHERE):
            return
        if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
            raise CompactedError(f"{self.name}: changes asked for are no longer known")
        text = f"{self.name}: {code.name.lower()}: {details}"
        if _FULL in details:
            text += ": compact and defragment it, then disarm its alarm (etcdctl), or give it a larger quota"
        if "user name is empty" in details:
            text += ": etcd has users: give store_user and store_password_file"
        raise RefusedError(text, code, details)

    def close(self) -> None:
        for member in self.members:
            member.channel.close()


def _channel_credentials(access: StoreAccess) -> grpc.ChannelCredentials | None:
    if not access.tls:
        return None
    return grpc.ssl_channel_credentials(
        access.ca.read_bytes() if access.ca is not None else None,
        access.key.read_bytes() if access.key is not None else None,
        access.certificate.read_bytes() if access.certificate is not None else None,
    )
