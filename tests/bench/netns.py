# SPDX-License-Identifier: Apache-2.0
"""Network namespaces for benchmarks: made, and entered without a process that would be measured too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdn.lab import namespaces
from sdn.lab.namespaces import entered

__all__ = ["entered", "namespace"]


@contextmanager
def namespace(name: str) -> Iterator[Path]:
    """A new namespace with its loopback up, deleted at the end; the path that CNI calls CNI_NETNS."""
    namespaces.add(name)
    try:
        yield namespaces.path(name)
    finally:
        namespaces.delete(name)
