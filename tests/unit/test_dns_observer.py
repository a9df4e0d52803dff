# SPDX-License-Identifier: Apache-2.0
"""Which answers of upstream servers are reported and held, for how long, and how many."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dns import observer
from agent.dns.feed import Resolution
from agent.dns.observer import MOST_FAILED, MOST_OF_ONE, MOST_WAITING, Found, Observer, addresses

NAME = "www.example.com"
CLIENT = "10.244.1.5"


def answer(name: str, *sets: tuple[str, int, str, tuple[str, ...]], kind: str = "A") -> bytes:
    """An answer to a question about a name, of sets of (name, TTL, type, data)."""
    response = dns.message.make_response(dns.message.make_query(name, kind))
    for owner, ttl, of_kind, data in sets:
        response.answer.append(dns.rrset.from_text(owner, ttl, "IN", of_kind, *data))
    return response.to_wire()


def plain(*found: str, name: str = NAME, ttl: int = 300) -> bytes:
    kind = "AAAA" if ":" in found[0] else "A"
    return answer(name, (f"{name}.", ttl, kind, found), kind=kind)


class Watching:
    """An observer, what it reports, and a clock of its own."""

    def __init__(self, *patterns: str) -> None:
        self.now = 1000.0
        self.reports: list[Resolution] = []
        self.able = True
        self.observer = Observer(self._report, lambda: self.now)
        self.observer.watch(patterns)

    def _report(self, resolution: Resolution) -> bool:
        if self.able:
            self.reports.append(resolution)
        return self.able

    async def held(self, reply: bytes, name: str = NAME, client: str = CLIENT) -> asyncio.Task[None] | None:
        """The answer that is held; None: it was let go at once."""
        task = asyncio.create_task(self.observer.see(name, reply, client))
        for _ in range(5):
            await asyncio.sleep(0)
        if not task.done():
            return task
        await task
        return None

    async def release(self, task: asyncio.Task[None] | None, in_force: bool = True) -> None:
        """Answer the last report."""
        self.observer.settled(self.reports[-1].number, in_force)
        if task is not None:
            await asyncio.wait_for(task, 60)

    async def learn(self, reply: bytes, name: str = NAME) -> None:
        """Bring what an answer says in force."""
        task = await self.held(reply, name)
        assert task is not None
        await self.release(task)


def watching(*patterns: str) -> Callable[[Callable[[Watching], Awaitable[None]]], Callable[[], None]]:
    """A test with an observer that watches these patterns."""

    def decorate(test: Callable[[Watching], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            async def inside() -> None:
                await test(Watching(*patterns))

            asyncio.run(inside())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


# What is wanted.


@watching("*.example.com")
async def test_only_names_that_a_pattern_takes_are_wanted(seen: Watching) -> None:
    assert seen.observer.wants(NAME)
    for name in ("example.com", "www.example.org", "x\\.example.com", "x\\032.example.com"):
        assert not seen.observer.wants(name)
    seen.observer.watch(())
    assert not seen.observer.wants(NAME)


# What answers say.


def test_all_addresses_are_those_of_the_name_that_was_asked_for() -> None:
    assert addresses(plain("192.0.2.1", "192.0.2.2", ttl=7)) == Found(
        frozenset({"192.0.2.1", "192.0.2.2"}), 7
    )
    assert addresses(plain("2001:DB8::1")) == Found(frozenset({"2001:db8::1"}), 300)


def test_other_names_are_followed_and_the_shortest_time_counts() -> None:
    reply = answer(
        NAME,
        ("b.example.net.", 30, "CNAME", ("c.example.net.",)),
        ("www.EXAMPLE.com.", 300, "CNAME", ("b.example.net.",)),
        ("c.example.net.", 600, "A", ("192.0.2.1",)),
        ("evil.example.net.", 600, "A", ("192.0.2.66",)),
    )
    assert addresses(reply) == Found(frozenset({"192.0.2.1"}), 30)


@pytest.mark.parametrize(
    "reply",
    [
        answer(NAME),
        answer(NAME, ("other.example.com.", 60, "A", ("192.0.2.66",))),
        answer(NAME, ("www.example.com.", 60, "CNAME", ("elsewhere.example.",))),
        answer(
            NAME,
            ("www.example.com.", 60, "CNAME", ("b.example.",)),
            ("b.example.", 60, "CNAME", ("www.example.com.",)),
        ),
        answer(NAME, ("www.example.com.", 60, "TXT", ("x",)), kind="TXT"),
        answer(NAME, ("www.example.com.", 60, "A", ("192.0.2.1",)), kind="TXT"),
        b"",
        bytes(11),
        plain("192.0.2.1")[:-1],
        plain("192.0.2.1")[:-5],
    ],
    ids=range(10),
)
def test_what_says_nothing_or_cannot_be_read_is_let_go(reply: bytes) -> None:
    async def run() -> None:
        seen = Watching("*.example.com")
        assert await seen.held(reply) is None
        assert seen.reports == []

    asyncio.run(run())


@given(st.binary(max_size=600))
def test_no_answer_is_a_danger(noise: bytes) -> None:
    reply = plain("192.0.2.1", "192.0.2.2")
    addresses(noise)
    addresses(reply[:12] + noise)
    at = len(noise) % len(reply)
    addresses(reply[:at] + noise[:2] + reply[at + 2 :])


def test_of_a_very_long_answer_a_bounded_part_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "MOST_ADDRESSES", 3)
    found = addresses(plain(*(f"192.0.2.{number}" for number in range(1, 9))))
    assert found is not None
    assert len(found.addresses) == 3


# Holding.


@watching("*.example.com")
async def test_an_answer_is_held_until_its_addresses_are_in_force(seen: Watching) -> None:
    task = await seen.held(plain("192.0.2.2", "192.0.2.1"))
    assert task is not None
    (report,) = seen.reports
    assert (report.name, report.addresses, report.ttl) == (NAME, ("192.0.2.1", "192.0.2.2"), 300)
    await seen.release(task)


@watching("*.example.com")
async def test_it_is_held_no_longer_than_its_time(seen: Watching) -> None:
    task = await seen.held(plain("192.0.2.1"))
    assert task is not None
    seen.now += observer.HOLD_SECONDS
    # Who asks again gets what the first one got, and waits no second time.
    assert await seen.held(plain("192.0.2.1")) is None
    assert len(seen.reports) == 1
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(task, 60)
    assert asyncio.get_running_loop().time() - began > 0.1
    # It was late, and is in force all the same.
    await seen.release(None)
    assert await seen.held(plain("192.0.2.1")) is None
    assert len(seen.reports) == 1


@watching("*.example.com")
async def test_who_asks_the_same_meanwhile_waits_for_the_same_report(seen: Watching) -> None:
    tasks = [await seen.held(plain("192.0.2.1"), client=f"10.244.1.{number}") for number in range(2, 6)]
    other = await seen.held(plain("2001:db8::1"))
    assert [report.addresses for report in seen.reports] == [("192.0.2.1",), ("2001:db8::1",)]
    seen.observer.settled(seen.reports[0].number, True)
    for task in tasks:
        assert task is not None
        await asyncio.wait_for(task, 60)
    assert other is not None
    assert not other.done()
    await seen.release(other)


@watching("*.example.com")
async def test_what_is_in_force_is_neither_held_nor_reported_for_half_its_time(seen: Watching) -> None:
    await seen.learn(plain("192.0.2.1", "192.0.2.2", ttl=300))
    seen.now += 149
    assert await seen.held(plain("192.0.2.2", ttl=300)) is None
    assert await seen.held(plain("192.0.2.2", "192.0.2.1", ttl=151)) is None
    assert len(seen.reports) == 1
    seen.now += 2
    # From then on it is told once more, but nobody has to wait: it is in force.
    assert await seen.held(plain("192.0.2.2", ttl=300)) is None
    assert [report.addresses for report in seen.reports] == [("192.0.2.1", "192.0.2.2"), ("192.0.2.2",)]
    await seen.release(None)
    assert await seen.held(plain("192.0.2.2", ttl=300)) is None
    assert len(seen.reports) == 2


@watching("*.example.com")
async def test_what_may_have_ended_is_held_again(seen: Watching) -> None:
    await seen.learn(plain("192.0.2.1", ttl=300))
    seen.now += 450
    task = await seen.held(plain("192.0.2.1", ttl=300))
    assert task is not None
    await seen.release(task)


@watching("*.example.com")
async def test_a_new_address_is_held_though_others_are_in_force(seen: Watching) -> None:
    await seen.learn(plain("192.0.2.1"))
    task = await seen.held(plain("192.0.2.1", "192.0.2.2"))
    assert task is not None
    await seen.release(task)


@watching("*.example.com")
async def test_a_report_that_cannot_be_made_or_is_refused_holds_nothing_up(seen: Watching) -> None:
    seen.able = False
    assert await seen.held(plain("192.0.2.1")) is None
    seen.able = True
    task = await seen.held(plain("192.0.2.1"))
    assert task is not None
    await seen.release(task, in_force=False)
    # Not in force: it is tried again.
    task = await seen.held(plain("192.0.2.1"))
    assert task is not None
    await seen.release(task)
    seen.observer.settled(99, True)


# When a controller says anew what it wants.


@watching("*.example.com")
async def test_nothing_is_taken_to_be_in_force_after_the_patterns_were_said_anew(seen: Watching) -> None:
    await seen.learn(plain("192.0.2.1"))
    under_way = await seen.held(plain("192.0.2.2"))
    seen.observer.watch(["*.example.com"])
    # What was said under the former patterns lets the answer go, and is not remembered.
    await seen.release(under_way)
    for address in ("192.0.2.1", "192.0.2.2"):
        task = await seen.held(plain(address))
        assert task is not None
        await seen.release(task)


@watching("*.example.com")
async def test_what_could_not_be_brought_in_force_is_told_again(seen: Watching) -> None:
    await seen.release(await seen.held(plain("2001:db8::1")), in_force=False)
    for name, ttl in ((NAME, 300), ("old.example.com", 60), ("other.example.com", 300)):
        await seen.release(await seen.held(plain("192.0.2.1", name=name, ttl=ttl), name), in_force=False)
    seen.reports.clear()
    seen.now += 100
    seen.observer.watch([NAME, "old.example.com"])
    assert [(report.name, report.addresses) for report in seen.reports] == [
        (NAME, ("2001:db8::1",)),
        (NAME, ("192.0.2.1",)),
    ]
    for report in list(seen.reports):
        seen.observer.settled(report.number, True)
    for address in ("2001:db8::1", "192.0.2.1"):
        assert await seen.held(plain(address)) is None
    seen.reports.clear()
    seen.observer.watch([NAME])
    assert seen.reports == []


# Bounds.


@watching("*.example.com")
async def test_one_client_cannot_keep_others_from_being_held(seen: Watching) -> None:
    tasks = []
    for number in range(MOST_OF_ONE + 10):
        name = f"n{number}.example.com"
        tasks.append(await seen.held(plain("192.0.2.1", name=name), name))
    assert [task is not None for task in tasks] == [True] * MOST_OF_ONE + [False] * 10
    assert len(seen.reports) == MOST_OF_ONE
    task = await seen.held(plain("192.0.2.1"), client="10.244.1.6")
    assert task is not None
    await seen.release(task)
    for report in list(seen.reports):
        seen.observer.settled(report.number, True)
    await asyncio.gather(*(task for task in tasks if task is not None))
    # Everything was given back.
    task = await seen.held(plain("192.0.2.9"))
    assert task is not None
    await seen.release(task)


@watching("*.example.com")
async def test_no_more_than_so_many_wait_at_once(seen: Watching) -> None:
    tasks = []
    for number in range(MOST_WAITING + 50):
        name = f"n{number}.example.com"
        tasks.append(await seen.held(plain("192.0.2.1", name=name), name, f"client-{number // 8}"))
    assert sum(task is not None for task in tasks) == MOST_WAITING
    assert len(seen.reports) == MOST_WAITING
    for report in seen.reports:
        seen.observer.settled(report.number, False)
    await asyncio.gather(*(task for task in tasks if task is not None))


@watching("*.example.com")
async def test_what_is_remembered_is_bounded(seen: Watching) -> None:
    for number in range(MOST_FAILED + 20):
        name = f"n{number}.example.com"
        await seen.release(await seen.held(plain("192.0.2.1", name=name), name), in_force=False)
    seen.reports.clear()
    seen.observer.watch(["*.example.com"])
    assert len(seen.reports) == min(MOST_FAILED, MOST_WAITING)


def test_of_names_those_that_were_reported_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "MOST_NAMES", 2)
    monkeypatch.setattr(observer, "MOST_ADDRESSES", 2)

    async def run() -> None:
        seen = Watching("*.example.com")
        for name in ("a.example.com", "b.example.com", "c.example.com"):
            await seen.learn(plain("192.0.2.1", name=name), name)
        count = len(seen.reports)
        for name, known in (("c.example.com", True), ("b.example.com", True), ("a.example.com", False)):
            task = await seen.held(plain("192.0.2.1", name=name), name)
            assert (task is None) is known
            if task is not None:
                await seen.release(task)
        assert len(seen.reports) == count + 1
        await seen.learn(plain("192.0.2.2", "192.0.2.3", name="a.example.com"), "a.example.com")
        task = await seen.held(plain("192.0.2.1", name="a.example.com"), "a.example.com")
        assert task is not None
        await seen.release(task)

    asyncio.run(run())


def test_a_ttl_beyond_all_bounds_is_none() -> None:
    reply = bytearray(plain("192.0.2.1"))
    at = reply.rindex(struct.pack("!IH", 300, 4))
    reply[at : at + 4] = b"\xff\xff\xff\xff"
    found = addresses(bytes(reply))
    # RFC 2181, section 8: the most significant bit means zero.
    assert found is None or found.ttl == 0
