# SPDX-License-Identifier: Apache-2.0
"""Which ranges nodes get."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ranges import ClusterRanges, ExhaustedError, RangeError

BOTH = ClusterRanges(["10.244.0.0/16", "fd00:10:244::/48"])


def test_nodes_get_the_first_free_range_of_each_family() -> None:
    assert BOTH.choose((), (), ()) == ("10.244.0.0/24", "fd00:10:244::/64")
    taken = ["10.244.0.0/24", "10.244.2.0/24", "fd00:10:244::/64"]
    assert BOTH.choose((), (), taken) == ("10.244.1.0/24", "fd00:10:244:1::/64")


def test_a_family_may_be_absent() -> None:
    assert ClusterRanges(["fd00::/48"]).choose((), (), ()) == ("fd00::/64",)
    assert ClusterRanges(["10.0.0.0/16"]).choose((), ("fd00::/64",), ()) == ("10.0.0.0/24",)


def test_offered_ranges_are_kept_where_they_are_free_and_inside() -> None:
    assert BOTH.choose((), ("10.244.7.0/24", "fd00:10:244:9::/64"), ()) == (
        "10.244.7.0/24",
        "fd00:10:244:9::/64",
    )
    assert BOTH.choose((), ("10.244.7.0/24",), ("10.244.7.0/25",))[0] == "10.244.0.0/24"
    assert BOTH.choose((), ("192.168.0.0/24",), ())[0] == "10.244.0.0/24"
    assert BOTH.choose((), ("10.0.0.0/8",), ())[0] == "10.244.0.0/24"


def test_declared_ranges_count_more_than_offered_ones() -> None:
    assert BOTH.choose(("10.244.3.0/24",), ("10.244.7.0/24",), ())[0] == "10.244.3.0/24"


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("10.243.0.0/24", "10.243.0.0/24: not inside the cluster's range 10.244.0.0/16"),
        ("10.244.1.0/25", "10.244.1.0/25: overlaps 10.244.1.0/24 of another node"),
        ("10.244.2.0/31", "10.244.2.0/31: too small"),
    ],
)
def test_a_declared_range_that_cannot_be_had_is_named(declared: str, says: str) -> None:
    with pytest.raises(RangeError, match=says):
        BOTH.choose((declared,), (), ("10.244.1.0/24",))


def test_a_declared_range_of_an_absent_family_is_named() -> None:
    with pytest.raises(RangeError, match="no IPv6 range"):
        ClusterRanges(["10.0.0.0/16"]).choose(("fd00::/64",), (), ())


def test_an_exhausted_range_is_named() -> None:
    small = ClusterRanges(["10.0.0.0/23", "fd00::/48"])
    with pytest.raises(ExhaustedError, match=r"no /24 is left in the cluster's range 10\.0\.0\.0/23"):
        small.choose((), (), ["10.0.0.0/24", "10.0.1.0/24"])


@pytest.mark.parametrize(
    ("ranges", "says"),
    [
        ([], "at least one"),
        (["10.0.0.0/8", "10.1.0.0/16"], "a second IPv4"),
        (["10.0.0.0/25"], "node ranges of /24"),
        (["10.0.0.1/16"], "host bits"),
        (["fd00::/65"], "node ranges of /64"),
    ],
)
def test_cluster_ranges_that_make_no_sense_are_refused(ranges: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ClusterRanges(ranges)


@given(st.lists(st.integers(0, 63), max_size=70), st.integers(24, 28))
def test_no_range_is_ever_given_twice(offers: list[int], prefix: int) -> None:
    """Nodes come one after the other, each offering some range; until the cluster is full, all differ."""
    cluster = ClusterRanges(["10.0.0.0/20"], node_prefix_ipv4=prefix)
    capacity = 1 << (prefix - 20)
    taken: list[str] = []
    for offer in offers:
        try:
            (chosen,) = cluster.choose((), (f"10.0.{offer // 4}.{offer % 4 * 64}/26",), taken)
        except ExhaustedError:
            break
        network = ipaddress.ip_network(chosen)
        assert network.subnet_of(ipaddress.ip_network("10.0.0.0/20"))  # type: ignore[arg-type]
        assert not any(network.overlaps(ipaddress.ip_network(other)) for other in taken)
        taken.append(chosen)
    else:
        assert len(taken) == len(offers)
    assert len(taken) <= max(capacity, 64)


def test_the_last_range_of_a_cluster_is_found() -> None:
    cluster = ClusterRanges(["10.0.0.0/16"])
    taken = [f"10.0.{number}.0/24" for number in range(256)]
    for missing in (0, 17, 255):
        others = [text for text in taken if text != f"10.0.{missing}.0/24"]
        assert cluster.choose((), (), others) == (f"10.0.{missing}.0/24",)
