# SPDX-License-Identifier: Apache-2.0
"""A process that takes orders: a line of JSON on its stdin, and one in answer on its stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from tests.lab.service_sockets import TREE


class Ordered:
    """A module of this tree that runs in a Python of its own, for the time of a `with` block. `arguments`: that
    Python's.
    """

    def __init__(self, *arguments: str) -> None:
        self._name = " ".join(arguments)
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TREE,
        )

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Its answer. OSError: it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise OSError(f"{self._name} ended with {self._process.wait(10)}")
        told: dict[str, Any] = json.loads(answer)
        return told

    def end(self) -> None:
        """It ends by itself when there are no more orders; or else is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
