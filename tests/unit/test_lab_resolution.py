# SPDX-License-Identifier: Apache-2.0
"""A lab's pod resolves names as its CNI result says."""

import os
from pathlib import Path

import pytest

from sdn.lab import namespaces, pods
from sdn.lab.command import run
from sdn.lab.errors import LabError

DNS = {
    "nameservers": ["10.96.0.10", "fd00:10:96::a"],
    "domain": "shop.svc.cluster.local",
    "search": ["shop.svc.cluster.local", "svc.cluster.local"],
    "options": ["ndots:5"],
}


def test_a_result_becomes_a_resolv_conf() -> None:
    assert pods.resolv_conf(DNS) == (
        "nameserver 10.96.0.10\nnameserver fd00:10:96::a\n"
        "search shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
    )
    assert pods.resolv_conf({"nameservers": ["192.0.2.1"]}) == "nameserver 192.0.2.1\n"
    assert pods.resolv_conf({"search": ["a"]}) == pods.resolv_conf({}) == ""


@pytest.mark.root
def test_programs_in_the_namespace_see_it_and_it_goes_with_the_namespace() -> None:
    name = f"dns-{os.getpid()}"
    namespaces.add(name)
    try:
        namespaces.write_resolv_conf(name, "nameserver 192.0.2.7\n")
        seen = run(["ip", "netns", "exec", name, "cat", "/etc/resolv.conf"])
        assert "nameserver 192.0.2.7\n" in seen
    finally:
        namespaces.delete(name)
    assert not Path("/etc/netns", name).exists()


def test_where_no_file_can_be_made_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "FILES", Path("/proc/netns"))
    with pytest.raises(LabError, match="/proc/netns/web: no folder can be made there"):
        namespaces.write_resolv_conf("web", "nameserver 192.0.2.7\n")
