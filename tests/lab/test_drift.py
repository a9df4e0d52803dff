# SPDX-License-Identifier: Apache-2.0
"""Whatever somebody changes in a node's switch or its database is as it was soon, counted, and told.

`SDN_DRIFT_ROUNDS` sets how often each of it is changed (default 1; 5 give figures).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from sdn.lab.lab import Lab
from sdn.lab.waiting import wait_until
from sdn.pipeline.tables import BRIDGING, SESSION_AFFINITY
from sdn.v1 import inspection_pb2
from tests.lab import accounts, labs
from tests.lab import service_objects as objects
from tests.lab.watching import Watch

pytestmark = pytest.mark.alone

SDNCTL: Final = [sys.executable, "-m", "sdn.cli.main"]
NODE: Final = "node-1"
ROUNDS: Final = int(os.environ.get("SDN_DRIFT_ROUNDS", "1"))
OFCTL: Final = ("ovs-ofctl", "-O", "OpenFlow15", "--no-names")
VSCTL: Final = ("ovs-vsctl", "--timeout=20")
#: Columns that the agent keeps, and what the switch makes of them.
COLUMNS: Final = {
    "bridge": (
        *("name", "fail_mode", "protocols", "datapath_type", "other_config", "stp_enable", "rstp_enable"),
        *("mcast_snooping_enable", "mirrors", "netflow", "sflow", "ipfix", "flow_tables"),
    ),
    "controller": (
        *("target", "max_backoff", "inactivity_probe", "connection_mode", "controller_rate_limit"),
        "enable_async_messages",
    ),
    "port": ("name", "tag", "trunks", "vlan_mode", "qos", "other_config", "external_ids"),
    "interface": (
        *("name", "type", "ofport_request", "ofport", "external_ids", "mtu_request", "options", "mtu"),
        *("admin_state", "ingress_policing_rate", "other_config"),
    ),
}
BRIDGE: Final = f"table={BRIDGING.number}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running("drift", nodes=2, controllers=3, store="etcd") as found:
        pods = labs.add_pods(found, 4)
        objects.apply(found, objects.service("web", [objects.port(80)]))
        for family in ("IPv4", "IPv6"):
            addresses = [{"addresses": [pod.addresses[objects.FAMILY[family]]]} for pod in pods]
            objects.apply(
                found, objects.endpoint_slice("web", family, addresses, [{"name": "tcp-80", "port": 80}])
            )
        accounts.wait_until_settled(found)
        wait_until(lambda: bool(groups(found)), "the Service's groups", 30)
        yield found


class BrokenOffError(AssertionError):
    """The switch ended the connection on which it was asked: it makes its listener anew with other protocols."""


def run(lab: Lab, *command: str) -> str:
    done = lab.run(NODE, *command)
    if "Connection reset by peer" in done.stderr:
        raise BrokenOffError(f"{command}: {done.stderr}")
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def flows(lab: Lab) -> list[str]:
    """Those that the switch may have learned are left out."""
    dumped = run(lab, *OFCTL, "--no-stats", "dump-flows", "br-int").splitlines()
    return sorted(
        line for line in dumped if "actions=" in line and f"table={SESSION_AFFINITY.number}," not in line
    )


def groups(lab: Lab) -> list[str]:
    return sorted(re.findall(r"group_id=.*", run(lab, *OFCTL, "dump-groups", "br-int")))


def settings(lab: Lab) -> list[str]:
    """The database, as far as it is kept."""
    found = []
    for table, columns in COLUMNS.items():
        rows = json.loads(run(lab, *VSCTL, "-f", "json", f"--columns={','.join(columns)}", "list", table))[
            "data"
        ]
        found += [f"{table} {json.dumps(row)}" for row in rows]
    return sorted(found)


def ports(lab: Lab) -> list[str]:
    """Where they are, and what they may do."""
    where = [
        f"{bridge} {run(lab, *VSCTL, 'list-ports', bridge).split()}"
        for bridge in run(lab, *VSCTL, "list-br").split()
    ]
    listed = run(lab, *OFCTL, "dump-ports-desc", "br-int")
    described = re.findall(r"^ (\S+): .*\n +config: +(.*)", listed, re.MULTILINE)
    assert described
    return [*where, *(f"{port} {config}" for port, config in described)]


def everything(lab: Lab) -> list[str]:
    return [*flows(lab), *groups(lab), *ports(lab), *settings(lab)]


def switch(lab: Lab) -> inspection_pb2.Switch:
    return lab.switches()[NODE]


def pod_port(lab: Lab) -> str:
    """A pod's port on the node, not one that is watched: its packets stop for a moment."""
    state = accounts.agent_state(lab, NODE)
    return next(a.attachment.host_interface for a in state.attachments if a.attachment.pod_name == "spare")


