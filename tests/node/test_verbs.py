# SPDX-License-Identifier: Apache-2.0
"""The verbs of CNI, as a runtime executes them, on a node with a real switch."""

from __future__ import annotations

import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.node.controller import Controller
from tests.node.node import NETWORK, PLUGIN, Node, PluginError, Pod, run, wait_until

pytestmark = pytest.mark.root


def test_add_makes_what_its_result_says(node: Node, controller: Controller) -> None:
    with node.pod("web", "shop") as pod:
        pod.labels = {"app": "web"}
        result = node.cni("ADD", pod)
        assert result["cniVersion"] == "1.1.0"
        host, inner = result["interfaces"]
        assert pod.addresses() == {ip["address"] for ip in result["ips"]}
        assert len(pod.addresses()) == 2
        (link,) = json.loads(pod.exec("ip", "-json", "link", "show", "dev", "eth0"))
        assert (link["address"], link["mtu"], link["operstate"]) == (inner["mac"], 1450, "UP")
        assert node.pod_links() == {host["name"]}
        for family, nowhere in (("-4", "default"), ("-6", "default")):
            (route,) = json.loads(pod.exec("ip", "-json", family, "route", "show", nowhere))
            assert route["gateway"] in {ip["gateway"] for ip in result["ips"]}
        assert "inet6" in pod.exec("ip", "addr", "show", "dev", "eth0")
        assert "tentative" not in pod.exec("ip", "-6", "addr", "show", "scope", "global")
        (attachment,) = controller.attachments[node.name].values()
        assert (attachment.pod_namespace, attachment.pod_name, attachment.pod_uid) == (
            "shop",
            "web",
            "uid-web",
        )
        assert attachment.labels == {"app": "web"}
        assert attachment.mac == inner["mac"]
        assert node.vsctl("get", "interface", host["name"], "ofport") == str(attachment.ofport)
        assert pod.container_id in node.vsctl("get", "interface", host["name"], "external_ids")
        node.cni("DEL", pod)
        # DEL does not wait for the controller: a runtime must get rid of a pod also when there is none.
        wait_until(lambda: controller.pods(node.name) == set(), "the controller to hear of the removal")


