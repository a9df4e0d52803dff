# SPDX-License-Identifier: Apache-2.0
"""What holds of every Service on every switch: each connection arrives where a reference says that it may, or is
refused as it says; answers come back from where the client sent to; a client with affinity stays.
"""

from __future__ import annotations

from itertools import combinations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sdn.pipeline.fields import OFPP_CONTROLLER
from sdn.pipeline.flow import Flow
from sdn.pipeline.registers import GATEWAY_MAC, GATEWAY_PORT, SERVICE_ZONE, SOURCE_ZONE, TUNNEL_PORT, Mark
from sdn.pipeline.service import Protocol
from sdn.pipeline.topology import Address
from sdn.simulator.conntrack import NEW, REPLY, OriginalTuple, Request, Tracked
from sdn.simulator.journey import Journey
from sdn.simulator.packet import Packet
from sdn.simulator.switch import SimulatedSwitch
from tests.property.simulator_services import (
    DROPPED,
    REJECTED,
    Arrival,
    Attempt,
    Kind,
    ServiceCase,
    first_packet,
    keeps_source,
    only_local,
    service_cases,
    verdict,
)

EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Tracker:
    """A connection tracker that has seen nothing yet: every packet is a connection's first, translated as committed.

    ``marks`` are those with which connections to Services were committed.
    """

    def __init__(self) -> None:
        self.committed: list[Request] = []

    def __call__(self, request: Request) -> Tracked:
        if request.action.commit:
            self.committed.append(request)
        return Tracked(NEW, translation=_translation(request))

    @property
    def marks(self) -> list[int]:
        return [request.packet["reg4"] & 0xF for request in self.committed if request.zone == SERVICE_ZONE]


def _translation(request: Request) -> dict[str, int | str]:
    nat = request.action.nat
    if nat is None or not nat.kind:
        return {}
    assert nat.address_min is not None
    translation: dict[str, int | str] = {f"{'ipv6' if nat.ipv6 else 'ip'}_{nat.kind}": nat.address_min}
    if nat.port_min:
        name = Protocol(request.packet["nw_proto"]).name.lower()
        translation[f"{name}_{nat.kind}"] = nat.port_min
    return translation


def _source_of(packet: Packet) -> dict[str, int | str]:
    field = "ip_src" if packet["eth_type"] == 0x0800 else "ipv6_src"
    return {field: packet[field]}


def _address(packet: Packet, end: str) -> Address:
    four = packet["eth_type"] == 0x0800
    return Address(4, packet[f"ip_{end}"]) if four else Address(6, packet[f"ipv6_{end}"])


def _port(packet: Packet, end: str) -> int:
    return packet[f"{Protocol(packet['nw_proto']).name.lower()}_{end}"]


def _arrival(journey: Journey, attempt: Attempt) -> Arrival:
    """Where a packet came out, in the reference's words."""
    (outcome,) = journey.outcomes
    sent = outcome.packet
    endpoints = (*attempt.port.endpoints, *attempt.port.local_endpoints)
    place = _address(sent, "dst"), _port(sent, "dst")
    (endpoint,) = {one for one in endpoints if (one.address, one.port) == place}
    source_port = _port(sent, "src")
    tunnel = None
    if outcome.port == TUNNEL_PORT:
        tunnel = Address(6, sent["tun_ipv6_dst"]) if sent["tun_ipv6_dst"] else Address(4, sent["tun_dst"])
    kept = source_port == _port(attempt.packet, "src")
    return Arrival(outcome.port, endpoint, _address(sent, "src"), 0 if kept else source_port, tunnel)


def _marks(attempt: Attempt, arrived: Arrival) -> Mark:
    kind = attempt.client.kind
    marks = Mark(0)
    if kind is not Kind.POD:
        marks |= Mark.VIA_GATEWAY
    if kind is Kind.NODE:
        marks |= Mark.OWN_NODE
    if kind is Kind.OUTSIDE and not keeps_source(attempt):
        marks |= Mark.MASQUERADE
    if not arrived.endpoint.pod:
        marks |= Mark.NO_POD
    return marks


