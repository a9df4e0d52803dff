# SPDX-License-Identifier: Apache-2.0
"""Bad input is refused with the name of what is wrong; nothing is lost, nothing is half-made."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import msgspec
import pytest

from sdn.lab import namespaces
from sdn.lab.errors import CniError
from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from sdn.lab.waiting import wait_until
from sdn.v1 import controller_pb2, controller_pb2_grpc, types_pb2
from tests.lab import accounts, labs

SDNCTL = [sys.executable, "-m", "sdn.cli.main"]
PODS_IN_RANGE = 5
"""A /29 has eight addresses: network, gateway and broadcast are not for pods."""


REFUSALS = (3, 4, 5, 7, 101)
"""Codes of the specification for a wrong container, variable or configuration; 101, the controller refused the pod."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running(
        "bad", nodes=2, cluster_ranges=("10.77.0.0/26", "fd00:77::/48"), node_prefix_ipv4=29
    ) as found:
        found.pod_add("steady-1", node="node-1")
        found.pod_add("steady-2", node="node-2")
        accounts.wait_until_settled(found)
        yield found


@pytest.fixture
def undisturbed(lab: Lab) -> Iterator[Lab]:
    """Whatever the test tries, at its end all is as it was, and packets pass."""
    before = lab.pods()
    yield lab
    assert lab.pods() == before
    accounts.wait_until_settled(lab)
    assert labs.unreachable(lab.ping_matrix()) == []


@pytest.fixture
def candidate(lab: Lab) -> Iterator[PodRecord]:
    """A pod whose namespace exists, and nothing else of it."""
    pod = PodRecord(
        name="candidate",
        namespace="default",
        uid="",
        node="node-1",
        netns=f"{lab.name}-pod-candidate",
        container_id="c0ffee" * 8,
    )
    namespaces.add(pod.netns)
    yield pod
    namespaces.delete(pod.netns)


def config(**changes: object) -> bytes:
    plain: dict[str, object] = {"cniVersion": "1.1.0", "name": "sdn", "type": "sdn-cni"}
    return json.dumps({**plain, **changes}).encode()


def with_socket(lab: Lab, text: bytes) -> bytes:
    """The configuration, or what should be one, that still leads to the agent."""
    socket = next(iter(lab.process("node-1/agent").sockets.values()))
    return text.replace(b'"type"', f'"agentSocket": "{socket}", "type"'.encode(), 1)


def refused(lab: Lab, pod: PodRecord, verb: str = "ADD", **options: object) -> CniError:
    with pytest.raises(CniError) as caught:
        lab.cni(pod, verb, **options)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        (b'{"cniVersion": "1.1.0", "name": "sdn", "type": "sdn-cni"', 6, "JSON"),
        (b'["type"]', 6, ""),
        (config(cniVersion="9.9.9"), 1, "9.9.9"),
        (config(cniVersion=1), 1, "cniVersion"),
        (config(name=""), 7, "name"),
        (config(args={"cni": {"labels": [{"key": "bad key", "value": "x"}]}}), 7, "args.cni.labels"),
        (config(args={"cni": {"labels": 7}}), 7, "labels"),
        (config(prevResult="text"), 7, "prevResult"),
    ],
    ids=[
        "cut short",
        "no object",
        "version",
        "version type",
        "no name",
        "label",
        "labels type",
        "prevResult",
    ],
)
def test_a_wrong_configuration_is_refused_by_field(
    undisturbed: Lab, candidate: PodRecord, text: bytes, code: int, named: str
) -> None:
    problem = refused(undisturbed, candidate, config=with_socket(undisturbed, text))
    assert problem.code == code, str(problem)
    assert named in f"{problem.message} {problem.details}"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "../escape"}, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": ""}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "longer-than-fifteen"}, "CNI_IFNAME"),
        ({"CNI_NETNS": ""}, "CNI_NETNS"),
        ({"CNI_NETNS": "/run/netns/does-not-exist"}, "/run/netns/does-not-exist"),
        ({"CNI_NETNS": "/etc/hostname"}, "/etc/hostname"),
        ({"CNI_ARGS": "K8S_POD_NAME"}, "CNI_ARGS"),
        ({"CNI_ARGS": "K8S_POD_NAMESPACE=Not Valid;K8S_POD_NAME=x"}, "CNI_ARGS K8S_POD_NAMESPACE"),
        ({"CNI_COMMAND": "FLY"}, "FLY"),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, str) else ",".join(f"{k}={v}" for k, v in value.items())
    ),
)
def test_wrong_variables_are_refused_by_name(
    undisturbed: Lab, candidate: PodRecord, variables: dict[str, str], named: str
) -> None:
    problem = refused(undisturbed, candidate, arguments=variables)
    assert problem.code in REFUSALS, str(problem)
    assert named in f"{problem.message} {problem.details}"


