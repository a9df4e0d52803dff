# SPDX-License-Identifier: Apache-2.0
"""The result of ADD has the form of the version that the runtime speaks."""

from __future__ import annotations

import ipaddress

import pytest

from agent.cni import result
from agent.cni.errors import CniError, Code
from agent.cni.request import Dns

MADE = result.Result(
    node_side=result.Interface("sdn-p16", "0a:5a:00:00:00:10", 1450),
    pod_side=result.Interface("eth0", "0a:58:0a:f4:01:05", 1450, "/run/netns/web"),
    addresses=(
        (ipaddress.ip_interface("10.244.1.5/24"), "10.244.1.1"),
        (ipaddress.ip_interface("fd00::5/64"), "fd00::1"),
    ),
    dns=Dns(nameservers=("10.96.0.10",)),
)


def test_the_newest_version_tells_the_mtu() -> None:
    assert result.document(MADE, "1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "sdn-p16", "mac": "0a:5a:00:00:00:10", "mtu": 1450},
            {"name": "eth0", "mac": "0a:58:0a:f4:01:05", "sandbox": "/run/netns/web", "mtu": 1450},
        ],
        "ips": [
            {"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 1},
            {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, {"dst": "::/0", "gw": "fd00::1"}],
        "dns": {"nameservers": ["10.96.0.10"]},
    }


def test_version_1_0_0_knows_no_mtu() -> None:
    assert all("mtu" not in interface for interface in result.document(MADE, "1.0.0")["interfaces"])


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0"])
def test_old_versions_name_the_family_of_each_address(version: str) -> None:
    document = result.document(MADE, version)
    assert document["cniVersion"] == version
    assert [ip["version"] for ip in document["ips"]] == ["4", "6"]


def test_in_a_chain_the_earlier_result_comes_first_and_ours_points_at_our_interface() -> None:
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "net1", "sandbox": "/run/netns/web"}],
        "ips": [{"address": "192.0.2.5/24", "interface": 0}],
        "dns": {"domain": "here"},
    }
    document = result.document(MADE, "1.0.0", previous)
    assert [interface["name"] for interface in document["interfaces"]] == ["net1", "sdn-p16", "eth0"]
    assert [ip["interface"] for ip in document["ips"]] == [0, 2, 2]
    assert document["dns"] == {"domain": "here", "nameservers": ["10.96.0.10"]}


def test_an_interface_that_an_earlier_plugin_made_is_not_made_again() -> None:
    previous = {"interfaces": [{"name": "eth0", "sandbox": "/run/netns/web"}]}
    with pytest.raises(CniError) as caught:
        result.refuse_double(previous, "eth0")
    assert caught.value.code == Code.INVALID_CONFIGURATION


def test_a_pod_looks_for_short_names_in_its_own_namespace_first() -> None:
    addresses = [address for address, _gateway in MADE.addresses]
    dns = result.cluster_dns("shop", "cluster.local", ["10.96.0.10", "fd00:10:96::a"], addresses)
    assert dns == Dns(
        nameservers=("10.96.0.10", "fd00:10:96::a"),
        domain="shop.svc.cluster.local",
        search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        options=("ndots:5",),
    )


def test_servers_of_a_family_that_the_pod_does_not_have_are_not_told() -> None:
    servers = ["10.96.0.10", "fd00:10:96::a"]
    addresses = [address for address, _gateway in MADE.addresses]
    assert result.cluster_dns("a", "b.c", servers, addresses[1:]).nameservers == ("fd00:10:96::a",)
    assert result.cluster_dns("a", "b.c", servers[:1], addresses[1:]) == Dns()
    assert result.cluster_dns("a", "", servers, addresses) == Dns()


def test_what_was_told_of_dns_wins_over_the_clusters() -> None:
    cluster = Dns(nameservers=("10.96.0.10",), search=("a.svc.cluster.local",))
    told = Dns(options=("ndots:2",))
    assert result.chosen_dns(Dns(), None, cluster) == cluster
    assert result.chosen_dns(Dns(), {"dns": {}}, cluster) == cluster
    assert result.chosen_dns(told, None, cluster) == told
    assert result.chosen_dns(Dns(), {"dns": {"nameservers": ["192.0.2.1"]}}, cluster) == Dns()
