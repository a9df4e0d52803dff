# SPDX-License-Identifier: Apache-2.0
"""What ovs-vswitchd prints of its routes, read back."""

from agent.nodesetup.tunnelroutes import told

SHOWN = """\
Route Table:
Cached: 172.30.0.11/32 dev br-phy SRC 172.30.0.11 local
Cached: 172.30.0.0/24 dev br-phy SRC 172.30.0.11
User: 172.30.0.0/24 dev br-phy SRC 172.30.0.11
User: 10.9.0.0/16 dev another SRC 10.9.0.1
User: 0.0.0.0/0 dev br-phy GW 172.30.0.200 SRC 172.30.0.11
User: fd00:30::/64 dev br-phy SRC fd00:30::b
"""


def test_only_routes_that_it_was_told_over_br_phy_count() -> None:
    assert told(SHOWN) == {"172.30.0.0/24": "", "0.0.0.0/0": "172.30.0.200", "fd00:30::/64": ""}


def test_an_empty_table_has_no_routes() -> None:
    assert told("Route Table:\n") == {}
