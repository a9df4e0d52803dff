# SPDX-License-Identifier: Apache-2.0
"""The main job on the kernel datapath: pods on two nodes have a network, programmed by the controller.

The same lab, daemons and flows as on the userspace datapath, with `--datapath system`: Open vSwitch's kernel
module forwards, the kernel's own tunnel devices encapsulate, the node's address stays on its uplink.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable

import pytest

from tests.kernel.cluster import Cluster, Place
from tests.kernel.guest import Guest
from tests.kernel.traffic import Transfer, transfer

pytestmark = [pytest.mark.kernel, pytest.mark.root, pytest.mark.lab]


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> dict[str, Place]:
    return cluster.places()


def test_the_kernel_forwards(cluster: Cluster) -> None:
    for node in ("node-1", "node-2"):
        shown = cluster.ovs(node, "ovs-appctl", "dpctl/show")
        assert shown.startswith("system@ovs-system:")
        assert "genev_sys_6081" in shown
        assert cluster.ovs(node, "ovs-vsctl", "list-br").split() == ["br-int"]


def test_everyone_reaches_everyone(cluster: Cluster) -> None:
    matrix = cluster.json("lab", "ping-matrix", timeout=600)
    failed = [way for way in matrix["results"] if not way["reachable"]]
    assert failed == []
    # Three pods: 6 ordered pairs; each pod to two nodes and back: 12; both families.
    assert matrix["summary"] == {"tried": 36, "reachable": 36}


def test_a_stream_arrives_whole_and_from_the_pods_own_address(guest: Guest, places: dict[str, Place]) -> None:
    here, there = places["web-1"], places["db-1"]
    for source, address in ((here.ipv4, there.ipv4), (here.ipv6, there.ipv6)):
        done = transfer(guest, here.inside, there.inside, address, 3_000_000)
        assert done == Transfer(source, 3_000_000, intact=True)


def test_a_datagram_larger_than_the_mtu_arrives(guest: Guest, places: dict[str, Place]) -> None:
    here, there = places["web-1"], places["db-1"]
    for source, address in ((here.ipv4, there.ipv4), (here.ipv6, there.ipv6)):
        done = transfer(guest, here.inside, there.inside, address, 9_000, transport="udp")
        assert done == Transfer(source, 9_000, intact=True)


def test_a_packet_of_the_full_mtu_passes_unfragmented(guest: Guest, places: dict[str, Place]) -> None:
    here, there = places["web-1"], places["db-1"]
    mtu = int(guest.run([*here.inside, "cat", "/sys/class/net/eth0/mtu"]).check().stdout)
    for headers, address in ((28, there.ipv4), (48, there.ipv6)):
        ping = ["ping", "-c2", "-i0.3", "-w60", "-M", "do", "-s", str(mtu - headers), address]
        guest.run([*here.inside, *ping]).check()


@pytest.mark.parametrize("target", ["db-1", "web-1"])
def test_a_node_shows_itself_to_pods_by_its_own_address(
    guest: Guest, places: dict[str, Place], target: str
) -> None:
    node, pod = places["node-1"], places[target]
    for source, address in ((node.ipv4, pod.ipv4), (node.ipv6, pod.ipv6)):
        done = transfer(guest, node.inside, pod.inside, address, 200_000)
        assert done == Transfer(source, 200_000, intact=True)


@pytest.mark.parametrize("target", ["node-1", "node-2"])
def test_a_pod_shows_itself_to_nodes_by_its_own_address(
    guest: Guest, places: dict[str, Place], target: str
) -> None:
    pod, node = places["web-1"], places[target]
    for source, address in ((pod.ipv4, node.ipv4), (pod.ipv6, node.ipv6)):
        done = transfer(guest, pod.inside, node.inside, address, 200_000)
        assert done == Transfer(source, 200_000, intact=True)


def test_what_leaves_the_cluster_bears_the_nodes_address(guest: Guest, places: dict[str, Place]) -> None:
    pod, node, outside = places["web-1"], places["node-1"], places["outside"]
    for source, address in ((node.ipv4, outside.ipv4), (node.ipv6, outside.ipv6)):
        done = transfer(guest, pod.inside, outside.inside, address, 200_000)
        assert done == Transfer(source, 200_000, intact=True)


def test_a_forged_address_is_stopped(guest: Guest, places: dict[str, Place]) -> None:
    """The pod takes the address of its neighbour as a second one of its own."""
    pod, neighbour, other = places["web-1"], places["web-2"], places["db-1"]
    for own, forged, address in (
        (pod.ipv4, f"{neighbour.ipv4}/32", other.ipv4),
        (pod.ipv6, f"{neighbour.ipv6}/128", other.ipv6),
    ):
        nodad = ["nodad"] if ":" in forged else []
        guest.run(["ip", "-n", pod.netns, "address", "add", forged, "dev", "eth0", *nodad]).check()
        assert heard(guest, pod, other, own, address)
        assert not heard(guest, pod, other, forged.partition("/")[0], address)
        guest.run(["ip", "-n", pod.netns, "address", "delete", forged, "dev", "eth0"]).check()


def test_a_forged_mac_is_stopped(guest: Guest, places: dict[str, Place]) -> None:
    pod, other = places["web-1"], places["db-1"]
    mac = guest.run([*pod.inside, "cat", "/sys/class/net/eth0/address"]).check().stdout.strip()
    guest.run(["ip", "-n", pod.netns, "link", "set", "eth0", "address", "0a:58:00:00:be:ef"]).check()
    try:
        assert not heard(guest, pod, other, pod.ipv4, other.ipv4)
    finally:
        guest.run(["ip", "-n", pod.netns, "link", "set", "eth0", "address", mac]).check()
    assert heard(guest, pod, other, pod.ipv4, other.ipv4)


def heard(guest: Guest, sender: Place, receiver: Place, source: str, address: str) -> bool:
    """Whether anything from `source` shows on the receiver's interface while the sender pings it from
    there: eight times, or until something shows."""
    ping = ["ping", "-c8", "-i0.5", "-W1", "-I", source, address]
    sniff = [
        "timeout",
        "60",
        "tcpdump",
        "-nlp",
        "-i",
        "eth0",
        "-c1",
        f"src host {source} and dst host {address}",
    ]
    done = guest.shell(
        f"""out=$(mktemp)
        {shlex.join([*receiver.inside, *sniff])} > "$out.seen" 2> "$out.said" & sniffer=$!
        until grep -q "listening on" "$out.said"; do kill -0 $sniffer; sleep 0.1; done
        {shlex.join([*sender.inside, *ping])} & pings=$!
        while kill -0 $pings && kill -0 $sniffer; do sleep 0.1; done
        kill $sniffer $pings || true
        wait $sniffer || true
        cat "$out.seen" """,
        timeout=120,
    ).check()
    return f"{source} > {address}" in done.stdout


def test_forwarding_goes_on_without_controller_and_agents(
    cluster: Cluster, guest: Guest, places: dict[str, Place]
) -> None:
    daemons = [pid for name, pid in cluster.pids().items() if "ovs" not in name]
    assert len(daemons) == 3
    here, there = places["web-1"], places["db-1"]
    done = guest.shell(
        f"""{shlex.join([*here.inside, "ping", "-i0.2", "-c100", there.ipv4])} > /tmp/pings & pings=$!
        {shlex.join([*here.inside, "ping", "-i0.2", "-c100", there.ipv6])} > /tmp/pings6 & pings6=$!
        sleep 2
        kill -KILL {" ".join(map(str, daemons))}
        wait $pings $pings6
        cat /tmp/pings /tmp/pings6""",
        timeout=180,
    ).check()
    assert done.stdout.count("100 packets transmitted, 100 received, 0% packet loss") == 2


def test_known_connections_go_on_without_their_switch_daemon(
    cluster: Cluster, guest: Guest, places: dict[str, Place]
) -> None:
    """What ovs-vswitchd told the kernel once stays there when it ends; only what is new waits for the next.

    A pod's question for its gateway's MAC is always new: ovs-vswitchd itself makes the answer. A pod asks
    again half a minute after the last one, unless TCP tells it that the gateway is alive; here its answers
    are made permanent.
    """
    here, there = places["web-1"], places["db-1"]
    # A flow that nothing uses is taken out of the kernel after ten seconds, so these connections are busy all the time.
    said = {there.ipv4: "/tmp/known", there.ipv6: "/tmp/known6"}
    pings = " ".join(
        f"{shlex.join([*here.inside, 'ping', '-i0.2', address])} > {file} 2>&1 & echo $!;"
        for address, file in said.items()
    )
    busy = guest.shell(pings).check().stdout.split()
    assert len(busy) == 2, busy
    wait_until(lambda: all(len(answered(guest, file)) > 10 for file in said.values()), "first answers", 60)
    known = f"ip -n {here.netns} neighbour"
    guest.shell(
        f"{known} show dev eth0 | grep lladdr | while read -r address lladdr mac state; do\n"
        f'{known} replace "$address" lladdr "$mac" dev eth0 nud permanent\ndone'
    ).check()
    before = {file: max(answered(guest, file)) for file in said.values()}
    cluster.sdnctl("lab", "stop", "node-1/ovs-vswitchd").check()
    try:
        assert "node-1/ovs-vswitchd" not in cluster.pids()
        last = {file: max(answered(guest, file)) + 20 for file in said.values()}
        # Some more, since answers may overtake each other.
        wait_until(
            lambda: all(max(answered(guest, file)) > number + 5 for file, number in last.items()),
            "answers to known connections",
            120,
        )
        for file, first in before.items():
            missing = set(range(first, last[file] + 1)) - answered(guest, file)
            assert not missing, f"{file}, {first} to {last[file]}: no answers to {sorted(missing)}"
    finally:
        cluster.sdnctl("lab", "start", "node-1/ovs-vswitchd").check()
        guest.run(["kill", *busy]).check()
    new = [*here.inside, "ping", "-c1", "-w2", places["node-2"].ipv4]
    wait_until(lambda: guest.run(new).returncode == 0, "new connections", 300)


def answered(guest: Guest, file: str) -> set[int]:
    """The numbers of the packets that were answered to the ping that writes to this file."""
    said = guest.run(["cat", file]).check().stdout
    return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", said)}


def test_all_is_as_before_after_every_switch_was_killed(cluster: Cluster) -> None:
    before = cluster.pids()
    switches = [pid for name, pid in before.items() if "ovs" in name]
    assert len(switches) == 4
    cluster.guest.run(["kill", "-KILL", *map(str, switches)]).check()
    wait_until(lambda: not set(switches) & set(cluster.pids().values()), "new switches", 120)
    wait_until(lambda: reaches_all(cluster), "all to reach all again", 300)


def reaches_all(cluster: Cluster) -> bool:
    return bool(cluster.sdnctl("lab", "ping-matrix", "--attempts", "1", timeout=600).returncode == 0)


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Look again and again; each look costs seconds under emulation. Fails naming what never came."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}, in vain"
        time.sleep(1)


def test_a_deleted_pod_is_gone_and_the_others_are_not(cluster: Cluster, guest: Guest) -> None:
    before = cluster.places()
    gone, source = before["web-2"], before["db-1"]
    cluster.sdnctl("lab", "pod", "del", gone.name).check()
    try:
        assert guest.run([*source.inside, "ping", "-c2", "-i0.3", "-w5", gone.ipv4]).returncode == 1
        guest.run([*source.inside, "ping", "-c1", "-w30", before["web-1"].ipv4]).check()
    finally:
        cluster.sdnctl("lab", "pod", "add", gone.name, "--node", gone.node).check()
