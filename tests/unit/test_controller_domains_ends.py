# SPDX-License-Identifier: Apache-2.0
"""Addresses of names that policies allow: how long they count, and what ends them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller import tracked
from controller.domains import CHECK_SECONDS, LOOK_AGAIN, UNASKED_SECONDS
from sdn.policy.resolution import MAX_SECONDS
from tests.unit.domain_world import NAME, ONE, SIX, TWO, world


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 90), (59, 90), (300, 450), (1 << 30, 1.5 * MAX_SECONDS)])
def test_an_address_lives_for_its_ttl_but_a_minute_at_least(tmp_path: Path, ttl: int, seconds: float) -> None:
    """And half as long again, since it may be seen unreported."""

    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE, ttl=ttl)
            seen.later(seconds - 1)
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}}
            seen.later(2)
            await seen.domains.look()
            assert (seen.told, await seen.stored()) == ({}, {})

    asyncio.run(run())


def test_each_address_of_a_name_ends_by_itself(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE, TWO)
            seen.later(200)
            await seen.resolved(TWO)
            # An answer that may be used for a shorter time does not take back the longer one.
            await seen.resolved(TWO, ttl=0)
            seen.later(300)
            await seen.domains.look()
            assert seen.told == {NAME: {TWO}}
            assert set((await seen.stored())[NAME]) == {TWO}

    asyncio.run(run())


@pytest.mark.parametrize("connection", [(ONE, ONE), ("10.96.0.7", ONE), (ONE, "10.244.0.9")])
def test_it_stays_as_long_as_some_switch_tracks_a_connection_to_it(
    tmp_path: Path, connection: tuple[str, str]
) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE, TWO)
            seen.tracked["node-2"] = [("203.0.113.9", "203.0.113.9"), connection]
            seen.later(451)
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}}
            assert seen.asked[0] == ("node-1", (f"{ONE}/32", f"{TWO}/32"))
            # Nobody is asked again before a pause is over.
            seen.asked.clear()
            seen.later(LOOK_AGAIN - 1)
            await seen.domains.look()
            assert seen.asked == []
            seen.later(1)
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}}
            seen.tracked["node-2"] = []
            seen.later(LOOK_AGAIN)
            await seen.domains.look()
            assert seen.told == {}

    asyncio.run(run())


def test_agents_are_not_asked_while_nothing_is_due(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            seen.later(449)
            await seen.domains.look()
            assert seen.asked == []

    asyncio.run(run())


def test_an_agent_that_cannot_be_asked_counts_as_one_with_a_connection_for_an_hour(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            seen.tracked["node-2"] = None
            seen.later(450)
            looked = 0.0
            while looked < UNASKED_SECONDS:
                await seen.domains.look()
                assert seen.told == {NAME: {ONE}}, looked
                seen.later(CHECK_SECONDS)
                looked += CHECK_SECONDS
            seen.later(LOOK_AGAIN)
            await seen.domains.look()
            assert seen.told == {}

    asyncio.run(run())


def test_an_agent_that_says_nonsense_counts_as_one_that_cannot_be_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            seen.tracked["node-2"] = [("nonsense", "")]
            seen.later(451)
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}}

    asyncio.run(run())


def test_an_address_that_is_seen_again_while_agents_are_asked_stays(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            seen.later(451)
            looking = asyncio.create_task(seen.domains.look())
            while not seen.asked:
                await asyncio.sleep(0)
            await seen.resolved(ONE)
            await looking
            assert seen.told == {NAME: {ONE}}
            assert set(await seen.stored()) == {NAME}

    asyncio.run(run())


def test_of_very_many_due_addresses_agents_are_asked_for_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "MOST_RANGES", 2)

    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE, TWO, SIX)
            seen.tracked["node-1"] = [(SIX, SIX)]
            seen.later(451)
            await seen.domains.look()
            assert seen.asked[0] == ("node-1", ("0.0.0.0/0", "::/0"))
            assert seen.told == {NAME: {SIX}}

    asyncio.run(run())


def test_names_that_no_policy_names_any_more_are_forgotten_with_the_next_look(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com", "b.example") as seen:
            await seen.resolved(ONE)
            await seen.resolved(TWO, name="b.example")
            # A policy that is declared anew at once has lost nothing.
            seen.withdraw("names")
            seen.declare("names", "*.example.com", "b.example")
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}, "b.example": {TWO}}
            seen.declare("names", NAME)
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}}
            assert set(await seen.stored()) == {NAME}
            assert seen.asked == []

    asyncio.run(run())
