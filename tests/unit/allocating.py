# SPDX-License-Identifier: Apache-2.0
"""What tests of allocation have in common: a controller's intent on a store, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.ranges import ExhaustedError
from sdn.model import InvalidObjectError
from tests.unit.controller_intent import Intent, intent

Test = Callable[[Intent], Awaitable[None]]


def run(path: Path, test: Test, **fields: Any) -> None:
    async def inside() -> None:
        async with intent(path, **fields) as running:
            await test(running)

    asyncio.run(inside())


async def refused(running: Intent, document: dict[str, Any]) -> str:
    """Apply what must be refused; gives why, once it is sure that nothing has changed by it."""
    before = [running.watchers.document(*key) for key in _services(running)], len(running.changes)
    revision = running.ledger.revision
    for dry_run in (True, False):
        with pytest.raises((InvalidObjectError, ExhaustedError)) as problem:
            await running.apply(document, dry_run)
    assert before == (
        [running.watchers.document(*key) for key in _services(running)],
        len(running.changes),
    )
    await running.ledger.list_all()
    assert running.ledger.revision == revision
    return str(problem.value)


def _services(running: Intent) -> list[tuple[str, str, str]]:
    return [("Service", *key) for key in running.cluster.names("Service")]
