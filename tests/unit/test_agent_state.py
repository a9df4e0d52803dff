# SPDX-License-Identifier: Apache-2.0
"""What the agent's state gives to pods that ask for something of their own, and to those that come after them."""

from __future__ import annotations

import contextlib
import ipaddress
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import ipam
from agent.state import AddressUnavailable, Record, State, StateError, Wanted

FOUR = ipaddress.ip_network("10.9.8.0/28")
SIX = ipaddress.ip_network("fd00:9::/124")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path)
    yield state
    state.close()


def allocate(
    state: State, name: str, *ranges: ipam.Network, mac: str = "", address: ipam.Address | None = None
) -> Record:
    addresses = () if address is None else (address,)
    wanted = Wanted(name, "eth0", "pods", "/x", "default", name, "", 1400, 1.0, addresses=addresses, mac=mac)
    return state.allocate(wanted, ranges)


@pytest.mark.parametrize("ranges", [(FOUR,), (FOUR, SIX), (SIX, FOUR), (SIX,)])
def test_a_mac_that_follows_from_an_address_and_was_asked_for_costs_only_that_address(
    state: State, ranges: tuple[ipam.Network, ...]
) -> None:
    leading = FOUR if FOUR in ranges else SIX
    owner = allocate(state, "asking", *ranges, mac=ipam.pod_mac((leading[5],)))
    given = [owner]
    for number in range(ipam.capacity(leading) - 2):
        given.append(allocate(state, f"later-{number}", *ranges))
    position = ranges.index(leading)
    hosts = {int(record.addresses[position].ip) - int(leading[0]) for record in given}
    assert hosts == set(range(2, 2 + ipam.capacity(leading))) - {5}
    with pytest.raises(ipam.Exhausted):
        allocate(state, "one-too-many", *ranges)
    state.release(owner)
    assert allocate(state, "next", *ranges).addresses[position].ip in (leading[2], leading[5])


def test_who_asks_for_the_address_of_such_a_mac_is_told_whose_it_is(state: State) -> None:
    allocate(state, "asking", FOUR, mac=ipam.pod_mac((FOUR[5],)))
    with pytest.raises(AddressUnavailable, match="used by pod default/asking"):
        allocate(state, "second", FOUR, address=FOUR[5])
    assert allocate(state, "third", FOUR, address=FOUR[5], mac="0a:00:00:00:00:01").addresses[0].ip == FOUR[5]


def test_the_state_of_a_newer_agent_is_refused_in_one_sentence(tmp_path: Path) -> None:
    State(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError) as caught:
        State(tmp_path)
    assert str(caught.value) == f"state file {tmp_path}/agent.db was written by a newer agent (version 99)"
