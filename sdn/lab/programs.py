# SPDX-License-Identifier: Apache-2.0
"""The command line of every process of a lab, and where it serves what. Values only.

The same daemons with the same settings as on real nodes: nothing here tells them that they are in a lab.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from sdn.lab import clocks, trees
from sdn.lab.spec import LabSpec, Machine
from sdn.lab.state import Folder
from sdn.lab.supervision import PID, Program

OPENFLOW_PORT = 6653
GRPC_PORT = 6654
#: Where controllers tell each other that they live.
PEERS_PORT = 6655
ETCD_CLIENT_PORT = 2379
ETCD_PEER_PORT = 2380


def programs(spec: LabSpec, folder: Folder) -> list[Program]:
    """Every process, in the order in which they are started."""
    found = [_etcd(spec, folder, machine) for machine in spec.store_machines]
    found += [_controller(spec, folder, machine) for machine in spec.controller_machines]
    for node in spec.node_machines:
        found += [_database(folder, node), _switch(spec, folder, node), _agent(spec, folder, node)]
    found = [
        _with_clock(program, folder) if program.name in spec.own_clocks else program for program in found
    ]
    found = [_with_tree(program, folder) if program.name in spec.trees else program for program in found]
    return sorted(found, key=lambda program: program.priority)


def node_folder(folder: Folder, node: str) -> Path:
    return folder / node


def database_file(folder: Folder, node: str) -> Path:
    return node_folder(folder, node) / "conf.db"


def agent_socket(folder: Folder, node: str) -> Path:
    """Where the CNI plugin finds the node's agent."""
    return node_folder(folder, node) / "agent.sock"


def agent_grpc_socket(folder: Folder, node: str) -> Path:
    return node_folder(folder, node) / "agent-grpc.sock"


def controller_socket(folder: Folder, controller: str = "controller-1") -> Path:
    """Where sdnctl finds the controller."""
    return folder / controller / "controller.sock"


def switch_log(folder: Folder, node: str) -> Path:
    """What the node's ovs-vswitchd writes of those of its modules that are told to write to a file."""
    return node_folder(folder, node) / "ovs-vswitchd.log"


def switch_environment(folder: Folder, node: str) -> dict[str, str]:
    """What makes Open vSwitch's programs speak with this node's switch and no other."""
    place = str(node_folder(folder, node))
    return {"OVS_RUNDIR": place, "OVS_DBDIR": place, "OVS_LOGDIR": place, "OVS_SYSCONFDIR": place}


def _database(folder: Folder, node: Machine) -> Program:
    place = node_folder(folder, node.name)
    return Program(
        name=f"{node.name}/ovsdb-server",
        netns=node.netns,
        command=(
            "ovsdb-server",
            str(database_file(folder, node.name)),
            f"--remote=punix:{place}/db.sock",
            f"--pidfile={place}/ovsdb-server.pid",
            "--no-chdir",
            "-vconsole:info",
            "-vsyslog:off",
        ),
        environment=switch_environment(folder, node.name),
        priority=20,
        sockets={"db": f"{place}/db.sock", "control": f"{place}/ovsdb-server.{PID}.ctl"},
    )


def _switch(spec: LabSpec, folder: Folder, node: Machine) -> Program:
    place = node_folder(folder, node.name)
    return Program(
        name=f"{node.name}/ovs-vswitchd",
        netns=node.netns,
        command=(
            "ovs-vswitchd",
            f"unix:{place}/db.sock",
            # The agent tells the userspace datapath its routes: what Open vSwitch reads itself has gaps
            # (agent/nodesetup/tunnelroutes.py).
            *(["--disable-system-route"] if spec.datapath == "netdev" else []),
            f"--pidfile={place}/ovs-vswitchd.pid",
            "--no-chdir",
            "-vconsole:info",
            "-vsyslog:off",
            # Empty until somebody asks for more (`ovs-appctl vlog/set vconn:file:dbg`): a record without size limit.
            "-vfile:off",
            f"--log-file={switch_log(folder, node.name)}",
        ),
        environment=switch_environment(folder, node.name),
        priority=30,
        sockets={"control": f"{place}/ovs-vswitchd.{PID}.ctl", "br-int": f"{place}/br-int.mgmt"},
    )


