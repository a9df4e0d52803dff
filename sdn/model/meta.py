# SPDX-License-Identifier: Apache-2.0
"""The metadata of declared objects: what every kind has."""

from __future__ import annotations

import msgspec


class ObjectMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What every object has. ``namespace`` is empty for cluster-scoped kinds. ``deletion_timestamp`` (RFC 3339)
    is kept for Pods only: a pod that has one is terminating.
    """

    name: str
    namespace: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    deletion_timestamp: str = ""
