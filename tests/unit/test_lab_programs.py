# SPDX-License-Identifier: Apache-2.0
"""Every process of a lab: its command line is one that the daemon understands, and supervisord's file says it whole."""

import configparser

import pytest

from agent.settings import AgentSettings
from controller.settings import ControllerSettings
from sdn import settings
from sdn.lab import programs
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder
from sdn.lab.supervision import Program, configuration

SPECS = [
    LabSpec(name="x"),
    LabSpec(name="x", nodes=5, encapsulation="gre", datapath="system", underlay="ipv6"),
    LabSpec(name="x", cluster_ranges=("10.9.0.0/24",), node_prefix_ipv4=29),
    LabSpec(name="x", cluster_ranges=("fd00:9::/56",), node_prefix_ipv6=72),
    LabSpec(name="x", controllers=3, store="etcd", etcd=3),
]


def flags(program: Program) -> list[str]:
    return [argument for argument in program.command if argument.startswith("--")]


def all_of(spec: LabSpec) -> list[Program]:
    return programs.programs(spec, Folder(spec.name))


@pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.datapath}-{','.join(spec.cluster_ranges)}-{spec.controllers}"
)
def test_daemons_understand_their_command_lines(spec: LabSpec) -> None:
    for program in all_of(spec):
        if program.name.endswith("/agent"):
            agent = settings.read(AgentSettings, "sdn-agent", flags(program), {})
            assert program.name == f"{agent.node_name}/agent"
            assert str(agent.socket) == program.sockets["cni"]
            assert str(agent.grpc_socket) == program.sockets["grpc"]
            assert (agent.encapsulation, agent.datapath) == (spec.encapsulation, spec.datapath)
            assert len(agent.controllers) == spec.controllers
        elif program.name.startswith("controller"):
            controller = settings.read(ControllerSettings, "sdn-controller", flags(program), {})
            assert controller.name == program.name
            assert controller.grpc_address == program.sockets["grpc"]
            if spec.store == "etcd":
                assert controller.peers_address == program.sockets["peers"]


def test_every_node_has_its_three_processes_and_names_are_unique() -> None:
    names = [program.name for program in all_of(LabSpec(name="x", nodes=2))]
    expected = {
        f"node-{n}/{process}" for n in (1, 2) for process in ("ovsdb-server", "ovs-vswitchd", "agent")
    }
    assert set(names) == expected | {"controller-1"}
    assert len(names) == len(set(names))


def test_controllers_know_every_member_of_the_store_and_members_know_each_other() -> None:
    spec = LabSpec(name="x", controllers=2, store="etcd", etcd=3)
    found = {program.name: program for program in all_of(spec)}
    members = ("etcd-1", "etcd-2", "etcd-3")
    store = "--store=etcd://" + ",".join(found[name].sockets["client"] for name in members)
    cluster = "--initial-cluster=" + ",".join(
        f"{name}=http://{found[name].sockets['peer']}" for name in members
    )
    assert all(store in found[name].command for name in ("controller-1", "controller-2"))
    assert all(cluster in found[name].command for name in members)


def test_no_socket_is_served_twice_and_paths_fit_the_kernels_limit() -> None:
    places = [
        (program.netns if ":" in where else "", where)
        for program in all_of(LabSpec(name="x" * 20, nodes=80, controllers=9, store="etcd", etcd=7))
        for where in program.sockets.values()
    ]
    assert len(places) == len(set(places))
    assert max(len(where) for _, where in places if where.startswith("/")) < 108


def test_supervisord_is_told_every_program_in_its_namespace() -> None:
    spec = LabSpec(name="x", nodes=2)
    parser = configparser.RawConfigParser()
    parser.read_string(configuration(Folder("x"), "id0", all_of(spec)))
    sections = [name for name in parser.sections() if name.startswith("program:")]
    assert len(sections) == len(all_of(spec))
    for name in sections:
        section = parser[name]
        assert section["command"].startswith("ip netns exec x-")
        assert 'SDN_LAB_ID="id0"' in section["environment"]
        assert section["autorestart"] == "true"
    assert parser["group:node-1"]["programs"].split(",") == [
        "node-1.ovsdb-server",
        "node-1.ovs-vswitchd",
        "node-1.agent",
    ]


def test_a_percent_sign_reaches_the_process_as_it_is() -> None:
    program = Program(name="p", netns="n", command=("echo", "50%"), priority=1)
    text = configuration(Folder("x"), "id", [program])
    assert "echo 50%%" in text
