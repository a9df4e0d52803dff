# SPDX-License-Identifier: Apache-2.0
"""What sdnctl tells of Services is what is there: addresses, endpoints, connections, flows, groups, events."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sdn.lab.waiting import wait_until
from tests.lab import service_objects as objects
from tests.lab.service_lab import ServiceLab, serving

SDNCTL = [sys.executable, "-m", "sdn.cli.main"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("sdnctl") as found:
        found.declare(
            objects.service("web", objects.both(80, 8080), {"app": "web"}, type="LoadBalancer"),
            objects.service("headless", [objects.port(80)], {"app": "web"}, clusterIP="None"),
        )
        yield found


def sdnctl(cluster: ServiceLab, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
    environment = {"SDN_LAB_NAME": cluster.lab.name, "PATH": "/usr/bin:/bin", "COLUMNS": "240"}
    done = subprocess.run(
        [*SDNCTL, "--lab", cluster.lab.name, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        input=stdin,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}, {done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def described(cluster: ServiceLab, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sdnctl(cluster, "describe", "service", name, "-o", "json"))
    return found


def test_services_are_listed_with_type_addresses_and_ports(cluster: ServiceLab) -> None:
    shown = sdnctl(cluster, "get", "services")
    (line,) = (line for line in shown.splitlines() if "web" in line.split())
    assert "LoadBalancer" in line
    assert cluster.cluster_ip("web") in line
    assert objects.load_balancer_ip(cluster.lab, "web") in line
    port = objects.node_port(cluster.lab, "web")
    assert f"80:{port}/TCP" in line
    everything = sdnctl(cluster, "get", "services", "-A")
    assert "kube-dns" in everything
    names = sdnctl(cluster, "get", "services", "-o", "name").split()
    assert "service/default/web" in names


def test_what_get_prints_can_be_applied_again(cluster: ServiceLab) -> None:
    for form in ("yaml", "json"):
        printed = sdnctl(cluster, "get", "services", "web", "-o", form)
        assert "unchanged" in sdnctl(cluster, "apply", "-f", "-", stdin=printed)


def test_endpoint_slices_are_listed(cluster: ServiceLab) -> None:
    listed = json.loads(sdnctl(cluster, "get", "endpointslices", "-o", "json"))
    items = listed["items"] if isinstance(listed, dict) else listed
    mine = [one for one in items if one["metadata"]["labels"]["kubernetes.io/service-name"] == "web"]
    assert {one["addressType"] for one in mine} == {"IPv4", "IPv6"}


def test_a_described_service_has_its_endpoints_with_node_and_readiness(cluster: ServiceLab) -> None:
    cluster.ready("web-2", False)
    try:
        shown = sdnctl(cluster, "describe", "service", "web")
        assert cluster.cluster_ip("web") in shown
        for number in (1, 2, 3):
            address = cluster.lab.pod(f"web-{number}").addresses[0]
            lines = [line for line in shown.splitlines() if address in line]
            assert lines, f"web-{number} at {address} is not shown"
            assert any(f"node-{number}" in line for line in lines)
        found = described(cluster)
        readiness = {one["target"]: one.get("ready", False) for one in found["endpoints"]}
        assert readiness == {
            "Pod/default/web-1": True,
            "Pod/default/web-2": False,
            "Pod/default/web-3": True,
        }
    finally:
        cluster.ready("web-2")


def test_a_described_service_has_its_connections_flows_and_groups(cluster: ServiceLab) -> None:
    address = cluster.cluster_ip("web")
    held = [cluster.converse("client-1", address) for _ in range(12)]
    try:
        homes = [str(one.ask()["name"]) for one in held]
        counted: dict[str, int] = {}

        def all_counted() -> bool:
            found = described(cluster)
            counted.clear()
            for one in found["endpoints"]:
                if one["protocol"] == "TCP" and ":" not in one["address"]:
                    name = one["target"].rpartition("/")[2]
                    counted[name] = counted.get(name, 0) + int(one.get("connections", 0))
            return all(counted.get(home, 0) >= homes.count(home) for home in set(homes))

        wait_until(all_counted, "all connections to be counted", 20, every=0.5, because=lambda: str(counted))
        nodes = {one["node"]: one for one in described(cluster)["nodes"]}
        assert set(nodes) == {"node-1", "node-2", "node-3"}
        for node in nodes.values():
            assert not node.get("error"), node["error"]
            assert node["flows"]
            assert node["groups"]
        assert any(int(flow.get("packets", 0)) > 0 for flow in nodes["node-1"]["flows"])
    finally:
        for one in held:
            one.close()


def test_groups_are_listed_by_owner(cluster: ServiceLab) -> None:
    shown = sdnctl(cluster, "groups", "node-1", "--owner", "Service/default/web")
    assert "select" in shown
    assert "Service/default/web" in shown


def test_events_tell_who_announces(cluster: ServiceLab) -> None:
    shown = sdnctl(cluster, "get", "events")
    assert "announces the LoadBalancer addresses" in shown


def test_a_refusal_names_the_field_and_changes_nothing(cluster: ServiceLab) -> None:
    before = json.loads(sdnctl(cluster, "get", "services", "-o", "json"))
    wrong = json.dumps(
        [
            objects.service("good", objects.both(80, 8080), {"app": "web"}),
            objects.service("bad", [objects.port(80, nodePort=1)], {"app": "web"}, type="NodePort"),
        ]
    )
    told = sdnctl(cluster, "apply", "-f", "-", code=1, stdin=wrong)
    assert "spec.ports[0].nodePort" in told
    assert "nothing was applied" in told
    assert json.loads(sdnctl(cluster, "get", "services", "-o", "json")) == before
    assert "default/nothing" in sdnctl(cluster, "describe", "service", "nothing", code=1)
