# SPDX-License-Identifier: Apache-2.0
"""Which connections a change of flows makes stale, and how the flows tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from controller.connection import SwitchConnection
from controller.cutting import CHEAP, REPEATED, cut, flushes
from controller.desired import Desired, encode
from controller.endpointflows import (
    FrontendAddress,
    Target,
    frontends,
    learn_cookies,
    target,
    udp_service_port,
)
from controller.forgetting import Flush, messages
from controller.stale import REMEMBERED, SECOND_AFTER, Gone, Stale, StaleConnections, StaleUdp
from sdn.pipeline.actions import Learn
from sdn.pipeline.compiler import service_flows
from sdn.pipeline.flow import Flow
from sdn.pipeline.service import Endpoint, Protocol, ServicePort
from sdn.pipeline.tables import ENDPOINT
from sdn.pipeline.topology import Address
from tests.switch.service_node import endpoint, service

CLUSTER_IP = Address.parse("10.96.0.1")


def as_target(one: Endpoint) -> Target:
    return Target(one.address, one.port)


class Switch:
    """Desired entries and what they make stale."""

    def __init__(self) -> None:
        self.desired = Desired()
        self.stale = StaleConnections()

    def put(self, port: ServicePort) -> None:
        entries = encode(service_flows((port,)))
        before = self.desired.entries(port.owner)
        changed = self.desired.replace(port.owner, entries)
        self.stale.changed(changed, self.desired.body, (before, entries))


def test_what_is_read_from_bytes_is_what_was_compiled() -> None:
    ipv6 = Endpoint(Address.parse("fd00:10:244:1::5"), 53, True)
    port = service(1, [endpoint(1), ipv6], affinity_seconds=60, node_port=30001)
    flows = [each for each in service_flows((port,)) if isinstance(each, Flow)]
    entries = encode(flows)
    found = {target(body) for key, body in entries.items() if udp_service_port(key) == port.group_base}
    assert found - {None} == {as_target(endpoint(1)), as_target(ipv6)}
    assert frontends(port.group_base, entries) == {
        FrontendAddress(CLUSTER_IP, 80),
        FrontendAddress(None, 30001),
    }
    assert frontends(port.group_base + 4, entries) == set()
    learned = {int.from_bytes(one, "big") for body in entries.values() for one in learn_cookies(body)}
    assert learned == {one.cookie for flow in flows for one in flow.actions if isinstance(one, Learn)}
    assert learned


def test_tcp_is_of_no_concern() -> None:
    entries = encode(service_flows((service(1, [endpoint(1)], Protocol.TCP),)))
    assert {udp_service_port(key) for key in entries} == {None}


@given(st.binary(min_size=12, max_size=80), st.binary(min_size=16, max_size=120), st.integers(0, 3))
def test_bytes_that_make_no_sense_say_nothing(key: bytes, body: bytes, cut: int) -> None:
    udp_service_port(bytes([ENDPOINT.number]) + key)
    target(body)
    list(learn_cookies(body))
    real = encode(service_flows((service(1, [endpoint(1)], affinity_seconds=60),)))
    for ours in real.values():
        damaged = ours[: len(ours) - 8 * cut]
        target(damaged)
        list(learn_cookies(damaged))


def test_an_endpoint_that_goes_is_flushed_at_once_and_again() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1), endpoint(2)]))
    assert switch.stale.due() is None
    switch.put(service(1, [endpoint(2)]))
    expected: list[Stale] = [StaleUdp(as_target(endpoint(1)), None)]
    assert switch.stale.due() == 0.0
    assert switch.stale.take(100.0) == expected
    assert switch.stale.due() == 100.0 + SECOND_AFTER
    assert switch.stale.take(100.0) == []
    assert switch.stale.take(100.0 + SECOND_AFTER) == expected
    assert switch.stale.due() is None


def test_an_endpoint_that_is_back_is_not_flushed_again() -> None:
    switch = Switch()
    for endpoints in ([endpoint(1)], [], [endpoint(1)]):
        switch.put(service(1, endpoints))
    assert switch.stale.take(100.0) == []
    switch.put(service(1, []))
    assert len(switch.stale.take(101.0)) == 1
    switch.put(service(1, [endpoint(1)]))
    assert switch.stale.take(200.0) == []


def test_another_port_of_an_endpoint_is_another_one() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1, 8080)]))
    switch.put(service(1, [endpoint(1, 9090)]))
    assert switch.stale.take(1.0) == [StaleUdp(as_target(endpoint(1, 8080)), None)]


def test_of_an_endpoint_with_other_users_only_the_lost_ones_frontends_are_flushed() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1)], node_port=30001))
    switch.put(service(2, [endpoint(1)]))
    switch.put(service(1, [], node_port=30001))
    lost = as_target(endpoint(1))
    assert set(switch.stale.take(1.0)) == {
        StaleUdp(lost, FrontendAddress(CLUSTER_IP, 80)),
        StaleUdp(lost, FrontendAddress(None, 30001)),
    }


def test_a_flow_found_in_a_switch_that_should_not_be_there_is_as_one_that_went() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(2)]))
    installed = encode(service_flows((service(1, [endpoint(1), endpoint(2)]),)))
    switch.stale.found(installed, switch.desired.differing(installed))
    assert switch.stale.take(1.0) == [StaleUdp(as_target(endpoint(1)), None)]


def test_what_could_not_be_flushed_is_begun_anew() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1)]))
    switch.put(service(1, []))
    switch.stale.gone([endpoint(3).address])
    taken = switch.stale.take(1.0)
    switch.stale.interrupted()
    assert switch.stale.take(2.0) == taken


def test_a_second_flush_that_failed_is_made_again_too() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1)]))
    switch.put(service(1, []))
    switch.stale.gone([endpoint(3).address])
    taken = switch.stale.take(1.0)
    assert switch.stale.take(1.0 + SECOND_AFTER)
    switch.stale.interrupted()
    assert switch.stale.take(3.0) == taken
    assert switch.stale.take(3.0 + SECOND_AFTER)
    assert switch.stale.due() is None


def test_pods_that_are_gone_wait_while_flushing_takes_its_time_and_lost_endpoints_do_not() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1)]))
    switch.stale.spent(now=100.0, seconds=5.0)
    switch.stale.gone([endpoint(3).address])
    assert switch.stale.due() == 105.0
    switch.put(service(1, []))
    assert switch.stale.due() == 0.0
    assert switch.stale.take(101.0) == [StaleUdp(as_target(endpoint(1)), None)]
    assert set(switch.stale.take(105.0)) == {
        Gone(endpoint(3).address, both_ways=False),
        StaleUdp(as_target(endpoint(1)), None),
    }


def test_everything_to_a_gone_pod_goes_by_one_flush() -> None:
    switch = Switch()
    switch.put(service(1, [endpoint(1), endpoint(1, 9090)]))
    switch.put(service(1, []))
    switch.stale.gone([endpoint(1).address])
    assert switch.stale.take(1.0) == [Gone(endpoint(1).address, both_ways=False)]


ADDRESSES = st.sampled_from([Address.parse("10.244.1.3"), Address.parse("fd00::3")])


@given(
    st.lists(
        st.builds(Gone, ADDRESSES, st.booleans())
        | st.builds(StaleUdp, st.builds(Target, ADDRESSES, st.integers(1, 65535)), st.none())
    )
)
def test_every_flush_can_be_said(stale: list[Stale]) -> None:
    assert all(message(1) for each in flushes(stale) for message in messages(each))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(st.integers(1, 4), max_size=4, unique=True)), max_size=12)
)
def test_whatever_the_changes_what_is_desired_is_never_flushed_and_what_is_lost_is(
    changes: Sequence[tuple[int, list[int]]],
) -> None:
    switch = Switch()
    state: dict[int, set[Target]] = {}
    ever: dict[int, set[Target]] = {}
    for number, numbers in changes:
        endpoints = [endpoint(each) for each in numbers]
        switch.put(service(number, endpoints))
        state[number] = set(map(as_target, endpoints))
        ever.setdefault(number, set()).update(state[number])
    taken = [each for each in switch.stale.take(1.0) if isinstance(each, StaleUdp)]
    wanted = set().union(*state.values())
    for each in taken:
        if each.frontend is None:
            assert each.endpoint not in wanted
        else:
            number = (each.frontend.address or CLUSTER_IP).value & 0xFF
            assert each.endpoint not in state[number]
    lost = set().union(*ever.values()) - wanted
    assert {each.endpoint for each in taken if each.frontend is None} == lost


class Tracker:
    """A connection whose flushes take the times that a test says, in seconds; the last one again and again."""

    def __init__(self, *times: float) -> None:
        self.sizes: list[int] = []
        self.now = 0.0
        self._times = list(times)

    def flush(self, wanted: Sequence[Flush]) -> str:
        self.sizes.append(len(wanted))
        self.now += self._times.pop(0) if len(self._times) > 1 else self._times[0]
        return ""

    def cut(self) -> list[int]:
        """Flush something; gives how many flushes were sent each time."""
        gone = [Gone(CLUSTER_IP, both_ways=False)]
        assert cut(cast(SwitchConnection, self), gone, lambda: self.now) == ""
        return self.sizes


def test_a_small_table_is_flushed_often_and_a_large_one_until_it_shrinks_no_more() -> None:
    assert Tracker(CHEAP / 2).cut() == [1, REPEATED]
    assert Tracker(1.0).cut() == [1, 1], "no shorter: little was there to be forgotten"
    assert Tracker(1.0, 0.5, 0.25, 0.24).cut() == [1, 1, 1, 1]
    assert Tracker(1.0, 0.5, CHEAP / 2).cut() == [1, 1, 1, REPEATED]


def test_who_only_stands_by_flushes_nothing_and_knows_what_the_owner_may_not_have_come_to() -> None:
    switch, now = Switch(), 100.0
    switch.put(service(1, [endpoint(1), endpoint(2)]))
    switch.put(service(1, [endpoint(1)]))
    switch.stale.gone([endpoint(2).address])
    switch.stale.stand_by(now)
    switch.stale.gone([endpoint(3).address])
    switch.stale.stand_by(now + 0.2)
    switch.stale.stand_by(now + REMEMBERED)
    # A pod that has an address again is another one.
    assert switch.stale.back([endpoint(3).address]) == {endpoint(3).address}
    switch.stale.take_over(now + REMEMBERED)
    assert switch.stale.take(now + REMEMBERED) == [Gone(endpoint(2).address, both_ways=False)]


def test_what_the_owner_had_to_flush_long_ago_is_forgotten() -> None:
    stale = StaleConnections()
    for second in range(200):
        stale.gone([endpoint(second).address])
        stale.stand_by(float(second))
    stale.take_over(200.0)
    flushed = {each.address for each in stale.take(200.0) if isinstance(each, Gone)}
    assert flushed == {endpoint(second).address for second in range(170, 200)}


def test_an_owner_that_is_replaced_and_comes_back_begins_with_the_second_flush_anew() -> None:
    stale = StaleConnections()
    stale.gone([endpoint(1).address])
    assert stale.take(0.0) == [Gone(endpoint(1).address, both_ways=False)]
    stale.stand_by(0.1)
    stale.take_over(0.2)
    assert stale.take(0.2) == [Gone(endpoint(1).address, both_ways=False)]
    assert stale.take(0.2 + SECOND_AFTER) == [Gone(endpoint(1).address, both_ways=True)]