def test_the_pod_computes_its_own_checksums_and_takes_no_router_advertisements(node: Node) -> None:
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        assert "tx-checksumming: off" in pod.exec("ethtool", "-k", "eth0")
        assert pod.exec("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"
        node.cni("DEL", pod)


def test_ipv6_works_in_a_namespace_that_had_it_switched_off(node: Node) -> None:
    with node.pod("web") as pod:
        pod.exec("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        node.cni("ADD", pod)
        assert any(":" in address for address in pod.addresses())
        node.cni("DEL", pod)


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version_is_spoken(node: Node, version: str) -> None:
    with node.pod("web") as pod:
        result = node.cni("ADD", pod, version=version)
        assert result["cniVersion"] == version
        if version != "0.3.1":
            node.cni("CHECK", pod, version=version, prevResult=result)
        node.cni("DEL", pod, version=version)


def test_add_again_gives_the_same_result(node: Node) -> None:
    with node.pod("web") as pod:
        first = node.cni("ADD", pod)
        assert node.cni("ADD", pod) == first
        assert len(node.state().attachments) == 1
        node.cni("DEL", pod)


def test_add_again_repairs_what_is_broken(node: Node) -> None:
    with node.pod("web") as pod:
        first = node.cni("ADD", pod)
        pod.exec("ip", "link", "delete", "eth0")
        again = node.cni("ADD", pod)
        assert pod.addresses() == {ip["address"] for ip in again["ips"]}
        assert len(node.state().attachments) == len(node.pod_links()) == 1
        assert first["interfaces"][1]["name"] == again["interfaces"][1]["name"]
        node.cni("DEL", pod)


def test_del_twice_and_of_the_unknown_succeeds(node: Node) -> None:
    with node.pod("web") as pod:
        node.cni("DEL", pod)
        node.cni("ADD", pod)
        node.cni("DEL", pod)
        node.cni("DEL", pod)
        node.cni("DEL", pod, environment={"CNI_NETNS": ""})


def test_del_without_a_namespace_removes_everything(node: Node) -> None:
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        node.cni("DEL", pod, environment={"CNI_NETNS": ""})
        assert node.pod_links() == set()
        assert pod.addresses_if_any() == set()


def test_del_after_the_namespace_is_gone_succeeds(node: Node) -> None:
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        run("ip", "netns", "delete", pod.netns_name)
        node.cni("DEL", pod)


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_add_again_of_a_pod_that_lost_its_routes_adds_them_and_nothing_else(node: Node, family: str) -> None:
    with node.pod("web") as pod:
        first = node.cni("ADD", pod)
        before = defaults(pod), pod.exec("cat", "/sys/class/net/eth0/ifindex")
        pod.exec("ip", family, "route", "delete", "default")
        assert node.cni("ADD", pod) == first
        assert (defaults(pod), pod.exec("cat", "/sys/class/net/eth0/ifindex")) == before
        node.cni("CHECK", pod, prevResult=first)
        node.cni("DEL", pod)


def test_a_pod_may_have_two_interfaces(node: Node) -> None:
    """The first one keeps the default routes, and whatever is asked of one leaves the other as it is."""
    second = {"CNI_IFNAME": "net1"}
    with node.pod("web") as pod:
        results = node.cni("ADD", pod), node.cni("ADD", pod, environment=second)
        assert results[1]["interfaces"][1]["name"] == "net1"
        assert defaults(pod) == {"-4": ["eth0", "net1"], "-6": ["eth0", "net1"]}
        for _ in range(2):
            node.cni("CHECK", pod, prevResult=results[0])
            node.cni("CHECK", pod, prevResult=results[1], environment=second)
            assert node.cni("ADD", pod) == results[0]
            assert node.cni("ADD", pod, environment=second) == results[1]
        assert defaults(pod) == {"-4": ["eth0", "net1"], "-6": ["eth0", "net1"]}
        node.cni("DEL", pod, environment=second)
        assert defaults(pod) == {"-4": ["eth0"], "-6": ["eth0"]}
        node.cni("CHECK", pod, prevResult=results[0])
        node.cni("ADD", pod, environment=second)
        node.cni("DEL", pod)
        assert defaults(pod) == {"-4": ["net1"], "-6": ["net1"]}
        assert len(node.state().attachments) == 1
        node.cni("DEL", pod, environment=second)


def test_another_plugins_default_routes_stay(node: Node) -> None:
    with node.pod("web") as pod:
        for command in (
            "link add eth0 type veth peer name other",
            "link set eth0 up",
            "link set other up",
            "addr add 192.0.2.2/24 dev eth0",
            "addr add 2001:db8::2/64 dev eth0 nodad",
            "route add default via 192.0.2.1",
            "-6 route add default via 2001:db8::1",
        ):
            pod.exec("ip", *command.split())
        second = {"CNI_IFNAME": "net1"}
        result = node.cni("ADD", pod, environment=second)
        assert defaults(pod) == {"-4": ["eth0", "net1"], "-6": ["eth0", "net1"]}
        node.cni("CHECK", pod, prevResult=result, environment=second)
        node.cni("DEL", pod, environment=second)
        assert defaults(pod) == {"-4": ["eth0"], "-6": ["eth0"]}


def defaults(pod: Pod) -> dict[str, list[str]]:
    """Interfaces of the default routes of each family, the one that is used first."""
    found = {}
    for family in ("-4", "-6"):
        routes = json.loads(pod.exec("ip", "-json", family, "route", "show", "default"))
        routes.sort(key=lambda route: route.get("metric", 0))
        found[family] = [route["dev"] for route in routes]
    return found


def test_an_interface_that_is_there_already_is_not_touched(node: Node) -> None:
    with node.pod("web") as pod:
        pod.exec("ip", "link", "add", "eth0", "type", "bridge")
        with pytest.raises(PluginError, match="eth0 exists already") as caught:
            node.cni("ADD", pod)
        assert caught.value.code == 4
        assert "eth0" in pod.exec("ip", "link")
        node.cni("DEL", pod)
        assert "eth0" in pod.exec("ip", "link")


def test_many_pods_at_once_get_different_addresses(node: Node) -> None:
    with ExitStack() as stack:
        pods = [stack.enter_context(node.pod(f"p{number}")) for number in range(12)]
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda pod: node.cni("ADD", pod), pods))
            addresses = [ip["address"] for result in results for ip in result["ips"]]
            assert len(set(addresses)) == 24
            assert len(node.pod_ports()) == 12
            list(pool.map(lambda pod: node.cni("DEL", pod), pods))