def test_a_namespace_that_has_the_interface_already_is_refused_and_left_as_it_is(
    undisturbed: Lab, candidate: PodRecord
) -> None:
    subprocess.run(["ip", "-n", candidate.netns, "link", "add", "eth0", "type", "bridge"], check=True)
    problem = refused(undisturbed, candidate)
    assert "eth0" in f"{problem.message} {problem.details}"
    shown = subprocess.run(
        ["ip", "-n", candidate.netns, "-d", "link", "show", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bridge" in shown.stdout


def test_an_exhausted_range_is_named_and_freed_addresses_can_be_had_again(lab: Lab) -> None:
    pods = [lab.pod_add(f"fill-{n}", node="node-1") for n in range(PODS_IN_RANGE - 1)]
    with pytest.raises(CniError, match=r"10\.77\.0\.") as full:
        lab.pod_add("one-too-many", node="node-1", retry_seconds=0)
    assert full.value.code == 100
    assert "one-too-many" not in [pod.name for pod in lab.folder.pods()]
    accounts.wait_until_settled(lab)
    assert labs.unreachable(lab.ping_matrix()) == []
    # Another node's range is its own.
    pods.append(lab.pod_add("elsewhere", node="node-2"))
    lab.pod_delete("fill-1")
    pods[1] = lab.pod_add("after-all", node="node-1")
    labs.delete_pods(lab, pods)
    accounts.wait_until_settled(lab)


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("kind: Pod\nmetadata: {name: x}\n", "apiVersion"),
        ("apiVersion: v1\nkind: Gadget\nmetadata: {name: x}\n", "Gadget"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: Not_Valid}\n", "metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a b: c}}\n", "metadata.labels"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: 1}}\n", "metadata.labels"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, colour: red}\n", "metadata.colour"),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCIDRs: [10.0.0.300/24]}\n",
            "spec.podCIDRs",
        ),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n", "metadata.namespace"),
    ],
)
def test_an_invalid_manifest_is_refused_by_field_and_nothing_of_its_file_is_applied(
    undisturbed: Lab, tmp_path: Path, manifest: str, told: str
) -> None:
    good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: not-applied}\n"
    (tmp_path / "m.yaml").write_text(f"{good}---\n{manifest}", encoding="utf-8")
    done = subprocess.run(
        [*SDNCTL, "--lab", undisturbed.name, "apply", "-f", str(tmp_path / "m.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "document 2" in done.stderr
    assert told in done.stderr
    assert "not-applied" not in [
        item["metadata"]["name"] for item in accounts.objects(undisturbed, "Namespace")
    ]


def test_a_second_node_with_the_same_name_is_refused_and_the_first_goes_on(undisturbed: Lab) -> None:
    first = accounts.agent_state(undisturbed, "node-1").node
    second = types_pb2.NodeInfo()
    second.CopyFrom(first)
    second.uid = "another-machine"
    second.datapath_id = 0xDEAD
    del second.addresses[:], second.pod_ranges[:]
    second.addresses.append("172.30.0.99")
    second.tunnel_address = "172.30.0.99"
    with grpc.insecure_channel(undisturbed.server) as channel:
        stub = controller_pb2_grpc.ControllerStub(channel)
        answers = stub.Session(
            iter([controller_pb2.AgentMessage(hello=controller_pb2.Hello(node=second))]), timeout=20
        )
        with pytest.raises(grpc.RpcError) as told:
            list(answers)
    assert told.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert "node-1" in (told.value.details() or "")
    assert accounts.agent_state(undisturbed, "node-1").connected


def test_a_switch_that_no_node_claims_is_logged_by_its_id_and_let_go(undisturbed: Lab) -> None:
    identity = "00000000deadbeef"
    log = undisturbed.log("controller-1")
    target = f"tcp:{undisturbed.spec.controller_machines[0].ipv4}:6653"

    def vsctl(*arguments: str) -> str:
        done = undisturbed.run("node-1", "ovs-vsctl", "--timeout=20", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    vsctl(
        *("add-br", "rogue", "--", "set", "bridge", "rogue", "datapath_type=netdev", "protocols=OpenFlow15"),
        *(f"other_config:datapath-id={identity}", "--", "set-controller", "rogue", target),
    )
    try:
        wait_until(
            lambda: identity in log.read_text(encoding="utf-8"), "the controller to name the switch", 30
        )
        lines = [
            json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if identity in line
        ]
        assert lines[0]["level"] in ("warning", "error")
    finally:
        vsctl("del-br", "rogue")


def test_a_deleted_container_is_deleted_again_without_complaint(undisturbed: Lab) -> None:
    unknown = msgspec.structs.replace(undisturbed.pods()[0], container_id="f00d" * 16)
    assert undisturbed.cni(unknown, "DEL") == {}
    assert undisturbed.cni(unknown, "DEL", netns="") == {}
