# SPDX-License-Identifier: Apache-2.0
"""Addresses of names that policies allow: taken in, stored, told to the switches, and bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.domains import MOST_WAITING
from controller.domaintable import DomainTable
from controller.records import DOMAINS, CorruptRecordError
from controller.services.sessions import AgentSession
from controller.store import Put
from sdn.model import InvalidObjectError
from sdn.model.address import Address
from sdn.policy.resolution import MAX_SECONDS
from sdn.v1 import controller_pb2
from tests.switch.controller_process import attachment
from tests.unit.domain_world import DENY, NAME, ONE, SIX, TWO, FullStore, policy, world
from tests.unit.services_engine import apply, register, running_engine

# Which names.


async def _patterns(folder: Path) -> None:
    async with world(folder, "*.Example.com.", "b.example") as seen:
        assert seen.domains.patterns == ("*.example.com", "b.example")
        seen.declare("same", "b.example")
        assert seen.changes == 0
        seen.declare("staged", "c.example", staged=True)
        assert seen.domains.patterns == ("*.example.com", "b.example", "c.example")
        seen.declare("staged", "d.example", staged=True)
        assert seen.domains.patterns == ("*.example.com", "b.example", "d.example")
        seen.withdraw("names")
        seen.withdraw("unknown")
        assert (seen.domains.patterns, seen.changes) == (("b.example", "d.example"), 3)
        seen.domains.object_changed("Pod", "a", None)


def test_the_patterns_are_those_of_all_policies_staged_ones_too(tmp_path: Path) -> None:
    asyncio.run(_patterns(tmp_path))


# Reports.


def test_a_report_is_stored_then_told_then_answered_when_the_switch_has_confirmed(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            seen.unconfirmed = []
            seen.report(ONE, TWO, SIX)
            assert seen.told == {}
            while not seen.unconfirmed:
                await asyncio.sleep(0.001)
            assert seen.told == {NAME: {ONE, TWO, SIX}}
            assert (await seen.stored())[NAME].keys() == {ONE, TWO, SIX}
            ((node, done),) = seen.unconfirmed
            assert (node, seen.answers) == ("node-1", [])
            done(None)
            await seen.until(1)
            assert seen.answers == [None]

    asyncio.run(run())


def test_a_switch_that_refuses_is_told_of(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            seen.unconfirmed = []
            seen.report(ONE)
            while not seen.unconfirmed:
                await asyncio.sleep(0.001)
            seen.unconfirmed[0][1]("Node node-1 is no longer registered")
            await seen.until(1)
            assert seen.answers == ["Node node-1 is no longer registered"]

    asyncio.run(run())


def test_names_that_no_policy_names_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            assert await seen.resolved(ONE, name="example.com") == "no ClusterNetworkPolicy names example.com"
            assert (seen.told, await seen.stored()) == ({}, {})

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "resolved.name: '' is no name of a host"),
        ({"name": "a b.example.com"}, "resolved.name"),
        ({"name": "x" * 64 + ".example.com"}, "resolved.name"),
        ({"addresses": [ONE, "192.0.2"]}, r"resolved.addresses\[1\]: '192.0.2' is no IP address"),
        ({"addresses": [ONE] * 1001}, "resolved.addresses: at most 1000"),
    ],
)
def test_what_is_malformed_is_refused_with_its_field(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            report = controller_pb2.Resolved(**{"name": NAME, "addresses": [ONE], **fields})
            with pytest.raises(InvalidObjectError, match=says):
                seen.domains.resolved("node-1", report, seen.answers.append)
            assert seen.answers == []

    asyncio.run(run())


def test_addresses_that_no_other_host_has_open_nothing(tmp_path: Path) -> None:
    nowhere = ("127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.169.254", "::1", "::", "ff02::1", "fe80::1")

    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            assert await seen.resolved(*nowhere) is None
            assert (seen.told, await seen.stored()) == ({}, {})
            assert await seen.resolved(*nowhere, ONE) is None
            assert seen.told == {NAME: {ONE}}

    asyncio.run(run())


def test_names_and_addresses_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved("2001:DB8:0::1", name="WWW.example.COM.")
            await seen.resolved(SIX)
            assert seen.told == {NAME: {SIX}}
            assert seen.tellings == [NAME]

    asyncio.run(run())


def test_many_reports_at_once_are_few_writes(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            for number in range(400):
                seen.report(ONE, name=f"n{number}.example.com")
            await seen.until(400)
            assert set(seen.answers) == {None}
            assert len(seen.told) == 400
            assert seen.store.writes <= 25

    asyncio.run(run())


def test_reports_that_wait_are_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            for _ in range(MOST_WAITING + 3):
                seen.report(ONE)
            assert seen.answers == ["too many names are resolved at once"] * 3
            await seen.until(MOST_WAITING + 3)
            assert seen.answers[3:] == [None] * MOST_WAITING

    asyncio.run(run())


# The store.


def test_a_controller_that_starts_again_tells_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com", "b.example") as seen:
            await seen.resolved(ONE, SIX)
            await seen.resolved(TWO, name="b.example")
            before = dict(seen.told)
        async with world(tmp_path, "*.example.com", "b.example", now=5.0, wall=2e9 + 100) as again:
            assert again.told == before
            assert again.store.writes == 0
            # Nothing is due earlier than without the start: 450 s after the report.
            again.later(349)
            await again.domains.look()
            assert again.told == before
            again.later(300)
            await again.domains.look()
            assert again.told == {}
            assert await again.stored() == {}

    asyncio.run(run())


def test_it_is_written_when_something_is_new_or_counts_longer_than_the_store_says(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            assert seen.store.writes == 1
            for _ in range(14):
                seen.later(10)
                await seen.resolved(ONE)
            assert seen.store.writes == 1
            seen.later(20)
            await seen.resolved(ONE)
            assert seen.store.writes == 2
            await seen.resolved(TWO)
            assert seen.store.writes == 3
            assert seen.tellings == [NAME, NAME]
            # What it says is never earlier than what is true.
            assert all(until >= seen.wall + 450 for until in (await seen.stored())[NAME].values())

    asyncio.run(run())


def test_what_cannot_be_stored_is_refused_and_opens_nothing_until_it_can(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            seen.store.full = True
            assert await seen.resolved(TWO) == "sqlite: no space"
            assert await seen.resolved(ONE, name="new.example.com") == "sqlite: no space"
            assert seen.told == {NAME: {ONE}}
            seen.store.full = False
            assert await seen.resolved(TWO) is None
            assert seen.told == {NAME: {ONE, TWO}, "new.example.com": {ONE}}
            assert {name: set(found) for name, found in (await seen.stored()).items()} == seen.told

    asyncio.run(run())


def test_an_end_that_cannot_be_stored_comes_later(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            await seen.resolved(ONE)
            seen.later(451)
            seen.store.full = True
            await seen.domains.look()
            assert seen.told == {NAME: {ONE}}
            seen.store.full = False
            await seen.domains.look()
            assert (seen.told, await seen.stored()) == ({}, {})

    asyncio.run(run())


@pytest.mark.parametrize("value", [b"{", b'{"addresses": {"192.0.2": 1}}', b'{"addresses": []}'])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, value: bytes) -> None:
    async def run() -> None:
        store = FullStore(tmp_path / "store.db")
        store.write([Put(f"{DOMAINS}a.example", value)])
        store.close()
        with pytest.raises(CorruptRecordError, match=r"/sdn/domains/a\.example"):
            async with world(tmp_path):
                pass

    asyncio.run(run())


def test_a_clock_that_was_wrong_makes_nothing_last_for_ever(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path, NAME, wall=9e9) as seen:
            await seen.resolved(ONE)
        async with world(tmp_path, NAME, wall=2e9) as again:
            assert again.told == {NAME: {ONE}}
            again.later(2 * MAX_SECONDS + 1)
            await again.domains.look()
            assert again.told == {}

    asyncio.run(run())


# Bounds.


def addresses(count: int) -> list[Address]:
    return [Address(4, (192 << 24) + number) for number in range(count)]


def test_of_too_many_addresses_those_that_count_longest_are_kept() -> None:
    table = DomainTable(most_addresses=3)
    for number, address in enumerate(addresses(5)):
        assert table.put(NAME, NAME, [address], 100.0 - number) == []
    domain = table.get(NAME)
    assert domain is not None
    assert list(domain.lives) == addresses(3)


def test_of_too_many_names_the_least_recently_seen_of_the_fullest_pattern_goes() -> None:
    table = DomainTable(most_names=4)
    (address,) = addresses(1)

    def seen(name: str, pattern: str) -> list[str]:
        return table.put(name, pattern, [address], 1.0)

    assert seen("exact.example", "exact.example") == []
    assert seen("a.wild.example", "*.wild.example") == []
    assert seen("b.wild.example", "*.wild.example") == []
    assert seen("c.wild.example", "*.wild.example") == []
    assert seen("a.wild.example", "*.wild.example") == []
    # Who makes up names harms names of the same kind alone.
    assert seen("d.wild.example", "*.wild.example") == ["b.wild.example"]
    assert seen("other.example", "other.example") == ["c.wild.example"]
    assert seen("third.example", "third.example") == ["a.wild.example"]
    assert {name for name, _ in table.items()} == {
        "exact.example",
        "d.wild.example",
        "other.example",
        "third.example",
    }
    table.remove("d.wild.example")
    table.remove("unknown.example")
    assert len(table.items()) == 3


def test_a_name_that_has_to_go_is_closed_and_not_stored_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with world(tmp_path, "*.example.com") as seen:
            monkeypatch.setattr(seen.domains, "_table", DomainTable(most_names=2, most_addresses=2))
            for number in range(4):
                await seen.resolved(ONE, name=f"n{number}.example.com")
            assert seen.told == {"n2.example.com": {ONE}, "n3.example.com": {ONE}}
            assert set(await seen.stored()) == set(seen.told)
            await seen.resolved(TWO, name="n3.example.com")
            await seen.resolved("192.0.2.3", name="n3.example.com", ttl=600)
            assert "192.0.2.3" in seen.told["n3.example.com"]
            assert len(seen.told["n3.example.com"]) == 2
            assert seen.told["n3.example.com"] == set((await seen.stored())["n3.example.com"])

    asyncio.run(run())


# With the engine.


def test_an_engine_that_starts_again_has_the_same_cells_before_any_agent_is_there(tmp_path: Path) -> None:
    async def run() -> None:
        pod, far = Address.parse("10.244.0.2"), Address.parse(ONE)
        async with running_engine(tmp_path) as engine:
            info = await register(engine, 1)
            await engine.attachments.attach("node-1", attachment(info, 1, addresses=[str(pod)]), print)
            for document in (policy("names", "*.example.com"), policy("staged", "b.example", staged=True)):
                await engine.declarations.apply(document, False)
            await apply(engine, DENY)
            assert engine.domains.patterns == ("*.example.com", "b.example")
            assert not engine.policies.engine.allows(pod, far, 6, 80)
            answers: list[str | None] = []
            for address in (ONE, SIX):
                report = controller_pb2.Resolved(name=NAME, addresses=[address], ttl_seconds=300)
                engine.domains.resolved("node-1", report, answers.append)
            while not engine.policies.engine.allows(pod, far, 6, 80):
                await asyncio.sleep(0.001)
            # No switch is connected that could confirm it.
            assert answers == []
            assert engine.policies.engine.domains() == {NAME: frozenset(map(Address.parse, (ONE, SIX)))}
            before = engine.policies.engine.cells("node-1")
        async with running_engine(tmp_path) as again:
            assert again.domains.patterns == ("*.example.com", "b.example")
            assert again.policies.engine.cells("node-1") == before
            assert again.policies.engine.allows(pod, far, 6, 80)
            await again.declarations.remove("ClusterNetworkPolicy", "", "names")
            assert again.domains.patterns == ("b.example",)
            assert not again.policies.engine.allows(pod, far, 6, 80)
            await again.domains.look()
            assert again.policies.engine.domains() == {}

    asyncio.run(run())


def test_an_agent_is_told_the_patterns_once_for_many_changes() -> None:
    async def run() -> None:
        session = AgentSession("node-1")
        for _ in range(3):
            session.send_patterns()
        session.send_peers()
        first, second = await session.next(), await session.next()
        assert first is not None
        assert second is not None
        assert [first.WhichOneof("message"), second.WhichOneof("message")] == ["domain_patterns", "peers"]
        session.send_patterns()
        third = await session.next()
        assert third is not None
        assert third.HasField("domain_patterns")

    asyncio.run(run())