def test_requests_for_one_container_at_once_do_not_double_anything(node: Node) -> None:
    with node.pod("web") as pod:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: node.cni("ADD", pod), range(4)))
        assert all(result == results[0] for result in results)
        assert len(node.pod_links()) == 1
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: node.cni("DEL", pod), range(4)))


# --- chain, capabilities


def test_first_of_a_chain_the_bandwidth_plugin_takes_our_result(node: Node) -> None:
    with node.pod("web") as pod:
        ours = node.cni("ADD", pod, version="1.0.0")
        burst = {"ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 0, "egressBurst": 0}
        config = {"cniVersion": "1.0.0", "name": NETWORK, "type": "bandwidth", "prevResult": ours}
        config["runtimeConfig"] = {"bandwidth": burst}
        passed_on = json.loads(
            node.exec_with_input(
                json.dumps(config),
                *("env", "CNI_COMMAND=ADD", f"CNI_CONTAINERID={pod.container_id}", "CNI_IFNAME=eth0"),
                *(f"CNI_NETNS={pod.netns}", "CNI_PATH=/usr/lib/cni", "/usr/lib/cni/bandwidth"),
            )
        )
        assert passed_on["ips"] == ours["ips"]
        assert "tbf" in node.exec("tc", "qdisc", "show", "dev", ours["interfaces"][0]["name"])
        # With what the chain made of it, CHECK still finds our own.
        node.cni("CHECK", pod, version="1.0.0", prevResult=passed_on)
        node.cni("DEL", pod, version="1.0.0", prevResult=passed_on)


def test_second_of_a_chain_our_interface_comes_after_the_earlier_ones(node: Node) -> None:
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "net1", "sandbox": "/x"}]}
    with node.pod("web") as pod:
        result = node.cni("ADD", pod, prevResult=previous)
        assert [interface["name"] for interface in result["interfaces"]][::2] == ["net1", "eth0"]
        assert {ip["interface"] for ip in result["ips"]} == {2}
        node.cni("DEL", pod)


def test_an_interface_of_an_earlier_plugin_with_our_name_leaves_nothing_half_made(node: Node) -> None:
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}]}
    with node.pod("web") as pod:
        with pytest.raises(PluginError, match="prevResult") as caught:
            node.cni("ADD", pod, prevResult=previous)
        assert caught.value.code == 7