@EXAMPLES
@given(case=service_cases())
def test_every_connection_arrives_where_it_may_or_is_refused(case: ServiceCase) -> None:
    switch = SimulatedSwitch(case.flows, case.groups)
    for attempt in case.attempts():
        expected = verdict(case, attempt)
        arrived = set()
        tracker = Tracker()
        for journey in switch.runs(attempt.packet, conntrack=tracker):
            assert not journey.error
            if expected == DROPPED:
                assert journey.dropped, f"{attempt}\n{journey}"
                assert not tracker.committed
            elif expected == REJECTED:
                assert journey.ports == (OFPP_CONTROLLER,), f"{attempt}\n{journey}"
                assert not tracker.committed
            else:
                assert len(journey.outcomes) == 1, f"{attempt}\n{journey}"
                seen = _arrival(journey, attempt)
                assert seen in expected, f"{attempt}\n{journey}"
                assert tracker.marks == [_marks(attempt, seen)], f"{attempt}\n{journey}"
                assert len(tracker.committed) == 1 + (seen.source != attempt.client.address)
                arrived.add(seen)
            tracker.committed.clear()
        if not isinstance(expected, str):
            assert arrived == expected, f"{attempt}: {arrived ^ expected}"


@EXAMPLES
@given(case=service_cases())
def test_an_answer_comes_back_to_the_client_from_where_it_sent_to(case: ServiceCase) -> None:
    switch = SimulatedSwitch(case.flows, case.groups)
    for attempt in case.attempts():
        expected = verdict(case, attempt)
        if isinstance(expected, str):
            continue
        for arrived in expected:
            answer = _answer(case, attempt, arrived)
            if answer is None:
                continue
            journey = switch.run(answer, conntrack=_restoring(attempt, arrived))
            assert len(journey.outcomes) == 1, f"{attempt}\n{arrived}\n{journey}"
            (outcome,) = journey.outcomes
            client = attempt.client
            back = client.pod.ofport if client.pod is not None else GATEWAY_PORT
            assert outcome.port == back, f"{attempt}\n{arrived}\n{journey}"
            sent = outcome.packet
            assert sent["eth_dst"] == (client.pod.mac if client.pod is not None else GATEWAY_MAC)
            assert (_address(sent, "src"), _port(sent, "src")) == (
                _address(attempt.packet, "dst"),
                _port(attempt.packet, "dst"),
            )
            assert (_address(sent, "dst"), _port(sent, "dst")) == (
                client.address,
                _port(attempt.packet, "src"),
            ), f"{attempt}\n{arrived}\n{journey}"


def _answer(case: ServiceCase, attempt: Attempt, arrived: Arrival) -> Packet | None:
    """What the endpoint answers, as it enters the switch; None where it does not come by the switch."""
    version = arrived.source.version
    names = ("ip_src", "ip_dst") if version == 4 else ("ipv6_src", "ipv6_dst")
    name = attempt.port.protocol.name.lower()
    source_port = arrived.source_port or _port(attempt.packet, "src")
    values: dict[str, int | str] = {
        names[0]: arrived.endpoint.address.value,
        names[1]: arrived.source.value,
        f"{name}_src": arrived.endpoint.port,
        f"{name}_dst": source_port,
    }
    base = first_packet(attempt.client, attempt.port.protocol, arrived.source, source_port)
    for pod in case.pods:
        if pod.ofport == arrived.ofport:
            frame = {"in_port": pod.ofport, "eth_src": pod.mac, "eth_dst": GATEWAY_MAC}
            return base.with_(**values, **frame)
    if arrived.tunnel is not None:
        frame = {"in_port": TUNNEL_PORT, "tun_src": arrived.tunnel.value, "eth_dst": GATEWAY_MAC}
        return base.with_(**values, **frame)
    # The node's own stack answers, or forwards an answer, to the address that it saw.
    return base.with_(**values, in_port=GATEWAY_PORT, eth_src=GATEWAY_MAC, eth_dst=0x0A5800000002)


def _restoring(attempt: Attempt, arrived: Arrival):  # type: ignore[no-untyped-def]
    """A tracker that knows the connection, and gives its answers their addresses back."""
    family = "ip" if arrived.source.version == 4 else "ipv6"
    name = attempt.port.protocol.name.lower()
    client, target = attempt.client.address, _address(attempt.packet, "dst")
    client_port, target_port = _port(attempt.packet, "src"), _port(attempt.packet, "dst")
    marks = _marks(attempt, arrived)

    def track(request: Request) -> Tracked:
        packet = request.packet
        if request.zone == SOURCE_ZONE:
            if (_address(packet, "dst"), _address(packet, "src")) != (
                arrived.source,
                arrived.endpoint.address,
            ):
                return Tracked(NEW)
            if arrived.source == client:
                return Tracked(NEW)
            back: dict[str, int | str] = {f"{family}_dst": client.value, f"{name}_dst": client_port}
            return Tracked(REPLY, translation=back)
        if _address(packet, "dst") != client or _address(packet, "src") != arrived.endpoint.address:
            return Tracked(NEW)
        original = OriginalTuple(attempt.port.protocol, client.value, target.value, client_port, target_port)
        restored: dict[str, int | str] = {f"{family}_src": target.value, f"{name}_src": target_port}
        return Tracked(REPLY, mark=marks, translation=restored, original=original)

    return track


