# SPDX-License-Identifier: Apache-2.0
"""What a Service is in a switch, compiled and encoded once for all nodes that see the same of it.

Nothing that a Service has in a switch names the node, so nodes with equal ports hold equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.shared import Shared
from sdn.pipeline.compiler import service_flows
from sdn.pipeline.flow import Flow, Group
from sdn.pipeline.service import ServicePort


class SharedService(Shared):
    """A Service's ports as one or more nodes serve them."""

    __slots__ = ("ports",)

    def __init__(self, ports: Sequence[ServicePort]) -> None:
        super().__init__()
        self.ports = tuple(ports)

    def entries(self) -> tuple[Flow | Group, ...]:
        return tuple(service_flows(self.ports))


#: A Service of which a node's switch holds nothing.
NOTHING = SharedService(())