def test_name_service_settings_come_back(node: Node) -> None:
    dns = {"Servers": ["10.96.0.10"], "Searches": ["svc.cluster.local"]}
    with node.pod("web") as pod:
        result = node.cni("ADD", pod, runtimeConfig={"dns": dns}, capabilities={"dns": True})
        assert result["dns"] == {"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]}
        node.cni("DEL", pod)


def test_an_address_and_a_mac_can_be_asked_for_and_are_had_once(node: Node) -> None:
    wanted: dict[str, Any] = {"ips": ["10.241.1.200/24", "fd00:10:241:1::c8/64"], "mac": "0a:00:00:00:00:c8"}
    with node.pod("a") as first, node.pod("b") as second:
        result = node.cni("ADD", first, runtimeConfig=wanted)
        assert pod_addresses(result) == set(wanted["ips"])
        assert result["interfaces"][1]["mac"] == wanted["mac"]
        with pytest.raises(PluginError, match=r"10\.241\.1\.200 is used by pod default/a") as caught:
            node.cni("ADD", second, runtimeConfig=wanted)
        assert caught.value.code == 7
        node.cni("DEL", first)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.241.1.0", "10.241.1.1", "10.241.1.255"])
def test_an_address_that_no_pod_may_have_is_refused(node: Node, address: str) -> None:
    with node.pod("web") as pod:
        with pytest.raises(PluginError, match=address.replace(".", r"\.")):
            node.cni("ADD", pod, runtimeConfig={"ips": [address]})


def pod_addresses(result: dict[str, list[dict[str, str]]]) -> set[str]:
    return {ip["address"] for ip in result["ips"]}


# --- CHECK


def test_check_finds_what_is_missing(node: Node) -> None:
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        (port,) = node.pod_ports()
        breakages = [
            ("lacks address", ("ip", "addr", "flush", "dev", "eth0", "scope", "global")),
            ("lacks route", ("ip", "route", "delete", "default")),
            ("is down", ("ip", "link", "set", "eth0", "down")),
            ("has MTU 1400", ("ip", "link", "set", "eth0", "mtu", "1400")),
            ("has MAC", ("ip", "link", "set", "eth0", "address", "0a:00:00:00:00:01")),
            ("is missing", ("ip", "link", "delete", "eth0")),
        ]
        for what, command in breakages:
            node.cni("CHECK", pod, prevResult=result)
            pod.exec(*command)
            with pytest.raises(PluginError) as caught:
                node.cni("CHECK", pod, prevResult=result)
            said = f"{caught.value.message} {caught.value.details}"
            # The agent looks at a port a moment after it was plugged: when it finds the link gone by then, it has
            # released the attachment before CHECK asks, and there is nothing to clean up.
            released = what == "is missing" and caught.value.code == 3 and "has no interface eth0" in said
            assert released or (caught.value.code == 102 and what in said)
            result = node.cni("ADD", pod)
        for _ in range(20):
            (port,) = node.pod_ports()
            node.vsctl("del-port", "br-int", port)
            try:
                node.cni("CHECK", pod, prevResult=result)
            except PluginError as problem:
                assert "br-int has no port" in f"{problem.message} {problem.details}"
                break
            # The agent was faster, which plugs such a port again by itself.
        else:
            pytest.fail("CHECK never found a port missing")
        node.cni("DEL", pod)


def test_check_against_another_result_fails(node: Node) -> None:
    with node.pod("web") as pod:
        result = node.cni("ADD", pod)
        other = json.loads(json.dumps(result).replace(result["ips"][0]["address"], "10.241.1.250/24"))
        with pytest.raises(PluginError, match=r"prevResult says 10\.241\.1\.250/24"):
            node.cni("CHECK", pod, prevResult=other)
        node.cni("DEL", pod)


def test_check_of_the_unknown_says_that_there_is_nothing_to_clean_up(node: Node) -> None:
    with node.pod("web") as pod:
        with pytest.raises(PluginError) as caught:
            node.cni("CHECK", pod, prevResult={})
        assert caught.value.code == 3


# --- GC


def test_gc_removes_what_is_not_valid_and_nothing_of_another_network(node: Node) -> None:
    with node.pod("a") as kept, node.pod("b") as lost, node.pod("c") as other:
        node.cni("ADD", kept)
        node.cni("ADD", lost)
        node.cni("ADD", other, name="others")
        valid = [{"containerID": kept.container_id, "ifname": "eth0"}]
        collect(node, NETWORK, valid)
        held = {state.attachment.container_id for state in node.state().attachments}
        assert held == {kept.container_id, other.container_id}
        collect(node, NETWORK, [])
        collect(node, "others", [])


def collect(node: Node, network: str, valid: list[dict[str, str]]) -> None:
    more: dict[str, Any] = {"name": network, "cni.dev/valid-attachments": valid}
    node.cni("GC", **more)


# --- bad input


def test_malformed_json_is_a_decoding_failure(node: Node) -> None:
    with node.pod("web") as pod:
        stdin = json.dumps(node.config()).encode()[:-1]
        with pytest.raises(PluginError) as caught:
            node.cni("ADD", pod, stdin=stdin)
        assert caught.value.code == 6


def test_a_configuration_that_is_too_long_or_too_deep_is_a_decoding_failure(node: Node) -> None:
    with node.pod("web") as pod:
        for stdin in (b"[" * 100_000, b'{"agentSocket"' + b" " * (1 << 24) + b"}"):
            with pytest.raises(PluginError) as caught:
                node.cni("ADD", pod, stdin=stdin, environment={"SDN_AGENT_SOCKET": str(node.socket)})
            assert caught.value.code == 6


def test_an_unknown_version_is_refused(node: Node) -> None:
    with node.pod("web") as pod:
        with pytest.raises(PluginError, match="cniVersion") as caught:
            node.cni("ADD", pod, version="9.9.9")
        assert caught.value.code == 1


def test_a_namespace_that_is_not_there_is_named(node: Node) -> None:
    with node.pod("web") as pod:
        for path in ("/run/netns/nowhere", "/dev/null", "/etc/passwd", "/tmp"):
            with pytest.raises(PluginError, match=f"CNI_NETNS: {path}") as caught:
                node.cni("ADD", pod, environment={"CNI_NETNS": path})
            assert caught.value.code == 4


def test_the_nodes_own_namespace_is_refused(node: Node) -> None:
    with node.pod("web") as pod:
        with pytest.raises(PluginError, match="the node's own") as caught:
            node.cni("ADD", pod, environment={"CNI_NETNS": f"/run/netns/{node.netns}"})
        assert caught.value.code == 4


def test_a_container_cannot_be_taken_over_by_another_network(node: Node) -> None:
    with node.pod("web") as pod:
        node.cni("ADD", pod)
        with pytest.raises(PluginError, match=f"belongs to the network {NETWORK}"):
            node.cni("ADD", pod, name="others")
        node.cni("DEL", pod, name="others")
        assert len(node.state().attachments) == 1
        node.cni("DEL", pod)


def test_what_is_no_request_does_the_agent_no_harm(node: Node) -> None:
    for junk in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CNI1\xff\xff\xff\xff\xff\xff\xff\xff",
        b"CNI1\0\0\0\5\0\0\0\1x",
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(node.socket))
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # closed with our bytes unread
                assert connection.recv(10) == b""
    assert node.cni("VERSION")["supportedVersions"] == ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
    node.cni("STATUS")