DAMAGES: Final[dict[str, tuple[str, ...]]] = {
    "flows of a table deleted": (*OFCTL, "del-flows", "br-int", BRIDGE),
    "flows of a table changed": (*OFCTL, "mod-flows", "br-int", f"{BRIDGE},actions=drop"),
    "flow added": (*OFCTL, "add-flow", "br-int", "table=0,priority=9,vlan_vid=0x1064/0x1fff,actions=drop"),
    "all flows deleted": (*OFCTL, "del-flows", "br-int"),
    "all groups deleted": (*OFCTL, "del-groups", "br-int"),
    "group added": (*OFCTL, "add-group", "br-int", "group_id=7,type=select,bucket=output:1"),
    "pod's port deleted": (*VSCTL, "del-port", "br-int", "PORT"),
    "pod's port numbered anew": (*VSCTL, "set", "interface", "PORT", "ofport_request=7777"),
    "pod's port described otherwise": (*VSCTL, "set", "interface", "PORT", "external_ids:sdn-pod-name=other"),
    "pod's port cut off by OpenFlow": (*OFCTL, "mod-port", "br-int", "PORT", "no-forward"),
    "pod's port down by OpenFlow": (*OFCTL, "mod-port", "br-int", "PORT", "down"),
    "pod's interface down": ("ip", "link", "set", "PORT", "down"),
    "pod's interface with another MTU": ("ip", "link", "set", "PORT", "mtu", "600"),
    "pod's port policed": (*VSCTL, "set", "interface", "PORT", "ingress_policing_rate=1"),
    "pod's port with a requested MTU": (*VSCTL, "set", "interface", "PORT", "mtu_request=600"),
    "pod's port in a VLAN": (*VSCTL, "set", "port", "PORT", "tag=7"),
    "pod's port made anew elsewhere": (
        *VSCTL,
        "del-port",
        "br-int",
        "PORT",
        "--",
        "add-port",
        "br-phy",
        "PORT",
    ),
    "pod's port moved": (
        *(*VSCTL, "--", "--id=@p", "get", "port", "PORT", "--", "remove", "bridge", "br-int", "ports", "@p"),
        *("--", "add", "bridge", "br-phy", "ports", "@p"),
    ),
    "strange port": (
        *VSCTL,
        "add-port",
        "br-int",
        "rogue",
        "--",
        "set",
        "interface",
        "rogue",
        "type=internal",
    ),
    "strange port with our name": (
        *VSCTL,
        "add-port",
        "br-int",
        "sdn-p60000",
        "--",
        "set",
        "interface",
        "sdn-p60000",
        "type=internal",
    ),
    "tunnel port deleted": (*VSCTL, "del-port", "br-int", "sdn-tun0"),
    "tunnel port cut off by OpenFlow": (*OFCTL, "mod-port", "br-int", "sdn-tun0", "no-receive"),
    "tunnel port changed": (*VSCTL, "set", "interface", "sdn-tun0", "options:remote_ip=192.0.2.1"),
    "controllers deleted": (*VSCTL, "del-controller", "br-int"),
    "controller added": (
        *VSCTL,
        "--id=@c",
        "create",
        "controller",
        'target="tcp:127.0.0.1:9"',
        "--",
        "add",
        "bridge",
        "br-int",
        "controller",
        "@c",
    ),
    "spanning tree": (*VSCTL, "set", "bridge", "br-int", "stp_enable=true"),
    "mirror": (
        *(*VSCTL, "--", "--id=@m", "create", "mirror", "name=spy", "select_all=true"),
        *("--", "set", "bridge", "br-int", "mirrors=@m"),
    ),
    "fail_mode": (*VSCTL, "set-fail-mode", "br-int", "standalone"),
    "protocols": (*VSCTL, "set", "bridge", "br-int", "protocols=OpenFlow13,OpenFlow15"),
    "datapath id": (*VSCTL, "set", "bridge", "br-int", "other-config:datapath-id=00000000deadbeef"),
    "other-config": (*VSCTL, "set", "bridge", "br-int", "other-config:disable-in-band=false"),
    "probes": (*VSCTL, "set", "controller", "CONTROLLER", "inactivity_probe=60000"),
}
#: With these packets stop until all is as it was: Open vSwitch itself empties the tables for the first controller, and
#: what it is to put into the tunnel while somebody's port comes to br-phy may be lost.
STOPPING: Final = (
    "pod's port made anew elsewhere",
    "pod's port moved",
    "all flows deleted",
    "flows of a table",
    "tunnel port",
    "spanning tree",
    "controllers deleted",
    "datapath id",
)


