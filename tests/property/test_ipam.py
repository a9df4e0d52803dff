# SPDX-License-Identifier: Apache-2.0
"""Addresses are never given twice, not given again soon, never lost, whatever requests and crashes come."""

from __future__ import annotations

import ipaddress
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agent import ipam
from agent.state import MAKING, READY, AddressUnavailable, Record, State, Wanted
from sdn.pipeline.registers import FIRST_POD_PORT, LAST_POD_PORT

FOUR = ipaddress.ip_network("10.9.8.0/28")
SIX = ipaddress.ip_network("fd00:9::/124")
RANGES = (FOUR, SIX)
HOLDS = 13  # of 16: without network, gateway and broadcast

networks = st.one_of(
    st.builds(
        lambda number, length: ipaddress.ip_network((number >> (32 - length) << (32 - length), length)),
        st.integers(0, 2**32 - 1),
        st.integers(16, 30),
    ),
    st.builds(
        lambda number, length: ipaddress.ip_network((number >> (128 - length) << (128 - length), length)),
        st.integers(0, 2**128 - 1),
        st.integers(48, 126),
    ),
)


@given(networks)
def test_what_may_be_given_is_inside_and_is_neither_network_nor_gateway_nor_broadcast(
    network: ipam.Network,
) -> None:
    first, last = ipam.bounds(network)
    assert first > int(ipam.gateway(network)) > int(network.network_address)
    assert last <= int(network.broadcast_address)
    if network.version == 4:
        assert last < int(network.broadcast_address)
    assert ipam.capacity(network) == max(0, last - first + 1)


@given(st.integers(0, 50), st.integers(1, 50), st.sets(st.integers(0, 110)), st.none() | st.integers(-5, 120))
def test_the_next_free_number_is_the_nearest_after_the_previous_one(
    first: int, size: int, used: set[int], previous: int | None
) -> None:
    last = first + size - 1
    free = sorted(set(range(first, last + 1)) - used)
    try:
        given_number = ipam.next_free(first, last, used, previous)
    except ipam.Exhausted:
        assert not free
        return
    after = [number for number in free if previous is None or number > previous]
    within = previous is not None and first <= previous <= last
    assert given_number == ((after if within and after else free)[0])


@given(st.lists(st.integers(2, 2**24 - 2), unique=True, max_size=50))
def test_macs_are_as_unique_as_addresses(hosts: list[int]) -> None:
    four = {ipam.pod_mac((ipaddress.ip_address((10 << 24) + host),)) for host in hosts}
    assert len(four) == len(hosts)
    assert all(mac.startswith("0a:58:0a:") for mac in four)
    assert ipam.pod_mac((ipaddress.ip_address("fd00::5"),)).startswith("0a:59:")


class Addresses(RuleBasedStateMachine):
    """The state on disk against a model: a dictionary of who holds what."""

    records = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="ag-ipam-")
        self.state = State(Path(self.folder.name))
        self.held: dict[tuple[str, str], Record] = {}
        self.count = 0
        self.turn: ipam.Address | None = None

    def teardown(self) -> None:
        self.state.close()
        self.folder.cleanup()

    def wanted(self, addresses: tuple[ipam.Address, ...] = ()) -> Wanted:
        self.count += 1
        return Wanted(f"c{self.count}", "eth0", "net", "/x", "ns", "p", "", 1450, 0.0, addresses=addresses)

    @rule(target=records)
    def allocate(self) -> Record | None:
        wanted = self.wanted()
        try:
            record = self.state.allocate(wanted, RANGES)
        except ipam.Exhausted as problem:
            assert str(FOUR) in str(problem) or str(SIX) in str(problem)
            assert len(self.held) >= HOLDS - 1
            return None
        assert record.phase == MAKING
        four = record.addresses[0].ip
        # The nearest free one after the one given before it, round and round: none comes back soon.
        taken = {other.addresses[0].ip for other in self.held.values()}
        free = [FOUR[host] for host in range(2, 2 + HOLDS) if FOUR[host] not in taken]
        after = [address for address in free if self.turn is not None and address > self.turn]
        assert four == (after or free)[0]
        self.turn = four
        self.held[record.key] = record
        return record

    @rule(target=records, host=st.integers(0, 15))
    def ask_for_an_address(self, host: int) -> Record | None:
        address = FOUR[host]
        taken = {record.addresses[0].ip for record in self.held.values()}
        try:
            record = self.state.allocate(self.wanted((address,)), RANGES)
        except AddressUnavailable as problem:
            assert str(address) in str(problem)
            assert address in taken or host in (0, 1, 15)
            return None
        except ipam.Exhausted:
            assert len(self.held) >= HOLDS - 1
            return None
        assert address not in taken
        assert record.addresses[0].ip == address
        self.held[record.key] = record
        return record

    @rule(record=records)
    def make_ready(self, record: Record | None) -> None:
        if record is not None and record.key in self.held:
            self.held[record.key] = self.state.set_phase(self.held[record.key], READY)

    @rule(record=consumes(records))
    def release(self, record: Record | None) -> None:
        if record is not None:
            self.state.release(record)
            self.held.pop(record.key, None)

    @rule(record=consumes(records))
    def release_twice(self, record: Record | None) -> None:
        self.release(record)
        self.release(record)

    @rule()
    def crash(self) -> None:
        """Another process opens what this one, which never closed it, has left: what was committed is there."""
        left = tempfile.TemporaryDirectory(prefix="ag-ipam-")
        shutil.copytree(self.folder.name, left.name, dirs_exist_ok=True)
        self.teardown()
        self.folder = left
        self.state = State(Path(left.name))

    @invariant()
    def what_is_on_disk_is_what_is_held(self) -> None:
        assert {record.key: record for record in self.state.attachments()} == self.held

    @invariant()
    def nothing_is_given_twice(self) -> None:
        records = self.held.values()
        for values in (
            [record.addresses[0] for record in records],
            [record.addresses[1] for record in records],
            [record.mac for record in records],
            [record.ofport for record in records],
        ):
            assert len(set(values)) == len(values)
        assert all(FIRST_POD_PORT <= record.ofport <= LAST_POD_PORT for record in records)


TestAddresses = Addresses.TestCase
TestAddresses.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