# --- without an agent


def test_version_needs_no_agent() -> None:
    printed = run("env", "-i", "CNI_COMMAND=VERSION", str(PLUGIN), stdin='{"cniVersion": "0.4.0"}')
    assert json.loads(printed) == {
        "cniVersion": "0.4.0",
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("STATUS", 50), ("CHECK", 11)])
def test_without_an_agent_the_answer_is_an_error_object(node: Node, verb: str, code: int) -> None:
    pod = Pod("web", "default", "none", "c1")
    with pytest.raises(PluginError, match=r"/nowhere/agent\.sock") as caught:
        node.cni(verb, pod, version="1.1.0", agentSocket="/nowhere/agent.sock")
    assert (caught.value.code, caught.value.version) == (code, "1.1.0")


def test_the_socket_may_be_told_by_the_environment(node: Node) -> None:
    config = node.config()
    del config["agentSocket"]
    node.cni("STATUS", stdin=json.dumps(config).encode(), environment={"SDN_AGENT_SOCKET": str(node.socket)})
    escaped = json.dumps(node.config()).replace("/agent.sock", "\\/agent.sock").encode()
    node.cni("STATUS", stdin=escaped)


def test_without_a_command_the_plugin_says_what_it_is() -> None:
    printed = run("env", "-i", str(PLUGIN), stdin="", check=False)
    assert json.loads(printed)["code"] == 4