@EXAMPLES
@given(case=service_cases(), data=st.data())
def test_a_client_with_affinity_stays_with_its_endpoint(case: ServiceCase, data: st.DataObject) -> None:
    attempts = [
        one
        for one in case.attempts()
        if one.port.affinity_seconds and not isinstance(verdict(case, one), str)
    ]
    assume(attempts)
    attempt = data.draw(st.sampled_from(attempts))
    switch = SimulatedSwitch(case.flows, case.groups)
    first = data.draw(st.sampled_from(list(switch.runs(attempt.packet, conntrack=Tracker()))))
    chosen = _arrival(first, attempt)
    switch.learn(first)
    for later in attempts:
        if later.port is not attempt.port or later.client.address != attempt.client.address:
            continue
        if only_local(later) != only_local(attempt):
            # Another policy, another choice.
            continue
        seen = {
            _arrival(journey, later).endpoint for journey in switch.runs(later.packet, conntrack=Tracker())
        }
        assert seen == {chosen.endpoint}
    (taught,) = first.learned
    assert taught.idle_timeout == attempt.port.affinity_seconds


@EXAMPLES
@given(case=service_cases())
def test_no_two_flows_of_one_table_and_priority_overlap(case: ServiceCase) -> None:
    by_place: dict[tuple[int, int], list[Flow]] = {}
    for flow in case.flows:
        by_place.setdefault((flow.table, flow.priority), []).append(flow)
    for flows in by_place.values():
        for one, other in combinations(flows, 2):
            assert not _overlap(one, other), (
                f"table {one.table}, {one.priority}: [{one.match}] [{other.match}]"
            )


def _overlap(one: Flow, other: Flow) -> bool:
    """Whether some packet matches both: no field has bits that both fix, differently."""
    others = {field: (value, mask) for field, value, mask in other.match}
    for field, value, mask in one.match:
        if field in others:
            other_value, other_mask = others[field]
            common = (field.all_ones if mask is None else mask) & (
                field.all_ones if other_mask is None else other_mask
            )
            if (value ^ other_value) & common:
                return False
    return True


@EXAMPLES
@given(case=service_cases())
def test_each_flow_and_group_is_there_once(case: ServiceCase) -> None:
    assert len({flow.key for flow in case.flows}) == len(case.flows)
    assert len({group.group_id for group in case.groups}) == len(case.groups)


@EXAMPLES
@given(case=service_cases())
def test_the_parts_of_a_first_datagram_arrive_where_it_may(case: ServiceCase) -> None:
    """The first part has the port, the others learn from it."""
    for attempt in case.attempts():
        expected = verdict(case, attempt)
        if attempt.port.protocol is not Protocol.UDP or isinstance(expected, str):
            continue
        switch = SimulatedSwitch(case.flows, case.groups)
        first = switch.run(attempt.packet.with_(ip_frag=1), conntrack=Tracker())
        assert _arrival(first, attempt) in expected
        switch.learn(first)
        target = _address(attempt.packet, "dst")
        later = first_packet(attempt.client, Protocol.UDP, target, 0, ip_frag=3)
        places = {(one.endpoint.address, one.ofport, one.source) for one in expected}
        for journey in switch.runs(later, conntrack=Tracker()):
            (outcome,) = journey.outcomes
            seen = _address(outcome.packet, "dst"), outcome.port, _address(outcome.packet, "src")
            assert seen in places, f"{attempt}\n{journey}"


@EXAMPLES
@given(case=service_cases())
def test_an_address_of_no_service_is_refused_and_other_traffic_passes(case: ServiceCase) -> None:
    switch = SimulatedSwitch(case.flows, case.groups)
    for version, service, world in ((4, "10.96.200.1", "8.8.8.8"), (6, "fd00:10:96::c8", "2001:4860::8")):
        for client in case.clients(version):
            for protocol in Protocol:
                packet = first_packet(client, protocol, Address.parse(service), 80)
                assert switch.run(packet, conntrack=Tracker()).ports == (OFPP_CONTROLLER,)
                tracker = Tracker()
                journey = switch.run(
                    first_packet(client, protocol, Address.parse(world), 80), conntrack=tracker
                )
                assert journey.ports == ((GATEWAY_PORT,) if client.kind is Kind.POD else ())
                # Remembered with its own address, so that its port is not taken for another connection's.
                for request in tracker.committed:
                    assert request.zone == SERVICE_ZONE
                    assert _translation(request) in ({}, _source_of(request.packet))
