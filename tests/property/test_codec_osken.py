# SPDX-License-Identifier: Apache-2.0
"""Our encoder and os-ken's give the same bytes for every flow and group that os-ken can encode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, assume, given, settings

from sdn.openflow import FlowCommand, GroupCommand, flow_image, flow_mod, group_image, group_mod
from sdn.pipeline.flow import Flow, Group
from tests.property import osken_oracle, strategies

EXAMPLES: Final = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _repaired_os_ken() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        osken_oracle.pad_nicira_actions(monkeypatch)
        yield


@EXAMPLES
@given(strategies.flows(groups=(1, 2, 0xFFFFFF00)))
def test_a_flow_mod_is_what_os_ken_encodes(flow: Flow) -> None:
    assume(osken_oracle.can_say(flow))
    for command in FlowCommand:
        ours = flow_mod(command, *flow_image(flow), xid=0x12345678)
        assert ours.hex() == osken_oracle.os_ken_flow_mod(flow, command, 0x12345678).hex()


@EXAMPLES
@given(strategies.groups())
def test_a_group_mod_is_what_os_ken_encodes(group: Group) -> None:
    assume(osken_oracle.can_say_group(group))
    for command in (GroupCommand.ADD, GroupCommand.MODIFY):
        ours = group_mod(command, *group_image(group), xid=7)
        assert ours.hex() == osken_oracle.os_ken_group_mod(group, command, 7).hex()
