# SPDX-License-Identifier: Apache-2.0
"""Two real controllers on one etcd, each a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc

from sdn.v1 import inspection_pb2
from tests.ports import unused_port
from tests.switch.controller_process import ControllerProcess
from tests.switch.ovs import wait_until
from tests.unit.etcd_process import Etcd


@contextmanager
def two_controllers(
    etcd: Etcd, credentials: grpc.ChannelCredentials | None = None, **settings: str
) -> Iterator[tuple[ControllerProcess, ControllerProcess]]:
    """ "one" and "other", which know of each other."""
    with ExitStack() as stack:
        found = []
        for name in ("one", "other"):
            process = ControllerProcess(
                store=etcd.url, name=name, peers_address=f"127.0.0.1:{unused_port()}", **settings
            )
            process.credentials = credentials
            stack.callback(process.close)
            process.start()
            found.append(process)
        one, other = found
        for process in found:
            wait_until(lambda process=process: len(controllers(process)) == 2, "both to know of each other")  # type: ignore[misc]
        yield one, other


def controllers(process: ControllerProcess) -> dict[str, inspection_pb2.ControllerStatus]:
    """All controllers as one shows them, by name."""
    answer = process.inspection().ListControllers(inspection_pb2.ListControllersRequest(), timeout=60)
    return {status.name: status for status in answer.controllers}


def drain(process: ControllerProcess, name: str, draining: bool = True) -> str:
    """Ask one to drain a controller; gives its warning. grpc.RpcError."""
    request = inspection_pb2.DrainControllerRequest(name=name, draining=draining)
    return process.inspection().DrainController(request, timeout=60).warning
