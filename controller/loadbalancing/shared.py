# SPDX-License-Identifier: Apache-2.0
"""What a Service is in a switch, compiled and encoded once for all nodes that see the same of it.

Nothing that a Service has in a switch names the node, so nodes with equal ports hold equal bytes. The first
synchronizer that asks compiles, in its own thread; the others wait for it, and all keep the same objects.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from controller.desired import Encoded, encode
from sdn.pipeline.compiler import service_flows
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.service import ServicePort


class SharedService:
    """A Service's ports as one or more nodes serve them."""

    __slots__ = ("_encoded", "_lock", "ports")

    def __init__(self, ports: Sequence[ServicePort]) -> None:
        self.ports = tuple(ports)
        self._lock = threading.Lock()
        self._encoded: Encoded | None = None

    def entries(self) -> tuple[Flow | Group, ...]:
        """The flows and groups, for people; compiled at each call."""
        return tuple(service_flows(self.ports))

    def encoded(self) -> Encoded:
        """The same as a switch holds them. CodecError; may be called in any thread."""
        with self._lock:
            if self._encoded is None:
                self._encoded = encode(self.entries())
            return self._encoded


#: A Service of which a node's switch holds nothing.
NOTHING = SharedService(())
