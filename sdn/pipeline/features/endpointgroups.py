# SPDX-License-Identifier: Apache-2.0
"""The select group of a Service port's endpoints: a bucket for each, and a number that each keeps.

Evenness: Open vSwitch spreads connections of a group over a table of 2^n slots (at most 256), so ten equal buckets get
one or two of 16. Every endpoint weighs ``_WEIGHT``, and between 5 and 63 endpoints a spare bucket of weight 1, which
leads to one of them, makes the switch use a table of at least four slots an endpoint. Beyond, where the table is too
small to be even, client address and port are hashed instead, at the cost of one datapath flow a connection.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable

from sdn.pipeline.actions import Bucket, Resubmit, SetField
from sdn.pipeline.fields import IP_SRC, IPV6_SRC, SCTP_SRC, TCP_SRC, UDP_SRC
from sdn.pipeline.flow import Group
from sdn.pipeline.registers import ENDPOINT_REGISTER
from sdn.pipeline.service import Endpoint, Protocol, ServicePort
from sdn.pipeline.tables import ENDPOINT

#: Open vSwitch describes a group in one message of 64 KiB, and a bucket takes 48 bytes.
MOST_ENDPOINTS = 1300

#: Weight of an endpoint; the spare bucket's is 1. See the module.
_WEIGHT = 4
_FEWEST_WITH_SPARE, _MOST_WITH_SPARE = 5, 63
#: Bucket numbers: the spare has one of its own, endpoints' are spread over the rest.
_SPARE = 1
_FIRST_BUCKET, _LAST_BUCKET = 16, 0x7FFFFFFF
_SOURCE_PORT = {Protocol.TCP: TCP_SRC, Protocol.UDP: UDP_SRC, Protocol.SCTP: SCTP_SRC}


def endpoint_group(port: ServicePort, group_id: int, buckets: Iterable[int]) -> Group:
    """The group that chooses one of these buckets (see :func:`numbered`)."""
    numbers = sorted(buckets)
    weights = [(number, _WEIGHT, number) for number in numbers]
    affinity = port.affinity_seconds > 0
    by_table = not affinity and len(numbers) <= _MOST_WITH_SPARE
    if by_table and len(numbers) >= _FEWEST_WITH_SPARE:
        weights.insert(0, (_SPARE, 1, numbers[0]))
    source = IP_SRC if port.version == 4 else IPV6_SRC
    return Group(
        group_id,
        "select",
        tuple(_bucket(number, weight, chosen) for number, weight, chosen in weights),
        port.owner,
        "one of the Service's endpoints",
        selection_method="dp_hash" if by_table else "hash",
        # With affinity by the client's address, so that connections that begin together agree before the switch has
        # learned where the first one went. Without fields Open vSwitch would leave out the ports of UDP.
        selection_fields=() if by_table else (source,) if affinity else (source, _SOURCE_PORT[port.protocol]),
    )


@functools.lru_cache(maxsize=1 << 16)
def _bucket(number: int, weight: int, chosen: int) -> Bucket:
    return Bucket(number, (SetField(ENDPOINT_REGISTER, chosen), Resubmit(ENDPOINT.number)), weight)


def numbered(endpoints: Iterable[Endpoint]) -> dict[Endpoint, int]:
    """A number for each endpoint that it keeps while others come and go.

    It is a hash of the endpoint; of two that have the same the later one in order takes the next number.
    """
    numbers: dict[Endpoint, int] = {}
    taken: set[int] = set()
    for endpoint in sorted(endpoints, key=lambda one: (one.address.value, one.port, one.pod)):
        number = _hash(endpoint)
        while number in taken:
            number = number + 1 if number < _LAST_BUCKET else _FIRST_BUCKET
        taken.add(number)
        numbers[endpoint] = number
    return numbers


@functools.lru_cache(maxsize=1 << 16)
def _hash(endpoint: Endpoint) -> int:
    text = f"{endpoint.address.version}/{endpoint.address.value}/{endpoint.port}/{endpoint.pod}"
    digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return _FIRST_BUCKET + digest % (_LAST_BUCKET - _FIRST_BUCKET)
