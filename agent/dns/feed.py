# SPDX-License-Identifier: Apache-2.0
"""What goes through the two pipes between the agent and the DNS server's process.

To the process: Services, each a ServiceUpdate (proto/sdn/v1/controller.proto); of which names answers are to be
reported; and what became of a report. Each is a frame: its length, one byte for its kind, and the body.

Only what names depend on is sent of a Service. One with a ClusterIP is therefore sent once, however often its endpoints
change.

From the process: READY, then reports, one line of JSON each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final, TypeAlias

import msgspec

from agent.services.table import Key, Service
from sdn.v1.controller_pb2 import (
    EndpointState,
    ServiceName,
    ServicePortState,
    ServiceState,
    ServiceUpdate,
    Synced,
)

_LENGTH: Final = 4
_SERVICE, _OTHER = b"s", b"o"
#: Frames that are taken in before others get their turn.
_AT_ONCE: Final = 50
#: A thousand addresses and a name are less.
MOST_LINE: Final = 1 << 17


class Watched(msgspec.Struct, frozen=True, tag=True):
    """Answers about names that these patterns take are to be reported. What was in force may not be so any more."""

    patterns: tuple[str, ...]


class Settled(msgspec.Struct, frozen=True, tag=True):
    """What became of a report: whether the node's switch knows its addresses now."""

    number: int
    in_force: bool


class Resolution(msgspec.Struct, frozen=True):
    """A report: what an answer said. ``ttl`` in seconds. Whatever the process says, it can be told to a controller."""

    number: int
    name: str
    addresses: tuple[str, ...]
    ttl: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


Update: TypeAlias = ServiceUpdate | Watched | Settled
_others: Final = msgspec.json.Decoder(Watched | Settled)


def named(service: Service) -> ServiceState:
    """What names depend on."""
    state = ServiceState(
        namespace=service.namespace,
        name=service.name,
        type=service.type,
        cluster_ips=[str(address) for address in service.cluster_ips],
        external_name=service.external_name,
        ports=[
            ServicePortState(name=port.name, protocol=port.protocol, port=port.port) for port in service.ports
        ],
    )
    if service.headless:
        state.endpoints.extend(
            EndpointState(
                address=str(endpoint.address), hostname=endpoint.hostname, ports=dict(endpoint.ports)
            )
            for endpoint in service.endpoints
        )
    return state


def told(state: ServiceState) -> bytes:
    """The frame of a Service that came or changed."""
    return _service(ServiceUpdate(service=state))


def gone(key: Key) -> bytes:
    """The frame of a Service that is gone."""
    return _service(ServiceUpdate(removed=ServiceName(namespace=key[0], name=key[1])))


def synced() -> bytes:
    """The frame that says: these are all."""
    return _service(ServiceUpdate(synced=Synced()))


def watched(patterns: Iterable[str]) -> bytes:
    """The frame that says what is to be reported."""
    return _frame(_OTHER, msgspec.json.encode(Watched(tuple(patterns))))


def settled(number: int, in_force: bool) -> bytes:
    """The frame that answers a report."""
    return _frame(_OTHER, msgspec.json.encode(Settled(number, in_force)))


def _service(update: ServiceUpdate) -> bytes:
    # The same update always has the same bytes, by which a change is recognized.
    return _frame(_SERVICE, update.SerializeToString(deterministic=True))


def _frame(kind: bytes, body: bytes) -> bytes:
    return (len(body) + 1).to_bytes(_LENGTH, "big") + kind + body


async def read(stream: asyncio.StreamReader) -> AsyncIterator[Update]:
    """What comes through the pipe, until its other end is closed."""
    number = 0
    while True:
        try:
            size = int.from_bytes(await stream.readexactly(_LENGTH), "big")
            frame = await stream.readexactly(size)
        except asyncio.IncompleteReadError:
            return
        if frame.startswith(_SERVICE):
            yield ServiceUpdate.FromString(frame[1:])
        else:
            yield _others.decode(frame[1:])
        number += 1
        if number % _AT_ONCE == 0:
            # Reading what has arrived already never waits, so others would.
            await asyncio.sleep(0)


def line(resolution: Resolution) -> bytes:
    """A report as it is written."""
    return msgspec.json.encode(resolution) + b"\n"


def report(line: bytes) -> Resolution:
    """A report that was written. ValueError: it is none."""
    try:
        return msgspec.json.decode(line, type=Resolution)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise ValueError(str(problem)) from None
