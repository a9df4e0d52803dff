# SPDX-License-Identifier: Apache-2.0
"""What waits for a watcher is bounded."""

from __future__ import annotations

import asyncio

import pytest

from controller.watchers import BACKLOG, Selection, TooSlowError, Watcher


def test_a_watcher_that_falls_behind_is_told_so() -> None:
    async def watch() -> None:
        watcher = Watcher(Selection("Pod"))
        document = {"metadata": {"name": "web"}}
        for _ in range(BACKLOG):
            watcher.feed("default", "web", document)
        assert (await watcher.next())[0] == "added"
        watcher.feed("default", "web", document)
        assert (await watcher.next())[0] == "modified"
        watcher.feed("default", "web", document)
        watcher.feed("default", "web", document)
        with pytest.raises(TooSlowError, match="watch again"):
            await watcher.next()

    asyncio.run(watch())


def test_an_object_that_leaves_the_selection_is_deleted_for_its_watcher_once() -> None:
    async def watch() -> None:
        watcher = Watcher(Selection("Pod", namespace="default"))
        assert watcher.selection.names("default", "web")
        assert not watcher.selection.names("other", "web")
        watcher.knows("default", "web")
        watcher.feed("default", "web", None)
        watcher.feed("default", "web", None)
        kind, document = await watcher.next()
        assert (kind, document["metadata"]) == ("deleted", {"name": "web", "namespace": "default"})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watcher.next(), 0.05)

    asyncio.run(watch())
