# SPDX-License-Identifier: Apache-2.0
"""One question to one answer: from the cluster's names, or from an upstream server."""

from __future__ import annotations

import time
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from agent.dns import messages
from agent.dns.forwarder import Forwarder
from agent.dns.messages import Question
from agent.dns.observer import Observer
from sdn import logs
from sdn.services.dns import Answer, Zone

log: Final = logs.get("agent.dns.resolver")

_TELL_SECONDS: Final = 60.0
_TELL_BYTES: Final = 512


class Resolver:
    """Answers packets. For one event loop."""

    def __init__(self, zone: Zone, forwarder: Forwarder, observer: Observer) -> None:
        self.zone = zone
        self._forwarder = forwarder
        self._observer = observer
        self._told = -_TELL_SECONDS

    def at_once(self, raw: bytes, tcp: bool = False) -> bytes | Question | None:
        """The answer, where it needs no upstream server; the question, where it does (then :meth:`later`); None, where
        there is nothing to be said.

        Never raises: a packet that finds a defect must not end the service of all others. It is not answered, and told
        in the log once a minute.
        """
        try:
            return self._at_once(raw, tcp)
        except Exception:
            now = time.monotonic()
            if now - self._told >= _TELL_SECONDS:
                self._told = now
                log.exception("a question failed by a defect", packet=raw[:_TELL_BYTES].hex())
            return None

    def _at_once(self, raw: bytes, tcp: bool) -> bytes | Question | None:
        question = messages.read(raw)
        if not isinstance(question, Question):
            return question
        found = self.zone.answer(question.name, question.kind)
        if found is None or found.elsewhere:
            return question
        return messages.to_bytes(self._built(question, found), messages.limit(question, tcp))

    async def later(self, question: Question, client: str, tcp: bool = False) -> bytes:
        """The answer of an upstream server; that nobody knows, where there is none. ``client``: the address asking."""
        found = self.zone.answer(question.name, question.kind)
        if found is not None:
            return await self._with_alias(question, found, client, tcp)
        reply = await self._forwarder.ask(question.raw, question.end, tcp)
        if reply is None:
            return messages.failure(question)
        if self._observer.wants(question.name):
            await self._observer.see(question.name, reply, client)
        return reply

    def _built(self, question: Question, found: Answer) -> dns.message.Message:
        authority = (self.zone.soa(found.zone),) if found.zone else ()
        return messages.answer(question, found.code, found.records, found.additional, authority)

    async def _with_alias(self, question: Question, found: Answer, client: str, tcp: bool) -> bytes:
        """A CNAME that leads out of the cluster, together with what is there: a pod's resolver asks once only."""
        response = self._built(question, found)
        most = messages.limit(question, tcp)
        if not found.elsewhere:
            return messages.to_bytes(response, most)
        try:
            query = dns.message.make_query(
                found.elsewhere, question.kind, use_edns=0, payload=messages.MOST_UDP
            )
            raw = query.to_wire()
            asked = messages.read(raw)
            assert isinstance(asked, Question)
            reply = await self._forwarder.ask(raw, asked.end, tcp=False)
            if reply is not None and reply[2] & dns.flags.TC >> 8:
                reply = await self._forwarder.ask(raw, asked.end, tcp=True)
            if reply is None:
                return messages.failure(question)
            if self._observer.wants(found.elsewhere):
                await self._observer.see(found.elsewhere, reply, client)
            outside = dns.message.from_wire(reply)
        except (dns.exception.DNSException, ValueError):
            return messages.failure(question)
        if outside.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return messages.failure(question)
        response.set_rcode(outside.rcode())
        response.answer += outside.answer
        response.authority += outside.authority
        return messages.to_bytes(response, most)
