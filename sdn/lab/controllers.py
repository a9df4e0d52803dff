# SPDX-License-Identifier: Apache-2.0
"""Asking the controllers of a lab, of which any may be dead, frozen or cut off at the moment.

What is declared, every controller knows. How a switch is doing, only the one knows that owns it, so each is asked for
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from sdn.lab.health import listens, serves
from sdn.lab.programs import controller_socket
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder
from sdn.lab.waiting import patience

if TYPE_CHECKING:
    import grpc

    from sdn.v1 import inspection_pb2

#: How long one controller may take to answer when there are others to ask, seconds.
_ANSWER = 2.0

T = TypeVar("T")


def target(folder: Folder, controller: str) -> str:
    """Where a controller is asked, as gRPC wants it."""
    return f"unix:{controller_socket(folder, controller)}"


def names(spec: LabSpec) -> tuple[str, ...]:
    """All controllers, whatever their state."""
    return tuple(machine.name for machine in spec.controller_machines)


def serving(spec: LabSpec, folder: Folder) -> tuple[str, ...]:
    """Controllers that call themselves healthy now."""
    found = _of_each(names(spec), lambda name: serves(controller_socket(folder, name), _ANSWER))
    return tuple(name for name, healthy in found.items() if healthy)


def one_to_ask(spec: LabSpec, folder: Folder) -> str:
    """The first controller that serves. When none does, one that at least listens, or the first of all: whoever asks
    it is told what is wrong.
    """
    every = names(spec)
    if len(every) == 1:
        return every[0]
    listening = [name for name in every if listens(controller_socket(folder, name))]
    for name in listening:
        if serves(controller_socket(folder, name), _ANSWER):
            return name
    return (*listening, every[0])[0]


def switches(spec: LabSpec, folder: Folder) -> dict[str, inspection_pb2.Switch]:
    """Each node's switch as its owner sees it, by node; nodes that nobody owns are left out."""
    from sdn.v1 import inspection_pb2, inspection_pb2_grpc

    def ask(name: str) -> list[inspection_pb2.Switch]:
        def listed(channel: grpc.Channel) -> list[inspection_pb2.Switch]:
            stub = inspection_pb2_grpc.InspectionStub(channel)
            request = inspection_pb2.ListSwitchesRequest(own_only=True)
            return list(stub.ListSwitches(request, timeout=patience(_ANSWER)).switches)

        return _asked(folder, name, listed) or []

    found: dict[str, inspection_pb2.Switch] = {}
    for controller, answer in _of_each(names(spec), ask).items():
        for switch in answer:
            known = found.get(switch.node)
            if switch.owner in ("", controller) and (known is None or _rank(known) < _rank(switch)):
                found[switch.node] = switch
    return found


def _rank(switch: inspection_pb2.Switch) -> tuple[int, int]:
    """Which of several owners counts: one that was deposed may not know it. Where none has a number: the one that is
    furthest with the switch.
    """
    return switch.generation, switch.connected + switch.synchronized


def _asked(folder: Folder, name: str, question: Callable[[grpc.Channel], T]) -> T | None:
    """What the controller answers; None if it does not."""
    import grpc

    # Nobody is there: gRPC would try for a while.
    if not listens(controller_socket(folder, name)):
        return None
    with grpc.insecure_channel(target(folder, name)) as channel:
        try:
            return question(channel)
        except grpc.RpcError:
            return None


def _of_each(names: Iterable[str], ask: Callable[[str], T]) -> dict[str, T]:
    """All answers, in the order of `names`; all are asked at once, since one may keep the asker waiting."""
    each = list(names)
    if len(each) == 1:
        return {each[0]: ask(each[0])}
    with ThreadPoolExecutor(len(each)) as pool:
        return dict(zip(each, pool.map(ask, each), strict=True))
