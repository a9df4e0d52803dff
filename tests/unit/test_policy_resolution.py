# SPDX-License-Identifier: Apache-2.0
"""Which names policies want to know of, and for how long what the DNS says of them counts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.policy.matching import domain_matches
from sdn.policy.resolution import (
    MAX_SECONDS,
    MIN_SECONDS,
    Patterns,
    is_name,
    plain,
    reported_seconds_of,
    seconds_of,
)

LABELS = st.sampled_from(["a", "b", "ab", "B", "www", "a-b", "_x", "1"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda wild, name, dot: wild + name + dot, st.sampled_from(["", "*."]), NAMES, st.sampled_from(["", "."])
)


@given(st.lists(PATTERNS, max_size=4), NAMES, st.sampled_from(["", "."]))
def test_many_patterns_at_once_take_what_the_reference_takes(
    patterns: list[str], name: str, dot: str
) -> None:
    found = Patterns(patterns).match(plain(name + dot))
    taking = {plain(pattern) for pattern in patterns if domain_matches(pattern, name + dot)}
    assert bool(found) is bool(taking)
    if found:
        assert found in taking
        assert len(found.removeprefix("*")) == max(len(pattern.removeprefix("*")) for pattern in taking)


def test_a_wildcard_takes_labels_before_but_not_the_rest_alone() -> None:
    patterns = Patterns(["*.Example.com."])
    assert patterns.match("www.example.com") == "*.example.com"
    assert patterns.match("a.b.example.com") == "*.example.com"
    assert patterns.match("example.com") == ""
    assert patterns.match("wwwexample.com") == ""
    assert not Patterns().match("www.example.com")


@pytest.mark.parametrize("name", ["example.com", "a", "_sip.x-1.example", "xn--bcher-kva.example", "1.2"])
def test_names_of_hosts(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "x\\.example.com",
            "x\\032y.com",
            "bücher.example",
            "A.b",
            "a/b",
            "a\n",
        ),
        "x" * 64 + ".com",
        ".".join(["x" * 60] * 5),
    ],
)
def test_what_is_no_name_of_a_host(name: str) -> None:
    assert not is_name(name)


def test_an_address_counts_for_its_ttl_within_bounds_and_longer_after_a_report() -> None:
    assert [seconds_of(ttl) for ttl in (0, 59, 61, 1 << 31)] == [MIN_SECONDS, MIN_SECONDS, 61, MAX_SECONDS]
    for ttl in (0, 60, 300, 1 << 31):
        assert reported_seconds_of(ttl) == 1.5 * seconds_of(ttl)


def test_the_dns_servers_process_does_not_load_the_policy_engine() -> None:
    code = "import sys, agent.dns.__main__; print(*[name for name in sys.modules if name.startswith('sdn.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith(("sdn.policy.", "sdn.model"))}
    assert loaded == {"sdn.policy.resolution"}
