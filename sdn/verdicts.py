# SPDX-License-Identifier: Apache-2.0
"""A verdict of a policy as a document: the form of agents' audit logs and of `sdnctl policy log -o json`.

Names are camel case, as in Kubernetes objects; every field is there, whatever it holds. The time is UTC (RFC 3339),
with microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from sdn.v1 import types_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def document(record: types_pb2.VerdictRecord) -> dict[str, Any]:
    """What the record says, in an order that reads well."""
    return {
        "time": time_text(record.time),
        "node": record.node,
        "policy": record.policy,
        "rule": record.rule,
        "tier": record.tier,
        "direction": record.direction,
        "action": record.action,
        "staged": record.staged,
        "protocol": record.protocol,
        "source": record.source,
        "sourcePort": record.source_port,
        "sourcePod": record.source_pod,
        "destination": record.destination,
        "destinationPort": record.destination_port,
        "destinationPod": record.destination_pod,
        "suppressed": record.suppressed,
    }


def time_text(moment: Timestamp) -> str:
    """2026-01-31T09:15:02.123456Z."""
    exact = _EPOCH + timedelta(seconds=moment.seconds, microseconds=moment.nanos // 1000)
    return exact.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
