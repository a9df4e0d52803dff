# SPDX-License-Identifier: Apache-2.0
"""The border of the DNS server: whatever comes is answered as RFC 1035 says, or not at all; nothing breaks it."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.dns import messages
from agent.dns.forwarder import Forwarder
from agent.dns.messages import Question
from agent.dns.observer import Observer
from agent.dns.resolver import Resolver
from sdn.services.dns import Zone
from sdn.v1.controller_pb2 import EndpointState, ServiceState
from tests.unit.test_dns_names import DB, DNS, FAR, RANGES, WEB

NAME = "web.default.svc.cluster.local."


def resolver(*more: ServiceState) -> Resolver:
    zone = Zone("cluster.local", RANGES, DNS)
    for state in (WEB, DB, FAR, *more):
        zone.update(state)
    zone.complete = True
    return Resolver(zone, Forwarder(tuple), Observer(lambda _report: False))


def asked(
    query: dns.message.Message, served: Resolver | None = None, tcp: bool = False
) -> dns.message.Message:
    answer = (served or resolver()).at_once(query.to_wire(), tcp)
    assert isinstance(answer, bytes)
    response = dns.message.from_wire(answer)
    assert query.is_response(response)
    return response


def test_an_answer_of_the_cluster_is_authoritative_and_offers_recursion() -> None:
    response = asked(dns.message.make_query("WEB.default.svc.cluster.local", "A"))
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & (dns.flags.AA | dns.flags.RA | dns.flags.RD) == (
        dns.flags.AA | dns.flags.RA | dns.flags.RD
    )
    (found,) = response.answer
    assert (found.ttl, [str(item) for item in found]) == (30, ["10.96.0.5"])
    assert response.edns == -1


def test_no_is_told_with_the_time_for_which_it_may_be_kept() -> None:
    for name, code in ((NAME, dns.rcode.NOERROR), ("nobody.default.svc.cluster.local", dns.rcode.NXDOMAIN)):
        response = asked(dns.message.make_query(name, "MX"))
        assert (response.rcode(), response.answer) == (code, [])
        (soa,) = response.authority
        assert (str(soa.name), soa.rdtype, soa.ttl) == ("cluster.local.", dns.rdatatype.SOA, 5)
        assert soa[0].minimum == 5


def big(endpoints: int) -> ServiceState:
    return ServiceState(
        namespace="a",
        name="big",
        type="ClusterIP",
        endpoints=[EndpointState(address=f"10.244.{n // 250}.{n % 250 + 1}") for n in range(endpoints)],
    )


def test_what_does_not_fit_a_datagram_is_cut_and_whole_over_tcp() -> None:
    served = resolver(big(1000))
    name = "big.a.svc.cluster.local"
    for payload, most in ((0, 512), (900, 900), (4096, messages.MOST_UDP)):
        query = dns.message.make_query(name, "A", use_edns=0 if payload else False, payload=payload)
        raw = served.at_once(query.to_wire())
        assert isinstance(raw, bytes)
        assert len(raw) <= most
        assert dns.message.from_wire(raw).flags & dns.flags.TC
    response = asked(dns.message.make_query(name, "A"), served, tcp=True)
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 1000


def test_addresses_of_endpoints_come_in_changing_order() -> None:
    served = resolver(big(20))
    query = dns.message.make_query("big.a.svc.cluster.local", "A")
    assert len({str(asked(query, served).answer[0][0]) for _ in range(60)}) > 1


@pytest.mark.parametrize(
    ("kind", "code"),
    [("AXFR", dns.rcode.REFUSED), ("IXFR", dns.rcode.REFUSED), ("OPT", dns.rcode.FORMERR)],
)
def test_transfers_are_refused(kind: str, code: int) -> None:
    raw = dns.message.make_query("cluster.local", "A").to_wire()
    raw = raw[:-4] + dns.rdatatype.from_text(kind).to_bytes(2, "big") + raw[-2:]
    answer = messages.read(raw)
    assert isinstance(answer, bytes)
    assert (answer[:2], answer[3] & 0xF) == (raw[:2], code)


def test_other_classes_operations_and_versions_are_told_so() -> None:
    assert asked(dns.message.make_query("version.bind", "TXT", rdclass="CH")).rcode() == dns.rcode.REFUSED
    raw = bytearray(dns.message.make_query(NAME, "A").to_wire())
    raw[2] = dns.opcode.UPDATE << 3
    answer = messages.read(bytes(raw))
    assert isinstance(answer, bytes)
    assert dns.message.from_wire(answer).rcode() == dns.rcode.NOTIMP
    assert asked(dns.message.make_query(NAME, "A", use_edns=1)).rcode() == dns.rcode.BADVERS


def test_what_cannot_be_read_is_a_format_error() -> None:
    raw = dns.message.make_query(NAME, "A").to_wire()
    for wrong in (raw[:-1], raw + b"\0", raw[:5] + b"\2" + raw[6:], raw[:5] + b"\0" + raw[6:12]):
        answer = messages.read(wrong)
        assert isinstance(answer, bytes)
        assert dns.message.from_wire(answer).rcode() == dns.rcode.FORMERR
        assert answer[:2] == raw[:2]


def test_an_answer_and_what_is_too_short_are_not_answered() -> None:
    query = dns.message.make_query(NAME, "A")
    assert messages.read(dns.message.make_response(query).to_wire()) is None
    assert messages.read(b"") is None
    assert messages.read(query.to_wire()[:11]) is None


def test_names_of_others_and_aliases_to_them_are_left_for_the_upstream_servers() -> None:
    for name in ("www.example.com", "far.shop.svc.cluster.local"):
        question = resolver().at_once(dns.message.make_query(name, "A").to_wire())
        assert isinstance(question, Question)
        assert question.name == name
        assert question.end == len(question.raw)


VALID = dns.message.make_query(
    NAME, "A", use_edns=0, options=[dns.edns.GenericOption(10, b"12345678")]
).to_wire()
SERVED = resolver()


@given(st.binary(max_size=600))
@example(b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1")
@example(b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x00\0\1\0\1")
def test_any_bytes_are_answered_or_dropped(raw: bytes) -> None:
    check(raw)


@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 80)
)
def test_a_damaged_question_is_answered_or_dropped(damage: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(VALID)
    for place, value in damage:
        raw[place] = value
    check(bytes(raw[: len(raw) - cut]))


labels = st.lists(st.binary(min_size=1, max_size=63), max_size=4)


@given(labels, st.sampled_from([b"", b"local", b"arpa"]), st.integers(0, 65535))
def test_any_name_and_type_is_answered(parts: list[bytes], end: bytes, kind: int) -> None:
    tail = {b"": [], b"local": [b"cluster", b"local"], b"arpa": [b"10", b"in-addr", b"arpa"]}[end]
    wire = b"".join(bytes([len(part)]) + part for part in (*parts, *tail)) + b"\0"
    check(b"\0\1\1\0\0\1\0\0\0\0\0\0" + wire + kind.to_bytes(2, "big") + b"\0\1")


def check(raw: bytes) -> None:
    answer = SERVED._at_once(raw, tcp=False)
    if isinstance(answer, bytes):
        response = dns.message.from_wire(answer)
        assert answer[:2] == raw[:2]
        assert response.flags & dns.flags.QR
        assert len(answer) <= messages.MOST_UDP
        assert not raw[2] & 0x80
    elif isinstance(answer, Question):
        assert answer.raw == raw
