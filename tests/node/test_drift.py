# SPDX-License-Identifier: Apache-2.0
"""Whatever an operator's hand does to a node's bridges and their ports is as it was soon, and told once and rightly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Final

import pytest

from tests.node.controller import Controller
from tests.node.node import Node, PluginError, wait_until

pytestmark = pytest.mark.root

#: Everything that can be set and has an effect, and what the switch makes of it.
COLUMNS: Final = {
    "bridge": (
        *("name", "datapath_type", "fail_mode", "protocols", "other_config", "stp_enable", "rstp_enable"),
        *("mcast_snooping_enable", "mirrors", "netflow", "sflow", "ipfix", "flow_tables", "flood_vlans"),
        "auto_attach",
    ),
    "port": (
        *("name", "external_ids", "tag", "trunks", "cvlans", "vlan_mode", "qos", "other_config", "lacp"),
        *("bond_mode", "protected", "fake_bridge", "mac"),
    ),
    "interface": (
        *("name", "type", "options", "ofport_request", "external_ids", "mac", "mtu_request", "mtu"),
        *(
            "admin_state",
            "other_config",
            "ingress_policing_rate",
            "ingress_policing_kpkts_rate",
            "lldp",
            "bfd",
        ),
        "cfm_mpid",
    ),
    "controller": (
        *("target", "max_backoff", "inactivity_probe", "connection_mode", "controller_rate_limit", "type"),
        *("enable_async_messages", "other_config", "local_ip", "controller_queue_size"),
    ),
}

Damage = Callable[[Node, str], object]


def vsctl(line: str) -> Damage:
    """PORT stands for a pod's port."""
    return lambda node, port: node.vsctl(*line.replace("PORT", port).split())


def ofctl(line: str) -> Damage:
    return lambda node, port: node.ofctl(*line.replace("PORT", port).split())


def ip(line: str) -> Damage:
    return lambda node, port: node.exec("ip", *line.replace("PORT", port).split())


