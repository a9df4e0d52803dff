# SPDX-License-Identifier: Apache-2.0
"""The engine's plain values: selectors and their filing, ranges as codes, ports as codes, stages."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.model.address import Address, Range
from sdn.model.networkpolicy import NetworkPolicyPort
from sdn.model.selector import LabelSelectorRequirement, LabelSelectorSpec
from sdn.policy.cells import Stage
from sdn.policy.compiled import stage_id, stage_of
from sdn.policy.networks import blocks, code_of, holds, lengths_of, range_of
from sdn.policy.portcodes import (
    ALL_TRAFFIC,
    Ports,
    covers,
    network_policy_ports,
    port_code,
    port_match,
    resolved,
)
from sdn.policy.portcodes import blocks as port_blocks
from sdn.policy.precedence import LEVELS
from sdn.policy.selectors import EVERYTHING, Catalog, Filing, fits, selector_of
from sdn.policy.values import Direction, NamedPort, Protocol, Tier

# Selectors.

KEYS, VALUES = ("a", "b", "c"), ("1", "2", "3")
label_sets = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
requirements = st.builds(
    LabelSelectorRequirement,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from(["In", "NotIn"]),
    values=st.lists(st.sampled_from(VALUES), min_size=1, unique=True).map(tuple),
) | st.builds(
    LabelSelectorRequirement,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from(["Exists", "DoesNotExist"]),
)
specs = st.builds(
    LabelSelectorSpec,
    match_labels=label_sets,
    match_expressions=st.lists(requirements, max_size=3).map(tuple),
)


@given(specs, label_sets)
def test_a_selector_fits_what_the_model_s_selector_matches(
    spec: LabelSelectorSpec, labels: dict[str, str]
) -> None:
    assert fits(selector_of(spec), labels) == spec.selector().matches(labels)


@given(st.lists(specs, max_size=8), st.lists(label_sets, max_size=8), st.data())
def test_filed_selectors_and_catalogued_labels_find_each_other(
    given_specs: list[LabelSelectorSpec], given_labels: list[dict[str, str]], data: st.DataObject
) -> None:
    filing: Filing[int] = Filing()
    catalog: Catalog[int] = Catalog()
    selectors = dict(enumerate(map(selector_of, given_specs)))
    labelled = dict(enumerate(given_labels))
    for number, selector in selectors.items():
        filing.add(selector, number)
    for number, labels in labelled.items():
        catalog.add(labels, number)
    for number in data.draw(st.sets(st.sampled_from(range(8)))):
        if number in selectors:
            filing.remove(selectors.pop(number), number)
        if number in labelled:
            catalog.remove(labelled.pop(number), number)
    for labels in given_labels:
        found = list(filing.fitting(labels))
        assert sorted(found) == [number for number, each in selectors.items() if fits(each, labels)]
    for selector in selectors.values():
        near = catalog.near(selector)
        fitting = {number for number, labels in labelled.items() if fits(selector, labels)}
        assert near is None or (fitting <= set(near) and len(set(near)) == len(near))


def test_selectors_that_say_the_same_are_equal() -> None:
    by_labels = LabelSelectorSpec(match_labels={"a": "1", "b": "2"})
    by_expressions = LabelSelectorSpec(
        match_labels={"b": "2"},
        match_expressions=(LabelSelectorRequirement(key="a", operator="In", values=("1",)),),
    )
    assert selector_of(by_labels) == selector_of(by_expressions)
    assert selector_of(LabelSelectorSpec()) == EVERYTHING


# Ranges.

addresses = st.builds(Address, st.just(4), st.integers(0, 2**32 - 1)) | st.builds(
    Address, st.just(6), st.integers(0, 2**128 - 1)
)


@given(addresses)
def test_a_code_is_the_range_of_one_address(address: Address) -> None:
    assert range_of(code_of(address)) == Range.of(address)


@st.composite
def cidrs(draw: st.DrawFn, within: str = "") -> str:
    """A small range, so that ranges meet; inside another one where told."""
    whole = ipaddress.ip_network(within or draw(st.sampled_from(["192.0.2.0/26", "2001:db8::/122"])))
    length = draw(st.integers(whole.prefixlen, whole.max_prefixlen))
    offset = draw(st.integers(0, whole.num_addresses - 1))
    return str(ipaddress.ip_network((int(whole.network_address) + offset, length), strict=False))


@st.composite
def ip_blocks(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    cidr = draw(cidrs())
    return cidr, tuple(draw(st.lists(cidrs(within=cidr), max_size=3)))


@given(st.lists(ip_blocks(), min_size=1, max_size=4))
def test_blocks_hold_exactly_what_is_in_one_and_not_in_its_exceptions(
    given_blocks: list[tuple[str, tuple[str, ...]]],
) -> None:
    codes = blocks(given_blocks)
    lengths = lengths_of(codes)
    for whole in ("192.0.2.0/25", "2001:db8::/121"):
        for address in ipaddress.ip_network(whole):
            wanted = any(
                address in ipaddress.ip_network(cidr)
                and not any(address in ipaddress.ip_network(one) for one in but)
                for cidr, but in given_blocks
            )
            value = Address(address.version, int(address))
            assert holds(codes, lengths, code_of(value)) == wanted
            assert sum(value in range_of(code) for code in codes) == wanted


@given(st.lists(ip_blocks(), min_size=1, max_size=4))
def test_blocks_are_as_few_as_can_be(given_blocks: list[tuple[str, tuple[str, ...]]]) -> None:
    ranges = [ipaddress.ip_network(str(range_of(code))) for code in blocks(given_blocks)]
    for version in (4, 6):
        of_version = [one for one in ranges if one.version == version]
        assert sorted(ipaddress.collapse_addresses(of_version)) == sorted(of_version)


# Ports.


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ([(1, 3), (2, 5)], [(1, 5)]),
        ([(1, 3), (4, 5)], [(1, 5)]),
        ([(5, 5), (1, 3)], [(1, 3), (5, 5)]),
        ([(1, 9), (2, 3)], [(1, 9)]),
    ],
)
def test_port_ranges_that_overlap_or_touch_are_one(
    spans: list[tuple[int, int]], merged: list[tuple[int, int]]
) -> None:
    ports = network_policy_ports(tuple(NetworkPolicyPort(port=first, end_port=last) for first, last in spans))
    assert ports.codes == tuple(port_code(Protocol.TCP, first, last) for first, last in merged)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_blocks_of_ports_hold_the_same_ports(one: int, other: int) -> None:
    first, last = sorted((one, other))
    code = port_code(Protocol.UDP, first, last)
    cut = port_blocks((code,), fragments=True)
    for port in {0, first - 1, first, (first + last) // 2, last, last + 1, 65535} & set(range(65536)):
        assert (
            covers(cut, Protocol.UDP, port) == covers((code,), Protocol.UDP, port) == (first <= port <= last)
        )
        assert not covers(cut, Protocol.TCP, port)


def test_all_traffic_is_any_protocol() -> None:
    assert port_match(ALL_TRAFFIC) is None
    assert covers((ALL_TRAFFIC,), 47, 0)
    assert port_blocks((ALL_TRAFFIC,), fragments=True) == (ALL_TRAFFIC,)


def test_names_mean_the_ports_that_numbers_do_not_hold_already() -> None:
    named = (
        NamedPort("http", Protocol.TCP, 80),
        NamedPort("http", Protocol.UDP, 80),
        NamedPort("dns", Protocol.UDP, 53),
    )
    tcp, udp = port_code(Protocol.TCP, 80, 80), port_code(Protocol.UDP, 80, 80)
    assert resolved(Ports((), (("http", 0),)), named) == {tcp, udp}
    assert resolved(Ports((), (("http", int(Protocol.UDP)),)), named) == {udp}
    assert resolved(Ports((port_code(Protocol.TCP, 0, 65535),), (("http", 0),)), named) == {udp}
    assert resolved(Ports((ALL_TRAFFIC,), (("http", 0),)), named) == set()


# Stages.


def test_the_id_of_a_stage_says_it_all_and_ascends_as_stages_do() -> None:
    stages = [
        Stage(direction, tier, level, staged)
        for direction, tier, level, staged in itertools.product(
            Direction, Tier, (0, 1, LEVELS - 1), (False, True)
        )
    ]
    numbers = [stage_id(one.direction, one.tier, one.level, one.staged) for one in stages]
    assert [stage_of(number) for number in numbers] == stages
    assert sorted(numbers) == numbers
