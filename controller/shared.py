# SPDX-License-Identifier: Apache-2.0
"""What many switches hold alike, compiled and encoded once for all of them.

The first synchronizer that asks compiles, in its own thread; the others wait for it, and all keep the same objects.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

from controller.desired import Encoded, encode
from sdn.pipeline.compiler import peer_flows
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.topology import RemoteNode


class Shared(ABC):
    """Entries that do not depend on the node whose switch holds them."""

    __slots__ = ("_encoded", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encoded: Encoded | None = None

    @abstractmethod
    def entries(self) -> Sequence[Flow | Group]:
        """The flows and groups; compiled at each call, and the same each time, in any thread."""

    def encoded(self) -> Encoded:
        """The same as a switch holds them. CodecError; may be called in any thread."""
        with self._lock:
            if self._encoded is None:
                self._encoded = encode(self.entries())
            return self._encoded


class SharedPeer(Shared):
    """What a node owns on the switches of all other nodes."""

    __slots__ = ("node",)

    def __init__(self, node: RemoteNode) -> None:
        super().__init__()
        self.node = node

    def entries(self) -> Sequence[Flow | Group]:
        return peer_flows(self.node)
