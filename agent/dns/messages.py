# SPDX-License-Identifier: Apache-2.0
"""The border of the DNS server: bytes from anybody to a question, and an answer to bytes.

What is no question at all (too short, or itself an answer) is not answered: such packets may be sent to make two
servers talk to each other for ever. What is a question but a wrong one is told so (RFC 1035, section 4.1.1): FORMERR
where it cannot be read, NOTIMP for other operations, REFUSED for other classes than IN and for zone transfers.
Parsing and building is dnspython's work.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from sdn.services.dns import NEGATIVE_TTL, TTL, Record

#: Largest answer over UDP: fits every path without fragments (DNS flag day 2020).
MOST_UDP: Final = 1232
MOST_TCP: Final = 65535
_HEADER: Final = 12
_QR: Final = 0x80
_TRANSFERS: Final = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it came. ``name`` in dnspython's text form, lower case, without the last dot; ``end`` is where the
    question section ends in ``raw``.
    """

    raw: bytes
    message: dns.message.Message
    name: str
    kind: str
    end: int


def read(raw: bytes) -> Question | bytes | None:
    """The question that a packet asks; else the answer that refuses it; else None, for what is not to be answered."""
    if len(raw) < _HEADER or raw[2] & _QR:
        return None
    opcode = raw[2] >> 3 & 0xF
    if opcode != dns.opcode.QUERY:
        return _refusal(raw, dns.rcode.NOTIMP)
    try:
        message = dns.message.from_wire(raw)
    except (dns.exception.DNSException, ValueError, struct.error, NotImplementedError):
        return _refusal(raw, dns.rcode.FORMERR)
    if len(message.question) != 1 or raw[4:6] != b"\0\1":
        return _refusal(raw, dns.rcode.FORMERR)
    asked = message.question[0]
    if message.edns > 0:
        return to_bytes(_response(message, dns.rcode.BADVERS), MOST_UDP)
    if asked.rdtype == dns.rdatatype.OPT:
        return _refusal(raw, dns.rcode.FORMERR)
    if asked.rdclass != dns.rdataclass.IN or asked.rdtype in _TRANSFERS:
        return to_bytes(_response(message, dns.rcode.REFUSED), MOST_UDP)
    # Names are compared without regard to case (RFC 4343).
    name = asked.name.to_text(omit_final_dot=True).lower()
    end = _HEADER + sum(len(label) + 1 for label in asked.name.labels) + 4
    return Question(raw, message, name, dns.rdatatype.to_text(asked.rdtype), end)


def _refusal(raw: bytes, code: int) -> bytes:
    """The header alone: the question's identifier and operation, and the code."""
    flags = (_QR | raw[2] & 0x79) << 8 | code
    return raw[:2] + flags.to_bytes(2, "big") + bytes(_HEADER - 4)


def _response(query: dns.message.Message, code: int) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True, our_payload=MOST_UDP)
    response.set_rcode(dns.rcode.Rcode(code))
    return response


def answer(
    question: Question,
    code: int,
    records: Iterable[Record] = (),
    additional: Iterable[Record] = (),
    authority: Iterable[Record] = (),
    authoritative: bool = True,
) -> dns.message.Message:
    """The answer to a question, of records of the cluster."""
    response = _response(question.message, code)
    if authoritative:
        response.flags |= dns.flags.AA
    response.answer += _sets(records, TTL)
    response.additional += _sets(additional, TTL)
    response.authority += _sets(authority, NEGATIVE_TTL)
    return response


def failure(question: Question) -> bytes:
    """That nobody knows at the moment."""
    return to_bytes(_response(question.message, dns.rcode.SERVFAIL), MOST_UDP)


def limit(question: Question, tcp: bool) -> int:
    """How many bytes an answer may have: without EDNS 512 over UDP (RFC 1035, section 4.2.1)."""
    if tcp:
        return MOST_TCP
    payload = question.message.payload if question.message.edns == 0 else 0
    return max(512, min(payload, MOST_UDP))


def to_bytes(response: dns.message.Message, most: int) -> bytes:
    """The message, cut and marked so (TC) where it is longer than ``most``: then it is asked for again over TCP.

    Records of one set come in a new order each time, so that clients who take the first spread over all.
    """
    return bytes(response.to_wire(max_size=most, prefer_truncation=True))


def _sets(records: Iterable[Record], ttl: int) -> list[dns.rrset.RRset]:
    sets: dict[tuple[str, str], dns.rrset.RRset] = {}
    for record in records:
        found = sets.get((record.name, record.kind))
        if found is None:
            found = dns.rrset.RRset(
                _name(record.name), dns.rdataclass.IN, dns.rdatatype.RdataType.make(record.kind)
            )
            found.ttl = ttl
            sets[record.name, record.kind] = found
        found.items[_rdata(record.kind, record.data)] = None
    return list(sets.values())


@functools.lru_cache(maxsize=1 << 15)
def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


@functools.lru_cache(maxsize=1 << 15)
def _rdata(kind: str, data: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, kind, data)
