# SPDX-License-Identifier: Apache-2.0
"""Services on their way through the pipe: each a ServiceUpdate (proto/sdn/v1/controller.proto) after its length.

Only what names depend on is sent. A Service with a ClusterIP is therefore sent once, however often its endpoints
change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

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
#: Frames that are taken in before others get their turn.
_AT_ONCE: Final = 50


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
    return _frame(ServiceUpdate(service=state))


def gone(key: Key) -> bytes:
    """The frame of a Service that is gone."""
    return _frame(ServiceUpdate(removed=ServiceName(namespace=key[0], name=key[1])))


def synced() -> bytes:
    """The frame that says: these are all."""
    return _frame(ServiceUpdate(synced=Synced()))


def _frame(update: ServiceUpdate) -> bytes:
    # The same update always has the same bytes, by which a change is recognized.
    body = update.SerializeToString(deterministic=True)
    return len(body).to_bytes(_LENGTH, "big") + body


async def read(stream: asyncio.StreamReader) -> AsyncIterator[ServiceUpdate]:
    """What comes through the pipe, until its other end is closed."""
    number = 0
    while True:
        try:
            size = int.from_bytes(await stream.readexactly(_LENGTH), "big")
            body = await stream.readexactly(size)
        except asyncio.IncompleteReadError:
            return
        yield ServiceUpdate.FromString(body)
        number += 1
        if number % _AT_ONCE == 0:
            # Reading what has arrived already never waits, so others would.
            await asyncio.sleep(0)
