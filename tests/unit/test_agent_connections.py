# SPDX-License-Identifier: Apache-2.0
"""What is read of a dump of the connection tracker, and which of its connections a controller is told of."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.nodesetup.facts import NodeFacts
from agent.services.conntrackdump import parse
from agent.services.listing import Ranges, answered, listed, portions
from agent.vswitchd import Vswitchd
from sdn.v1 import controller_pb2 as messages

EVERYTHING = Ranges(["0.0.0.0/0", "::/0"])
#: As ovs-vswitchd 3.1 prints them.
DUMP = """\
tcp,orig=(src=10.244.1.5,dst=10.96.0.1,sport=40000,dport=80),reply=(src=10.244.1.6,dst=10.244.1.5,sport=8080,dport=40000),zone=1,mark=17,protoinfo=(state=ESTABLISHED)
udp,orig=(src=fd00:10:244:1::5,dst=fd00:10:96::a,sport=5000,dport=53),reply=(src=fd00:10:244:2::9,dst=fd00:10:244:1::5,sport=53,dport=5000),zone=1
icmp,orig=(src=10.244.1.5,dst=10.244.2.7,id=7,type=8,code=0),reply=(src=10.244.2.7,dst=10.244.1.5,id=7,type=0,code=0),zone=1
icmpv6,orig=(src=fd00:10:244:1::5,dst=fd00:10:244:2::7,id=65535,type=128,code=0),reply=(src=fd00:10:244:2::7,dst=fd00:10:244:1::5,id=65535,type=129,code=0),zone=1,mark=5
sctp,orig=(src=10.244.1.5,dst=10.244.2.7,sport=0,dport=0),reply=(src=10.244.2.7,dst=10.244.1.5,sport=0,dport=0),zone=1
47,orig=(src=10.244.1.5,dst=10.244.2.7,sport=0,dport=0),reply=(src=10.244.2.7,dst=10.244.1.5,sport=0,dport=0),zone=1
tcp,orig=(src=10.244.1.5,dst=10.96.0.1,sport=40001,dport=80),reply=(src=10.244.1.6,dst=10.244.1.5,sport=8080,dport=40001),zone=1,protoinfo=(state=TIME_WAIT)
tcp,orig=(src=10.244.1.5,dst=10.96.0.1,sport=40002,dport=80),reply=(src=10.244.1.6,dst=10.244.1.5,sport=8080,dport=40002),zone=1,protoinfo=(state=CLOSING)
"""


def connections(text: str, ranges: Ranges = EVERYTHING) -> list[messages.TrackedConnection]:
    return list(listed(text, ranges))


def test_a_line_is_a_connection_with_both_directions() -> None:
    translated, udp, icmp, icmpv6, sctp, gre, closing = connections(DUMP)
    assert translated == messages.TrackedConnection(
        protocol=6,
        source="10.244.1.5",
        source_port=40000,
        destination="10.96.0.1",
        destination_port=80,
        reply_source="10.244.1.6",
        reply_source_port=8080,
        reply_destination="10.244.1.5",
        reply_destination_port=40000,
        mark=17,
    )
    assert (udp.protocol, udp.reply_source, udp.reply_source_port) == (17, "fd00:10:244:2::9", 53)
    assert (icmp.protocol, icmp.icmp_id, icmp.icmp_type, icmp.icmp_code, icmp.mark) == (1, 7, 8, 0, 0)
    assert (icmpv6.protocol, icmpv6.icmp_id, icmpv6.icmp_type, icmpv6.mark) == (58, 65535, 128, 5)
    for portless in (icmp, icmpv6, sctp, gre):
        assert (portless.source_port, portless.destination_port) == (0, 0)
        assert (portless.reply_source_port, portless.reply_destination_port) == (0, 0)
    assert (sctp.protocol, gre.protocol) == (132, 47)
    assert closing.source_port == 40002


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSED", "CLOSE", "SHUTDOWN_ACK_SENT"])
def test_a_connection_that_is_over_is_not_told_of(state: str) -> None:
    assert connections(DUMP.splitlines()[0].replace("ESTABLISHED", state)) == []


@pytest.mark.parametrize(
    ("ranges", "count"),
    [
        (["10.244.1.5/32"], 5),
        (["10.96.0.1/32"], 2),
        (["10.244.1.6/32", "fd00:10:244:2::7/128"], 3),
        (["fd00:10:244:2::/64"], 2),
        (["fd00:10:96::/112", "10.96.0.0/16"], 3),
        (["10.244.3.0/24", "::/128"], 0),
        ([], 0),
    ],
)
def test_any_of_the_four_addresses_counts(ranges: list[str], count: int) -> None:
    assert len(connections(DUMP, Ranges(ranges))) == count


def test_what_is_no_line_of_a_dump_is_left_out() -> None:
    first = DUMP.splitlines()[0]
    for text in (
        "",
        "\n\n",
        "no such datapath",
        first[:60],
        first.replace("sport=40000", "sport=many"),
        "x" + first,
    ):
        assert connections(text + "\n" + first)[-1].source_port == 40000
        assert len(connections(text + "\n" + first)) == 1


@given(st.text(alphabet="tcpudp,=()origreplysrcdst0123456789.:\n", max_size=300))
def test_no_text_makes_it_fail(text: str) -> None:
    assert all(connection.reply_source for connection in connections(text))
    assert list(parse(text)) == list(parse(text))


def networks() -> st.SearchStrategy[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    small = st.integers(0, 255)
    v4 = st.tuples(small, st.integers(0, 32)).map(
        lambda p: ipaddress.ip_network((0x0A000000 | p[0], p[1]), False)
    )
    v6 = st.tuples(small, st.integers(0, 128)).map(
        lambda p: ipaddress.ip_network((0xFD << 120 | p[0], p[1]), False)
    )
    return st.one_of(v4, v6)


@given(st.lists(networks(), max_size=6), st.integers(0, 255))
def test_an_address_is_in_the_ranges_that_have_it(
    ranges: list[ipaddress.IPv4Network | ipaddress.IPv6Network], number: int
) -> None:
    mine = Ranges(map(str, ranges))
    for address in (ipaddress.IPv4Address(0x0A000000 | number), ipaddress.IPv6Address(0xFD << 120 | number)):
        expected = any(address.version == one.version and address in one for one in ranges)
        assert (str(address) in mine) is expected
        assert (str(address) in mine) is expected


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_an_answer_goes_in_portions_of_which_the_last_says_so(count: int, sizes: list[int]) -> None:
    found = [messages.TrackedConnection(protocol=6, source_port=number) for number in range(count)]
    parts = list(portions(7, found, 3))
    assert [len(part.connections) for part in parts] == sizes
    assert [part.last for part in parts] == [False] * (len(sizes) - 1) + [True]
    assert {part.sequence for part in parts} == {7}
    assert [one.source_port for part in parts for one in part.connections] == list(range(count))


def nobody() -> NodeFacts:
    raise AssertionError("not asked for")


@pytest.mark.parametrize(
    ("ranges", "facts", "error"),
    [(["10.0.0.0/33"], nobody, "10.0.0.0/33"), (["10.0.0.1/8"], nobody, "host bits")],
)
def test_a_question_that_means_nothing_is_answered_so(
    tmp_path: Path, ranges: list[str], facts: Callable[[], NodeFacts], error: str
) -> None:
    question = messages.ListConnections(sequence=5, ranges=ranges)
    (answer,) = answered(Vswitchd(tmp_path), facts, question)
    assert (answer.sequence, answer.last, list(answer.connections)) == (5, True, [])
    assert error in answer.error
