# SPDX-License-Identifier: Apache-2.0
"""The pipeline's declarations hold together."""

from __future__ import annotations

import pytest

from sdn.pipeline import compiler, tables
from sdn.pipeline.actions import Goto, Resubmit
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.match import match
from sdn.pipeline.owner import Feature, Owner, cookie, feature_of
from sdn.pipeline.registers import Priority
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range, RemoteNode

LOCAL = LocalNode(
    name="node-1",
    pod_ranges=(Range.parse("10.244.1.0/24"), Range.parse("fd00:10:244:1::/64")),
    addresses=(Address.parse("172.30.0.11"), Address.parse("fd00:30::11")),
    tunnel_address=Address.parse("172.30.0.11"),
)
PEER = RemoteNode(
    name="node-2",
    pod_ranges=(Range.parse("10.244.2.0/24"), Range.parse("fd00:10:244:2::/64")),
    addresses=(Address.parse("172.30.0.12"), Address.parse("fd00:30::12")),
    tunnel_address=Address.parse("172.30.0.12"),
)
POD = PodPort(
    namespace="default",
    name="web-1",
    container_id="c1",
    interface_name="eth0",
    ofport=16,
    mac=0x0A580AF40105,
    ipv4=Address.parse("10.244.1.5").value,
    ipv6=Address.parse("fd00:10:244:1::5").value,
)


def test_tables_are_numbered_in_the_order_in_which_packets_meet_them() -> None:
    assert [table.number for table in tables.TABLES] == list(range(len(tables.DECLARATIONS)))
    assert tables.table_named("routing") is tables.ROUTING
    assert tables.table_name(tables.ROUTING.number) == "routing"
    assert tables.table_name(200) == "200"


def test_goto_only_goes_forward() -> None:
    for flow in compiler.switch_flows(LOCAL, [POD], [PEER]):
        for action in flow.actions:
            if isinstance(action, Goto):
                assert action.table > flow.table, flow
            if isinstance(action, Resubmit):
                assert 0 <= action.table < len(tables.TABLES), flow


def test_every_declared_miss_has_its_flow_and_no_other_table_has_one() -> None:
    missing = {flow.table for flow in compiler.node_flows(LOCAL) if flow.priority == Priority.MISS}
    assert missing == {table.number for table in tables.TABLES if table.declaration.miss}


def test_every_flow_names_its_owner_and_feature_in_its_cookie() -> None:
    for flow in compiler.switch_flows(LOCAL, [POD], [PEER]):
        feature = tables.TABLES[flow.table].declaration.feature
        assert flow.cookie == cookie(feature, flow.owner)
        assert feature_of(flow.cookie) is feature
        assert flow.why


def test_a_cookie_is_a_function_of_the_name_alone() -> None:
    first = cookie(Feature.ROUTING, Owner("Pod", "default", "web-1"))
    assert first == cookie(Feature.ROUTING, Owner("Pod", "default", "web-1"))
    assert first != cookie(Feature.ROUTING, Owner("Pod", "default", "web-2"))
    assert first != cookie(Feature.BRIDGING, Owner("Pod", "default", "web-1"))
    assert feature_of(0) is None


def test_link_local_address_is_the_modified_eui_64_of_the_mac() -> None:
    # RFC 4291, appendix A: the universal/local bit is inverted, ff:fe goes in the middle.
    assert Address(6, POD.link_local) == Address.parse("fe80::858:aff:fef4:105")


def test_prerequisites_are_added_and_the_order_does_not_depend_on_how_a_match_is_written() -> None:
    one = match(ip_dst="10.0.0.0/8", in_port=1, nw_proto=6, tcp_dst=80)
    other = match(tcp_dst=80, in_port=1, ip_dst="10.0.0.0/8", eth_type=0x800)
    assert one == other
    assert hash(one) == hash(other)
    assert str(match(ip_dst="10.0.0.0/8")) == "eth_type=0x800,ip_dst=10.0.0.0/8"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"nosuch": 1}, "nosuch"),
        ({"tcp_dst": 80}, "tcp_dst"),
        ({"ip_dst": "10.0.0.0/8", "ipv6_dst": "fd00::1"}, "ip"),
        ({"ip_dst": "10.0.0.1/8"}, "ip_dst"),
        ({"ip_dst": "10.0.0.0/33"}, "ip_dst"),
        ({"eth_src": "0a:58"}, "eth_src"),
        ({"in_port": 1 << 32}, "in_port"),
        ({"eth_type": "0x800/0xff00"}, "eth_type"),
        ({"ct_state": "+nosuch"}, "ct_state"),
    ],
)
def test_an_impossible_match_is_refused_and_the_field_named(values: dict[str, int | str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        match(**values)


def test_zero_mask_is_no_term() -> None:
    assert match(reg0="0/0").terms == ()


def test_registry_order_is_complete_and_unique() -> None:
    assert sorted(field.order for field in FIELDS.values()) == list(range(len(FIELDS)))


def test_range_knows_its_addresses() -> None:
    pod_range = Range.parse("10.244.1.0/24")
    assert Address.parse("10.244.1.255") in pod_range
    assert Address.parse("10.244.2.0") not in pod_range
    assert Address.parse("fd00::1") not in pod_range
    assert str(pod_range.gateway) == "10.244.1.1"
    assert str(pod_range) == "10.244.1.0/24"