#: What is done; and with which words it is told, as kind and what.
DAMAGES: Final[dict[str, tuple[Damage, str, str]]] = {
    "a port may not receive": (ofctl("mod-port PORT no-receive"), "changed", "port PORT: no-receive"),
    "a port may not send": (ofctl("mod-port PORT no-forward"), "changed", "port PORT: no-forward"),
    "a port may ask nobody": (ofctl("mod-port PORT no-packet-in"), "changed", "port PORT: no-packet-in"),
    "a port is down for OpenFlow": (
        ofctl("mod-port PORT down"),
        "changed",
        "interface PORT of Pod default/web: down",
    ),
    "the tunnel port may not send": (
        ofctl("mod-port sdn-tun0 no-forward"),
        "changed",
        "port sdn-tun0: no-forward",
    ),
    "the gateway port is down for OpenFlow": (
        ofctl("mod-port sdn-gw0 down"),
        "changed",
        "interface sdn-gw0: down",
    ),
    "an interface is down": (ip("link set PORT down"), "changed", "interface PORT of Pod default/web: down"),
    "an interface takes small packets": (
        ip("link set PORT mtu 600"),
        "changed",
        "interface PORT of Pod default/web: mtu 600, not ",
    ),
    "the gateway port is down": (ip("link set sdn-gw0 down"), "changed", "interface sdn-gw0: down"),
    "a spanning tree": (
        vsctl("set bridge br-int stp_enable=true"),
        "changed",
        "bridge br-int: stp_enable True, not False",
    ),
    "a rapid spanning tree": (
        vsctl("set bridge br-int rstp_enable=true"),
        "changed",
        "bridge br-int: rstp_enable True, not False",
    ),
    "snooping": (
        vsctl("set bridge br-int mcast_snooping_enable=true"),
        "changed",
        "bridge br-int: mcast_snooping_enable True",
    ),
    "a mirror": (
        vsctl("-- --id=@m create mirror name=spy select_all=true -- set bridge br-int mirrors=@m"),
        "changed",
        "bridge br-int: mirrors spy, not empty",
    ),
    "a limit of flows": (
        vsctl("-- --id=@t create flow_table flow_limit=1 -- set bridge br-int flow_tables=0=@t"),
        "changed",
        "bridge br-int: flow_tables:0 ",
    ),
    "NetFlow": (
        vsctl('-- --id=@n create netflow targets="127.0.0.1:9" -- set bridge br-int netflow=@n'),
        "changed",
        "bridge br-int: netflow ",
    ),
    "sFlow": (
        vsctl('-- --id=@s create sflow targets="127.0.0.1:9" agent=lo -- set bridge br-int sflow=@s'),
        "changed",
        "bridge br-int: sflow ",
    ),
    "IPFIX": (
        vsctl('-- --id=@i create ipfix targets="127.0.0.1:9" -- set bridge br-int ipfix=@i'),
        "changed",
        "bridge br-int: ipfix ",
    ),
    "a setting that is nobody's": (
        vsctl("set bridge br-int other_config:mac-table-size=10"),
        "changed",
        "bridge br-int: other_config:mac-table-size 10, not empty",
    ),
    "a requested MTU": (
        vsctl("set interface PORT mtu_request=600"),
        "changed",
        "port PORT of Pod default/web: mtu_request 600, not empty",
    ),
    "policing": (
        vsctl("set interface PORT ingress_policing_rate=1"),
        "changed",
        "port PORT of Pod default/web: ingress_policing_rate 1, not 0",
    ),
    "policing of packets": (
        vsctl("set interface PORT ingress_policing_kpkts_rate=1"),
        "changed",
        "port PORT of Pod default/web: ingress_policing_kpkts_rate 1, not 0",
    ),
    "a queue": (
        vsctl("-- --id=@q create qos type=linux-htb other_config:max-rate=1000 -- set port PORT qos=@q"),
        "changed",
        "port PORT of Pod default/web: qos ",
    ),
    "a VLAN": (vsctl("set port PORT tag=7"), "changed", "port PORT of Pod default/web: tag 7, not empty"),
    "VLANs": (
        vsctl("set port PORT vlan_mode=trunk trunks=5"),
        "changed",
        "port PORT of Pod default/web: trunks 5, not empty; vlan_mode trunk, not empty",
    ),
    "the tunnel port's VLAN": (
        vsctl("set port sdn-tun0 tag=7"),
        "changed",
        "port sdn-tun0: tag 7, not empty",
    ),
    "a second interface of a port": (
        vsctl("-- --id=@i create interface name=other type=internal -- add port PORT interfaces @i"),
        "changed",
        "port PORT of Pod default/web: on br-int with interface other,PORT",
    ),
    "a bond": (
        vsctl(
            "del-port br-int PORT -- add-bond br-int bond0 PORT other -- set interface other type=internal"
        ),
        "unknown",
        "port bond0, which is no pod's",
    ),
    "a port of another kind": (
        vsctl("set interface PORT type=patch options:peer=nobody"),
        "changed",
        "port PORT of Pod default/web: options:peer nobody, not empty; type patch, not ",
    ),
    "all ports removed": (vsctl("clear bridge br-int ports"), "missing", "port sdn-tun0"),
    "a port that has moved": (
        lambda node, port: move(node, port),
        "changed",
        "port PORT of Pod default/web: on br-phy with interface PORT",
    ),
    "a port that was made anew elsewhere": (
        vsctl("del-port br-int PORT -- add-port br-phy PORT"),
        "changed",
        "port PORT of Pod default/web: on br-phy with interface PORT",
    ),
    "a tunnel port that was made anew elsewhere": (
        vsctl(
            "del-port br-int sdn-tun0 -- add-port br-phy sdn-tun0 -- set interface sdn-tun0 type=geneve"
            " options:remote_ip=flow options:key=flow"
        ),
        "changed",
        "port sdn-tun0: on br-phy with interface sdn-tun0",
    ),
    "a gateway port that has moved": (
        lambda node, _port: move(node, "sdn-gw0"),
        "changed",
        "port sdn-gw0: on br-phy with interface sdn-gw0",
    ),
    "a port that is gone": (vsctl("del-port br-int PORT"), "missing", "port PORT of Pod default/web"),
    "a port that is nobody's": (
        vsctl("add-port br-int rogue -- set interface rogue type=internal"),
        "unknown",
        "port rogue, which is no pod's",
    ),
    "a bridge in the bridge": (vsctl("add-br rogue br-int 7"), "unknown", "port rogue, which is no pod's"),
    "a port with our name elsewhere": (
        vsctl("add-port br-phy sdn-p60000 -- set interface sdn-p60000 type=internal"),
        "unknown",
        "port sdn-p60000, which is no pod's",
    ),
    "a controller that is told nothing": (
        lambda node, _port: node.vsctl(
            "set",
            "controller",
            node.vsctl("get", "bridge", "br-int", "controller").strip("[]"),
            "enable_async_messages=false",
        ),
        "changed",
        "controller tcp:172.31.0.1:6653: enable_async_messages False, not empty",
    ),
    "br-phy drops everything": (
        vsctl("set-fail-mode br-phy secure"),
        "changed",
        "bridge br-phy: fail_mode secure, not standalone",
    ),
    "br-phy without the uplink": (vsctl("del-port br-phy eth0"), "missing", "port eth0"),
}


