# SPDX-License-Identifier: Apache-2.0
"""The node's rules as text: what cannot be seen with packets on the userspace datapath."""

from __future__ import annotations

import ipaddress

from agent.nodesetup.facts import Assignment, NodeFacts
from agent.nodesetup.firewall import rules

ASSIGNMENT = Assignment(["10.244.1.0/24"], ["10.244.0.0/16"], ["tcp:172.30.0.101:6653"])


def facts(*addresses: str) -> NodeFacts:
    own = tuple(ipaddress.ip_address(text) for text in addresses)
    return NodeFacts(
        "node-1", "uid", own, own[0], "0a:00:00:00:00:01", "eth0", "eth0", "geneve", "system", 1450
    )


def chain(text: str, name: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    start = lines.index(f"chain {name} {{")
    return lines[start + 1 : lines.index("}", start)]


def test_what_comes_out_of_the_switch_is_not_led_into_it_again() -> None:
    """On the kernel datapath a packet keeps its mark through the switch, and the mark leads into the switch."""
    lines = chain(rules(facts("172.30.0.11"), ASSIGNMENT), "kept-sources")
    assert lines[1] == 'iifname "sdn-gw0" meta mark set meta mark & 0xffdfffff'
    # Before connections are marked: that one is kept.
    assert "ct mark set ct mark | 0x200000" in lines[2]


def test_a_node_of_one_family_has_no_rules_of_the_other() -> None:
    text = rules(facts("172.30.0.11"), ASSIGNMENT)
    assert "ip6 " not in text
    assert "ip saddr" not in rules(facts("fd00:30::11"), Assignment(["fd00:1::/64"], ["fd00::/16"], []))
