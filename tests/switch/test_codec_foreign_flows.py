# SPDX-License-Identifier: Apache-2.0
"""Flows that are not ours: read without error, shown as what they are or as unknown, removed by their key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdn.openflow import (
    FlowCommand,
    decode_flow_descs,
    flow_desc_request,
    flow_image,
    flow_mod,
    format_flow,
    split_flow_descs,
)
from sdn.openflow.actionread import Unknown
from sdn.pipeline.fields import FIELDS
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match, Term
from tests.property.strategies import KINDS, OWNER, allowed
from tests.switch.ovs import Connection, PrivateSwitch, running_switch

pytestmark = pytest.mark.switch

switch = pytest.fixture(scope="module")(running_switch)

FOREIGN = [
    "priority=5,dl_vlan=5,actions=strip_vlan,output:3",
    "vlan_tci=0x1000/0x1000,actions=drop",
    "tun_flags=oam,actions=drop",
    "actset_output=3,actions=drop",
    "recirc_id=0,actions=drop",
    "ct_state=+trk+est,ip,ct_nw_src=1.2.3.4,actions=drop",
    "mpls,mpls_label=7,actions=dec_mpls_ttl",
    "tcp,actions=learn(table=1,hard_timeout=5,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]),NORMAL",
    "ip,actions=write_actions(output:4),goto_table:4",
    "actions=clear_actions,write_metadata:0x5",
    "actions=controller(max_len=128,reason=no_match)",
    "actions=note:01.02.03,clone(output:1,output:2)",
    "actions=conjunction(3,1/2),note:01.02.03,conjunction(4,2/64)",
    "tcp,actions=ct(commit,alg=ftp)",
    "ip,actions=ct(commit,nat(src=1.2.3.4-1.2.3.9:5-50,persistent))",
    "actions=check_pkt_larger(1400)->NXM_NX_REG0[0],ct_clear,enqueue:1:2",
    "actions=push_vlan:0x8100,set_field:4100->vlan_vid,in_port",
    "actions=set_field:0x5->xreg3,load:1->NXM_NX_REG1[4]",
    "ipv6,ipv6_label=5,actions=push:NXM_NX_REG1[],pop:NXM_NX_REG2[]",
    "actions=bundle(eth_src,0,hrw,ofport,members:1,2)",
    "actions=multipath(eth_src,50,modulo_n,1,0,NXM_NX_REG0[0..4])",
]


@pytest.fixture
def connection(switch: PrivateSwitch) -> Iterator[Connection]:
    switch.clear()
    with switch.connect() as connection:
        yield connection


def body(connection: Connection) -> bytes:
    return b"".join(reply.body[8:] for reply in connection.transact(flow_desc_request(1)))


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_flow_is_read_shown_and_removed(
    switch: PrivateSwitch, connection: Connection, text: str
) -> None:
    switch.ofctl("add-flow", text)
    (image,) = split_flow_descs(body(connection))
    (seen,) = decode_flow_descs(body(connection))
    # What we show is either, word for word, what ovs-ofctl shows, or says that it is unknown.
    shown = format_flow(seen)
    if "unknown_" not in shown and "oxm=" not in shown:
        assert shown == switch.dump_flows()[0]
    else:
        assert seen.unknown_fields or any(isinstance(action, Unknown) for action in seen.actions)
    # What we take it for is what it is: writing that would give the same bytes.
    if not seen.unknown_fields and not any(isinstance(action, Unknown) for action in seen.actions):
        known = [action for action in seen.actions if not isinstance(action, Unknown)]
        flow = Flow(seen.table, seen.priority, seen.match, tuple(known), seen.cookie, OWNER, "")
        assert flow_image(flow) == image
    connection.transact(flow_mod(FlowCommand.DELETE_STRICT, *image))
    assert switch.dump_flows() == []


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_field_at_once_comes_back_in_the_order_of_the_registry(
    switch: PrivateSwitch, connection: Connection, kind: dict[str, int]
) -> None:
    fields = [field for field in allowed(kind) if field.name not in ("ct_state", "ip_frag")]
    terms: list[Term] = [(FIELDS[name], value, None) for name, value in kind.items()]
    terms += [(field, 1, None) for field in fields]
    # Without a connection there is nothing to match of it.
    terms.append((FIELDS["ct_state"], 0x21, 0x21))
    flow = Flow(0, 1, Match(tuple(sorted(terms, key=lambda term: term[0].order))), (), 1, OWNER, "")
    connection.transact(flow_mod(FlowCommand.ADD, *flow_image(flow)))
    assert list(split_flow_descs(body(connection))) == [flow_image(flow)]
