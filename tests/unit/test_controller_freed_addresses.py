# SPDX-License-Identifier: Apache-2.0
"""A LoadBalancer address that one controller has freed and given nobody is given by another, or later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller import declarations
from controller.engine import Engine
from controller.records import SEQUENCE
from controller.store import Operation, Put, StoreError
from tests.unit.services_engine import apply, register, service
from tests.unit.several_engines import several, until
from tests.unit.test_controller_following import until_equal
from tests.unit.test_controller_missed_changes import deaf


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "FILL_SECONDS", 0.1)
    monkeypatch.setattr(declarations, "FILL_AGAIN_SECONDS", 0.2)


def run(folder: Path, scenario: Callable[[Engine, Engine], Awaitable[None]]) -> None:
    """With two controllers, all addresses given, and a Service that waits for one."""

    async def both() -> None:
        async with several(folder, "a", "b") as (first, second):
            await register(first, 1)
            for number in range(10):
                await apply(first, service(f"web-{number}", type="LoadBalancer"))
                if first.allocation.waiting():
                    break
            await until_equal(first, second)
            await scenario(first, second)

    asyncio.run(both())


async def dies() -> None:
    raise RuntimeError("it ends here")


async def remove(engine: Engine, name: str) -> None:
    await engine.declarations.remove("Service", "default", name)


async def until_given(*engines: Engine) -> None:
    await until(lambda: not any(engine.allocation.waiting() for engine in engines), "an address for it")


def test_what_a_controller_frees_before_it_dies_another_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        monkeypatch.setattr(first.declarations, "_fill_waiting", dies)
        with pytest.raises(RuntimeError, match="it ends here"):
            await remove(first, "web-0")
        await until_given(first, second)
        await until_equal(first, second)

    run(tmp_path, scenario)


def test_a_service_that_is_none_of_the_pool_any_more_frees_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        monkeypatch.setattr(first.declarations, "_fill_waiting", dies)
        with pytest.raises(RuntimeError, match="it ends here"):
            await apply(first, service("web-0", type="ClusterIP"))
        await until_given(first, second)
        await until_equal(first, second)

    run(tmp_path, scenario)


def test_who_is_overtaken_while_it_gives_an_address_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        await deaf(second)
        fill = first.declarations._fill_waiting

        async def overtaken() -> None:
            monkeypatch.setattr(first.declarations, "_fill_waiting", fill)
            first.ledger._store.write([Put(SEQUENCE, b"")])
            await fill()

        monkeypatch.setattr(first.declarations, "_fill_waiting", overtaken)
        await remove(first, "web-0")
        await until_given(first)

    run(tmp_path, scenario)


def test_who_cannot_store_that_it_gives_an_address_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        await deaf(second)
        fill, write, refused = first.declarations._fill_waiting, first.ledger.write, []

        async def away(operations: Sequence[Operation], **options: Any) -> int:
            refused.append(operations)
            if len(refused) > 2:
                return await write(operations, **options)
            raise StoreError("the store is away")

        async def filling() -> None:
            monkeypatch.setattr(first.ledger, "write", away)
            await fill()

        monkeypatch.setattr(first.declarations, "_fill_waiting", filling)
        await remove(first, "web-0")
        await until_given(first)
        assert len(refused) == 3

    run(tmp_path, scenario)


def test_who_is_always_overtaken_goes_on_trying_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        await deaf(second)
        fill, tried = first.declarations._fill_waiting, []

        async def overtaken() -> None:
            tried.append(first.ledger._store.write([Put(SEQUENCE, b"")]))
            await fill()

        monkeypatch.setattr(first.declarations, "_fill_waiting", overtaken)
        await remove(first, "web-0")
        await until(lambda: len(tried) > 5, "it to go on")
        assert first.allocation.waiting()
        first.declarations.stop()
        await asyncio.sleep(0)
        tried.clear()
        await asyncio.sleep(4 * declarations.FILL_SECONDS)
        assert len(tried) <= 1, "one may have begun"

    run(tmp_path, scenario)


def test_nothing_is_given_by_a_controller_that_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(first: Engine, second: Engine) -> None:
        monkeypatch.setattr(first.declarations, "_fill_waiting", dies)
        with pytest.raises(RuntimeError, match="it ends here"):
            await remove(first, "web-0")
        await until(lambda: second.declarations._filling is not None, "it to be about to give")
        second.declarations.stop()
        await asyncio.sleep(2 * declarations.FILL_SECONDS)
        assert second.allocation.waiting()

    run(tmp_path, scenario)
