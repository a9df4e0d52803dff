# SPDX-License-Identifier: Apache-2.0
"""The agent refuses settings that cannot work, and names them."""

from __future__ import annotations

import pytest

from agent.settings import PROGRAM, AgentSettings
from sdn import settings


def read(*flags: str) -> AgentSettings:
    return settings.read(AgentSettings, PROGRAM, ["--controllers", "127.0.0.1:7000", *flags], {})


def test_controllers_are_required() -> None:
    with pytest.raises(settings.SettingsError, match="controllers"):
        settings.read(AgentSettings, PROGRAM, [], {})


@pytest.mark.parametrize(
    "controller", ["10.0.0.1:7000", "[fd00::1]:7000", "unix:/run/x.sock", "host.example:1"]
)
def test_a_controller_is_an_address_and_a_port_or_a_socket(controller: str) -> None:
    config = settings.read(AgentSettings, PROGRAM, ["--controllers", controller], {})
    assert config.controllers == [controller]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("controllers", "10.0.0.1"),
        ("node-name", "Node_1"),
        ("node-addresses", "10.0.0.1,10.0.0.2"),
        ("node-addresses", "somewhere"),
        ("node-labels", "zone"),
        ("ovsdb", "/run/db.sock"),
        ("datapath", "fast"),
        ("mtu", "70000"),
        ("add-timeout", "0"),
        ("add-timeout", "101"),
    ],
)
def test_an_impossible_value_is_refused_with_the_settings_name(flag: str, value: str) -> None:
    with pytest.raises(settings.SettingsError, match=flag.replace("-", "_")):
        read(f"--{flag}", value)


def test_the_grpc_socket_is_beside_the_plugins() -> None:
    assert str(read("--socket", "/run/x/agent.sock").grpc_socket) == "/run/x/agent-grpc.sock"
