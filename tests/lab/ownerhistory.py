# SPDX-License-Identifier: Apache-2.0
"""Every owner that a node has had, as etcd itself tells it: watched all along, on a member's own machine.

The watch goes through the JSON gateway, and so does not end when the member has no leader; what happens while it is cut
off it tells later.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from typing import Any

import msgspec

from sdn.lab import namespaces
from sdn.lab.lab import Lab
from sdn.lab.programs import ETCD_CLIENT_PORT
from sdn.lab.waiting import wait_until

_PREFIX = "/sdn/owners/"
#: One character above the slash: the end of the keys that begin with the prefix.
_END = "/sdn/owners0"


class _KeyValue(msgspec.Struct):
    key: str
    value: str = ""
    mod_revision: int = 0


class _Event(msgspec.Struct):
    kv: _KeyValue
    #: Left out for a put.
    type: str = "PUT"


class _Result(msgspec.Struct):
    events: list[_Event] = []
    canceled: bool = False


class _Answer(msgspec.Struct):
    """A line of the answer."""

    result: _Result


def read(line: str | bytes) -> list[tuple[str, int, str]]:
    """The owners of a line of a watch's answer: node, generation, controller. A generation is the revision of the
    write, above the record's base.

    ValueError: the watch has ended, or that is no such line.
    """
    result = msgspec.json.decode(line, type=_Answer, strict=False).result
    if result.canceled:
        raise ValueError(f"the watch has ended: {line!r}")
    found = []
    for event in result.events:
        if event.type == "PUT":
            node = base64.b64decode(event.kv.key).decode().removeprefix(_PREFIX)
            record: dict[str, Any] = msgspec.json.decode(base64.b64decode(event.kv.value))
            found.append((node, record.get("base", 0) + event.kv.mod_revision, record["controller"]))
    return found


class OwnerHistory:
    """All owners from etcd's first revision on, for the time of the `with` block."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._owners: dict[str, dict[int, str]] = {}
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="owners", daemon=True)
        machine = lab.spec.store_machines[0]
        self._connection = http.client.HTTPConnection(machine.ipv4, ETCD_CLIENT_PORT)
        with namespaces.entered(machine.netns):
            self._socket = socket.create_connection((machine.ipv4, ETCD_CLIENT_PORT))
        self._connection.sock = self._socket

    def __enter__(self) -> OwnerHistory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread, whatever it is waiting for.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        keys = {
            name: base64.b64encode(key.encode()).decode()
            for name, key in (("key", _PREFIX), ("range_end", _END))
        }
        request = {"create_request": {**keys, "start_revision": 1}}
        try:
            self._connection.request("POST", "/v3/watch", body=json.dumps(request))
            answer = self._connection.getresponse()
            while line := answer.readline():
                for node, generation, controller in read(line):
                    self._owners.setdefault(node, {})[generation] = controller
        except (OSError, http.client.HTTPException, ValueError) as problem:  # told to whoever asks
            self._problem = problem

    def owners(self) -> dict[str, dict[int, str]]:
        """By node: by generation the controller. Waits until the last owners are among them."""
        last = {node: switch.generation for node, switch in self._lab.switches().items()}

        def told() -> bool:
            if self._problem is not None:
                raise self._problem
            return all(generation in self._owners.get(node, {}) for node, generation in last.items())

        wait_until(told, "etcd to tell of the last owners", 30)
        return {node: dict(owners) for node, owners in self._owners.items()}
