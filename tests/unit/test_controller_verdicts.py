# SPDX-License-Identifier: Apache-2.0
"""Verdicts on their way from the switches' threads to agents and to people: nobody waits, nothing is lost uncounted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from controller import verdicts as verdicts_module
from controller.audit import Sighting
from controller.verdicts import MOST_WAITING, REMEMBERED, Record, Ruling, Selection, Verdicts
from controller.watchers import TooSlowError
from sdn.model.address import Address
from sdn.policy.values import Action, Direction, PolicyRef, Tier

WEB = Ruling(
    PolicyRef("NetworkPolicy", "shop", "web"),
    "ingress[0]",
    Tier.NETWORK_POLICY,
    Direction.INGRESS,
    Action.DENY,
)
GATE = Ruling(
    PolicyRef("ClusterNetworkPolicy", "", "gate"),
    "egress[1]",
    Tier.ADMIN,
    Direction.EGRESS,
    Action.ACCEPT,
    True,
)
RULINGS = {1: WEB, 2: GATE}
PODS = {"10.244.1.5": "shop/web-1", "10.244.2.7": "other/client"}


def sighting(
    rule: int = 1, number: int = 0, protocol: int = 6, suppressed: int = 0, switch: int = 1
) -> Sighting:
    return Sighting(
        datapath_id=switch,
        at=1_700_000_000_123_456_789,
        rule=rule,
        table=20,
        cookie=0,
        protocol=protocol,
        source=Address.parse("10.244.2.7"),
        source_port=number,
        destination=Address.parse("10.244.1.5"),
        destination_port=80,
        suppressed=suppressed,
    )


class Agent:
    """Takes records of its node, while it is connected."""

    def __init__(self) -> None:
        self.connected = True
        self.records: list[tuple[str, Record]] = []

    def take(self, node: str, records: Sequence[Record]) -> bool:
        if self.connected:
            self.records += [(node, record) for record in records]
        return self.connected


def made(agent: Agent | None = None, backlog: int = 100) -> Verdicts:
    found = Verdicts(backlog)
    found.node_of = lambda datapath_id: {1: "node-1", 2: "node-2"}.get(datapath_id, "")
    found.ruling_of = lambda seen: RULINGS.get(seen.rule)
    found.pod_of = lambda address: PODS.get(str(address), "")
    found.to_agent = (agent or Agent()).take
    return found


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


async def settled(verdicts: Verdicts) -> None:
    while verdicts._waiting or verdicts._scheduled:
        await asyncio.sleep(0)


def test_a_sighting_becomes_a_record() -> None:
    async def body() -> None:
        agent = Agent()
        verdicts = made(agent)
        verdicts.hand_on(sighting(1, 40000, suppressed=9))
        verdicts.hand_on(sighting(2, protocol=58))
        await settled(verdicts)
        (node, first), (_, second) = agent.records
        expected = Record(
            node="node-1",
            policy="NetworkPolicy/shop/web",
            rule="ingress[0]",
            tier="NetworkPolicy",
            direction="ingress",
            action="deny",
            protocol="TCP",
            source="10.244.2.7",
            source_port=40000,
            destination="10.244.1.5",
            destination_port=80,
            source_pod="other/client",
            destination_pod="shop/web-1",
            suppressed=9,
        )
        expected.time.FromNanoseconds(1_700_000_000_123_456_789)
        assert (node, first) == ("node-1", expected)
        assert (second.policy, second.tier, second.direction, second.action, second.staged) == (
            "ClusterNetworkPolicy/gate",
            "Admin",
            "egress",
            "accept",
            True,
        )
        assert second.protocol == "ICMPv6"

    run(body)


def test_each_node_has_its_own() -> None:
    async def body() -> None:
        agent = Agent()
        verdicts = made(agent)
        for switch in (2, 1, 2, 3):
            verdicts.hand_on(sighting(switch=switch))
        await settled(verdicts)
        assert sorted(node for node, _ in agent.records) == ["node-1", "node-2", "node-2"]
        assert all(record.node == node for node, record in agent.records)

    run(body)


def test_what_an_agent_is_not_told_is_counted_in_the_next_that_it_is() -> None:
    async def body() -> None:
        agent = Agent()
        agent.connected = False
        verdicts = made(agent)
        reader = verdicts.open(Selection())
        for number in range(3):
            verdicts.hand_on(sighting(number=number, suppressed=number))
        await settled(verdicts)
        agent.connected = True
        verdicts.hand_on(sighting(number=4, suppressed=10))
        verdicts.hand_on(sighting(number=5))
        await settled(verdicts)
        assert [record.suppressed for _, record in agent.records] == [10 + 3 + 0 + 1 + 2, 0]
        # A reader has seen them.
        assert [(await reader.next()).suppressed for _ in range(5)] == [0, 1, 2, 10, 0]

    run(body)


def test_a_rule_that_nobody_knows_any_more_is_counted() -> None:
    async def body() -> None:
        verdicts = made()
        reader = verdicts.open(Selection())
        for rule in (77, 77, 1):
            verdicts.hand_on(sighting(rule, suppressed=1))
        await settled(verdicts)
        assert (await reader.next()).suppressed == 2 + 2 + 1

    run(body)


def test_sightings_of_many_threads_are_bounded() -> None:
    async def body() -> None:
        verdicts = made(backlog=10 * MOST_WAITING)
        reader = verdicts.open(Selection())
        taken: list[bool] = []

        def flood() -> None:
            taken.extend([verdicts.hand_on(sighting()) for _ in range(MOST_WAITING)])

        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The loop had no turn meanwhile.
        assert taken.count(True) == MOST_WAITING
        await settled(verdicts)
        assert reader._records.qsize() == MOST_WAITING
        assert verdicts.hand_on(sighting())

    run(body)


def test_others_have_their_turn_while_many_are_looked_at() -> None:
    async def body() -> None:
        verdicts = made(backlog=10 * MOST_WAITING)
        for _ in range(MOST_WAITING):
            verdicts.hand_on(sighting())
        turns = 0
        while verdicts._waiting:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= MOST_WAITING / verdicts_module._AT_ONCE

    run(body)


def test_a_reader_is_told_what_was_then_what_comes_and_nothing_twice() -> None:
    async def body() -> None:
        verdicts = made()
        for number in range(3):
            verdicts.hand_on(sighting(number=number))
        await settled(verdicts)
        reader = verdicts.open(Selection())
        verdicts.hand_on(sighting(number=3))
        assert [record.source_port for record in reader.recent] == [0, 1, 2]
        assert (await reader.next()).source_port == 3

    run(body)


def test_the_past_is_bounded() -> None:
    async def body() -> None:
        verdicts = made(backlog=10 * REMEMBERED)
        for number in range(REMEMBERED + 5):
            verdicts.hand_on(sighting(number=number))
        await settled(verdicts)
        assert [record.source_port for record in verdicts.open(Selection()).recent] == list(
            range(5, REMEMBERED + 5)
        )

    run(body)


def test_a_reader_that_is_too_slow_is_told_so_and_others_go_on() -> None:
    async def body() -> None:
        verdicts = made(backlog=3)
        slow, quick, picky = (verdicts.open(Selection(policy=name)) for name in ("", "", "gate"))
        for number in range(4):
            verdicts.hand_on(sighting(number=number))
            await settled(verdicts)
            assert (await quick.next()).source_port == number
        with pytest.raises(TooSlowError, match="fell 3 records behind"):
            await slow.next()
        verdicts.close(slow)
        verdicts.hand_on(sighting(2, number=9))
        assert (await picky.next()).source_port == 9
        assert (await quick.next()).source_port == 9

    run(body)


@pytest.mark.parametrize(
    ("selection", "web", "gate"),
    [
        (Selection(), True, True),
        (Selection(node="node-1"), True, True),
        (Selection(node="node-2"), False, False),
        (Selection(policy="web"), True, False),
        (Selection(policy="NetworkPolicy/web"), True, False),
        (Selection(policy="NetworkPolicy/shop/web"), True, False),
        (Selection(policy="ClusterNetworkPolicy/gate"), False, True),
        (Selection(policy="gate"), False, True),
        (Selection(policy="ClusterNetworkPolicy/web"), False, False),
        (Selection(policy="shop/web"), False, False),
        (Selection(policy="we"), False, False),
        # Of the policy; and of the pod that it is about, which for egress is the source.
        (Selection(namespace="shop"), True, False),
        (Selection(namespace="other"), False, True),
        (Selection(namespace="nowhere"), False, False),
        (Selection(namespace="shop", policy="gate"), False, False),
    ],
)
def test_a_selection_takes_what_it_names(selection: Selection, web: bool, gate: bool) -> None:
    async def body() -> None:
        verdicts = made()
        verdicts.hand_on(sighting(1))
        verdicts.hand_on(sighting(2))
        await settled(verdicts)
        names = {record.policy.rpartition("/")[2] for record in verdicts.open(selection).recent}
        assert names == {name for name, taken in (("web", web), ("gate", gate)) if taken}

    run(body)


def test_the_end_of_the_loop_disturbs_no_switch() -> None:
    async def body() -> Verdicts:
        return made()

    verdicts = asyncio.run(body())
    assert verdicts.hand_on(sighting())
