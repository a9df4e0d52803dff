# SPDX-License-Identifier: Apache-2.0
"""sdnctl as scripts see it: what it prints, where, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sdn.cli import main
from sdn.v1 import inspection_pb2 as pb
from tests.unit.cli_server import Cluster, Sdnctl

OBJECTS = """\
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: shop, labels: {app: db}}
spec: {nodeName: node-2, containers: [{name: db, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""


@pytest.fixture
def applied(sdnctl: Sdnctl, tmp_path: Path) -> Sdnctl:
    (tmp_path / "o.yaml").write_text(OBJECTS, encoding="utf-8")
    assert sdnctl("apply", "-f", str(tmp_path / "o.yaml"))[0] == 0
    return sdnctl


def test_apply_tells_of_each_object_what_became_of_it(sdnctl: Sdnctl, tmp_path: Path) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(OBJECTS, encoding="utf-8")
    assert sdnctl("apply", "-f", str(file)) == (
        0,
        "pod/shop/web-1 created\npod/shop/db-1 created\nnamespace/shop created\n",
        "",
    )
    file.write_text(OBJECTS.replace("app: web", "app: shop"), encoding="utf-8")
    assert sdnctl("apply", "-f", str(file))[1].splitlines() == [
        "pod/shop/web-1 configured",
        "pod/shop/db-1 unchanged",
        "namespace/shop unchanged",
    ]


def test_apply_stores_nothing_when_one_object_is_refused(
    sdnctl: Sdnctl, cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(OBJECTS + "---\nkind: Pod\nmetadata: {labels: {}}\n", encoding="utf-8")
    code, out, err = sdnctl("apply", "-f", str(file))
    assert (code, out, cluster.objects) == (1, "", {})
    assert "document 4: metadata.name: is required; nothing was applied" in err


def test_a_dry_run_stores_nothing(sdnctl: Sdnctl, cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(OBJECTS, encoding="utf-8")
    code, out, _ = sdnctl("apply", "--dry-run", "-f", str(file))
    assert (code, cluster.objects) == (0, {})
    assert out.startswith("pod/shop/web-1 checked (dry run)")


def test_a_file_that_cannot_be_read_is_wrong_usage(sdnctl: Sdnctl, cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(OBJECTS + "---\n[unclosed\n", encoding="utf-8")
    code, _, err = sdnctl("apply", "-f", str(file))
    assert (code, cluster.objects) == (2, {})
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["pods", "pod", "po", "Pod", "PODS"])
def test_kinds_go_by_all_their_usual_names(applied: Sdnctl, kind: str) -> None:
    assert applied("get", kind, "-o", "name")[1].split() == ["pod/shop/db-1", "pod/shop/web-1"]


def test_get_selects_by_label_namespace_and_name(applied: Sdnctl) -> None:
    assert applied("get", "pods", "-l", "app=web", "-o", "name")[1] == "pod/shop/web-1\n"
    assert applied("get", "pods", "-n", "elsewhere", "-o", "name")[1] == ""
    assert applied("get", "pods", "db-1", "-n", "shop", "-o", "name")[1] == "pod/shop/db-1\n"
    assert applied("get", "pods", "shop/db-1", "-o", "name")[1] == "pod/shop/db-1\n"


def test_columns_are_headed_and_wide_shows_more(applied: Sdnctl) -> None:
    header, *rows = applied("get", "pods")[1].splitlines()
    assert header.split()[:3] == ["NAMESPACE", "NAME", "STATUS"]
    assert [row.split()[1] for row in rows] == ["db-1", "web-1"]
    assert "LABELS" not in header
    assert "app=web" in applied("get", "pods", "-o", "wide")[1]


def test_json_and_yaml_say_the_same_and_whole_numbers_stay_whole(applied: Sdnctl) -> None:
    one = json.loads(applied("get", "pods", "db-1", "-o", "json")[1])
    assert one["spec"]["containers"][0]["ports"] == [{"containerPort": 5432}]
    assert '"containerPort": 5432\n' in applied("get", "pods", "db-1", "-o", "json")[1]
    assert yaml.safe_load(applied("get", "pods", "db-1", "-o", "yaml")[1]) == one
    several = json.loads(applied("get", "pods", "-o", "json")[1])
    assert several["kind"] == "List"
    assert one in several["items"]


def test_what_get_prints_can_be_applied(applied: Sdnctl, tmp_path: Path) -> None:
    for form in ("json", "yaml"):
        (tmp_path / "back").write_text(applied("get", "pods", "-o", form)[1], encoding="utf-8")
        assert applied("apply", "-f", str(tmp_path / "back"))[1].count("unchanged") == 2


def test_watch_prints_one_json_document_a_line(applied: Sdnctl) -> None:
    code, out, err = applied("get", "pods", "--watch", "-o", "json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "db-1"),
        ("ADDED", "web-1"),
    ]
    assert (code, err) == (1, "sdnctl: the controller ended the watch\n")


def test_delete_goes_by_name_or_by_file(applied: Sdnctl, cluster: Cluster, tmp_path: Path) -> None:
    assert applied("delete", "pod", "web-1", "-n", "shop") == (0, "pod/shop/web-1 deleted\n", "")
    code, out, err = applied("delete", "-f", str(tmp_path / "o.yaml"))
    assert (code, out.splitlines()) == (1, ["pod/shop/db-1 deleted", "namespace/shop deleted"])
    assert err == "sdnctl: not found: pod/shop/web-1\n"
    assert cluster.objects == {}
    assert applied("delete", "pod", "shop/web-1", "--ignore-not-found")[0] == 0


def test_what_is_not_there_ends_with_1(applied: Sdnctl) -> None:
    assert applied("get", "pods", "nobody") == (1, "", "sdnctl: there is no pod 'nobody'\n")


def test_switches_show_what_is_held_and_wanted(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.switches = [
        pb.Switch(node="node-2", datapath_id=255),
        pb.Switch(
            node="node-1",
            datapath_id=1,
            connected=True,
            synchronized=True,
            desired_flows=9,
            installed_flows=9,
        ),
    ]
    rows = [line.split() for line in sdnctl("get", "switches")[1].splitlines()]
    assert [row[:4] for row in rows[1:]] == [["node-1", "yes", "yes", "9/9"], ["node-2", "no", "no", "0/0"]]
    found = json.loads(sdnctl("get", "switches", "node-2", "-o", "json")[1])
    assert (found["datapath_id"], found["desired_flows"]) == ("00000000000000ff", 0)
    assert sdnctl("get", "switches", "node-3")[0] == 1


def test_flows_come_table_by_table_with_owner_and_reason(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.flows = [
        pb.FlowEntry(
            table="b", table_number=2, priority=1, match="", actions="", owner="Node/node-2", why="a way"
        ),
        pb.FlowEntry(table="a", table_number=1, priority=1, match="ip", actions="output:2", packets=7),
        pb.FlowEntry(table="a", table_number=1, priority=9, match="arp", actions="IN_PORT", cookie=2**63),
    ]
    _, out, _ = sdnctl("flows", "node-1")
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in out.splitlines()[1:]]
    assert [[cell.strip() for cell in row] for row in cells] == [
        ["a", "9", "0", "arp", "IN_PORT", "nobody", "<none>"],
        ["a", "1", "7", "ip", "output:2", "nobody", "<none>"],
        ["b", "1", "0", "any", "drop", "Node/node-2", "a way"],
    ]
    found = json.loads(sdnctl("flows", "node-1", "--owner", "Node/node-2", "-o", "json")[1])
    assert [flow["why"] for flow in found["flows"]] == ["a way"]


def test_a_refusal_of_a_server_that_answers_is_no_unreachable_server(sdnctl: Sdnctl) -> None:
    assert sdnctl("flows", "node-9") == (1, "", "sdnctl: the switch of node-9 is not connected\n")


def test_version_and_log_level(sdnctl: Sdnctl, cluster: Cluster) -> None:
    assert "sdn-controller 9.8.7" in sdnctl("version")[1]
    assert json.loads(sdnctl("version", "-o", "json")[1])["server"] == "9.8.7"
    assert sdnctl("log-level", "debug") == (0, "log level debug (was info)\n", "")
    assert sdnctl("log-level", "loud") == (1, "", "sdnctl: level: use debug or info\n")
    assert cluster.level == "debug"


def test_nobody_there_ends_with_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main.run(["--server", f"unix:{tmp_path}/absent", "get", "pods"]) == 3
    assert "no controller answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "get",
        "get foos",
        "get pods --bogus",
        "bogus",
        "flows",
        "apply",
        "delete",
        "lab up --nodes none",
        "get pods -o xml",
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_ends_with_2(line: str, sdnctl: Sdnctl) -> None:
    code, out, err = sdnctl(*line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_global_options_may_stand_anywhere_before_a_foreign_command() -> None:
    assert main.hoisted(["get", "pods", "--server", "x:1", "--lab=a", "--debug"]) == [
        *("--server", "x:1", "--lab=a", "--debug"),
        *("get", "pods"),
    ]
    assert main.hoisted(["lab", "exec", "p", "--", "curl", "--server", "y"]) == [
        *("lab", "exec", "p", "--", "curl", "--server", "y"),
    ]


def test_help_and_completion_load_neither_grpc_nor_yaml() -> None:
    code = (
        "import sys; from sdn.cli.main import run; run(['--help']); "
        "print('LOADED', [m for m in ('grpc', 'yaml', 'google.protobuf', 'supervisor') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
    assert "Exit codes: 0 done; 1 refused" in " ".join(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    code = (
        f"from sdn.cli.main import main; import sys; sys.argv = ['sdnctl', 'completion', '{shell}']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "_SDNCTL_COMPLETE" in done.stdout