def move(node: Node, name: str) -> None:
    """To br-phy, with its rows."""
    uuid = node.vsctl("get", "port", name, "_uuid")
    node.vsctl(
        "--", "remove", "bridge", "br-int", "ports", uuid, "--", "add", "bridge", "br-phy", "ports", uuid
    )


@pytest.fixture(scope="module")
def port(running: Node) -> Iterator[str]:
    """A pod's port."""
    with running.pod("web") as pod:
        yield str(running.cni("ADD", pod)["interfaces"][0]["name"])
        running.cni("DEL", pod)


def everything(node: Node) -> list[str]:
    """The database as far as it has an effect, ports as OpenFlow has them, and interfaces as the kernel has them."""
    found = [
        f"{bridge}: {sorted(node.vsctl('list-ports', bridge).split())}" for bridge in ("br-int", "br-phy")
    ]
    for table, columns in COLUMNS.items():
        listed = node.vsctl("-f", "json", f"--columns={','.join(columns)}", "list", table)
        found += [f"{table} {json.dumps(row)}" for row in json.loads(listed)["data"]]
    found += [f"{protocol}: {node.appctl(f'{protocol}/show')}" for protocol in ("stp", "rstp")]
    described = re.findall(r"^ (\S+): .*\n +config: +(.*)", node.ofctl("dump-ports-desc"), re.MULTILINE)
    assert described
    found += [f"{port} {config}" for port, config in described]
    links = json.loads(node.exec("ip", "-json", "link"))
    found += [
        f"{a['ifname']} {a['mtu']} {'UP' in a['flags']}" for a in links if a["ifname"].startswith("sdn-")
    ]
    return sorted(found)


def wait_until_right(node: Node, right: list[str]) -> None:
    try:
        wait_until(lambda: everything(node) == right, "it to be put right")
    except AssertionError as problem:
        now = everything(node)
        missing, new = sorted(set(right) - set(now)), sorted(set(now) - set(right))
        raise AssertionError(f"{problem}: missing {missing}, new {new}") from None


def test_nothing_is_put_right_that_nobody_has_changed(
    running: Node, controller: Controller, port: str
) -> None:
    with running.pod("brief") as pod:
        running.cni("ADD", pod)
        running.cni("DEL", pod)
    settled = everything(running)
    wait_until(lambda: everything(running) == settled, "the node to be still")
    assert controller.drifts == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_somebody_changes_is_as_it_was_and_told(
    running: Node, controller: Controller, port: str, damage: str
) -> None:
    do, kind, what = DAMAGES[damage]
    right = everything(running)
    told = len(controller.drifts)
    do(running, port)

    wait_until_right(running, right)
    wanted = what.replace("PORT", port)
    wait_until(
        lambda: any(k == kind and w.startswith(wanted) for k, w in controller.drifts[told:]),
        f"{kind} {wanted!r} to be told",
    )
    assert running.running("agent")


def test_a_switch_that_is_started_anew_is_nobodys_doing(
    running: Node, controller: Controller, port: str
) -> None:
    right = everything(running)
    told = len(controller.drifts)
    running.kill("ovs-vswitchd")
    running.start_vswitchd()
    wait_until(lambda: (running.folder / "br-int.mgmt").exists(), "the switch")
    running.wait_able()
    wait_until_right(running, right)
    assert controller.drifts[told:] == []


