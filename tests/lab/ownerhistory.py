# SPDX-License-Identifier: Apache-2.0
"""Every owner that a node has had, as etcd itself tells it: its own client watches all along."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from sdn.lab.lab import Lab
from sdn.lab.programs import ETCD_CLIENT_PORT
from sdn.lab.waiting import wait_until

_PREFIX = "/sdn/owners/"


class _KeyValue(msgspec.Struct):
    key: str
    value: str = ""
    mod_revision: int = 0


class _Event(msgspec.Struct):
    kv: _KeyValue
    #: Left out for a put.
    type: int = 0


class _Answer(msgspec.Struct):
    Events: list[_Event] = []


def read(lines: Iterable[str]) -> dict[str, dict[int, str]]:
    """By node: by generation, which is the revision of the write, the controller. From `etcdctl watch -w json`.
    msgspec.DecodeError: it is something else.
    """
    found: dict[str, dict[int, str]] = {}
    for line in lines:
        for event in msgspec.json.decode(line, type=_Answer).Events:
            if event.type == 0:
                node = base64.b64decode(event.kv.key).decode().removeprefix(_PREFIX)
                record: dict[str, Any] = msgspec.json.decode(base64.b64decode(event.kv.value))
                found.setdefault(node, {})[event.kv.mod_revision] = record["controller"]
    return found


class OwnerHistory:
    """Watches a member of the lab's etcd from its first revision on, on the member's own machine, for the time of the
    `with` block. What happens while the member is cut off it tells later.
    """

    def __init__(self, lab: Lab, output: Path) -> None:
        self._lab = lab
        self._machine = lab.spec.store_machines[0]
        self._output = output

    def __enter__(self) -> OwnerHistory:
        with self._output.open("wb") as stdout:
            self._process = self._lab.popen(
                self._machine.name,
                "etcdctl",
                f"--endpoints={self._machine.ipv4}:{ETCD_CLIENT_PORT}",
                *("watch", "--prefix", _PREFIX, "--rev=1", "-w", "json"),
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def owners(self) -> dict[str, dict[int, str]]:
        """All until now; waits until the last owners are among them. See `read`."""
        last = {node: switch.generation for node, switch in self._lab.switches().items()}
        found: dict[str, dict[int, str]] = {}

        def told() -> bool:
            text = self._output.read_text(encoding="utf-8")
            # A line may be half written.
            found.update(read(text[: text.rfind("\n") + 1].splitlines()))
            return all(generation in found.get(node, {}) for node, generation in last.items())

        wait_until(told, "etcd to tell of the last owners", 30)
        return found
