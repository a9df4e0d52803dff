# SPDX-License-Identifier: Apache-2.0
"""Which Open vSwitch must be told to forget what its datapath has cached."""

from __future__ import annotations

import pytest

from agent.services.refreshing import trustworthy


@pytest.mark.parametrize("version", ["2.17.9", "3.0.5", "3.1.0", "3.1.2", "3.2.0"])
def test_one_that_changes_the_wrong_flow_is_told(version: str) -> None:
    assert not trustworthy(f"ovs-vswitchd (Open vSwitch) {version}")


@pytest.mark.parametrize("version", ["3.1.3", "3.1.10", "3.2.1", "3.3.0", "3.7.1", "4.0.0"])
def test_one_that_was_mended_is_not(version: str) -> None:
    assert trustworthy(f"ovs-vswitchd (Open vSwitch) {version}")


@pytest.mark.parametrize("text", ["", "something else", "ovs-vswitchd (Open vSwitch) next"])
def test_one_that_says_nothing_of_its_version_is_told(text: str) -> None:
    assert not trustworthy(text)