def _agent(spec: LabSpec, folder: Folder, node: Machine) -> Program:
    place = node_folder(folder, node.name)
    controllers = ",".join(f"{machine.ipv4}:{GRPC_PORT}" for machine in spec.controller_machines)
    # The first one is the tunnel's end.
    addresses = [node.ipv4, node.ipv6] if spec.underlay == "ipv4" else [node.ipv6, node.ipv4]
    settings = {
        "node-name": node.name,
        "controllers": controllers,
        "state-dir": f"{place}/agent",
        "socket": str(agent_socket(folder, node.name)),
        "ovsdb": f"unix:{place}/db.sock",
        "ovs-rundir": str(place),
        "uplink": "eth0",
        "node-addresses": ",".join(addresses),
        "encapsulation": spec.encapsulation,
        "datapath": spec.datapath,
        # Nobody of this machine's own can be reached from a lab. Where nothing serves, that is told at once.
        "dns-upstreams": spec.outside.ipv4,
    }
    return Program(
        name=f"{node.name}/agent",
        netns=node.netns,
        command=(sys.executable, "-m", "agent.main", *_flags(settings)),
        environment=switch_environment(folder, node.name),
        priority=40,
        sockets={
            "cni": str(agent_socket(folder, node.name)),
            "grpc": str(agent_grpc_socket(folder, node.name)),
        },
    )


def _etcd(spec: LabSpec, folder: Folder, machine: Machine) -> Program:
    client = f"{machine.ipv4}:{ETCD_CLIENT_PORT}"
    peer = f"http://{machine.ipv4}:{ETCD_PEER_PORT}"
    members = ",".join(f"{each.name}=http://{each.ipv4}:{ETCD_PEER_PORT}" for each in spec.store_machines)
    settings = {
        "name": machine.name,
        "data-dir": f"{folder / machine.name}/data",
        "listen-client-urls": f"http://{client}",
        "advertise-client-urls": f"http://{client}",
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": members,
        "logger": "zap",
        "log-outputs": "stderr",
    }
    return Program(
        name=machine.name,
        netns=machine.netns,
        command=("etcd", *_flags(settings)),
        priority=5,
        sockets={"client": client, "peer": f"{machine.ipv4}:{ETCD_PEER_PORT}"},
    )


def _store(spec: LabSpec, place: str) -> str:
    if spec.store == "etcd":
        return "etcd://" + ",".join(f"{machine.ipv4}:{ETCD_CLIENT_PORT}" for machine in spec.store_machines)
    return f"sqlite://{place}/store.db"


def _controller(spec: LabSpec, folder: Folder, machine: Machine) -> Program:
    place = folder / machine.name
    settings = {
        "name": machine.name,
        "grpc-address": f"{machine.ipv4}:{GRPC_PORT}",
        "grpc-socket": str(controller_socket(folder, machine.name)),
        "openflow-address": f"{machine.ipv4}:{OPENFLOW_PORT}",
        "store": _store(spec, str(place)),
        "cluster-ranges": ",".join(spec.cluster_ranges),
        "service-ranges": ",".join(spec.service_ranges),
        "load-balancer-ranges": ",".join(spec.load_balancer_ranges),
        **_among_controllers(spec, machine),
    }
    if spec.node_prefix_ipv4 is not None:
        settings["node-prefix-ipv4"] = str(spec.node_prefix_ipv4)
    if spec.node_prefix_ipv6 is not None:
        settings["node-prefix-ipv6"] = str(spec.node_prefix_ipv6)
    return Program(
        name=machine.name,
        netns=machine.netns,
        command=(sys.executable, "-m", "controller.main", *_flags(settings)),
        priority=10,
        sockets={
            **({"peers": f"{machine.ipv4}:{PEERS_PORT}"} if spec.store == "etcd" else {}),
            "grpc": f"{machine.ipv4}:{GRPC_PORT}",
            "grpc-unix": str(controller_socket(folder, machine.name)),
            "openflow": f"{machine.ipv4}:{OPENFLOW_PORT}",
        },
    )


def _among_controllers(spec: LabSpec, machine: Machine) -> dict[str, str]:
    """What a controller needs to be one of several, which it is on etcd, even if it is the only one just now."""
    return {"peers-address": f"{machine.ipv4}:{PEERS_PORT}"} if spec.store == "etcd" else {}


def _with_clock(program: Program, folder: Folder) -> Program:
    variables = {**program.environment, **clocks.environment(folder, program.name)}
    return msgspec.structs.replace(program, environment=variables)


def _with_tree(program: Program, folder: Folder) -> Program:
    variables = {**program.environment, **trees.environment(folder, program.name)}
    if before := program.environment.get("PYTHONPATH"):
        variables["PYTHONPATH"] += f":{before}"
    return msgspec.structs.replace(program, environment=variables)


def _flags(settings: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]
