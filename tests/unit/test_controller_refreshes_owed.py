# SPDX-License-Identifier: Apache-2.0
"""Words to agents about changes that no other controller, or no former session, has brought to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import osken, refreshes, writer
from controller.engine import Engine
from tests.switch.controller_process import attachment
from tests.unit.openflow_peer import ERROR, OpenFlowSide, message, openflow_side
from tests.unit.scripted_switch import ScriptedSwitch
from tests.unit.services_engine import apply, register, running_engine
from tests.unit.several_engines import several, until
from tests.unit.test_controller_deposed import compiled
from tests.unit.test_controller_following import until_equal
from tests.unit.test_controller_policies import policy
from tests.unit.test_controller_takeover import session

#: Longer than anything takes that waits for nothing.
_A_WHILE = 0.3


@pytest.fixture
def side() -> Iterator[OpenFlowSide]:
    osken.set_keepalive(5.0, 3)
    with openflow_side() as running:
        yield running


async def connect(side: OpenFlowSide, engine: Engine, refuses: list[bytes]) -> ScriptedSwitch:
    """The first node's switch, which answers the first bundles with these errors."""
    before = len(side.recorder.came)
    peer = await asyncio.to_thread(side.switch)
    switch = ScriptedSwitch(peer, lambda xid: message(ERROR, refuses.pop(0), xid) if refuses else None)
    synchronizer = engine.programs.synchronizer("node-1")
    assert synchronizer is not None
    synchronizer.connected(side.recorder.came[before])
    return switch


@pytest.mark.parametrize("refusals", [0, 3])
def test_a_nodes_new_owner_tells_its_agent_once_the_switch_has_what_it_wrote(
    tmp_path: Path, side: OpenFlowSide, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    monkeypatch.setattr(writer, "FIRST_PAUSE", 0.1)
    refuses: list[bytes] = []

    async def run() -> None:
        async with several(tmp_path, "a", "b") as (first, second):
            info = await register(first, 1)
            await first.ownership.settle("node-1")
            await until_equal(first, second)
            owner, heir = (first, second) if first.ownership.owns("node-1") else (second, first)
            for engine in (first, second):
                # Nothing is taken but by this test.
                engine.ownership.stop()
            await owner.attachments.attach("node-1", attachment(info, 1), lambda _refused: None)
            await until(lambda: bool(heir.cluster.attachments), "the pod at the heir")
            switch = await connect(side, heir, refuses)
            told: list[tuple[str, int]] = []
            heir.refresh_datapath = lambda node: told.append((node, switch.commits))
            await apply(heir, policy(podSelector={}))
            await compiled(heir, "node-1")
            await asyncio.sleep(_A_WHILE)
            assert not told
            # Without a place in the bundle: none of its entries is to blame.
            refuses.extend([b"\0\1\0\0"] * refusals)
            await heir.ownership._take(["node-1"])
            await until(lambda: bool(told), "the word")
            assert not refuses
            assert told[0][0] == "node-1"
            assert told[0][1] == switch.commits > 0
            await compiled(heir, "node-1")
            told.clear()
            # It was another's in between, and this controller heard of neither before it had it back.
            await heir.ownership._take(["node-1"])
            await until(lambda: bool(told), "the word once more")

    asyncio.run(run())


def test_an_agent_that_comes_back_is_told_what_was_said_while_it_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshes, "PAUSE", 0.01)

    async def run() -> None:
        async with running_engine(tmp_path) as engine:
            info = await register(engine, 1)
            other = await register(engine, 2)
            engine.policies.on_changed("node-1")
            await asyncio.sleep(_A_WHILE)
            # Also the second time: the first session may have ended before the agent read it.
            for _ in range(2):
                async with session(tmp_path, engine, info) as stream:
                    async with asyncio.timeout(10):
                        while not (await stream.read()).HasField("refresh_datapath"):
                            pass
            async with session(tmp_path, engine, other) as stream:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(_A_WHILE):
                        while not (await stream.read()).HasField("refresh_datapath"):
                            pass

    asyncio.run(run())
