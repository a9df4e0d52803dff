# SPDX-License-Identifier: Apache-2.0
"""Policies on the command line: columns as kubectl has them, both kinds in one table, files that declare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdn.cli import main, policies
from tests.unit.cli_server import Cluster, Sdnctl, cells

SELECTOR = {
    "matchLabels": {"app": "web", "zone": "a"},
    "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["front", "back"]},
        {"key": "env", "operator": "NotIn", "values": ["test"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "tls", "operator": "Exists"},
    ],
}
SELECTED = "app=web,env notin (test),!old,tier in (back,front),tls,zone=a"


def network_policy(name: str, namespace: str, annotations: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"made": "here"},
            "annotations": annotations,
        },
        "spec": spec,
    }


def cluster_policy(name: str, tier: str, priority: int, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "annotations": {"sdn/audit": "accept,deny"}},
        "spec": {"tier": tier, "priority": priority, "subject": subject},
    }


WEB = network_policy("web", "shop", {"sdn/staged": "true"}, podSelector=SELECTOR, egress=[{}])
CLOSED = network_policy("closed", "shop", {}, podSelector={}, policyTypes=["Egress"])
OTHER = network_policy("web", "other", {"sdn/audit": "deny"}, podSelector={"matchLabels": {"a": "b"}})
LATE = cluster_policy("late", "Admin", 20, {"namespaces": {}})
EARLY = cluster_policy(
    "early", "Admin", 3, {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}}
)
BASE = cluster_policy("base", "Baseline", 0, {"namespaces": {"matchLabels": {"team": "a"}}})
ALL = (WEB, CLOSED, OTHER, LATE, EARLY, BASE)


@pytest.fixture(autouse=True)
def declared(cluster: Cluster) -> None:
    cluster.declare(*ALL)


@pytest.mark.parametrize("kind", ["networkpolicies", "networkpolicy", "netpol", "NetworkPolicies"])
def test_network_policies_have_the_columns_of_kubectl(sdnctl: Sdnctl, kind: str) -> None:
    header, *rows = cells(sdnctl("get", kind, "-n", "shop")[1])
    assert header == ["NAMESPACE", "NAME", "POD-SELECTOR", "AGE"]
    assert rows == [["shop", "closed", "<none>", "<none>"], ["shop", "web", SELECTED, "<none>"]]


def test_wide_shows_what_a_network_policy_isolates_and_whether_it_is_in_force(sdnctl: Sdnctl) -> None:
    header, *rows = cells(sdnctl("get", "netpol", "-o", "wide")[1])
    assert header[4:] == ["POLICY-TYPES", "STAGED", "AUDIT", "LABELS"]
    assert [[*row[:2], *row[4:]] for row in rows] == [
        ["other", "web", "Ingress", "<none>", "deny", "made=here"],
        ["shop", "closed", "Egress", "<none>", "<none>", "made=here"],
        ["shop", "web", "Ingress,Egress", "true", "<none>", "made=here"],
    ]


@pytest.mark.parametrize("kind", ["clusternetworkpolicies", "clusternetworkpolicy", "cnp"])
def test_cluster_network_policies_have_the_columns_of_kubectl(sdnctl: Sdnctl, kind: str) -> None:
    header, *rows = cells(sdnctl("get", kind)[1])
    assert header == ["NAME", "TIER", "PRIORITY", "AGE"]
    assert rows == [
        ["base", "Baseline", "0", "<none>"],
        ["early", "Admin", "3", "<none>"],
        ["late", "Admin", "20", "<none>"],
    ]


def test_wide_shows_whom_a_cluster_network_policy_is_for(sdnctl: Sdnctl) -> None:
    header, *rows = cells(sdnctl("get", "cnp", "-o", "wide")[1])
    assert header[4:] == ["SUBJECT", "STAGED", "AUDIT", "LABELS"]
    assert [row[4:] for row in rows] == [
        ["namespaces team=a", "<none>", "accept,deny", "<none>"],
        ["pods a=b in all namespaces", "<none>", "accept,deny", "<none>"],
        ["all namespaces", "<none>", "accept,deny", "<none>"],
    ]


def test_cluster_network_policies_are_in_no_namespace(sdnctl: Sdnctl) -> None:
    assert sdnctl("get", "cnp", "-n", "shop") == (
        2,
        "",
        "sdnctl: clusternetworkpolicies are in no namespace (--help shows how)\n",
    )


def test_policies_of_both_kinds_stand_in_one_table_in_the_order_in_which_they_are_asked(
    sdnctl: Sdnctl,
) -> None:
    header, *rows = cells(sdnctl("get", "policies")[1])
    assert header == ["KIND", "NAMESPACE", "NAME", "TIER", "PRIORITY", "SUBJECT"]
    none, one, two = "<none>", "NetworkPolicy", "ClusterNetworkPolicy"
    assert rows == [
        [two, none, "early", "Admin", "3", "pods a=b in all namespaces"],
        [two, none, "late", "Admin", "20", "all namespaces"],
        [one, "other", "web", "NetworkPolicy", none, "pods a=b"],
        [one, "shop", "closed", "NetworkPolicy", none, "all pods"],
        [one, "shop", "web", "NetworkPolicy", none, f"pods {SELECTED}"],
        [two, none, "base", "Baseline", "0", "namespaces team=a"],
    ]
    wide = cells(sdnctl("get", "policies", "-o", "wide")[1])
    assert wide[0][6:] == ["STAGED", "AUDIT", "LABELS"]
    assert wide[5][6:] == ["true", "<none>", "made=here"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("-n", "shop"), ["early", "late", "shop/closed", "shop/web", "base"]),
        (("-n", "nowhere"), ["early", "late", "base"]),
        (("-l", "made=here"), ["other/web", "shop/closed", "shop/web"]),
        (("early",), ["early"]),
        (("shop/web",), ["shop/web"]),
        (("web", "-n", "other"), ["other/web"]),
    ],
)
def test_policies_of_both_kinds_are_selected_together(
    sdnctl: Sdnctl, arguments: tuple[str, ...], names: list[str]
) -> None:
    code, out, _ = sdnctl("get", "policies", *arguments, "-o", "name")
    assert (code, [line.partition("/")[2] for line in out.splitlines()]) == (0, names)


@pytest.mark.parametrize("arguments", [("web",), ("shop/early",), ("early", "-n", "shop"), ("nobody",)])
def test_a_policy_that_is_not_there_is_said_so(sdnctl: Sdnctl, arguments: tuple[str, ...]) -> None:
    code, out, err = sdnctl("get", "policies", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("sdnctl: there is no policy '")


def test_policies_of_both_kinds_come_as_a_list(sdnctl: Sdnctl) -> None:
    found = json.loads(sdnctl("get", "policies", "-o", "json")[1])
    assert found["kind"] == "List"
    assert found["items"] == sorted(ALL, key=policies.order)
    assert yaml.safe_load(sdnctl("get", "policies", "-o", "yaml")[1]) == found
    assert yaml.safe_load(sdnctl("get", "policies", "early", "-o", "yaml")[1]) == EARLY
    assert yaml.safe_load(sdnctl("get", "netpol", "shop/web", "-o", "yaml")[1]) == WEB


def test_each_kind_is_watched_like_everything_but_not_both(sdnctl: Sdnctl) -> None:
    for kind, count in (("netpol", 3), ("cnp", 3)):
        _, out, _ = sdnctl("get", kind, "-w")
        assert [line.split()[0] for line in out.splitlines()] == ["EVENT", *(["ADDED"] * count)]
    code, out, err = sdnctl("get", "policies", "-w")
    assert (code, out) == (2, "")
    assert "policies are of several kinds: say networkpolicies or clusternetworkpolicies" in err


def test_a_file_of_policies_is_applied_and_deleted(sdnctl: Sdnctl, cluster: Cluster, tmp_path: Path) -> None:
    cluster.objects.clear()
    file = tmp_path / "policies.yaml"
    file.write_text("---\n".join(yaml.safe_dump(item) for item in (WEB, EARLY)), encoding="utf-8")
    code, out, _ = sdnctl("apply", "-f", str(file))
    assert (code, out.splitlines()) == (
        0,
        ["networkpolicy/shop/web created", "clusternetworkpolicy/early created"],
    )
    (tmp_path / "back.json").write_text(sdnctl("get", "policies", "-o", "json")[1], encoding="utf-8")
    assert sdnctl("apply", "-f", str(tmp_path / "back.json"))[1].count("unchanged") == 2
    assert sdnctl("delete", "-f", str(file))[0] == 0
    assert cluster.objects == {}


def test_policies_are_deleted_by_name_and_kind(sdnctl: Sdnctl, cluster: Cluster) -> None:
    assert sdnctl("delete", "cnp", "early", "late")[1].splitlines() == [
        "clusternetworkpolicy/early deleted",
        "clusternetworkpolicy/late deleted",
    ]
    assert sdnctl("delete", "netpol", "web", "-n", "other")[1] == "networkpolicy/other/web deleted\n"
    before = dict(cluster.objects)
    code, _, err = sdnctl("delete", "policies", "base")
    assert code == 2
    assert "say networkpolicies or clusternetworkpolicies" in err
    assert cluster.objects == before


def test_no_object_is_of_the_kind_of_both(sdnctl: Sdnctl, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump({"kind": "Policy", "metadata": {"name": "a"}}), encoding="utf-8")
    assert sdnctl("delete", "-f", str(file))[0] == 2


def test_names_of_policies_are_completed(
    server: tuple[Cluster, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    command = typer.main.get_command(main.app)
    for line, expected in (
        ("get netw", {"networkpolicies"}),
        ("get c", {"clusternetworkpolicies"}),
        ("get pol", {"policies"}),
        ("get netpol shop/", {"shop/closed", "shop/web"}),
        ("delete cnp e", {"early"}),
        ("get policies -n shop w", {"web"}),
        ("get policies -n shop e", set()),
        ("get policies l", {"late"}),
        ("get policies shop/w", {"shop/web"}),
    ):
        words = ["sdnctl", "--server", server[1], *line.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_SDNCTL_COMPLETE", "complete_bash")
        with pytest.raises(SystemExit):
            command.main(args=[], prog_name="sdnctl")
        offered = {item.partition(",")[2] or item for item in capsys.readouterr().out.split()}
        assert offered == expected, line


def test_a_selector_that_says_nothing_selects_everything() -> None:
    assert [policies.selector(value) for value in (None, {}, {"matchLabels": {}})] == ["", "", ""]
