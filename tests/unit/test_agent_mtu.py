# SPDX-License-Identifier: Apache-2.0
"""A pod's MTU is the uplink's less what the encapsulation adds."""

from __future__ import annotations

import pytest

from agent.nodesetup.mtu import MtuError, overhead, pod_mtu


@pytest.mark.parametrize(
    ("encapsulation", "version", "added"),
    [
        ("geneve", 4, 50),
        ("geneve", 6, 70),
        ("vxlan", 4, 50),
        ("vxlan", 6, 70),
        ("gre", 4, 42),
        ("gre", 6, 62),
    ],
)
def test_each_encapsulation_adds_its_headers(encapsulation: str, version: int, added: int) -> None:
    assert overhead(encapsulation, version) == added
    assert pod_mtu(1500, encapsulation, version) == 1500 - added


def test_a_smaller_mtu_can_be_asked_for() -> None:
    assert pod_mtu(9000, "geneve", 4, override=1400) == 1400


def test_an_mtu_that_does_not_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(MtuError, match=r"1500.*1450"):
        pod_mtu(1500, "geneve", 4, override=1451)


def test_an_uplink_that_is_too_small_is_refused() -> None:
    with pytest.raises(MtuError, match="576"):
        pod_mtu(600, "vxlan", 4)