def repaired(lab: Lab, damage: str) -> float:
    """Do it; seconds until everything is as it was."""
    right = everything(lab)
    before = switch(lab).repaired
    controller = run(lab, *VSCTL, "--bare", "--columns=_uuid", "list", "controller").split()[0]
    names = {"PORT": pod_port(lab), "CONTROLLER": controller}
    command = [names.get(part, part) for part in DAMAGES[damage]]
    began = time.monotonic()
    run(lab, *command)
    took = time.monotonic()

    def as_before() -> bool:
        try:
            return everything(lab) == right
        except BrokenOffError:
            return False

    def difference() -> str:
        now = everything(lab)
        return f"missing {sorted(set(right) - set(now))[:5]}, new {sorted(set(now) - set(right))[:5]}"

    wait_until(as_before, f"what was done by {command} to be repaired", 60, because=difference)
    seconds = time.monotonic() - (began + took) / 2
    wait_until(lambda: switch(lab).repaired > before, "the repair to be counted", 30)
    wait_until(lambda: switch(lab).synchronized and switch(lab).agent_connected, "the node to be whole", 30)
    return seconds


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_somebody_changes_is_as_it_was(lab: Lab, damage: str) -> None:
    if "spare" not in [pod.name for pod in lab.pods()]:
        lab.pod_add("spare", node=NODE)
    if damage.startswith(STOPPING):
        times = [repaired(lab, damage) for _ in range(ROUNDS)]
    else:
        watched = [pod for pod in lab.pods() if pod.name != "spare"]
        with Watch(watched) as watch:
            times = [repaired(lab, damage) for _ in range(ROUNDS)]
        assert not watch.lost, watch.told()
    print(f"DRIFT {damage}: p50 {statistics.median(times):.2f} s, max {max(times):.2f} s of {len(times)}")
    last = switch(lab).last_repairs
    print(f"      {last[-1].kind} {last[-1].what}")
    accounts.wait_until_settled(lab)


def test_sdnctl_tells_what_it_was(lab: Lab) -> None:
    run(lab, *OFCTL, "add-flow", "br-int", "table=0,priority=9,udp,tp_src=4242,actions=drop")
    wait_until(lambda: any("4242" in repair.what for repair in switch(lab).last_repairs), "it to be told", 30)

    def sdnctl(form: str) -> str:
        command = [*SDNCTL, "--lab", lab.name, "get", "switches", NODE, "-o", form]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "unknown flow in table" in sdnctl("wide")
    document: dict[str, Any] = json.loads(sdnctl("json"))
    assert document["last_repairs"][-1]["kind"] == "unknown"
    assert document["repaired"] >= 1


def test_nothing_is_repaired_while_pods_come_and_go(lab: Lab) -> None:
    before = {node: found.repaired for node, found in lab.switches().items()}
    for _ in range(3):
        labs.delete_pods(lab, labs.add_pods(lab, 8, "brief"))
    accounts.wait_until_settled(lab)
    assert {node: found.repaired for node, found in lab.switches().items()} == before
