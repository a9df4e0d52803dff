# SPDX-License-Identifier: Apache-2.0
"""`sdnctl lab` as scripts drive it: what it prints is true, and its exit codes can be relied on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdn.lab.lab import Lab
from tests.lab import labs

SDNCTL = [sys.executable, "-m", "sdn.cli.main"]


def sdnctl(lab: Lab, *arguments: str, code: int = 0) -> str:
    environment = {"SDN_LAB_NAME": lab.name, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*SDNCTL, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, f"{arguments}: {done.returncode}, {done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def status(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sdnctl(lab, "lab", "status", "-o", "json"))
    return found


def test_status_tells_each_process_where_it_really_is(lab: Lab) -> None:
    found = status(lab)
    assert {process["name"] for process in found["processes"]} == set(lab.process_names())
    for process in found["processes"]:
        assert process["state"] == "RUNNING"
        inside = Path(f"/proc/{process['pid']}/ns/net").stat().st_ino
        assert inside == Path("/run/netns", process["namespace"]).stat().st_ino
        for where in process["sockets"].values():
            assert Path(where).is_socket() or ":" in where, f"{process['name']}: {where}"
    assert Path(found["server"].removeprefix("unix:")).is_socket()


def test_a_pod_comes_is_shown_is_used_and_goes(lab: Lab) -> None:
    made = json.loads(
        sdnctl(
            *(lab, "lab", "pod", "add", "web", "-n", "shop", "--node", "node-2"),
            *("--label", "app=web", "--label", "tier=front", "-o", "json"),
        )
    )
    shown = next(pod for pod in status(lab)["pods"] if pod["name"] == "web")
    assert (shown["node"], shown["namespace"], shown["addresses"]) == ("node-2", "shop", made["addresses"])
    assert Path(shown["netns_path"]).exists()
    addresses = sdnctl(lab, "lab", "exec", "web", "--", "ip", "-j", "address", "show", "eth0")
    inside = {address["local"] for address in json.loads(addresses)[0]["addr_info"]}
    assert set(made["addresses"]) <= inside
    known = json.loads(sdnctl(lab, "get", "pods", "shop/web", "-o", "json"))
    assert known["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert known["spec"]["nodeName"] == "node-2"
    assert sdnctl(lab, "get", "pods", "-l", "app=web", "-o", "name") == "pod/shop/web\n"
    assert "exists already" in sdnctl(lab, "lab", "pod", "add", "web", "-n", "shop", code=1)
    sdnctl(lab, "lab", "pod", "del", "shop/web")
    assert not Path(shown["netns_path"]).exists()
    assert "no pod" in sdnctl(lab, "lab", "pod", "del", "web", code=1)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lab pod del --name {lab} dem", "demo/seen"),
        ("lab pod add more --name {lab} --node node-", "node-1"),
        ("lab exec --name {lab} dem", "demo/seen"),
        ("lab restart --name {lab} node-1/a", "node-1/agent"),
        ("--lab {lab} get nodes no", "node-1"),
        ("--lab {lab} get pods dem", "demo/seen"),
        ("--lab {lab} get pods -n demo se", "seen"),
        ("--lab {lab} get pods -n de", "demo"),
        ("--lab {lab} get switches no", "node-1"),
        ("--lab {lab} delete pods dem", "demo/seen"),
        ("--lab {lab} flows no", "node-1"),
    ],
)
def test_names_of_the_lab_that_is_meant_are_completed(lab: Lab, line: str, offered: str) -> None:
    words = ["sdnctl", *line.format(lab=lab.name).split()]
    environment = {
        "PATH": "/usr/bin:/bin",
        "SDN_LAB_NAME": "another",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_SDNCTL_COMPLETE": "complete_bash",
    }
    command = [str(Path(sys.executable).with_name("sdnctl"))]
    lab.pod_add("seen", "demo")
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    finally:
        lab.pod_delete("seen", "demo")
    assert offered in done.stdout.split()


def test_exec_ends_with_the_commands_own_code_and_passes_its_input(lab: Lab) -> None:
    lab.pod_add("shell")
    sdnctl(lab, "lab", "exec", "shell", "--", "sh", "-c", "exit 37", code=37)
    done = subprocess.run(
        [*SDNCTL, "lab", "exec", "--name", lab.name, "shell", "--", "cat"],
        input="through",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "through"
    assert "br-int" in sdnctl(lab, "lab", "exec", "node-1", "--", "ovs-vsctl", "show")
    assert "198.51.100.1" in sdnctl(lab, "lab", "exec", "outside", "--", "ip", "address")
    lab.pod_delete("shell")


def test_ping_matrix_tells_and_ends_with_1_when_something_is_unreachable(lab: Lab) -> None:
    pods = labs.add_pods(lab, 3, "m")
    found = json.loads(sdnctl(lab, "lab", "ping-matrix", "-o", "json"))
    assert found["summary"] == {"tried": 48, "reachable": 48}
    assert "48 of 48 ways work" in sdnctl(lab, "lab", "ping-matrix")
    lab.run(pods[0].full_name, "ip", "link", "set", "eth0", "down")
    sdnctl(lab, "lab", "ping-matrix", "--attempts", "1", "--timeout", "0.3", code=1)
    labs.delete_pods(lab, pods)


def test_a_killed_process_is_started_again_and_a_stopped_one_is_not(lab: Lab) -> None:
    name = "node-3/agent"
    before = lab.kill(name)
    lab.wait_restarted(name, before)
    sdnctl(lab, "lab", "stop", name)
    assert next(p for p in status(lab)["processes"] if p["name"] == name)["pid"] is None
    assert "already" not in sdnctl(lab, "lab", "stop", name)
    sdnctl(lab, "lab", "start", name)
    first = lab.process(name).pid
    sdnctl(lab, "lab", "restart", name)
    assert lab.process(name).pid not in (None, first)
    assert "it has controller-1" in sdnctl(lab, "lab", "stop", "node-9/agent", code=1)
    assert '"event":"ready"' in sdnctl(lab, "lab", "logs", name, "-n", "1000")
    lab.wait_ready()


def test_up_again_says_that_it_is_up(lab: Lab) -> None:
    assert "is up already" in sdnctl(lab, "lab", "up", code=1)
    assert lab.name in sdnctl(lab, "lab", "list")


def test_the_demo_shows_reach_and_flows_and_can_be_repeated(lab: Lab) -> None:
    for _ in range(2):
        shown = sdnctl(lab, "lab", "demo")
        assert "132 of 132 ways work" in shown
        assert "sent from the pod's own MAC and IPv4 address" in shown
        assert "to a pod of the other node" in shown
        assert "from the other node's tunnel address" in shown
    labs.delete_pods(lab, [pod for pod in lab.pods() if pod.namespace == "demo"])


@pytest.mark.parametrize("form", ["json", "yaml", "table"])
def test_flows_are_shown_with_owner_and_reason_in_every_form(lab: Lab, form: str) -> None:
    lab.pod_add("seen", node="node-1")
    shown = sdnctl(
        lab, "flows", "node-1", "--owner", "Pod/default/seen", "--table", "spoof_guard", "-o", form
    )
    assert "sent from the pod's own MAC and IPv4 address" in shown
    assert "Pod/default/seen" in shown
    assert "Node/node-2" not in shown
    lab.pod_delete("seen")


def test_watch_prints_what_changes(lab: Lab) -> None:
    command = [*SDNCTL, "--lab", lab.name, "get", "pods", "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            lab.pod_add("watched")
            seen: list[tuple[str, str]] = []
            for line in watch.stdout:
                event = json.loads(line)
                seen.append((event["type"], event["object"]["metadata"]["name"]))
                if seen[-1][0] == "ADDED":
                    lab.pod_delete("watched")
                if seen[-1] == ("DELETED", "watched"):
                    break
        finally:
            # Leaving the block waits for its end.
            watch.terminate()
    assert seen[0] == ("ADDED", "watched")


def test_no_answer_ends_with_3(lab: Lab) -> None:
    lab.stop("controller-1")
    try:
        assert "no controller answers" in sdnctl(lab, "get", "nodes", code=3)
    finally:
        lab.start("controller-1")
    lab.wait_ready()
