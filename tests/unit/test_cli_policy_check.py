# SPDX-License-Identifier: Apache-2.0
"""`sdnctl policy check`: sentences for people, documents for programs, and an exit code that is the answer."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
import yaml

from sdn.cli import main
from sdn.v1 import inspection_pb2 as pb
from tests.unit.cli_server import Cluster, Sdnctl


def verdict(family: str, allowed: bool, **fields: object) -> pb.PolicyVerdict:
    version = family[-1]
    values = {
        "source": "shop/web",
        "source_address": f"10.244.1.{version}",
        "destination": "shop/db",
        "destination_address": f"10.244.2.{version}",
        "protocol": "TCP",
        "port": 5432,
        "egress": pb.PolicyDecision(allowed=True, reason="unselected"),
        "ingress": pb.PolicyDecision(
            allowed=allowed, reason="rule", policy="NetworkPolicy/shop/db", rule="ingress[0]"
        ),
        "reason": "Because.",
        **fields,
    }
    return pb.PolicyVerdict(family=family, allowed=allowed, **values)  # type: ignore[arg-type]


BOTH = pb.CheckPolicyResponse(verdicts=[verdict("IPv4", True), verdict("IPv6", True)])


def test_what_is_allowed_is_said_for_each_family_with_the_reason(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.checked = BOTH
    code, out, err = sdnctl("policy", "check", "web", "shop/db", "--port", "5432", "-n", "shop")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "IPv4: allowed: shop/web (10.244.1.4) to shop/db (10.244.2.4), TCP 5432",
        "  Because.",
        "IPv6: allowed: shop/web (10.244.1.6) to shop/db (10.244.2.6), TCP 5432",
        "  Because.",
    ]
    assert cluster.check == pb.CheckPolicyRequest(
        source="web", destination="shop/db", namespace="shop", protocol="tcp", port=5432
    )


def test_one_denied_family_is_enough_for_1(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.checked = pb.CheckPolicyResponse(verdicts=[verdict("IPv4", True), verdict("IPv6", False)])
    code, out, err = sdnctl("policy", "check", "web", "db", "--port", "1")
    assert (code, err) == (1, "")
    assert out.splitlines()[2].startswith("IPv6: denied: ")


def test_what_staged_policies_would_deny_is_said(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.checked = pb.CheckPolicyResponse(
        verdicts=[verdict("IPv4", True, would_deny=["NetworkPolicy/shop/a", "ClusterNetworkPolicy/b"])]
    )
    code, out, _ = sdnctl("policy", "check", "web", "db", "--port", "1")
    assert (code, out.splitlines()[-1]) == (
        0,
        "  Staged policies would deny it: NetworkPolicy/shop/a, ClusterNetworkPolicy/b.",
    )


def test_an_address_is_not_said_twice_and_no_port_not_at_all(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.checked = pb.CheckPolicyResponse(
        verdicts=[verdict("IPv4", True, source="10.244.1.4", protocol="ICMP", port=0)]
    )
    out = sdnctl("policy", "check", "10.244.1.4", "db", "--protocol", "ICMP")[1]
    assert out.splitlines()[0] == "IPv4: allowed: 10.244.1.4 to shop/db (10.244.2.4), ICMP"
    assert (cluster.check.protocol, cluster.check.port) == ("icmp", 0)


def test_a_service_tells_how_many_endpoints_it_has(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.checked = pb.CheckPolicyResponse(verdicts=[verdict("IPv4", True)], endpoint_total=1)
    out = sdnctl("policy", "check", "web", "service/shop/db", "--port", "1")[1]
    assert out.splitlines()[0] == "service/shop/db has 1 endpoint"
    cluster.checked = pb.CheckPolicyResponse(verdicts=BOTH.verdicts, endpoint_total=150)
    out = sdnctl("policy", "check", "web", "service/shop/db", "--port", "1")[1]
    assert out.splitlines()[0] == "service/shop/db has 150 endpoints (these are 2 of them)"


def test_it_comes_as_a_document_too_with_the_same_exit_code(sdnctl: Sdnctl, cluster: Cluster) -> None:
    cluster.checked = pb.CheckPolicyResponse(verdicts=[verdict("IPv6", False)])
    code, out, _ = sdnctl("policy", "check", "web", "db", "--port", "1", "--family", "ipv6", "-o", "json")
    found = json.loads(out)
    assert (code, found["allowed"], found["endpoint_total"]) == (1, False, 0)
    (one,) = found["verdicts"]
    assert (one["family"], one["ingress"]["policy"], one["would_deny"]) == (
        "IPv6",
        "NetworkPolicy/shop/db",
        [],
    )
    assert cluster.check.family == "IPv6"
    assert (
        yaml.safe_load(sdnctl("policy", "check", "web", "db", "--port", "1", "-o", "yaml")[1])["verdicts"]
        == found["verdicts"]
    )


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_where_there_is_nothing_to_check_it_is_2(sdnctl: Sdnctl, cluster: Cluster, code: str) -> None:
    cluster.checked = grpc.StatusCode[code], "Pod shop/nobody does not exist"
    assert sdnctl("policy", "check", "nobody", "db", "--port", "1") == (
        2,
        "",
        "sdnctl: Pod shop/nobody does not exist\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("web",),
        ("web", "db", "--port", "65536"),
        ("web", "db", "--port", "http"),
        ("web", "db", "--port", "1", "--protocol", "gre"),
        ("web", "db", "--port", "1", "--family", "IPv5"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_2(sdnctl: Sdnctl, arguments: tuple[str, ...]) -> None:
    code, out, err = sdnctl("policy", "check", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_without_a_controller_it_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main.run(["--server", f"{tmp_path}/none", "policy", "check", "a", "b", "--port", "1"])
    assert (code, capsys.readouterr().out) == (3, "")


def test_ends_are_completed(
    server: tuple[Cluster, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    for kind, namespace, name in (
        ("Pod", "shop", "web"),
        ("Pod", "shop", "db"),
        ("Pod", "other", "web"),
        ("Node", "", "node-1"),
        ("Service", "shop", "web"),
    ):
        metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
        server[0].objects[kind, namespace, name] = {"kind": kind, "metadata": metadata}
    command = typer.main.get_command(main.app)
    for line, expected in (
        ("policy check shop/", {"shop/web", "shop/db"}),
        ("policy check n", {"node/node-1"}),
        ("policy check s", {"shop/web", "shop/db"}),
        ("policy check shop/web s", {"shop/web", "shop/db", "service/shop/web"}),
        ("policy check shop/web service/shop/", {"service/shop/web"}),
        ("policy check -n shop w", {"web"}),
    ):
        words = ["sdnctl", "--server", server[1], *line.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_SDNCTL_COMPLETE", "complete_bash")
        with pytest.raises(SystemExit):
            command.main(args=[], prog_name="sdnctl")
        offered = {item.partition(",")[2] or item for item in capsys.readouterr().out.split()}
        assert offered == expected, line
