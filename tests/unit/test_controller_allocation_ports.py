# SPDX-License-Identifier: Apache-2.0
"""Node ports and health check ports: given, kept, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.allocating import refused, run
from tests.unit.controller_intent import Intent, node_record, service


def test_node_ports_are_given_and_kept(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30010}]
        first = (await running.spec(service("web", type="NodePort", ports=ports)))["ports"]
        assert first[1]["nodePort"] == 30010
        assert 30000 <= first[0]["nodePort"] <= 32767
        # By its name, whatever else about it changes.
        more = [{"name": "c", "port": 82}, {"name": "a", "port": 8080}]
        later = (await running.spec(service("web", type="NodePort", ports=more)))["ports"]
        assert later[1]["nodePort"] == first[0]["nodePort"]
        assert later[0]["nodePort"] not in (first[0]["nodePort"], 0)
        # 30010 is free again.
        taken = [{"port": 1, "nodePort": 30010}]
        await running.apply(service("other", type="NodePort", ports=taken))
        # Of a type that needs none, none is kept.
        spec = await running.spec(service("web", ports=more))
        assert all("nodePort" not in port for port in spec["ports"])

    run(tmp_path, test)


def test_a_node_port_can_go_from_one_port_of_a_service_to_another(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(
            service("web", type="NodePort", ports=[{"name": "a", "port": 80, "nodePort": 30010}])
        )
        swapped = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30010}]
        spec = await running.spec(service("web", type="NodePort", ports=swapped))
        assert spec["ports"][1]["nodePort"] == 30010
        assert spec["ports"][0]["nodePort"] not in (0, 30010)

    run(tmp_path, test)


def test_one_port_of_two_protocols_has_one_node_port(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        ports = [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53}]
        for name in ("a", "b"):
            spec = await running.spec(service(name, type="NodePort", ports=ports))
            assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]
            assert (await running.apply(service(name, type="NodePort", ports=ports))).outcome == "unchanged"

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ({"nodePort": 80}, "Service default/web: spec.ports[0].nodePort: 80 is not within 30000-32767"),
        ({"nodePort": 32768}, "Service default/web: spec.ports[0].nodePort: 32768 is not within 30000-32767"),
        (
            {"nodePort": 30080},
            "Service default/web: spec.ports[0].nodePort: 30080/TCP belongs to Service default/other",
        ),
        (
            {"nodePort": 30081},
            "Service default/web: spec.ports[0].nodePort: 30081/TCP belongs to Service default/health",
        ),
        (
            {"nodePort": 30082},
            "Service default/web: spec.ports[0].nodePort: 30082/TCP belongs to Service default/outside",
        ),
    ],
)
def test_a_node_port_that_cannot_be_had_is_refused(tmp_path: Path, port: dict[str, Any], says: str) -> None:
    async def test(running: Intent) -> None:
        running.cluster.put_node(node_record("node-1", "172.30.0.11"))
        await running.apply(service("other", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
        await running.apply(
            service("health", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30081)
        )
        outside = service("outside", externalIPs=["172.30.0.11"], ports=[{"port": 30082}])
        await running.apply(outside)
        assert await refused(running, service("web", type="NodePort", ports=[{"port": 80, **port}])) == says
        # Of another protocol it is another port.
        udp = [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]
        await running.apply(service("web", type="NodePort", ports=udp))

    run(tmp_path, test)


def test_node_ports_run_out_by_name(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        await running.apply(service("a", type="NodePort"))
        await running.apply(service("b", type="NodePort"))
        assert await refused(running, service("c", type="NodePort")) == (
            "Service default/c: spec.ports[0].nodePort: no port is left in 30000-30001"
        )

    run(tmp_path, test, node_ports=range(30000, 30002))


def test_a_load_balancer_may_go_without_node_ports(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        spec = await running.spec(service("web", type="LoadBalancer", allocateLoadBalancerNodePorts=False))
        assert "nodePort" not in spec["ports"][0]
        spec = await running.spec(service("web", type="LoadBalancer"))
        assert spec["ports"][0]["nodePort"]

    run(tmp_path, test)


def test_health_checks_have_a_port_of_their_own_as_long_as_they_are_needed(tmp_path: Path) -> None:
    async def test(running: Intent) -> None:
        local = service("web", type="LoadBalancer", externalTrafficPolicy="Local")
        spec = await running.spec(local)
        port = spec["healthCheckNodePort"]
        assert port != spec["ports"][0]["nodePort"]
        assert (await running.apply(local)).outcome == "unchanged"
        other = {**local, "spec": {**local["spec"], "healthCheckNodePort": 30005}}
        assert f"spec.healthCheckNodePort: 30005 cannot take the place of {port}" in await refused(
            running, other
        )
        taken = service("other", type="NodePort", ports=[{"port": 80, "nodePort": port}])
        assert f"{port}/TCP belongs to Service default/web" in await refused(running, taken)
        assert "healthCheckNodePort" not in await running.spec(service("web", type="LoadBalancer"))
        await running.apply(taken)
        wrong = service("third", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=99)
        assert "spec.healthCheckNodePort: 99 is not within 30000-32767" in await refused(running, wrong)

    run(tmp_path, test)
