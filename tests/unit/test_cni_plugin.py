# SPDX-License-Identifier: Apache-2.0
"""The plugin by itself: whom it asks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.server import Server

PLUGIN = Path(__file__).resolve().parents[2] / "agent" / "cni" / "sdn-cni"
KEY = "agentSocket"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an agent to which every request is fine."""
    server = Server(tmp_path / "agent.sock", lambda _call: (0, b""), 1)
    server.start()
    yield tmp_path / "agent.sock"
    server.close()


def status(text: str, told: str) -> str:
    """What STATUS prints; `told`: SDN_AGENT_SOCKET."""
    environment = {"CNI_COMMAND": "STATUS", "SDN_AGENT_SOCKET": told}
    return subprocess.run(
        [PLUGIN], input=text, env=environment, capture_output=True, text=True, check=False, timeout=180
    ).stdout


CONFIG = {"cniVersion": "1.1.0", "name": "pods", "type": "sdn-cni"}
ELSEWHERE = {"cni": {"labels": {KEY: "/nowhere"}, "list": [KEY, {KEY: "/nowhere"}]}}


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {**CONFIG, "name": KEY},
        {**CONFIG, "args": ELSEWHERE},
        {**CONFIG, "args": {"cni": {}, KEY: "/nowhere"}},
        {**CONFIG, "prevResult": [[KEY], {KEY: "/nowhere"}]},
        {**CONFIG, KEY: None},
        {**CONFIG, KEY: ""},
        {KEY: ["/nowhere"], **CONFIG},
    ],
)
def test_only_the_configurations_own_key_names_the_socket(
    agent: Path, config: dict[str, Any], escaped: bool
) -> None:
    more = {"args2": 'a "quoted" \\ text'} if escaped else {}
    assert status(json.dumps({**config, **more}), told=str(agent)) == ""


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("indent", [None, 4])
def test_the_configurations_own_key_wins_wherever_it_stands(
    agent: Path, escaped: bool, indent: int | None
) -> None:
    more = {"args2": 'a "quoted" \\ text'} if escaped else {}
    own = {KEY: str(agent)}
    for config in ({**own, **CONFIG, "args": ELSEWHERE}, {"args": ELSEWHERE, **CONFIG, "name": KEY, **own}):
        assert status(json.dumps({**config, **more}, indent=indent), told="/nowhere") == ""


def test_a_key_may_be_escaped(agent: Path) -> None:
    text = json.dumps({**CONFIG, KEY: str(agent)})
    assert status(text.replace("Socket", "\\u0053ocket"), told="/nowhere") == ""