def test_no_add_that_waits_for_a_controller_keeps_ports_from_being_put_right(
    running: Node, controller: Controller, port: str
) -> None:
    right = everything(running)
    controller.confirms.clear()
    try:
        with running.pod("waiting") as waiting, ThreadPoolExecutor(1) as pool:
            adding = pool.submit(running.cni, "ADD", waiting)
            wait_until(lambda: len(running.pod_ports()) == 2, "the port of the pod that waits")
            # By the second, the first look at ports that began with the new one is over.
            for tag in (70, 71):
                running.vsctl("set", "port", port, f"tag={tag}")
                what = "changed", f"port {port} of Pod default/web: tag {tag}, not empty"
                wait_until(partial(controller.drifts.__contains__, what), "it to be told")
            assert not adding.done()
            controller.confirms.set()
            with pytest.raises(PluginError):
                adding.result()
    finally:
        controller.confirms.set()
    wait_until_right(running, right)


def test_no_add_of_a_second_interface_that_waits_for_a_controller_keeps_ports_from_being_put_right(
    running: Node, controller: Controller, port: str
) -> None:
    """Not even when the port of the pod's first interface is to be put right, too: that is when the ADD is over."""
    right = everything(running)
    with running.pod("two") as pod, ThreadPoolExecutor(1) as pool:
        first = running.cni("ADD", pod)["interfaces"][0]["name"]
        controller.confirms.clear()
        try:
            adding = pool.submit(running.cni, "ADD", pod, environment={"CNI_IFNAME": "net1"})
            wait_until(lambda: len(running.pod_ports()) == 3, "the port of the interface that waits")
            running.vsctl("set", "port", first, "tag=60")
            # By the second, a look at the pod's first port has begun.
            for tag in (61, 62):
                running.vsctl("set", "port", port, f"tag={tag}")
                what = "changed", f"port {port} of Pod default/web: tag {tag}, not empty"
                wait_until(partial(controller.drifts.__contains__, what), "it to be told")
            assert not adding.done()
            assert ("changed", f"port {first} of Pod default/two: tag 60, not empty") not in controller.drifts
            with pytest.raises(PluginError):
                adding.result()
        finally:
            controller.confirms.set()
        what = "changed", f"port {first} of Pod default/two: tag 60, not empty"
        wait_until(partial(controller.drifts.__contains__, what), "the pod's first port to be put right")
        running.cni("DEL", pod)
    wait_until_right(running, right)


def test_no_check_that_waits_for_a_controller_keeps_the_pods_port_from_being_put_right(
    running: Node, controller: Controller
) -> None:
    right = everything(running)
    with running.pod("checked") as pod, ThreadPoolExecutor(1) as pool:
        result = running.cni("ADD", pod)
        name = result["interfaces"][0]["name"]
        running.kill("agent")
        # An agent that starts does not know what is in force until a controller says so.
        controller.confirms.clear()
        try:
            running.start_agent()
            wait_until(lambda: running.state().connected, "a stream")
            for tag in range(80, 85):
                checking = pool.submit(running.cni, "CHECK", pod, prevResult=result)
                wait([checking], timeout=1.0)
                running.vsctl("set", "port", name, f"tag={tag}")
                what = "changed", f"port {name} of Pod default/checked: tag {tag}, not empty"
                wait_until(partial(controller.drifts.__contains__, what), "it to be told")
                if not checking.done():
                    break
                # It may have come so late that it saw the tag itself.
            else:
                pytest.fail("it was never put right before the CHECK ended")
            with pytest.raises(PluginError, match="not confirmed pod"):
                checking.result()
        finally:
            controller.confirms.set()
        running.cni("DEL", pod)
    wait_until_right(running, right)


def test_an_agent_that_starts_allows_ports_what_they_were_forbidden_meanwhile(
    running: Node, controller: Controller, port: str
) -> None:
    right = everything(running)
    told = len(controller.drifts)
    running.kill("agent")
    running.ofctl("mod-port", port, "no-receive")
    running.start_agent()
    wait_until_right(running, right)
    wait_until(lambda: ("changed", f"port {port}: no-receive") in controller.drifts[told:], "it to be told")
