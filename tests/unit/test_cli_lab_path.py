# SPDX-License-Identifier: Apache-2.0
"""A switch's trace, and the listing's flows that it went through."""

from typing import Any

from sdn.cli.lab_path import steps

TRACE = """\
Flow: icmp,in_port=17,nw_src=10.0.0.3

bridge("br-int")
----------------
 0. in_port=17, priority 100, cookie 0x19
    goto_table:1
 1. ip,in_port=17,nw_src=10.0.0.3, priority 100, cookie 0x29
    goto_table:6
 6. priority 0
    drop

bridge("br-phy")
----------------
 0. priority 0, cookie 0x19
    NORMAL
"""


def flow(table: int, priority: int, cookie: str, match: str) -> dict[str, Any]:
    return {"table_number": table, "priority": priority, "cookie": cookie, "match": match}


def test_flows_come_in_the_order_of_the_trace_without_those_of_other_bridges() -> None:
    listing = [
        flow(6, 0, "0x0", ""),
        flow(1, 100, "0x29", "ipv6,in_port=17,ipv6_src=fd00::3"),
        flow(1, 100, "0x29", "ip,nw_src=10.0.0.3,in_port=17"),
        flow(1, 100, "0x30", "ip,in_port=17,nw_src=10.0.0.3"),
        flow(0, 100, "0x19", "in_port=17"),
        flow(0, 0, "0x19", ""),
    ]
    assert steps(TRACE, listing) == [listing[4], listing[2], listing[0]]


def test_a_flow_that_the_listing_lacks_is_left_out() -> None:
    assert steps(TRACE, []) == []
